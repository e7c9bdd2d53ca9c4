"""What an exported folder says about itself: its settings and its model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetuning.config.metadata import fields_of
from finetuning.config.schema import Settings
from finetuning.exports.folder import size_text
from finetuning.files import may_be_hub_id
from finetuning.models.adapter_files import base_of
from finetuning.reporting.metric_names import display_name
from finetuning.reporting.published import public_name
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_SPLITS = ("test", "validation")


@dataclass(frozen=True)
class Origin:
    """Where an exported model comes from, as far as its run's folder tells.

    Attributes:
        base: Name or path of the base model; None where unknown.
        dataset: Name or path of the data, several with commas; None where unknown.
        split: The split that it was scored on.
        rows: Rows of that split.
        metrics: Its metrics there, by name.
        license: Its licence, as the Hub names it; None where unknown.
    """

    base: str | None = None
    dataset: str | None = None
    split: str | None = None
    rows: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    license: str | None = None


def origin_of(folder: Path, license: str | None) -> Origin:
    """Read where a fine-tuned model comes from.

    Args:
        folder: The folder of the model, with the summary.json of its run where there is one.
        license: The licence that the user names; None for that of the base model, where its card is on this machine.

    Returns:
        What is known.
    """
    summary = _json(folder / "summary.json")
    base = summary.get("model") or (base_of(folder) if (folder / "adapter_config.json").is_file() else None)
    split = next((name for name in _SPLITS if isinstance(summary.get(name), dict)), None)
    return Origin(
        base=None if base is None else str(base),
        dataset=summary.get("dataset"),
        split=split,
        rows=int(summary.get("rows", {}).get(split, 0)) if split else 0,
        metrics={name: value for name, value in summary[split].items() if isinstance(value, float)} if split else {},
        license=license or (None if base is None else _license_of(str(base))),
    )


def origin_of_sum(folders: Sequence[Path], license: str | None) -> Origin:
    """Read where a sum of adapters comes from; no score of one of them is its score.

    Args:
        folders: The adapters' folders.
        license: The licence that the user names; None for that of the base model.

    Returns:
        What is known.
    """
    parts = [origin_of(folder, license) for folder in folders]
    datasets = dict.fromkeys(part.dataset for part in parts if part.dataset is not None)
    return Origin(base=parts[0].base, dataset=", ".join(datasets) or None, license=parts[0].license)


def public_settings(settings: Settings, task: Task, origin: Origin) -> Settings:
    """Return the settings that a model is used with, without what is the user's own, such as paths.

    Args:
        settings: The settings in force.
        task: The model's task.
        origin: Where it comes from.

    Returns:
        The settings. Names of base and data are cut to their last part where they are local.
    """
    values = settings.model_dump()
    for own in fields_of(Settings):
        if own.setting.user_only:
            section, _, name = own.key.rpartition(".")
            values[section][name] = own.default
    values["model"].update(task=task.name, quantization=None)  # the weights are whole
    if origin.base is not None:
        values["model"]["name"] = public_name(origin.base)
    if origin.dataset is not None:
        values["data"]["dataset_name"] = public_name(origin.dataset.split(", ")[0])
    return Settings.model_validate(values)


def card(name: str, task: Task, origin: Origin, usage: str, sizes: Mapping[str, int]) -> str:
    """Write the model card of an export, with the metadata that the Hub reads.

    Args:
        name: Name of the model.
        task: Its task.
        origin: Where it comes from.
        usage: How it is used, as Markdown.
        sizes: Names of its files → bytes.

    Returns:
        The text of README.md.
    """
    from huggingface_hub import ModelCardData

    base = origin.base if origin.base is not None and _is_public(origin.base) else None
    datasets = [one for one in (origin.dataset or "").split(", ") if one and _is_public(one)]
    data = ModelCardData(
        model_name=name, language="ko", license=origin.license, base_model=base, datasets=datasets or None,
        library_name="transformers", pipeline_tag=task.pipeline or task.name, eval_results=_results(task, origin),
    )  # fmt: skip
    lines = [f"# {name}", "", f"{_base(origin)}{task.name} 태스크로 파인튜닝한 모델입니다.", ""]
    lines.append(f"- 데이터: {_coded(origin.dataset)}")
    lines.append(f"- 라이선스: {origin.license or '정해지지 않았습니다. 베이스 모델과 데이터의 라이선스를 따릅니다.'}")
    lines.append("- 학습한 설정은 `settings.yaml`에 있습니다.")
    if origin.split is not None and origin.metrics:
        lines += ["", "## 성능", "", f"{origin.split} 데이터 {origin.rows:,}행으로, 내보내기 전에 평가한 값입니다.", ""]
        lines += ["| 지표 | 값 |", "|---|---|"]
        lines += [f"| {display_name(metric)} | {value:.4f} |" for metric, value in origin.metrics.items()]
    lines += ["", "## 사용 방법", "", usage.replace("{folder}", "이 폴더의 경로"), "", "## 파일", ""]
    lines += [f"- `{file}` ({size_text(size)})" for file, size in sizes.items()]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines) + "\n"


def _results(task: Task, origin: Origin) -> list[EvalResult] | None:
    from huggingface_hub import EvalResult

    if origin.split is None or not origin.metrics:
        return None
    names = [public_name(one) for one in (origin.dataset or "data").split(", ")]
    return [
        EvalResult(
            task_type=task.pipeline or task.name, dataset_type=names[0], dataset_name=", ".join(names),
            dataset_split=origin.split, metric_type=metric, metric_name=display_name(metric), metric_value=value,
        )
        for metric, value in origin.metrics.items()
    ]  # fmt: skip


def _base(origin: Origin) -> str:
    return "" if origin.base is None else f"`{public_name(origin.base)}` 모델을 "


def _coded(dataset: str | None) -> str:
    if dataset is None:
        return "기록되지 않았습니다."
    return ", ".join(f"`{public_name(one)}`" for one in dataset.split(", "))


def _is_public(name: str) -> bool:
    """Return whether a name is that of a repository of the Hub, and not of something on this machine."""
    return may_be_hub_id(name) and "/" in name and not Path(name).expanduser().exists()


def _license_of(base: str) -> str | None:
    """Return the licence in the card of a base model, as far as it is on this machine."""
    from huggingface_hub import ModelCard, try_to_load_from_cache

    found: Any = Path(base).expanduser() / "README.md"
    if not found.is_file():
        found = try_to_load_from_cache(base, "README.md") if may_be_hub_id(base) else None
    if not isinstance(found, str | Path):
        return None
    try:
        license = ModelCard.load(found, ignore_metadata_errors=True).data.license
    except Exception:  # a card that anybody wrote
        return None
    return license if isinstance(license, str) else None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
