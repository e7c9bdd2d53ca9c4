"""KLUE-RE's two scores, for labels of which one is `no_relation`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NO_RELATION = "no_relation"


def relation_scores(scores: np.ndarray, truth: Sequence[str], label_names: Sequence[str]) -> dict[str, float]:
    """Score relations as KLUE-baseline does.

    Args:
        scores: Probability of each label, (rows, labels).
        truth: The label of each row.
        label_names: Label names in the order of their ids.

    Returns:
        `relation_micro_f1`, over all relations but `no_relation`, and `relation_auprc`, the mean area under the
        precision-recall curve of each label, `no_relation` among them. A label that is not in truth has no curve and
        is left out; KLUE's function gives it 0.5. Nothing for labels without `no_relation`.
    """
    if NO_RELATION not in label_names:
        return {}
    from sklearn.metrics import auc, f1_score, precision_recall_curve

    predicted = [label_names[place] for place in scores.argmax(-1)]
    relations = [name for name in label_names if name != NO_RELATION]
    areas = []
    for place, name in enumerate(label_names):
        is_it = np.array([label == name for label in truth])
        if is_it.any():
            precision, recall, _ = precision_recall_curve(is_it, scores[:, place])
            areas.append(auc(recall, precision))
    return {
        "relation_micro_f1": float(f1_score(truth, predicted, labels=relations, average="micro", zero_division=0)),
        "relation_auprc": float(np.mean(areas)),
    }
