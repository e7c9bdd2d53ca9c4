"""Learned pieces on the disk: in a cache for other runs on the same texts, and in the folder of the run itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import ModelError
from finetuning.files import content_key, mark_as_used, write_atomically, writing
from finetuning.models.vocabulary_learning import Learned, learn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BROKEN = (ValueError, KeyError, TypeError, RecursionError)  # what a file of something else raises when it is read
_FORMAT = "1"  # part of the cache's key; to be changed with what learning does


def learn_cached(
    texts: Iterable[str], data_key: str, tokenizer: PreTrainedTokenizerBase, wanted: int, cache: Path,
    before_learning: Callable[[], None],
) -> Learned:  # fmt: skip
    """Return the pieces for these texts from the cache, or learn them and put them there.

    Args:
        texts: The texts, which are read only for learning.
        data_key: A key of their content.
        tokenizer: A byte-level BPE tokenizer, left as it is.
        wanted: The number of new pieces.
        cache: The folder of the cache, made if need be.
        before_learning: Called before learning, which may take minutes.

    Returns:
        The pieces.
    """
    key = content_key(_FORMAT, data_key, tokenizer.backend_tokenizer.to_str(), str(wanted))
    path = cache / f"vocabulary-{key}.json"
    if (cached := _read_cached(path)) is not None:
        mark_as_used(path)
        return cached
    before_learning()
    learned = learn(texts, tokenizer, wanted)
    with writing("데이터 캐시에 쓰지 못했습니다", f"data.dataset_cache_dir: {cache}"):
        cache.mkdir(parents=True, exist_ok=True)
    write_atomically(path, learned.to_json())
    return learned


def _read_cached(path: Path) -> Learned | None:
    """Return a file's pieces; None if it does not exist, or is broken and has to be replaced."""
    try:
        return Learned.from_json(path.read_text(encoding="utf-8"))
    except (OSError, *_BROKEN):
        return None


def read_kept(*output_dirs: Path) -> Learned | None:
    """Return the pieces that a run started with.

    Args:
        *output_dirs: Folders of the run. The first that has pieces counts.

    Returns:
        The pieces; None if no folder has any.

    Raises:
        ModelError: They cannot be read: with other pieces the run's tokens would be others.
    """
    path = next((_kept_path(folder) for folder in output_dirs if _kept_path(folder).is_file()), None)
    if path is None:
        return None
    try:
        return Learned.from_json(path.read_text(encoding="utf-8"))
    except _BROKEN:
        raise ModelError(
            f"학습을 시작할 때 만든 한국어 서브워드 파일이 깨졌습니다: {path.name}",
            where=str(path),
            remedy="이 파일 없이는 이어서 학습할 수 없습니다. 복사해 둔 것이 있으면 되돌리고, 없으면 다른 "
            "--output_dir에서 처음부터 학습하세요.",
        ) from None


def keep(learned: Learned | None, output_dir: Path) -> None:
    """Write the pieces that a run starts with into its folder, for when it is resumed; None removes earlier ones."""
    path = _kept_path(output_dir)
    if learned is None:
        path.unlink(missing_ok=True)
        return
    write_atomically(path, learned.to_json())


def _kept_path(output_dir: Path) -> Path:
    return output_dir / "vocabulary.json"
