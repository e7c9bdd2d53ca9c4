"""A model's folder, config and tokenizer before anything is trained: what is missing, absurd, or not downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import ModelError
from finetuning.korean.particles import with_particle

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_MOST_LAYERS = 2000  # published models have up to some hundred
_FEWEST_TOKENS = 8  # the least that `data.max_length` can be
_LFS = b"version https://git-lfs"
_LARGE_FILES = ("*.safetensors", "*.bin", "*.model", "*.json")


def check_folder(folder: Path) -> None:
    """Check that a folder's large files are there, and that its index of shards names none outside it.

    Args:
        folder: The model's folder.

    Raises:
        ModelError: A file is a pointer of Git LFS, or the index leads out of the folder.
    """
    for path in sorted(path for pattern in _LARGE_FILES for path in folder.glob(pattern) if path.is_file()):
        with path.open("rb") as file:
            if file.read(len(_LFS)) == _LFS:
                raise ModelError(
                    f"{with_particle(path.name, '은/는')} Git LFS의 포인터이고, 내용을 아직 내려받지 않았습니다.",
                    where=str(path),
                    remedy=f"git -C {folder} lfs pull을 실행하세요.",
                )
    if (folder / "adapter_config.json").is_file():
        return  # its index names the base for other programs; this one reads the base by its own name
    for index in folder.glob("*.index.json"):
        outside = next((name for name in _shards(index) if Path(name).name != name), None)
        if outside is not None:
            raise ModelError(
                f"나뉜 가중치 파일이 모델 폴더 밖의 경로로 적혀 있어 읽지 않습니다: {outside[:80]}",
                where=str(index),
                remedy="믿을 수 있는 곳에서 모델을 다시 내려받으세요.",
            )


def check_layers(config: PreTrainedConfig, name: str) -> None:
    """Check the number of layers.

    Args:
        config: The model's config.
        name: The model, for the error message.

    Raises:
        ModelError: There are none, or so many that building them would not end.
    """
    for part in (config, config.get_text_config()):
        layers = getattr(part, "num_hidden_layers", None)
        if isinstance(layers, int) and not 1 <= layers <= _MOST_LAYERS:
            raise ModelError(
                f"config.json에 층이 {layers:,}개라고 적혀 있습니다.",
                where=f"{name}, config.json의 num_hidden_layers",
                remedy="모델의 원래 config.json으로 되돌리거나 모델을 다시 내려받으세요.",
            )


def check_pieces(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Check that a tokenizer has a vocabulary: without its files, transformers makes one of special tokens alone.

    Args:
        tokenizer: The tokenizer.
        name: The model, for the error message.

    Raises:
        ModelError: It has special tokens alone.
    """
    if len(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)) > 0:
        return
    raise ModelError(
        "tokenizer에 특수 토큰밖에 없어 모든 글자가 알 수 없는 토큰이 됩니다.",
        where=f"model.name: {name}",
        remedy="tokenizer 파일(tokenizer.json, 또는 vocab.txt나 spiece.model)이 모델 폴더에 있는지 확인하세요.",
    )


def check_length(allowed: int, name: str) -> None:
    """Check how many tokens a model takes.

    Args:
        allowed: Tokens of the longest input, out of the config and the tokenizer.
        name: The model, for the error message.

    Raises:
        ModelError: Too few for any text.
    """
    if allowed < _FEWEST_TOKENS:
        raise ModelError(
            f"이 모델의 최대 길이가 {allowed:,} 토큰이라고 적혀 있어 텍스트를 넣을 수 없습니다.",
            where=f"{name}, tokenizer_config.json의 model_max_length나 config.json의 max_position_embeddings",
            remedy="모델의 원래 파일로 되돌리거나 모델을 다시 내려받으세요.",
        )


def _shards(index: Path) -> list[str]:
    try:
        return [str(name) for name in set(json.loads(index.read_bytes())["weight_map"].values())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []  # transformers says what is wrong with it
