"""Dependency parsing of Korean: for each word, how far to the right its head stands and the relation to it."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exceptions import BadRow, DataError
from finetuning.cells import as_text, listed
from finetuning.config.schema import Settings
from finetuning.korean.column_names import TEXTS
from finetuning.tasks.base import Task
from finetuning.tasks.parsing.metrics import attachment, relation_counts
from finetuning.tasks.parsing.showing import ParsePresenter
from finetuning.tasks.parsing.trees import (
    ROOT,
    Arc,
    NextWord,
    arcs_in,
    arcs_of,
    distance_and_relation,
    label_of,
    likeliest_tree,
)
from finetuning.tasks.parts import RowColumns, RowReader
from finetuning.tasks.tagging.entities import macro_f1
from finetuning.tasks.tagging.tokens import TokenLabelEncoder, TokenLabelScorer
from finetuning.tasks.tagging.windows import text_windows
from finetuning.tasks.text_encoding import check_is_fast
from finetuning.types import IGNORED, Column, Naive

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_WORDS = ("word_form", "words", "tokens", "form", "어절", "단어", "토큰")
_HEADS = ("heads", "head_id", "지배소")
_RELATIONS = ("deprel", "relation", "relations", "dep", "labels", "의존관계", "의존 관계", "라벨")
_USAGE = """
import torch

text = "아이는 병원에서 치료를 받던 상황이었다."
inputs = tokenizer(text, return_tensors="pt")
with torch.inference_mode():
    labels = model(**inputs).logits[0].argmax(-1)
place = 0
for number, word in enumerate(text.split(" "), start=1):
    label = model.config.id2label[int(labels[inputs.char_to_token(place)])]
    distance, _, relation = label.partition("|")
    print(number, word, number + int(distance) if int(distance) else 0, relation)
    place += len(word) + 1
"""


class DependencyParsing(Task):
    """A label for the first token of each word, the distance to its head and their relation: cross-entropy."""

    name = "dependency-parsing"
    aliases = ("dp", "parsing", "의존 구문 분석", "구문 분석", "의존 파싱")
    auto_class = "AutoModelForTokenClassification"
    pipeline = None
    usage = _USAGE

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reads = ParseReader(settings)
        self.encodes = ParseEncoder(settings)
        self.scores = ParseScorer(settings)
        self.shows = ParsePresenter()


class ParseReader(RowReader):
    """Reads the words of a sentence, and the head and the relation of each."""

    has_labels = True
    labels_are_open = True  # a rare relation over a rare distance
    counts_characters = True

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """Return words or a text, heads and relations."""
        words = next((name for name in available if name.casefold() in _WORDS), None)
        text = self.column("text", "text_column", TEXTS)
        if words and text.is_default():
            text = self.found_column("tokens", "text_column", words)
        return (
            text,
            self.column("head", "head_column", _HEADS, target=True),
            self.column("label", "label_column", _RELATIONS, target=True),
        )

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return `text`, words with a space between them, and as `label` a list of [head, relation].

        See `RowReader.prepare`.
        """
        cell = row["tokens"] if "tokens" in row else row["text"]
        is_text = "tokens" not in row and isinstance(cell, str) and not cell.lstrip().startswith("[")
        words = cell.split() if is_text else [as_text(word) for word in listed(cell, "어절")]
        if not words or any(len(word.split()) != 1 for word in words):
            raise BadRow("비었거나 공백이 있는 어절")
        text = " ".join(word.strip() for word in words)
        if "label" not in row:
            return {"text": text}
        heads, relations = listed(row["head"], "지배소"), listed(row["label"], "의존관계")
        if not len(words) == len(heads) == len(relations):
            raise BadRow("어절과 수가 다른 지배소나 의존관계")
        if not all(isinstance(relation, str) and relation.strip() for relation in relations):
            raise BadRow("비었거나 문자열이 아닌 의존관계")
        arcs = []
        for number, (head, relation) in enumerate(zip(heads, relations, strict=True), start=1):
            if isinstance(head, bool) or not (isinstance(head, int) and 0 <= head <= len(words) and head != number):
                raise BadRow("문장의 다른 어절도 0도 아닌 지배소 번호")
            arcs.append([head, relation.strip()])
        return {"text": text, "label": arcs}

    def relabelled(self, cell: Any, names: Mapping[str, str | None]) -> tuple[Any, Sequence[str]]:
        """Rename relations; a sentence with one that is none is skipped. See `RowReader.relabelled`."""
        found = [relation for _, relation in cell if relation in names]
        renamed = [[head, names.get(relation, relation)] for head, relation in cell]
        return (None if any(relation is None for _, relation in renamed) else renamed), found

    def written_labels(self, counts: Mapping[str, int]) -> Mapping[str, int]:
        """Return none: names of relations differ by a letter (NP_SBJ, VP_SBJ) and are no typos of each other."""
        return {}

    def labels_in(self, cell: str) -> Sequence[str]:
        """Return the label of each word."""
        return [label_of(number, arc) for number, arc in enumerate(arcs_in(cell), start=1)]

    def label_names(self, train_labels: Mapping[str, int]) -> tuple[str, ...]:
        """Return the labels of heads to the right, by distance; heads to the left are told and not learned."""
        found = {label: distance_and_relation(label) for label in train_labels}
        to_the_left = sum(train_labels[label] for label, (distance, _) in found.items() if distance < 0)
        names = sorted((parts, label) for label, parts in found.items() if parts[0] >= 0)
        if len(names) < 2:
            raise DataError(
                "학습 데이터에 오른쪽의 어절을 가리키는 지배소가 없습니다.",
                where=f"지배소 열 '{self.settings.data.head_column}'",
                remedy="지배소 번호가 1부터 세는 어절 번호인지, data.head_column이 맞는지 확인하세요.",
            )
        if to_the_left:
            _log.warning(
                "지배소가 왼쪽에 있는 어절이 %s개 있습니다. 이 태스크는 지배소가 오른쪽에 있는 문장을 배우므로, "
                "그 어절은 학습에서 빼고 채점할 때는 틀린 것으로 셉니다.",
                f"{to_the_left:,}",
            )  # fmt: skip
        return tuple(label for _, label in names)


class ParseEncoder(TokenLabelEncoder):
    """Encodes sentences as windows of tokens. The first token of a word has its label."""

    def fit_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Check that the tokenizer tells which characters its tokens stand for."""
        check_is_fast(tokenizer, DependencyParsing.name)

    def encode(
        self, rows: RowColumns, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int
    ) -> dict[str, list[Any]]:
        """Encode sentences; see `RowEncoder.encode`.

        A long sentence makes several examples that overlap, and each word counts in one of them. `word` holds the
        word that begins with each token, counted from 0; -1 for other tokens.
        """
        ids = {name: position for position, name in enumerate(label_names)}
        columns: dict[str, list[Any]] = defaultdict(list)
        for window in text_windows(rows["text"], tokenizer, max_length):
            starts = _starts(rows["text"][window.position])
            words = [starts.get(start, -1) for start in window.starts]
            for name, values in window.inputs.items():
                columns[name].append(values)
            columns["row"].append(rows["row"][window.position])
            columns["truncated"].append(False)
            columns["word"].append(words)
            if "label" in rows:
                arcs = arcs_in(rows["label"][window.position])
                labels = [ids.get(label_of(number, arc), IGNORED) for number, arc in enumerate(arcs, start=1)]
                columns["label"].append([IGNORED if word < 0 else labels[word] for word in words])
        return dict(columns)


class ParseScorer(TokenLabelScorer):
    """Cross-entropy over words. The best model is the one of highest LAS macro-F1, as KLUE-baseline chooses.

    Predictions are the arcs of each sentence's words.
    """

    best_metric = "klue_las_macro_f1"
    greater_is_better = True
    reads = frozenset({"label_smoothing"})

    def gather(
        self, predictions: Sequence[Any], examples: Dataset, rows: Dataset, label_names: Sequence[str]
    ) -> list[list[Arc]]:
        """Return each sentence's likeliest tree; see `Scorer.gather`. A word without a token has no preference."""
        found = {
            number: np.zeros((len(_starts(text)), len(label_names)), np.float32)
            for number, text in zip(rows["row"][:], rows["text"][:], strict=True)
        }
        for scores, number, words in zip(predictions, examples["row"][:], examples["word"][:], strict=True):
            places = np.array(words)
            found[number][places[places >= 0]] = scores[places >= 0]
        labels = [distance_and_relation(name) for name in label_names]
        return [likeliest_tree(scores, labels) for scores in found.values()]

    def baseline(self, train_labels: Mapping[str, int], count: int, label_names: Sequence[str]) -> Naive | None:
        """Return the next word as every word's head; see `Scorer.baseline`."""
        by_distance: dict[int, Counter[str]] = defaultdict(Counter)
        for label, words in train_labels.items():
            distance, relation = distance_and_relation(label)
            by_distance[distance][relation] += words
        next_one, root = by_distance[1] or by_distance[ROOT], by_distance[ROOT] or by_distance[1]
        if not next_one:
            return None
        guess = NextWord(next_one.most_common(1)[0][0], root.most_common(1)[0][0])
        return Naive(f"항상 바로 다음 어절({guess.relation})을 지배소로 예측하면", [guess] * count)

    def drawn_score(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]
    ) -> Callable[[np.ndarray], float]:
        """Return the LAS macro-F1 of drawn rows; see `Scorer.drawn_score`."""
        counts = relation_counts(*_both(predictions, rows))
        return lambda places: macro_f1(counts[places].sum(0))

    def metrics(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute UAS and LAS over words, and KLUE-DP's macro-F1 of both. `loss` is over words with a known label."""
        return {"loss": loss, **attachment(*_both(predictions, rows))}


def _starts(text: str) -> dict[int, int]:
    """Return the place of each word's first character → the word's place."""
    found, place = {}, 0
    for number, word in enumerate(text.split(" ")):
        found[place] = number
        place += len(word) + 1
    return found


def _both(predictions: Sequence[Any], rows: RowColumns) -> tuple[list[Sequence[Arc]], list[Sequence[Arc]]]:
    """Return the true and the predicted arcs of each row."""
    truth: list[Sequence[Arc]] = [arcs_in(cell) for cell in rows["label"]]
    return truth, [arcs_of(one, len(arcs)) for one, arcs in zip(predictions, truth, strict=True)]
