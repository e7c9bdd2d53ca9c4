"""Reading models in GGUF, llama.cpp's format: one file with weights, config and tokenizer, through transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exceptions import ModelError, first_line_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WHAT_WORKS = "Llama, Mistral, Qwen2, Qwen3, Gemma처럼 Llama 계열의 언어 모델"


def is_gguf(name: str) -> bool:
    """Return whether a model's name is that of a GGUF file."""
    return name.lower().endswith(".gguf")


def location(name: str) -> dict[str, str]:
    """Return the arguments of `from_pretrained` for a GGUF file: its folder and its name in it.

    Args:
        name: The path of the file.

    Returns:
        The arguments by name.

    Raises:
        ModelError: There is no such file.
    """
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise ModelError(
            f"GGUF 파일이 없습니다: {name}",
            where="model.name",
            remedy=f"경로의 철자를 확인하세요. 지금 폴더는 {Path.cwd()}입니다. "
            "Hub의 GGUF 파일은 먼저 내려받아 그 경로를 쓰세요.",
        )
    return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}


def dequantizing_options(location: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that unpack quantised blocks into weights that can be trained.

    Args:
        location: Result of the function `location`.

    Returns:
        The arguments by name; none for a transformers that always unpacks.
    """
    import transformers

    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(gguf_file=location["gguf_file"], dequantize=True)}


def detach_from_format(model: PreTrainedModel, name: str) -> None:
    """Make a model that was read from a GGUF file one that is saved as any other, and its adapters name the file.

    Args:
        model: The model, changed in place.
        name: The path of the file, which an adapter's config is to name as its base.
    """
    reader: Any = getattr(model, "hf_quantizer", None)
    if reader is not None:
        reader.remove_quantization_config(model)
    model.name_or_path = str(Path(name).expanduser().absolute())


def explain(error: Exception, name: str) -> ModelError:
    """Return why a GGUF file could not be read: no gguf package, an unsupported architecture, or a broken file.

    Args:
        error: What reading it raised.
        name: The path of the file.

    Returns:
        The error to raise in its place.
    """
    reason = first_line_of(error)
    where = f"model.name: {name}"
    if isinstance(error, ImportError):
        return ModelError(
            "GGUF 파일을 읽으려면 gguf 패키지가 필요합니다.", where=where, remedy="`pip install gguf`로 설치하세요."
        )
    if "supported" in reason.lower():
        return ModelError(
            f"Transformers가 읽지 못하는 종류의 GGUF 파일입니다: {reason}",
            where=where,
            remedy=f"GGUF는 {_WHAT_WORKS}만 됩니다. 다른 모델은 safetensors로 된 원래 모델을 쓰세요.",
        )
    return ModelError(
        f"GGUF 파일이 깨졌거나 일부가 없습니다: {reason}", where=where, remedy="파일을 다시 내려받으세요."
    )
