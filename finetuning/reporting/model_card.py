"""The model card, output_dir/README.md: a run report as other people read it."""

from __future__ import annotations

from finetuning.reporting.metric_names import display_name
from finetuning.reporting.run_report import Loading, RunReport

_FOLDER = "이 폴더의 경로"
_AUTOCAST = {"no": "autocast 없음", "bf16": "bfloat16 autocast", "fp16": "float16 autocast"}


def model_card(report: RunReport) -> str:
    """Render a report as a model card: what the model is, its training data, its metrics and how to use it."""
    training, window, evaluation = report.training, report.window, report.evaluation
    hardware = report.hardware
    counts = ", ".join(f"{name} {count:,}행" for name, count in report.rows.items())
    best = f"검증 {display_name(report.best_metric_name)} {training.best_metric:.4f}"
    metrics = "\n".join(f"| {display_name(name)} | {value:.4f} |" for name, value in evaluation.metrics.items())
    verdict = f"\n\n{report.verdict.text}" if report.verdict is not None else ""
    return f"""---
language: ko
pipeline_tag: {report.loading.pipeline or report.task}
library_name: transformers
---

# {report.output_dir.name}

`{report.public_model}` 모델을 {report.task} 태스크로 파인튜닝한 모델입니다.

- 데이터: `{report.public_dataset}` ({counts})
- 학습: {report.epochs} epoch, learning rate {report.learning_rate:g}, seed {report.seed}
- 스텝당 예제 {window.examples:,}개: batch_size {window.batch_size} × gradient_accumulation_steps \
{window.gradient_accumulation_steps} × 프로세스 {window.processes}개
- 장치와 정밀도: {hardware.device}, 가중치 {report.dtype}, {_AUTOCAST.get(hardware.precision, hardware.precision)}
- 저장한 모델: 전체 {training.steps:,}스텝 중 스텝 {training.best_step:,}의 모델 ({best})
- 전체 설정은 `settings.yaml`, 학습 기록은 `metrics.jsonl`, 요약은 `summary.json`에 있습니다.

## 성능

{evaluation.split} 데이터 {report.rows[evaluation.split]:,}행으로 평가했습니다.{verdict}

| 지표 | 값 |
|---|---|
{metrics}

## 사용 방법

{_adapter_usage(report) if report.loading.is_adapter else _usage(report.loading)}
"""


def _usage(loading: Loading) -> str:
    if loading.usage or loading.pipeline is None:
        return f"""```python
from transformers import {loading.auto_class}, AutoTokenizer

model = {loading.auto_class}.from_pretrained("{_FOLDER}")
tokenizer = AutoTokenizer.from_pretrained("{_FOLDER}")
{loading.usage}```"""
    return f"""```python
from transformers import pipeline

model = pipeline("{loading.pipeline}", model="{_FOLDER}")
```"""


def _adapter_usage(report: RunReport) -> str:
    loading = report.loading
    return f"""```python
from peft import PeftConfig, PeftModel
from transformers import AutoConfig, {loading.auto_class}, AutoTokenizer

folder = "{_FOLDER}"
base = PeftConfig.from_pretrained(folder).base_model_name_or_path  # {report.public_model}
model = {loading.auto_class}.from_pretrained(base, config=AutoConfig.from_pretrained(folder))
model = PeftModel.from_pretrained(model, folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
{loading.usage}```

이 폴더에는 어댑터만 있고, 베이스 모델은 학습할 때의 경로\
(`adapter_config.json`의 `base_model_name_or_path`)에서 읽습니다. \
`python finetuning_app.py export --output_dir 이_폴더`로 베이스 모델에 병합하면 \
{"`pipeline()`으로" if loading.pipeline and not loading.usage else "베이스 모델 없이"} 쓸 수 있습니다."""
