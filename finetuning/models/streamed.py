"""A model's weights written to safetensors files one at a time, where no process has the memory for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch
from torch.distributed.checkpoint._hf_utils import DTYPE_MAP

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from finetuning.device.sharding import Gathering

DTYPES = {**DTYPE_MAP, "BOOL": torch.bool}  # by safetensors' names
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_PATTERN, _INDEX = "model{suffix}.safetensors", "model.safetensors.index.json"
_FILE_BYTES = 50 * 10**9  # as transformers divides files
_ALIGNMENT = 8  # bytes of a header are a multiple of it

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Saved:
    """What the files of a model hold.

    Attributes:
        read: Names of the model's tensors that are written, of tied ones one.
        written: Tensors by their names in the files, on the meta device.
    """

    read: frozenset[str]
    written: Tensors


def saved_one_by_one(model: PreTrainedModel, outline: Tensors) -> Saved | None:
    """Return what `save_pretrained` writes of a model, where each tensor can be written without the others.

    Args:
        model: The model.
        outline: Its tensors by name, on the meta device, in the dtypes that they are saved in.

    Returns:
        What its files hold; None where a tensor in the files is made of several of the model, as by some of
        transformers' conversions.
    """
    from transformers.core_model_loading import revert_weight_conversion
    from transformers.modeling_utils import remove_tied_weights_from_state_dict

    ignored = model._keys_to_ignore_on_save or ()
    kept = remove_tied_weights_from_state_dict({k: v for k, v in outline.items() if k not in ignored}, model)
    together, alone = revert_weight_conversion(model, dict(kept)), dict[str, torch.Tensor]()
    try:
        for name, tensor in kept.items():
            alone |= revert_weight_conversion(model, {name: tensor})
    except Exception:  # of any kind: a conversion that lacks what it needs
        return None
    if _facts(together) != _facts(alone):
        return None
    return Saved(frozenset(kept), together)


def write_one_by_one(model: PreTrainedModel, saved: Saved, weights: Gathering, folder: Path, dtype: str | None) -> None:
    """Write the files of a model's weights, each tensor as soon as it is whole.

    Args:
        model: The model.
        saved: Result of `saved_one_by_one`.
        weights: The model's tensors.
        folder: The folder to write to.
        dtype: torch's name of the dtype of floating-point weights; None keeps their own.

    Raises:
        OSError: The disk cannot be written.
    """
    from huggingface_hub import split_torch_state_dict_into_shards
    from transformers.core_model_loading import revert_weight_conversion

    split = split_torch_state_dict_into_shards(
        dict(saved.written), filename_pattern=_PATTERN, max_shard_size=_FILE_BYTES
    )
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(_begun(folder / name, {key: saved.written[key] for key in keys}))
            for name, keys in split.filename_to_tensors.items()
        }

        def write(name: str, tensor: torch.Tensor) -> None:
            for key, value in revert_weight_conversion(model, {name: tensor}).items():
                files[split.tensor_to_filename[key]].write(key, value)

        for names, tensor in weights:
            for name in saved.read.intersection(names):
                write(name, cast(tensor, dtype))
            del tensor  # before the next one is gathered
    if split.is_sharded:
        index = {
            "metadata": {"total_parameters": model.num_parameters(), **split.metadata},
            "weight_map": split.tensor_to_filename,
        }
        (folder / _INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def cast(tensor: torch.Tensor, dtype: str | None) -> torch.Tensor:
    """Return a tensor, a floating-point one in torch's dtype of this name; None keeps its own."""
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(getattr(torch, dtype))


@dataclass(frozen=True)
class _File:
    """A safetensors file with its header, and where the bytes of each tensor belong."""

    file: BinaryIO
    starts: Mapping[str, int]

    def write(self, name: str, tensor: torch.Tensor) -> None:
        self.file.seek(self.starts[name])
        self.file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


@contextmanager
def _begun(path: Path, tensors: Tensors) -> Iterator[_File]:
    """Write the header of a safetensors file for tensors that come in any order."""
    offsets, end, header = dict[str, int](), 0, dict[str, object]({"__metadata__": {"format": "pt"}})
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):  # so that all are aligned
        tensor, start = tensors[name], end
        offsets[name], end = start, start + tensor.numel() * tensor.itemsize
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        first = file.tell()
        file.truncate(first + end)
        yield _File(file, {name: first + offset for name, offset in offsets.items()})


def _facts(tensors: Tensors) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
