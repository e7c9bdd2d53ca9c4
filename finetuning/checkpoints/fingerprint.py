"""What a resumed run must share with its checkpoint, what may have changed since, and what a change costs."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from exceptions import SettingsError
from finetuning.config.schema import Settings, TrainingSettings
from finetuning.data.examples import Examples
from finetuning.korean.particles import with_particle
from finetuning.training.optimizers import learning_rate_factor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
_CONTENT = "의 내용"  # a hash, which says nothing to a person
_WINDOW = "data.batch_size × memory.gradient_accumulation_steps × 프로세스 수"
_EPOCHS = "training.epochs"
_SAMPLES, _VALUES = 64, 256
_NO_PART_OF_STEPS = {"eval_steps", "early_stopping_patience", "save_steps", "save_total_limit", "cuda_cleanup_freq"}
# These act on the steps to come and leave the meaning of (epoch, window) as it is.
_FROM_NOW_ON = frozenset(
    {"memory.mixed_precision", *(f"training.{name}" for name in (
        "learning_rate", "weight_decay", "warmup_steps", "warmup_ratio", "lr_scheduler", "max_grad_norm", "adam_beta1",
        "adam_beta2", "adam_epsilon", "torch_compile",
    ))}
)  # fmt: skip


def fingerprint(
    settings: Settings, model: PreTrainedModel, examples: Examples, data_keys: Mapping[str, str], max_length: int,
    window_size: int, precision: str,
) -> dict[str, Any]:  # fmt: skip
    """What the steps of a run follow from, as JSON values by the names that a person knows them by."""
    tasks = settings.model_dump(include={"fill_mask", "question_answering", "text_generation", "text2text"})
    return {
        "model.task": settings.model.task,
        "model.name": f"{model.config.model_type}, 파라미터 {model.num_parameters():,}개",
        "model.adapter": settings.model.adapter.model_dump(),
        "model.dtype": settings.model.dtype,
        "model.quantization": settings.model.quantization,
        "model.extend_vocabulary": settings.model.extend_vocabulary,
        f"학습하지 않는 가중치{_CONTENT}": _frozen_weights(model),
        **{f"{section}.{key}": value for section, keys in tasks.items() for key, value in keys.items()},
        **{f"{name} 데이터{_CONTENT}": key for name, key in data_keys.items()},
        f"토큰{_CONTENT}": _tokens(examples),
        "data.max_length": max_length,
        _WINDOW: window_size,
        "memory.mixed_precision": precision,
        **{f"training.{k}": v for k, v in settings.training.model_dump(exclude=_NO_PART_OF_STEPS).items()},
    }


def check_same_run(saved: Mapping[str, Any], current: Mapping[str, Any], allow_changed: bool) -> None:
    """SettingsError, both values side by side, where the checkpoint is of a run that cannot go on like this.

    More or fewer epochs may always change; what acts on the steps to come alone, with allow_changed; what says which
    examples a step is made of, never.
    """
    names = (name for name in {**saved, **current} if name != _EPOCHS)
    different = [name for name in names if saved.get(name) != current.get(name)]
    fatal = [name for name in different if name not in _FROM_NOW_ON]
    if fatal or (different and not allow_changed):
        raise SettingsError(
            "체크포인트와 지금 설정이 달라 이어서 학습할 수 없습니다.",
            where="; ".join(_told(name, saved.get(name), current.get(name)) for name in fatal or different),
            remedy=_remedy(fatal),
        )
    for name in different:
        _log.warning(
            "%s. 지금부터 새 값으로 학습합니다. 결과는 처음부터 한 값으로만 학습한 것과 다릅니다.",
            _told(name, saved[name], current[name]),
        )


def check_epochs(saved: Mapping[str, Any], training: TrainingSettings, done_steps: int, windows: int) -> None:
    """Says what another number of epochs does to the learning rate, for the schedule is over all of the steps.

    SettingsError where more is done than is asked for now.
    """
    before, total = int(saved[_EPOCHS]), windows * training.epochs
    if before == training.epochs:
        return
    if done_steps > total:
        raise SettingsError(
            f"체크포인트는 이미 {done_steps:,}스텝까지 학습했는데, 지금 설정으로는 모두 {total:,}스텝입니다.",
            where=_told(_EPOCHS, before, training.epochs),
            remedy="training.epochs를 늘리거나, 더 이전 체크포인트를 --checkpoint_path로 고르세요.",
        )
    old, new = (
        training.learning_rate * learning_rate_factor(training, done_steps, steps)
        for steps in (windows * before, total)
    )
    _log.warning(
        "%s. 학습률 스케줄을 전체 %s스텝에 맞춥니다. 다음 스텝의 학습률은 %s 아니라 %.3g입니다.",
        _told(_EPOCHS, before, training.epochs), f"{total:,}", with_particle(f"{old:.3g}", "이/가"), new,
    )  # fmt: skip


def _told(name: str, saved: Any, current: Any) -> str:
    if name.endswith(_CONTENT):
        return f"{with_particle(name, '이/가')} 다릅니다"
    return f"{name}: 체크포인트 {saved} / 지금 {current}"


def _remedy(fatal: list[str]) -> str:
    if not fatal:
        return (
            "처음 학습할 때의 설정으로 되돌리거나, 지금부터 새 값으로 이어 가려면 --allow_changed를 붙이세요. "
            "그러면 결과가 처음부터 한 값으로만 학습한 것과 달라집니다."
        )
    if fatal == [_WINDOW]:
        return "프로세스 수나 batch_size를 바꿨으면, 세 값의 곱이 체크포인트와 같도록 나머지를 고치세요."
    return (
        "처음 학습할 때의 데이터와 설정으로 되돌리거나, 다른 --output_dir에서 새로 학습하세요. "
        "지금까지 학습한 모델에서 시작하려면 새 학습의 --model_name에 이 output_dir를 쓰세요."
    )


def _frozen_weights(model: torch.nn.Module) -> str:
    """A hash of the first values of each weight that is not trained: a checkpoint does not hold these."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            start = parameter.detach().flatten()[:_VALUES].to("cpu", torch.float32)
            digest.update(name.encode() + start.numpy().tobytes())
    return digest.hexdigest()[:32]


def _tokens(examples: Examples) -> str:
    """A hash of every example's length and of some examples whole: another tokenizer shows in these."""
    digest = hashlib.sha256(examples.lengths.tobytes())
    some = np.linspace(0, len(examples) - 1, min(_SAMPLES, len(examples)), dtype=np.int64)
    for example in examples.fetch(some):
        digest.update(json.dumps(example["input_ids"]).encode())
    return digest.hexdigest()[:32]
