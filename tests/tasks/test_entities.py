"""Entity scores are those of seqeval 1.2.2 in strict mode with IOB2, on tags of every kind of error."""

from __future__ import annotations

import random

import pytest

from finetuning.tasks.tagging.entities import entity_scores, macro_average, micro_average

Figures = dict[str, tuple[float, float, float, int]]

# Truth, prediction, and seqeval's precision, recall, F1 and support. Sequences are divided by a bar.
RECORDED: list[tuple[str, str, Figures]] = [
    (
        "I-OG I-OG B-PS I-PS | B-OG B-DT I-OG O I-OG O I-DT | I-PS I-OG B-PS B-PS B-DT B-OG",
        "I-OG I-OG B-PS B-PS | B-OG I-OG I-OG O B-PS I-OG I-DT | I-DT B-OG B-PS B-OG B-DT B-OG",
        {
            "DT": (1.0, 1 / 2, 2 / 3, 2),
            "OG": (1 / 4, 1 / 2, 1 / 3, 2),
            "PS": (1 / 4, 1 / 3, 2 / 7, 3),
            "micro": (1 / 3, 3 / 7, 0.375, 7),
            "macro": (1 / 2, 4 / 9, 3 / 7, 7),
        },
    ),
    (
        "B-OG B-PS I-PS O O B-PS B-OG | I-PS B-DT B-OG I-DT | B-OG I-OG I-DT B-OG I-OG",
        "B-OG B-PS I-PS B-DT O I-OG B-OG | I-PS I-OG I-OG I-DT | B-OG I-OG I-PS B-OG I-OG",
        {
            "DT": (0.0, 0.0, 0.0, 1),
            "OG": (1.0, 0.8, 8 / 9, 5),
            "PS": (1.0, 0.5, 2 / 3, 2),
            "micro": (5 / 6, 0.625, 5 / 7, 8),
            "macro": (2 / 3, 0.43333333333333335, 0.5185185185185185, 8),
        },
    ),
    (
        "O I-PS I-DT O B-OG B-PS | I-PS B-OG I-DT | I-DT O O I-OG I-OG I-DT",
        "O I-PS I-DT I-PS B-OG I-PS | I-PS B-OG I-DT | B-OG O O I-OG I-PS I-DT",
        {
            "OG": (2 / 3, 1.0, 0.8, 2),
            "PS": (0.0, 0.0, 0.0, 1),
            "micro": (2 / 3, 2 / 3, 2 / 3, 3),
            "macro": (1 / 3, 0.5, 0.4, 3),
        },
    ),
    (
        "I-DT B-OG B-OG B-OG | B-OG B-DT I-DT I-OG B-DT I-OG O | I-DT I-OG I-PS B-OG B-DT B-DT B-DT",
        "I-DT B-OG I-OG B-OG | B-OG I-OG I-DT I-OG B-DT I-OG O | I-DT I-OG I-OG B-OG B-DT B-DT B-DT",
        {
            "DT": (1.0, 0.8, 8 / 9, 5),
            "OG": (0.5, 0.4, 4 / 9, 5),
            "micro": (0.75, 0.6, 2 / 3, 10),
            "macro": (0.75, 0.6, 2 / 3, 10),
        },
    ),
]


def figures(truth: list[list[str]], predicted: list[list[str]]) -> Figures:
    kinds = entity_scores(truth, predicted)
    scores = {**kinds, "micro": micro_average(truth, predicted), "macro": macro_average(list(kinds.values()))}
    return {name: (score.precision, score.recall, score.f1, score.support) for name, score in scores.items()}


def check_figures(found: Figures, expected: Figures) -> None:
    assert found.keys() == expected.keys()
    for name, numbers in expected.items():
        assert found[name] == pytest.approx(numbers, abs=1e-12)


@pytest.mark.parametrize(("truth", "predicted", "expected"), RECORDED)
def test_scores_are_those_recorded_of_seqeval(truth: str, predicted: str, expected: Figures) -> None:
    sides = [[sequence.split() for sequence in side.split("|")] for side in (truth, predicted)]
    check_figures(figures(*sides), expected)


def test_without_entities_every_score_is_zero() -> None:
    assert figures([["O", "I-PS"]], [["O", "O"]]) == {"micro": (0.0, 0.0, 0.0, 0), "macro": (0.0, 0.0, 0.0, 0)}


@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_seqeval_on_random_tags() -> None:
    metrics = pytest.importorskip("seqeval.metrics")
    scheme = pytest.importorskip("seqeval.scheme")
    draw = random.Random(0)
    tags = ["O", "B-PS", "I-PS", "B-OG", "I-OG", "B-DT-DAY", "I-DT-DAY"]
    for _ in range(200):
        truth = [["B-PS", *draw.choices(tags, k=draw.randint(1, 8))] for _ in range(draw.randint(1, 4))]
        predicted = [[tag if draw.random() < 0.75 else draw.choice(tags) for tag in row] for row in truth]
        report = metrics.classification_report(
            truth, predicted, mode="strict", scheme=scheme.IOB2, output_dict=True, zero_division=0
        )
        del report["weighted avg"]
        theirs = {
            name.removesuffix(" avg"): (line["precision"], line["recall"], line["f1-score"], int(line["support"]))
            for name, line in report.items()
        }
        check_figures(figures(truth, predicted), theirs)
