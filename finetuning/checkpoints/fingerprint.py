"""The fingerprint of a run: the settings and data that a resumed run must share with its checkpoint.

The fingerprint is made from the settings' metadata (`finetuning.config.metadata`): every setting with the rule `same`
or `from_now_on` is part of it. For settings with the rule `measured` it holds the values that result from them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from exceptions import SettingsError
from finetuning.config.metadata import fields_of, value_at
from finetuning.config.schema import Settings
from finetuning.data.examples import Examples
from finetuning.korean.particles import with_particle
from finetuning.models.pissa import unchanged_starts
from finetuning.models.weights import packed_start_of, packed_weights, parameter_count, start_of
from finetuning.windows.order import is_computed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
EPOCHS = "training.epochs"
WINDOW_SIZE = "data.batch_size × memory.gradient_accumulation_steps × 프로세스 수"
_CONTENT = "의 내용"  # ends the name of a hash, whose value means nothing to a person
_SAMPLED_EXAMPLES = 64


def fingerprint(
    settings: Settings, model: PreTrainedModel, examples: Examples, data_keys: Mapping[str, str], max_length: int,
    window_size: int, precision: str,
) -> dict[str, Any]:  # fmt: skip
    """Collect the settings and data that determine the steps of a run.

    Args:
        settings: The settings in force.
        model: The model as training starts with it.
        examples: The training examples.
        data_keys: A content hash of the rows of each split.
        max_length: The longest example in tokens, after the model's own limit.
        window_size: Examples of one optimizer step, over all processes.
        precision: The autocast precision, as accelerate names it.

    Returns:
        JSON values by names that messages can show.
    """
    compared = [field.key for field in fields_of(type(settings)) if field.resume in ("same", "from_now_on")]
    return {
        **{key: value_at(settings, key) for key in compared},
        "model.name": f"{model.config.model_type}, 파라미터 {parameter_count(model):,}개",
        f"학습하지 않는 가중치{_CONTENT}": _hash_frozen_weights(model),
        **{f"{name} 데이터{_CONTENT}": key for name, key in data_keys.items()},
        f"토큰{_CONTENT}": _hash_tokens(examples),
        **_references(examples),
        **_way_of_ordering(examples),
        "data.max_length": max_length,
        WINDOW_SIZE: window_size,
        "memory.mixed_precision": precision,
        EPOCHS: settings.training.epochs,  # may change, but the learning rate schedule spans all epochs
    }


def check_same_run(saved: Mapping[str, Any], current: Mapping[str, Any], allow_changed: bool) -> None:
    """Check that a run can continue from a checkpoint, and log each change that is allowed.

    Args:
        saved: The checkpoint's fingerprint. A setting that is newer than the checkpoint counts as its default.
        current: This run's fingerprint.
        allow_changed: Whether settings with the rule `from_now_on` may differ.

    Raises:
        SettingsError: Something differs that must not; the message shows both values.
    """
    rules = {field.key: field.resume for field in fields_of(Settings)}
    saved = {**{field.key: field.default for field in fields_of(Settings) if field.key in current}, **saved}
    different = [
        name for name in {**saved, **current} if rules.get(name) != "free" and saved.get(name) != current.get(name)
    ]
    fatal = [name for name in different if rules.get(name) != "from_now_on"]
    if fatal or (different and not allow_changed):
        raise SettingsError(
            "체크포인트와 지금 설정이 달라 이어서 학습할 수 없습니다.",
            where="; ".join(difference(name, saved.get(name), current.get(name)) for name in fatal or different),
            remedy=_remedy(fatal),
        )
    for name in different:
        _log.warning(
            "%s. 지금부터 새 값으로 학습합니다. 결과는 처음부터 한 값으로만 학습한 것과 다릅니다.",
            difference(name, saved.get(name), current.get(name)),
        )


def difference(name: str, saved: Any, current: Any) -> str:
    """Name what differs, with both values side by side unless they are hashes."""
    if name.endswith(_CONTENT):
        return f"{with_particle(name, '이/가')} 다릅니다"
    return f"{name}: 체크포인트 {saved} / 지금 {current}"


def _remedy(fatal: list[str]) -> str:
    if not fatal:
        return (
            "처음 학습할 때의 설정으로 되돌리거나, 지금부터 새 값으로 이어 가려면 --allow_changed를 붙이세요. "
            "그러면 결과가 처음부터 한 값으로만 학습한 것과 달라집니다."
        )
    if fatal == [WINDOW_SIZE]:
        return "프로세스 수나 batch_size를 바꿨으면, 세 값의 곱이 체크포인트와 같도록 나머지를 고치세요."
    return (
        "처음 학습할 때의 데이터와 설정으로 되돌리거나, 다른 --output_dir에서 새로 학습하세요. "
        "지금까지 학습한 모델에서 시작하려면 새 학습의 --model_name에 이 output_dir를 쓰세요."
    )


def _hash_frozen_weights(model: torch.nn.Module) -> str:
    """Hash the first values of each weight that is not trained, since a checkpoint does not hold these."""
    digest, unchanged, packed = hashlib.sha256(), unchanged_starts(model), packed_weights(model)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            read = packed_start_of if name in packed else start_of
            start = unchanged[name] if name in unchanged else read(parameter)
            digest.update(name.encode() + start.cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def _way_of_ordering(examples: Examples) -> dict[str, str]:
    """Name how the order of so many examples is made that it is no array; earlier versions made one of any number."""
    return {"예제의 순서": "자리마다 계산"} if is_computed(examples.per_epoch) else {}


def _references(examples: Examples) -> dict[str, str]:
    """Hash what every example's answers are compared with, where a loss compares them."""
    if "reference" not in examples.table.column_names:
        return {}
    values = json.dumps(examples.table["reference"][:]).encode()
    return {f"학습 전 모델로 계산한 답의 확률{_CONTENT}": hashlib.sha256(values).hexdigest()[:32]}


def _hash_tokens(examples: Examples) -> str:
    """Hash every example's length and the tokens of some examples, which shows another tokenizer."""
    digest = hashlib.sha256(np.ascontiguousarray(examples.lengths).data)
    some = np.linspace(0, len(examples) - 1, min(_SAMPLED_EXAMPLES, len(examples)), dtype=np.int64)
    for example in examples.fetch(some):
        digest.update(json.dumps(example["input_ids"]).encode())
    return digest.hexdigest()[:32]
