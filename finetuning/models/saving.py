"""Writing a model and its tokenizer so that `from_pretrained` reads them, each file whole or not at all."""

from __future__ import annotations

import copy
import json
import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from finetuning.files import discard, give_usual_mode, writing
from finetuning.models.adapters import add_vocabulary

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_WEIGHTS = re.compile(
    r"(adapter_)?model(-\d{5}-of-\d{5})?\.safetensors|(adapter_)?model\.safetensors\.index\.json|adapter_config\.json"
)


def save_pretrained(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output_dir: Path, dtype: str | None
) -> None:
    """Write model and tokenizer into output_dir, and remove weights of another kind from it.

    Everything is written to a folder inside output_dir first, and then moved file by file. A disk that cannot
    be written raises ResourceError.

    Args:
        model: The model. Of one with an adapter only the adapter is written.
        tokenizer: Its tokenizer.
        output_dir: The folder. Other files in it stay.
        dtype: torch's name of the dtype to write weights in; None keeps the model's own.
    """
    partial = output_dir / ".model.partial"
    discard(partial)
    with writing("모델을 저장하지 못했습니다", output_dir, partial=partial):
        _write_weights(model, partial, dtype)
        _write_config(model, partial, dtype)
        _write_tokenizer(tokenizer, partial)
        files = [path.relative_to(partial) for path in sorted(partial.rglob("*")) if path.is_file()]
        give_usual_mode(partial / file for file in files)
        for file in files:
            (output_dir / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial / file, output_dir / file)
        for path in output_dir.iterdir():  # whole weights beside an adapter would be loaded together
            if _WEIGHTS.fullmatch(path.name) and path.is_file() and Path(path.name) not in files:
                path.unlink()
    discard(partial)


def plain_config(model: PreTrainedModel) -> PreTrainedConfig:
    """Return a copy of the model's config without its quantisation, which each run chooses for itself."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def _write_weights(model: PreTrainedModel, folder: Path, dtype: str | None) -> None:
    weights = None if dtype is None else _cast(model, dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="peft")  # it reports which embeddings it saves
        model.save_pretrained(folder, state_dict=weights)
    if (folder / _ADAPTER_WEIGHTS).is_file():
        add_vocabulary(folder / _ADAPTER_WEIGHTS, model, weights or model.state_dict())


def _write_config(model: PreTrainedModel, folder: Path, dtype: str | None) -> None:
    """Write config.json, for adapters as well: it holds the labels."""
    plain_config(model).save_pretrained(folder)
    if dtype is None:
        return
    path = folder / "config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), "dtype": dtype}
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    if isinstance(tokenizer, PreTrainedTokenizerFast):
        tokenizer.backend_tokenizer.no_truncation()  # it would save the length that this run cut texts at
    tokenizer.save_pretrained(folder)


def _cast(model: PreTrainedModel, dtype: str) -> dict[str, torch.Tensor]:
    """Return the weights with floating-point ones in `dtype`. Tied weights stay one tensor and are written once."""
    import torch

    target = getattr(torch, dtype)
    cast: dict[tuple[int, torch.Size], torch.Tensor] = {}
    return {
        name: cast.setdefault((tensor.data_ptr(), tensor.shape), tensor.to(target))
        if tensor.is_floating_point()
        else tensor
        for name, tensor in model.state_dict().items()
    }
