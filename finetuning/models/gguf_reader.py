"""Models in GGUF, llama.cpp's format: one file with weights, config and tokenizer, read through transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from exceptions import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WHAT_WORKS = "Llama, Mistral, Qwen2, Qwen3, Gemma처럼 Llama 계열의 언어 모델"


def is_gguf(name: str) -> bool:
    """Whether a model's name is that of a GGUF file."""
    return name.lower().endswith(".gguf")


def place_of(name: str) -> dict[str, str]:
    """Where `from_pretrained` finds a GGUF file: the folder, and the file in it; ModelError where there is none."""
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise ModelError(
            f"GGUF 파일이 없습니다: {name}",
            where="model.name",
            remedy=f"경로의 철자를 확인하세요. 지금 폴더는 {Path.cwd()}입니다. "
            "Hub의 GGUF 파일은 먼저 내려받아 그 경로를 쓰세요.",
        )
    return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}


def weights_unpacked(place: dict[str, str]) -> dict[str, Any]:
    """What has `from_pretrained` unpack quantised blocks into weights that can be trained, where it would not."""
    import transformers

    config = getattr(transformers, "GgufConfig", None)  # before it, nothing was ever left packed
    return {} if config is None else {"quantization_config": config(gguf_file=place["gguf_file"], dequantize=True)}


def make_plain(model: PreTrainedModel, name: str) -> None:
    """Has a model that came from a GGUF file be saved as any other, and an adapter name the file as its base."""
    reader: Any = getattr(model, "hf_quantizer", None)
    if reader is not None:
        reader.remove_quantization_config(model)
    model.name_or_path = str(Path(name).expanduser().absolute())


def explain(error: Exception, name: str) -> ModelError:
    """Why a GGUF file could not be read: a package that is missing, a kind that is not read, or a broken file."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
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
        f"GGUF 파일이 깨졌거나 온전하지 않습니다: {reason}", where=where, remedy="파일을 다시 내려받으세요."
    )
