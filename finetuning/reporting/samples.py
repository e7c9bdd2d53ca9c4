"""A few rows with their predictions: lines of the log, and a file that shows how a run goes while it trains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exceptions import ResourceError
from finetuning.files import write_json

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetuning.tasks.base import Task

SAMPLES_FILE = "samples.json"
_SAMPLES, _LONGEST = 5, 80


@dataclass(frozen=True)
class Sample:
    """A row with its prediction.

    Attributes:
        given: What the model was given, cut to a line.
        said: What it predicted; "" where it found nothing.
        truth: The right answer; "" where it is not known.
    """

    given: str
    said: str
    truth: str


def samples_of(
    task: Task,
    rows: Dataset,
    predictions: Sequence[Any],
    label_names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
) -> list[Sample]:
    """Return a few rows, spread over a split, with their predictions.

    Args:
        task: Formats its rows and predictions.
        rows: The rows of the split.
        predictions: One prediction for each of the first rows, in the same order.
        label_names: Label names in the order of their ids.
        tokenizer: The model's tokenizer.

    Returns:
        At most five samples.
    """
    found = []
    for position in range(0, len(predictions), max(1, len(predictions) // _SAMPLES))[:_SAMPLES]:
        row = rows[position]
        given, truth = task.shows.show(row)
        said = _phrase(task.shows.phrase(predictions[position], row, label_names, tokenizer))
        found.append(Sample(given[:_LONGEST], said, truth))
    return found


def sample_lines(samples: Sequence[Sample]) -> list[str]:
    """Return a heading, then one line for each sample."""
    lines = [f"  {one.given} → {one.said or '없음'}" + (f" (정답 {one.truth})" if one.truth else "") for one in samples]
    return ["예측 예시", *lines]


def write_samples(output_dir: Path, step: int, samples: Sequence[Sample]) -> None:
    """Write the samples of a run's newest evaluation; a full disk is no reason to lose the run."""
    with suppress(ResourceError):
        write_json(output_dir / SAMPLES_FILE, {"step": step, "samples": [asdict(one) for one in samples]})


def read_samples(output_dir: Path) -> tuple[int, list[Sample]]:
    """Return the step of a run's newest evaluation and its samples; 0 and none where they cannot be read."""
    try:
        found = json.loads((output_dir / SAMPLES_FILE).read_text(encoding="utf-8"))
        return int(found["step"]), [Sample(**one) for one in found["samples"]]
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or edited by hand
        return 0, []


def _phrase(value: Any) -> str:
    """Format a JSON value for people."""
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, dict):
        return f"{{{_phrase(list(value.values()))}}}"
    return ", ".join(_phrase(item) for item in value if item != []) if isinstance(value, list) else str(value)
