"""How parsed sentences are shown: words with their heads, scores by relation, and sentences with a wrong arc."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetuning.tasks.evidence import Case, Distribution, Evidence, LabelScore, LabelScores, Part, ranked_wrong
from finetuning.tasks.parsing.trees import ROOT, Arc, arcs_in, arcs_of
from finetuning.tasks.parts import RowColumns
from finetuning.tasks.presenter import Presenter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROOT = "ROOT"


class ParsePresenter(Presenter):
    """Shows each word with its head and relation."""

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return the sentence and its arcs; see `Presenter.show`."""
        text = str(row["text"])
        return text, _as_text(text.split(" "), arcs_in(row["label"])) if "label" in row else ""

    def readable(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """Return `words`, each with its head's number and its relation to it; the root's head is 0."""
        words = row["text"].split(" ")
        return {
            "words": [
                {"index": number, "word": word, "head": arc.head, "deprel": arc.relation, "score": arc.score}
                for number, (word, arc) in enumerate(zip(words, arcs_of(prediction, len(words)), strict=True), 1)
            ]
        }

    def labels_said(self, readable: Mapping[str, Any]) -> Sequence[str]:
        """Return the relation of each word."""
        return [word["deprel"] for word in readable["words"]]

    def phrase(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> list[Any]:
        """Return the predicted arcs as one text; see `Presenter.phrase`."""
        words = row["text"].split(" ")
        return [_as_text(words, arcs_of(prediction, len(words)))]

    def evidence(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> Evidence:
        """Return scores by relation, arcs' probabilities, and sentences with a wrong arc; see `Presenter.evidence`."""
        wanted, found, both = Counter[str](), Counter[str](), Counter[str]()
        sure, is_wrong, by_group = [], [], {"맞은 어절": list[float](), "틀린 어절": list[float]()}
        for prediction, cell in zip(predictions, rows["label"], strict=True):
            truth = arcs_in(cell)
            wrong = []
            for true, said in zip(truth, arcs_of(prediction, len(truth)), strict=True):
                is_right = true[:2] == said[:2]
                wanted[true.relation] += 1
                found[said.relation] += 1
                both[true.relation] += is_right
                by_group["맞은 어절" if is_right else "틀린 어절"].append(said.score)
                wrong += [] if is_right else [said.score]
            sure.append(max(wrong, default=0.0))
            is_wrong.append(bool(wrong))
        scores = [_score(relation, wanted, found, both) for relation in sorted(wanted | found)]
        groups = {name: np.array(values) for name, values in by_group.items()}
        return Evidence(
            (LabelScores(tuple(scores)), Distribution("예측한 지배소와 의존관계의 확률", "확률", groups)),
            ranked_wrong(
                "틀린 어절이 있는 행", "가장 틀린 어절의 확률", np.array(sure), np.array(is_wrong, dtype=bool),
                "틀린 어절이 있는 행",
            ),
        )  # fmt: skip

    def case(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> Case:
        """Return the sentence, and the words whose arc is wrong, as they are and as predicted; see `Presenter.case`."""
        words, truth = row["text"].split(" "), arcs_in(row["label"])
        said = arcs_of(prediction, len(words))
        wrong = [place for place, (true, one) in enumerate(zip(truth, said, strict=True)) if true[:2] != one[:2]]
        return Case(
            (
                Part("텍스트", row["text"]),
                Part("정답", _as_text(words, truth, wrong)),
                Part("예측", _as_text(words, said, wrong)),
            )
        )


def _as_text(words: Sequence[str], arcs: Sequence[Arc], places: Sequence[int] | None = None) -> str:
    """Write the arcs of all words, or of those at these places, as `word → its head (relation)`."""
    chosen = range(len(words)) if places is None else places
    return ", ".join(
        f"{words[place]} → {words[arcs[place].head - 1] if arcs[place].head != ROOT else _ROOT} "
        f"({arcs[place].relation})"
        for place in chosen
    )


def _score(relation: str, wanted: Counter[str], found: Counter[str], both: Counter[str]) -> LabelScore:
    """Score a relation; an arc is right where its head is right, too."""
    support, predicted, right = wanted[relation], found[relation], both[relation]
    f1 = 2 * right / (support + predicted) if right else 0.0
    return LabelScore(
        relation, right / predicted if predicted else 0.0, right / support if support else 0.0, f1, support, predicted
    )
