"""What a run says and leaves behind: log lines, the progress bar, metrics.jsonl, summary.json and the model card."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from exceptions import ResourceError, SettingsError
from finetuning.config.schema import LoggingSettings, Settings
from finetuning.files import writing
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_SAMPLES = 5
METRIC_NAMES = {
    "loss": "손실",
    "accuracy": "정확도",
    "macro_f1": "macro-F1",
    "perplexity": "perplexity",
    "masked_accuracy": "mask 정확도",
    "loss_per_char": "글자당 손실",
    "perplexity_per_char": "글자당 perplexity",
    "micro_f1": "micro-F1",
    "threshold": "임계값",
    "relation_micro_f1": "micro-F1(no_relation 제외)",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "f1_at_3": "F1(3점 기준)",
    "exact_match": "EM",
    **{"chrf": "chrF", "bleu": "BLEU", "bleu_char": "글자 BLEU", "rouge_l": "글자 ROUGE-L"},
    **{"bleu_morpheme": "형태소 BLEU", "rouge_l_morpheme": "형태소 ROUGE-L"},
    "ended": "스스로 끝난 답",
    "repetition": "반복",
    "hangul": "한글",
    "hanja": "한자",
    "mixed_politeness": "존댓말과 반말이 섞인 답",
    "broken": "깨진 글자가 있는 답",
    "f1": "F1",
    "rouge_w": "ROUGE-W",
    "klue_exact_match": "EM(KLUE)",
    "null_threshold": "답 없음 임계값",
    "entity_macro_f1": "개체 macro-F1",
    "entity_micro_f1": "개체 micro-F1",
    "char_macro_f1": "글자 macro-F1",
    "char_macro_f1_without_o": "글자 macro-F1(O 제외)",
}


class _BarSafeHandler(logging.StreamHandler[Any]):
    """Writes log lines above the progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def set_up_logging(settings: LoggingSettings, is_main_process: bool) -> None:
    """Sends this program's log to stderr in the user's format; other libraries speak from WARNING up."""
    handler = _BarSafeHandler()
    handler.setFormatter(logging.Formatter(settings.format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level if is_main_process else logging.ERROR)
    for library in ("httpx", "httpx2", "httpcore", "urllib3", "filelock", "fsspec", "datasets", "accelerate", "torch"):
        logging.getLogger(library).setLevel(logging.ERROR)


def quiet_libraries() -> None:
    """Turns off the other libraries' progress bars and advice: what a run says is ours to say."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def metrics_line(metrics: Mapping[str, float]) -> str:
    """Metrics as one phrase: `손실 0.3120, 정확도 0.8712`."""
    return ", ".join(f"{METRIC_NAMES.get(name, name)} {value:.4f}" for name, value in metrics.items())


@dataclass
class Tally:
    """Sums over a stretch of training; a skipped window adds to `skipped` and to the work, never to the loss.

    seconds: of the training steps alone, without evaluating and saving.
    """

    loss_sum: float = 0.0
    items: int = 0
    examples: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def add_loss(self, loss_sum: float, items: int) -> None:
        """Counts one window's loss."""
        self.loss_sum += loss_sum
        self.items += items

    def add_work(self, examples: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """Counts what one window took."""
        self.examples += examples
        self.tokens += tokens
        self.padded_tokens += padded_tokens
        self.seconds += seconds

    @property
    def loss(self) -> float:
        return self.loss_sum / self.items if self.items else math.nan

    @property
    def padding(self) -> float:
        return 1 - self.tokens / max(self.padded_tokens, 1)

    @property
    def examples_per_s(self) -> float:
        return self.examples / max(self.seconds, 1e-9)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)

    def line(self, lr: float, grad_norm: float) -> str:
        """The stretch as a line of the log."""
        skipped = f", 건너뛴 스텝 {self.skipped}" if self.skipped else ""
        return (
            f"손실 {self.loss:.4f}, lr {lr:.3g}, grad_norm {grad_norm:.3f}, "
            f"{self.examples_per_s:.0f} 예제/초, 패딩 {100 * self.padding:.0f}%{skipped}"
        )


class MetricsFile:
    """metrics.jsonl: one JSON object a line. A resumed run cuts it back to where its checkpoint was."""

    def __init__(self, output_dir: Path) -> None:
        self.path = output_dir / "metrics.jsonl"
        self._pending: list[str] = []

    def add(self, record: Mapping[str, Any]) -> None:
        """Appends one record; what a full disk does not take is kept, and written with the next."""
        self._pending.append(json.dumps(record, ensure_ascii=False) + "\n")
        try:
            self._write_pending()
        except ResourceError as error:
            if len(self._pending) == 1:  # told once, until it can be written again
                _log.warning("%s (%s) 학습을 계속하고, 다음 기록과 함께 씁니다.", error.what, error.where)

    def size(self) -> int:
        """Bytes of all records, safely on the disk; ResourceError where they cannot be written."""
        self._write_pending()
        if not self.path.exists():
            return 0
        with self._writing(), self.path.open("ab") as file:
            os.fsync(file.fileno())
        return self.path.stat().st_size

    def cut(self, size: int) -> None:
        """Drops what was written after the file had this many bytes."""
        if self.path.exists():
            with self._writing():
                os.truncate(self.path, min(size, self.path.stat().st_size))

    def _write_pending(self) -> None:
        if not self._pending:
            return
        before = self.path.stat().st_size if self.path.exists() else 0
        with self._writing():
            try:
                with self.path.open("ab") as file:
                    file.write("".join(self._pending).encode())
            except OSError:
                if self.path.exists():  # no half of a line
                    os.truncate(self.path, before)
                raise
        self._pending.clear()

    def _writing(self) -> AbstractContextManager[None]:
        remedy = "디스크의 남은 공간과 쓰기 권한을 확인한 뒤 --resume으로 이어서 학습하세요."
        return writing("학습 기록을 쓰지 못했습니다", self.path, remedy)


def progress_bar(settings: LoggingSettings, total: int, done: int, is_main_process: bool) -> tqdm[Any]:
    """The bar of a training run, in windows (optimizer steps)."""
    hidden = not (settings.progress_bar and is_main_process)
    return tqdm(
        total=total, initial=done, desc="학습", unit="스텝", disable=hidden, dynamic_ncols=True, file=sys.stderr
    )


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file so that it is there whole or not at all; ResourceError where the disk does not let it."""
    partial = path.with_name(f".{path.name}.partial")
    with writing("파일을 쓰지 못했습니다", path, partial=partial):
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON for people too: indented, Hangul as it is, null where a number is none."""
    write_atomically(path, json.dumps(_finite(value), ensure_ascii=False, indent=2) + "\n")


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def log_samples(
    task: Task,
    rows: Dataset,
    predictions: Sequence[Any],
    label_names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Logs a few rows of a split with what the model makes of them, beside the truth where there is one."""
    _log.info("예측 보기")
    for position in range(0, len(rows), max(1, len(rows) // _SAMPLES))[:_SAMPLES]:
        row = rows[position]
        given, truth = task.shows.show(row)
        found = _phrase(task.shows.phrase(predictions[position], row, label_names, tokenizer))
        _log.info("  %s → %s%s", given[:80], found or "없음", f" (정답 {truth})" if truth else "")


def _phrase(value: Any) -> str:
    """JSON values as a person reads them."""
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, dict):
        return f"{{{_phrase(list(value.values()))}}}"
    return ", ".join(_phrase(item) for item in value if item != []) if isinstance(value, list) else str(value)


def log_evaluation(split: str, rows: int, metrics: Mapping[str, float], details: Sequence[str]) -> None:
    """Logs a split's metrics after the lines that explain them."""
    for line in details:
        _log.info("%s", line)
    _log.info("%s 데이터 %s행: %s", split, f"{rows:,}", metrics_line(metrics))


def summary(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What summary.json holds: the facts of a run, and the versions that its result depends on."""
    import accelerate
    import datasets
    import torch
    import transformers

    modules = (accelerate, datasets, torch, transformers)
    found = {module.__name__: str(module.__version__) for module in modules}
    return {**facts, "versions": {"python": sys.version.split()[0], **found}}


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

{_adapter_usage(task, base) if settings.model.adapter.method in {"lora", "dora"} else _usage(task)}
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


def check_output(path: Path | None) -> None:
    """SettingsError or ResourceError where predictions could not be written, before any time goes into them."""
    if path is None:
        return
    if path.suffix.lower() not in {".csv", ".jsonl", ".ndjson"}:
        raise SettingsError(
            f"예측 결과를 '{path.suffix or path.name}' 형식으로는 쓸 수 없습니다.",
            where=f"--output {path}",
            remedy=".jsonl 또는 .csv로 끝나는 이름을 쓰세요.",
        )
    if path.is_dir() or not path.parent.is_dir():
        raise SettingsError(
            "파일이 아니라 폴더입니다." if path.is_dir() else f"결과를 쓸 폴더가 없습니다: {path.parent}",
            where=f"--output {path}",
            remedy="있는 폴더 안의 파일 이름을 쓰세요.",
        )
    if not os.access(path.parent, os.W_OK):
        raise ResourceError(
            "결과를 쓸 폴더에 쓰기 권한이 없습니다.", where=f"--output {path}", remedy="다른 폴더를 고르세요."
        )


def beside(row: Mapping[str, Any], prediction: Mapping[str, Any]) -> dict[str, Any]:
    """A row and its prediction; what the row has by the same name stays, and is predicted as `predicted_<name>`."""
    found = dict(row)
    for name, value in prediction.items():
        while name in row:
            name = f"predicted_{name}"
        found[name] = value
    return found


def write_predictions(path: Path | None, records: Sequence[Mapping[str, Any]]) -> None:
    """Writes predictions as JSONL to standard output, or to a .jsonl or .csv file by its suffix."""
    if path is None:
        for record in records:
            print(json.dumps(record, ensure_ascii=False))
    elif path.suffix.lower() == ".csv":
        _write_csv(path, records)
    else:
        write_atomically(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _write_csv(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """UTF-8 with BOM, which Excel on Korean Windows opens without broken characters."""
    import csv

    partial = path.with_name(f".{path.name}.partial")
    with writing("예측 결과를 쓰지 못했습니다", path, partial=partial):
        with partial.open("w", encoding="utf-8-sig", newline="") as file:
            # the first row may be one without text, and so without a prediction
            writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for record in records for name in record)))
            writer.writeheader()
            for record in records:
                writer.writerow({name: _csv_cell(value) for name, value in record.items()})
        os.replace(partial, path)


def _csv_cell(value: Any) -> Any:
    """A list or an object as JSON, which reads back, instead of as Python spells it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
