"""Comparing a loaded model with its files: weights that were not in them begin with random values."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from exceptions import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)

_SHOWN = 3
_START = 256  # values
_POOLER = "pooler"  # lies inside the base of BERT and its kin, and checkpoints of masked language models lack it


def check_loaded(
    model: PreTrainedModel, missing: Collection[str], unexpected: Collection[str], name: str, generates: bool
) -> None:
    """Check that embeddings and layers came from the model's files; only a head may be new.

    Args:
        model: The model, as it was loaded.
        missing: Names of its weights that the files lack, or have in another size.
        unexpected: Names in the files that the model does not have.
        name: The model, for the error message.
        generates: Whether the task generates text, for which no head may be new.

    Raises:
        ModelError: A weight outside the head is missing. It names some, and what the files have instead.
    """
    lost = sorted(key for key in missing if generates or not _is_in_head(key, model))
    if not lost:
        _tell_unused_layers(model, unexpected, name)
        return
    total = sum(1 for _ in model.named_parameters())
    others = sorted(unexpected)
    where = f"{name} (없는 가중치: {_some(lost)}"
    where += f" / 파일에만 있는 이름: {_some(others)})" if others else ")"
    raise ModelError(
        f"모델의 가중치 {total:,}개 가운데 {len(lost):,}개가 모델 파일에 없거나 크기가 다릅니다. "
        "그대로 학습하면 무작위 값에서 시작합니다.",
        where=where,
        remedy=_remedy(model, lost, others),
    )


def _tell_unused_layers(model: PreTrainedModel, unexpected: Collection[str], name: str) -> None:
    """Warn of layers that the files have and the config does not: the model is a smaller one than was saved."""
    import torch

    paths = [path for path, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    prefixes = {path.removeprefix(f"{model.base_model_prefix}.") for path in paths}
    layers = {
        f"{path}.{number}"
        for path in prefixes
        for key in unexpected
        if f".{path}." in f".{key}" and (number := f".{key}".partition(f".{path}.")[2].partition(".")[0]).isdecimal()
    }
    if layers:
        _log.warning(
            "%s: 모델 파일에 있는 층 %s개를 쓰지 않습니다: %s. config.json의 층 수가 파일보다 적습니다.",
            name, f"{len(layers):,}", _some(sorted(layers)),
        )  # fmt: skip


def check_finite(model: PreTrainedModel, missing: Collection[str], name: str) -> None:
    """Check that no weight is NaN or Inf: such a model gives its first label, or any text, for everything.

    Args:
        model: The model, as it was loaded.
        missing: Names of its weights that are new.
        name: The model, for the error message.

    Raises:
        ModelError: If a weight is. It names some.
    """
    import torch

    read_apart = {*missing, *packed_weights(model)}
    bad = [
        key
        for key, weight in model.named_parameters()
        if weight.is_floating_point()
        and weight.dtype.itemsize > 1  # quantised weights are read through their scales
        and key not in read_apart
        and not torch.isfinite(weight.detach().sum(dtype=torch.float32))
        and not torch.isfinite(weight.detach()).all()
    ]
    if bad:
        raise ModelError(
            f"모델의 가중치 {len(bad):,}개에 NaN 또는 Inf가 있어 쓸 수 없습니다.",
            where=f"{name} ({_some(bad)})",
            remedy="학습이 발산한 모델이거나 파일이 손상되었습니다. 다른 체크포인트나 원래 모델을 쓰세요.",
        )


def hash_of_weights(model: torch.nn.Module) -> str:
    """Hash all weights; a model of 270 million parameters takes about a second."""
    import torch

    from finetuning.device.sharding import whole

    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(whole(parameter.detach()).cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def packed_weights(model: torch.nn.Module) -> dict[str, torch.Size]:
    """Return the shape of each 4-bit weight by its name; dtype and shape of the parameter are those of packed bytes."""
    states = ((name, getattr(module, "quant_state", None)) for name, module in model.named_modules())
    return {f"{name}.weight": state.shape for name, state in states if state is not None}


def parameter_count(model: torch.nn.Module) -> int:
    """Return the number of a model's parameters, each 4-bit one counted, also where the processes divide them."""
    packed = packed_weights(model)
    return sum(packed.get(name, parameter.shape).numel() for name, parameter in model.named_parameters())


def packed_start_of(weight: torch.Tensor) -> torch.Tensor:
    """Return what start_of does, of the bytes of a 4-bit weight: the same in whatever dtype they lie."""
    import torch

    from finetuning.device.sharding import whole

    return start_of(whole(weight.detach()).view(torch.uint8))


def start_of(weight: torch.Tensor) -> torch.Tensor:
    """Return a float32 copy of a weight's first values, on the CPU; a changed weight is known by them."""
    import torch

    from finetuning.device.sharding import whole

    first = whole(weight.detach()).flatten()[:_START]
    return first.to("meta" if first.is_meta else "cpu", torch.float32, copy=True)


def tell_new_head(missing: Collection[str]) -> None:
    """Log in one line which parts of a model to be trained are new."""
    owners = sorted({key.rpartition(".")[0] or key for key in missing})
    if owners:
        _log.info("새로 만들어 처음부터 학습하는 부분: %s", ", ".join(owners))


def _is_in_head(key: str, model: PreTrainedModel) -> bool:
    """Return whether a weight lies outside the part of the model that has its embedding and its layers."""
    import torch

    if _POOLER in key.split("."):
        return True
    child: torch.nn.Module | None = dict(model.named_children()).get(key.partition(".")[0])
    if child is None:
        return True  # a parameter of the whole model, such as the bias of a head
    inner: Sequence[torch.nn.Module] = tuple(child.modules())
    has_layers = any(isinstance(module, torch.nn.ModuleList) for module in inner)
    return not has_layers and all(module is not model.get_input_embeddings() for module in inner)


def _remedy(model: PreTrainedModel, lost: Sequence[str], unexpected: Sequence[str]) -> str:
    """Return what to do, beginning with the likeliest mistake that the names in the files show."""
    prefixes = {key.partition(".")[0] for key in unexpected}
    if "module" in prefixes:
        return (
            "DataParallel로 감싼 채 저장한 가중치로 보입니다. 이름 앞의 module.을 떼거나, model.module을 "
            "save_pretrained로 다시 저장하세요."
        )
    if unexpected and len(lost) == sum(not _is_in_head(key, model) for key, _ in model.named_parameters()):
        return f"config.json의 model_type({model.config.model_type})이 가중치 파일의 모델과 같은지 확인하세요."
    return "config.json의 층 수와 크기가 파일과 같은지, 나뉜 파일을 모두 내려받았는지 확인하세요."


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" 외 {len(names) - _SHOWN:,}개" if len(names) > _SHOWN else "")
