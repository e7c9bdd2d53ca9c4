"""What an adapter's folder says of its base, so that peft, transformers and this program find it from any folder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exceptions import ModelError
from finetuning.config.schema import ModelSettings
from finetuning.files import may_be_hub_id
from finetuning.models.vocabulary import vocabulary_parameters
from finetuning.models.weights import start_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE_HASH = "adapter_base_weights"  # key in config.json; safetensors writes metadata in no fixed order
_BASE = "base_model_name_or_path"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order in which transformers looks for them
_TASK_TYPES: Mapping[str, str] = {  # transformers' auto class → peft's name of the task
    "AutoModelForCausalLM": "CAUSAL_LM", "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
    "AutoModelForSequenceClassification": "SEQ_CLS", "AutoModelForTokenClassification": "TOKEN_CLS",
    "AutoModelForQuestionAnswering": "QUESTION_ANS",
}  # fmt: skip


def describe(model: PreTrainedModel, auto_class: str, revision: str | None) -> None:
    """Write into the config of a model's adapter what `AutoPeftModelFor...` reads, in place.

    Args:
        model: The model. One without an adapter is left as it is.
        auto_class: Name of the transformers class that loads it.
        revision: The base's revision on the Hub.
    """
    for config in (getattr(model, "peft_config", None) or {}).values():
        config.task_type = _TASK_TYPES.get(auto_class)
        if config.task_type is None:  # peft has no name for it, and takes the class
            config.auto_mapping = {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}
        config.revision = revision
        base = Path(config.base_model_name_or_path or "").expanduser()
        if config.base_model_name_or_path and base.exists():
            config.base_model_name_or_path = str(base.resolve())


def config_of(folder: Path) -> Mapping[str, Any]:
    """Return peft's config of an adapter's folder, which names its base; raise ModelError where it cannot be read."""
    where = folder / ADAPTER_CONFIG
    try:
        config: Mapping[str, Any] = json.loads(where.read_text(encoding="utf-8"))
        config[_BASE]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(
            "adapter_config.json이 깨졌거나 베이스 모델의 이름이 없습니다.",
            where=str(where),
            remedy=f"{_BASE}에 어댑터를 학습한 모델의 Hub ID나 폴더를 쓰세요.",
        ) from None
    return config


def base_of(folder: Path) -> str:
    """Return the base of an adapter: a Hub id, or the path of a folder or a GGUF file.

    A relative path counts from the current folder, or else from a folder that the adapter's lies in.

    Args:
        folder: The adapter's folder.

    Returns:
        The name that the base can be loaded by.

    Raises:
        ModelError: The adapter's config names no base, or a folder that is not there.
    """
    where, name = folder / ADAPTER_CONFIG, str(config_of(folder)[_BASE])
    path = Path(name).expanduser()
    if path.exists():
        return name
    if not path.is_absolute():
        beside = (parent / path for parent in folder.resolve().parents)
        found = next((place for place in beside if place.is_file() or (place / "config.json").is_file()), None)
        if found is not None:
            return str(found)
    if not may_be_hub_id(name):
        raise ModelError(
            f"어댑터의 베이스 모델을 찾을 수 없습니다: {name}",
            where=f"{where}, {_BASE}",
            remedy=f"베이스 모델을 옮겼으면 이 파일의 {_BASE}에 지금 경로를 쓰고, 지웠으면 다시 내려받으세요.",
        )
    return name


def base_weights(model: PreTrainedModel, settings: ModelSettings) -> dict[str, str]:
    """Find the files with the weights of an adapter's base, as far as they are on this machine.

    Args:
        model: The model with its adapter.
        settings: Where the Hub's files are kept, and their revision.

    Returns:
        Weight → path of its file; for a file of another format than safetensors, the file's name in place of its
        weights'. Empty without an adapter, and where the vocabulary grew, so that the base's own weights do not fit the
        adapter's config.
    """
    from safetensors import SafetensorError, safe_open

    config = next(iter((getattr(model, "peft_config", None) or {}).values()), None)
    if config is None or any(parameter.requires_grad for parameter in vocabulary_parameters(model).values()):
        return {}
    found: dict[str, str] = {}
    try:
        for file in _weight_files(config.base_model_name_or_path, settings):
            if file.suffix != ".safetensors":
                found[file.name] = str(file)
                continue
            with safe_open(file, "pt") as opened:
                found |= dict.fromkeys(opened.keys(), str(file))
    except (OSError, ValueError, KeyError, SafetensorError):
        return {}  # `pipeline` alone misses it
    return found


# --- the base that an adapter was trained on ---


def hash_base(base: str, settings: ModelSettings) -> str | None:
    """Hash the first values of each weight in a base's files, rounded so that another dtype of the files does not show.

    Args:
        base: The base: a Hub id or a folder.
        settings: Where the Hub's files are kept, and their revision.

    Returns:
        The hash; None where the base has no safetensors files on this machine.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    starts: dict[str, bytes] = {}
    try:
        for file in _weight_files(base, settings):
            if file.suffix != ".safetensors":
                return None
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 a file is no mapping
                    part = opened.get_slice(name)
                    values = part[:1] if len(part.get_shape()) > 1 else opened.get_tensor(name)
                    starts[name] = start_of(values.to(torch.bfloat16)).numpy().tobytes()
    except (OSError, ValueError, KeyError, SafetensorError):
        return None
    digest = hashlib.sha256()
    for name in sorted(starts):
        digest.update(name.encode() + starts[name])
    return digest.hexdigest()[:32] if starts else None


def tell_changed_base(folder: Path, base: str, settings: ModelSettings) -> None:
    """Warn where an adapter was trained on other weights than its base has now.

    Args:
        folder: The adapter's folder.
        base: Its base, as it can be loaded.
        settings: Where the Hub's files are kept, and their revision.
    """
    try:
        trained_on = json.loads((folder / "config.json").read_text(encoding="utf-8")).get(BASE_HASH)
    except (OSError, ValueError, AttributeError):  # loading it says more
        return
    now = None if trained_on is None else hash_base(base, settings)
    if now is not None and now != trained_on:
        _log.warning(
            "어댑터를 학습한 뒤에 베이스 모델의 가중치가 바뀌었습니다. 결과가 학습할 때와 다릅니다. "
            "베이스 모델을 되돌려 놓거나 어댑터를 다시 학습하세요. (어댑터: %s, 베이스 모델: %s)",
            folder, base,
        )  # fmt: skip


def _weight_files(base: str, settings: ModelSettings) -> list[Path]:
    folder = Path(base)
    if not folder.exists():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(base, "config.json", settings.cache_dir, settings.revision)
        if not isinstance(cached, str):
            return []
        folder = Path(cached).absolute().parent  # its files are links to others
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        if (folder / f"{name}.index.json").is_file():
            index: dict[str, Any] = json.loads((folder / f"{name}.index.json").read_text(encoding="utf-8"))
            return [folder / part for part in sorted(set(index["weight_map"].values()))]
    return []


def write_index(weights: Mapping[str, str], folder: Path) -> None:
    """Write where the base's weights are, for `from_pretrained` and `pipeline` of the adapter's folder.

    transformers loads an adapter beside a config.json, which holds the labels, together with weights in that folder.
    The index names those of the base, so that they need not be copied.

    Args:
        weights: Result of `base_weights`; nothing is written without any.
        folder: The adapter's folder.
    """
    if not weights:
        return
    size = sum(Path(file).stat().st_size for file in set(weights.values()))
    index = {"metadata": {"total_size": size}, "weight_map": dict(weights)}
    name = next(name for name in _WEIGHTS if next(iter(weights.values())).endswith(Path(name).suffix))
    (folder / f"{name}.index.json").write_text(json.dumps(index, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
