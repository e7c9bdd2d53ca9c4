"""Extends a run's tokenizer with pieces learned from its training texts, and says what it came to."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exceptions import ModelError
from finetuning.commands.session import Workbench
from finetuning.files import write_atomically, writing
from finetuning.models.vocabulary import Learned, extend_tokenizer, learn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetuning.data.rows import Rows

_log = logging.getLogger(__name__)
_FORMAT = "1"  # part of the cache's key: a change in what learning does must change it
_ROWS_AT_A_TIME = 1000
_MEASURED_ROWS = 1000


def extend_vocabulary(
    bench: Workbench, tokenizer: PreTrainedTokenizerBase, splits: Mapping[str, Rows], earlier: Learned | None
) -> tuple[Workbench, Learned]:
    """Adds the pieces of `earlier`, or else new ones, to the tokenizer, in place; the models are told of them."""
    wanted = bench.settings.model.extend_vocabulary
    assert wanted is not None
    learned = earlier or _learned(bench, tokenizer, splits["train"], wanted)
    held_out = list(_texts(splits["validation"], np.arange(min(_MEASURED_ROWS, len(splits["validation"])))))
    before = _tokens(tokenizer, held_out)
    extension = extend_tokenizer(tokenizer, learned.merges)
    after, characters, made = _tokens(tokenizer, held_out), max(1, sum(map(len, held_out))), len(extension.replaced)
    if bench.accelerator.is_main_process:
        if earlier is None and made < wanted:
            _log.warning(
                "두 번 이상 나오는 한국어 조각이 %s개뿐이어서 model.extend_vocabulary의 %s개보다 적게 더합니다.",
                f"{made:,}", f"{wanted:,}",
            )  # fmt: skip
        _log.info(
            "학습 데이터의 텍스트 %s개(%s자)에서 배운 한국어 조각 %s개를 tokenizer에 더했습니다. "
            "검증 데이터에서 글자마다 드는 토큰: %.2f → %.2f",
            f"{learned.texts:,}", f"{learned.characters:,}", f"{made:,}", before / characters, after / characters,
        )  # fmt: skip
    return bench.with_extension(extension), learned


def _learned(bench: Workbench, tokenizer: PreTrainedTokenizerBase, rows: Rows, wanted: int) -> Learned:
    """Out of the cache, or learned now and put there, from rows in an order that is the same every time."""
    from finetuning.data.cache import content_key

    key = content_key(_FORMAT, rows.key, tokenizer.backend_tokenizer.to_str(), str(wanted))
    path = bench.data.cache.path("vocabulary", key, ".json")
    if (kept := _cached(path)) is not None:
        return kept
    if bench.accelerator.is_main_process:
        _log.info("학습 데이터에서 한국어 조각을 배웁니다. 데이터에 따라 몇 분이 걸릴 수 있습니다.")
    learned = learn(_texts(rows, np.random.default_rng(0).permutation(len(rows))), tokenizer, wanted)
    with writing("데이터 캐시에 쓰지 못했습니다", f"data.dataset_cache_dir: {bench.data.cache.folder}"):
        bench.data.cache.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, learned.to_json())
    return learned


def _cached(path: Path) -> Learned | None:
    """What was put there; None where nothing was, or where it is broken and has to be learned anew."""
    try:
        return Learned.from_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _texts(rows: Rows, order: np.ndarray) -> Iterator[str]:
    from finetuning.planning.tokenizer_fit import texts_of

    for start in range(0, len(order), _ROWS_AT_A_TIME):
        yield from texts_of(rows.table[order[start : start + _ROWS_AT_A_TIME]])


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> int:
    return sum(len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) for text in texts)


def kept_in(output_dir: Path) -> Path:
    """Where a run keeps the pieces that it was begun with, for when it is resumed."""
    return output_dir / "vocabulary.json"


def begun_with(*folders: Path) -> Learned | None:
    """The pieces that a run was begun with, out of the first of the folders that has them; None where none has.

    ModelError where they cannot be read: other pieces would not be the run's tokens.
    """
    path = next((kept_in(folder) for folder in folders if kept_in(folder).is_file()), None)
    if path is None:
        return None
    try:
        return Learned.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(
            f"학습을 시작할 때 배운 한국어 조각의 파일이 깨졌습니다: {path.name}",
            where=str(path),
            remedy="이 파일 없이는 이어서 학습할 수 없습니다. 복사해 둔 것이 있으면 되돌리고, 없으면 다른 "
            "--output_dir에서 처음부터 학습하세요.",
        ) from None


def keep(learned: Learned | None, output_dir: Path) -> None:
    """Writes down the pieces that a run begins with, in the place of those of the run before."""
    path = kept_in(output_dir)
    if learned is None:
        path.unlink(missing_ok=True)
        return
    write_atomically(path, learned.to_json())
