"""Counts and scores by label, for the report page and the metrics file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetuning.tasks.evidence import Confusion, LabelScore, LabelScores


def confusion(truth: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> Confusion:
    """Count pairs of a true and a predicted label.

    Args:
        truth: Id of each row's true label, (rows,).
        predicted: Id of its predicted label, (rows,).
        labels: Labels in the order of their ids.

    Returns:
        The confusion matrix.
    """
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return Confusion(tuple(labels), counts)


def label_scores(labels: Sequence[str], right: np.ndarray, support: np.ndarray, predicted: np.ndarray) -> LabelScores:
    """Compute precision, recall and F1 of each label.

    Args:
        labels: Labels in the order of their ids.
        right: How often each label was predicted rightly, (labels,).
        support: How often it is true, (labels,).
        predicted: How often it was predicted, (labels,).

    Returns:
        The scores, 0 where a quotient has nothing to divide by.
    """
    precision = right / np.maximum(predicted, 1)
    recall = right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(predicted + support, 1)
    columns = (precision, recall, f1, support, predicted)
    return LabelScores(
        tuple(
            LabelScore(label, *values)
            for label, *values in zip(labels, *(column.tolist() for column in columns), strict=True)
        )
    )
