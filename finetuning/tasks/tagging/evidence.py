"""What the report page shows of entities: scores and confusions by kind, and rows with a wrong entity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from finetuning.tasks.evidence import Confusion, Distribution, Evidence, LabelScore, LabelScores, Mark, ranked_wrong
from finetuning.tasks.tagging.decoding import TaggedToken, decode
from finetuning.tasks.tagging.entities import EntityScore
from finetuning.tasks.tagging.spans import Span

_NO_ENTITY = "(개체 아님)"


def entity_evidence(
    predictions: Sequence[Sequence[TaggedToken]],
    truth: Sequence[Sequence[Span]],
    label_names: Sequence[str],
    scores: dict[str, EntityScore],
) -> Evidence:
    """Collect what the page shows of a split.

    Args:
        predictions: The tagged tokens of each row.
        truth: The entities of each row.
        label_names: Tags in the order of their ids.
        scores: Scores of every kind that occurs in truth or predictions.

    Returns:
        Scores by kind, how kinds are taken for each other at the same place, and the rows with a wrong entity by the
        highest probability of such an entity. A missed entity counts with the probability of the tags in its place.
    """
    pairs = Counter[tuple[str, str]]()
    sure, is_wrong, right_scores, wrong_scores = [], [], list[float](), list[float]()
    for tokens, wanted in zip(predictions, truth, strict=True):
        found, true = dict(decode(tokens, label_names)), set(wanted)
        said = {(span.start, span.end): span.label for span in found}
        pairs.update((span.label, said.get((span.start, span.end), _NO_ENTITY)) for span in wanted)
        there = {(span.start, span.end) for span in wanted}
        pairs.update((_NO_ENTITY, span.label) for span in found if (span.start, span.end) not in there)
        wrong = [score for span, score in found.items() if span not in true]
        missed = [_sureness(span, tokens) for span in wanted if span not in found]
        right_scores += [score for span, score in found.items() if span in true]
        wrong_scores += wrong
        sure.append(max([*wrong, *missed], default=0.0))
        is_wrong.append(bool(wrong or missed))
    groups = {"맞은 개체": np.array(right_scores), "틀린 개체": np.array(wrong_scores)}
    return Evidence(
        (
            _kinds(scores),
            _confusion(pairs),
            Distribution("예측한 개체의 확률", "확률", groups),
        ),
        ranked_wrong("틀린 개체가 있는 행", "가장 틀린 개체의 확률", np.array(sure), np.array(is_wrong, dtype=bool)),
    )


def marks_of(spans: Sequence[Span]) -> tuple[Mark, ...]:
    """Return entities as coloured parts of their text."""
    return tuple(Mark(start, end, label, "label") for start, end, label in spans)


def _sureness(span: Span, tokens: Sequence[TaggedToken]) -> float:
    """Return the mean probability of the tags of the tokens in a span, 0 where no token is in it."""
    inside = [token.score for token in tokens if token.start < span.end and span.start < token.end]
    return float(np.mean(inside)) if inside else 0.0


def _kinds(scores: dict[str, EntityScore]) -> LabelScores:
    return LabelScores(
        tuple(
            LabelScore(kind, one.precision, one.recall, one.f1, one.support, one.predicted)
            for kind, one in scores.items()
        )
    )


def _confusion(pairs: Counter[tuple[str, str]]) -> Confusion:
    labels = (*sorted({kind for pair in pairs for kind in pair} - {_NO_ENTITY}), _NO_ENTITY)
    ids = {label: position for position, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for (wanted, said), count in pairs.items():
        counts[ids[wanted], ids[said]] += count
    return Confusion(labels, counts)
