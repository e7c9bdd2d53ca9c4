"""Relations are scored as KLUE-baseline's klue_re_micro_f1 and klue_re_auprc (8a03c94) do on the same probabilities."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task


def test_scores_are_those_of_klue_baseline() -> None:
    kept = json.loads((Path(__file__).parent / "klue_scores.json").read_text(encoding="utf-8"))["re"]
    names, probabilities = kept["relations"], np.array(kept["probabilities"])
    rows = {"label": [names[label] for label in kept["labels"]]}
    found = find_task(Settings()).scores.metrics(list(probabilities), rows, names, 0.0)
    assert found["relation_micro_f1"] == pytest.approx(kept["micro_f1"], abs=1e-12)
    assert found["relation_auprc"] == pytest.approx(kept["auprc"], abs=1e-12)


def test_a_relation_that_does_not_occur_changes_no_mean() -> None:
    scores = [np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.8, 0.1])]
    found = find_task(Settings()).scores.metrics(
        scores, {"label": ["no_relation", "per:title"]}, ["no_relation", "per:title", "org:founded"], 0.0
    )
    assert found["relation_auprc"] == 1.0
