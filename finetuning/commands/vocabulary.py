"""Extend a run's tokenizer with pieces learned from its training texts, and log how many tokens they save."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from finetuning.commands.session import Session
from finetuning.models.vocabulary import extend_tokenizer
from finetuning.models.vocabulary_cache import learn_cached
from finetuning.models.vocabulary_learning import Learned

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetuning.data.rows import Rows

_log = logging.getLogger(__name__)
_ROWS_AT_A_TIME = 1000
_MEASURED_ROWS = 1000


def extend_vocabulary(
    session: Session, tokenizer: PreTrainedTokenizerBase, splits: Mapping[str, Rows], earlier: Learned | None
) -> tuple[Session, Learned]:
    """Add Korean pieces to the tokenizer, in place, and tell the model manager about them.

    Args:
        session: The session, with `model.extend_vocabulary` set.
        tokenizer: The run's tokenizer, a byte-level BPE.
        splits: The rows of the run, by split.
        earlier: The pieces that a resumed run started with; None learns new ones.

    Returns:
        The session for the extended model, and the pieces.
    """
    wanted = session.settings.model.extend_vocabulary
    assert wanted is not None
    learned = earlier or _learn(session, tokenizer, splits["train"], wanted)
    held_out = list(_texts(splits["validation"], np.arange(min(_MEASURED_ROWS, len(splits["validation"])))))
    before = _count_tokens(tokenizer, held_out)
    extension = extend_tokenizer(tokenizer, learned.merges)
    after, characters = _count_tokens(tokenizer, held_out), max(1, sum(map(len, held_out)))
    made = len(extension.replaced)
    if session.runtime.is_main:
        if earlier is None and made < wanted:
            _log.warning(
                "두 번 이상 나오는 한국어 서브워드가 %s개뿐이어서 model.extend_vocabulary의 %s개보다 적게 추가합니다.",
                f"{made:,}", f"{wanted:,}",
            )  # fmt: skip
        _log.info(
            "학습 데이터의 텍스트 %s개(%s자)에서 학습한 한국어 서브워드 %s개를 tokenizer에 추가했습니다. "
            "검증 데이터의 글자당 토큰: %.2f → %.2f",
            f"{learned.texts:,}", f"{learned.characters:,}", f"{made:,}", before / characters, after / characters,
        )  # fmt: skip
    return session.with_extension(extension), learned


def _learn(session: Session, tokenizer: PreTrainedTokenizerBase, rows: Rows, wanted: int) -> Learned:
    """Learn pieces from rows in a shuffled order that is the same every time, or take them from the data cache."""

    def announce() -> None:
        if session.runtime.is_main:
            _log.info("학습 데이터에서 한국어 서브워드를 학습합니다. 데이터에 따라 몇 분 걸릴 수 있습니다.")

    texts = _texts(rows, np.random.default_rng(0).permutation(len(rows)))
    return learn_cached(texts, rows.key, tokenizer, wanted, session.data.cache.folder, announce)


def _texts(rows: Rows, order: np.ndarray) -> Iterator[str]:
    """Yield the texts of rows, in this order of their indices."""
    from finetuning.planning.tokenizer_fit import texts_of

    for start in range(0, len(order), _ROWS_AT_A_TIME):
        yield from texts_of(rows.table[order[start : start + _ROWS_AT_A_TIME]])


def _count_tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> int:
    return sum(len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) for text in texts)
