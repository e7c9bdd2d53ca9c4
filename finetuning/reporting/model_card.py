"""The model card: output_dir/README.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from finetuning.config.schema import Settings
from finetuning.files import write_atomically
from finetuning.models.adapters import METHODS
from finetuning.reporting.metric_names import METRIC_NAMES
from finetuning.tasks.base import Task


def write_model_card(
    output_dir: Path, settings: Settings, task: Task, splits: Mapping[str, int], metrics: Mapping[str, float]
) -> None:
    """Writes output_dir/README.md: what the model is, what it learned from, how well it does, how to use it."""
    rows = "\n".join(f"| {METRIC_NAMES.get(name, name)} | {value:.4f} |" for name, value in metrics.items())
    counts = ", ".join(f"{name} {count:,}행" for name, count in splits.items())
    # a path of the user's machine says nothing to a reader of the card, and may say too much
    base, dataset = _public_name(settings.model.name), _public_name(settings.data.dataset_name)
    window = settings.data.batch_size * settings.memory.gradient_accumulation_steps
    write_atomically(
        output_dir / "README.md",
        f"""---
language: ko
pipeline_tag: {task.pipeline or task.name}
library_name: transformers
---

# {output_dir.name}

`{base}` 모델을 {task.name} 태스크로 파인튜닝한 모델입니다.

- 데이터: `{dataset}` ({counts})
- 학습: {settings.training.epochs} epoch, learning rate {settings.training.learning_rate:g}, 스텝마다 예제 {window}개,
  seed {settings.training.seed}
- 전체 설정: `settings.yaml`, 학습 기록: `metrics.jsonl`, 요약: `summary.json`

## 성능

| 지표 | 값 |
|---|---|
{rows}

## 사용 방법

{_adapter_usage(task, base) if METHODS[settings.model.adapter.method].adds_weights else _usage(task)}
""",
    )


def _usage(task: Task) -> str:
    if task.pipeline is None:
        return f"""```python
from transformers import {task.auto_class}, AutoTokenizer

model = {task.auto_class}.from_pretrained("이 폴더의 경로")
tokenizer = AutoTokenizer.from_pretrained("이 폴더의 경로")
{task.usage}```"""
    return f"""```python
from transformers import pipeline

model = pipeline("{task.pipeline}", model="이 폴더의 경로")
```"""


def _adapter_usage(task: Task, base: str) -> str:
    return f"""```python
from peft import PeftModel
from transformers import AutoConfig, {task.auto_class}, AutoTokenizer

folder, base = "이 폴더의 경로", "{base}"
model = {task.auto_class}.from_pretrained(base, config=AutoConfig.from_pretrained(folder))
model = PeftModel.from_pretrained(model, folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
```

어댑터만 들어 있습니다. `python finetuning_app.py export --output_dir 이_폴더`로 바탕 모델에 합치면 `pipeline()`으로도
쓸 수 있습니다."""


def _public_name(name: str) -> str:
    return Path(name).name if Path(name).exists() else name
