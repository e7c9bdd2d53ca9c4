"""Named entities: a tag for every token, read as spans of the text's characters."""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exceptions import BadRow, DataError
from finetuning.cells import listed
from finetuning.config.schema import Settings
from finetuning.korean.column_names import TEXTS
from finetuning.korean.word_cuts import cut_words
from finetuning.tasks.base import Task
from finetuning.tasks.classification.labels import check_number
from finetuning.tasks.evidence import Case, Evidence, Part
from finetuning.tasks.parts import RowColumns, RowReader
from finetuning.tasks.presenter import Presenter
from finetuning.tasks.tagging.decoding import TaggedToken, decode, raw_tags, tagged
from finetuning.tasks.tagging.entities import entity_counts, entity_scores, macro_average, macro_f1, micro_average
from finetuning.tasks.tagging.evidence import entity_evidence, marks_of
from finetuning.tasks.tagging.spans import Span, composed, join_tokens, read_iob2, trimmed, write_iob2
from finetuning.tasks.tagging.tokens import TokenLabelEncoder, TokenLabelScorer
from finetuning.tasks.tagging.windows import text_windows
from finetuning.tasks.text_encoding import check_is_fast
from finetuning.types import IGNORED, Column, Naive

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_TOKENS = ("tokens", "words", "토큰", "어절")
_TAGS = ("ner_tags", "tags", "labels", "ner", "태그", "개체명")


class TokenClassification(Task):
    """A tag for each token that holds characters: cross-entropy over the tags."""

    name = "token-classification"
    aliases = ("ner", "named-entity-recognition", "개체명 인식", "토큰 분류")
    auto_class = "AutoModelForTokenClassification"
    pipeline = "token-classification"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reads = EntityReader(settings)
        self.encodes = EntityEncoder(settings)
        self.scores = EntityScorer(settings)
        self.shows = EntityPresenter()


class EntityReader(RowReader):
    """Reads tokens and their IOB2 tags, as a text and its entities."""

    has_labels = True
    counts_characters = True

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """Return tokens and their tags or, if there are no tokens, a text with a tag for each of its characters."""
        tokens = next((name for name in available if name.casefold() in _TOKENS), None)
        text = self.column("text", "text_column", TEXTS)
        if tokens and text.is_default():
            text = self.found_column("tokens", "text_column", tokens)
        return text, self.column("label", "label_column", _TAGS, target=True)

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return `text`, and as `label` its entities: a list of [start, end, label] in characters of the text in NFC.

        An entity that begins at a space keeps it: KLUE's score does not know its beginning, `_spans` leaves it out.

        See `RowReader.prepare`.
        """
        if "tokens" in row:
            tokens = _strings(row["tokens"], "토큰")
        else:
            cell = row["text"]
            tokens = list(cell) if isinstance(cell, str) else _strings(cell, "토큰")
        text, starts = join_tokens(tokens)
        if not text.strip():
            raise BadRow("빈 토큰")
        if "label" not in row:
            return {"text": text}
        tags = _strings(row["label"], "태그")
        if len(tags) != len(tokens):
            raise BadRow("토큰과 수가 다른 태그")
        spans = [
            Span(starts[first], starts[last - 1] + len(tokens[last - 1]), label)
            for first, last, label in read_iob2(tags)
        ]
        whole = unicodedata.normalize("NFC", text)
        return {"text": text, "label": [list(span) for span in composed(spans, text) if trimmed([span], whole)]}

    def relabelled(self, cell: Any, names: Mapping[str, str | None]) -> tuple[Any, Sequence[str]]:
        """Rename kinds of entities; see `RowReader.relabelled`."""
        renamed = [[start, end, names.get(kind, kind)] for start, end, kind in cell]
        return [span for span in renamed if span[2] is not None], [kind for *_, kind in cell if kind in names]

    def written_labels(self, counts: Mapping[str, int]) -> Mapping[str, int]:
        """Return the kinds of entities, without B- and I-; see `RowReader.written_labels`."""
        return {tag[2:]: count for tag, count in counts.items() if tag.startswith("B-")}

    def labels_in(self, cell: str) -> Sequence[str]:
        """Return the row's tags, each once."""
        tags = {"O": None}
        for start, end, label in json.loads(cell):
            tags |= dict.fromkeys((f"B-{label}", f"I-{label}")[: end - start])
        return list(tags)

    def label_names(self, train_labels: Mapping[str, int]) -> tuple[str, ...]:
        """Return O, then B- and I- of every kind of entity, both even if train has one; see `RowReader.label_names`."""
        kinds = sorted({tag.partition("-")[2] for tag in train_labels} - {""})
        if not kinds:
            raise DataError(
                "학습 데이터에 개체가 하나도 없습니다.",
                where=f"라벨 열 '{self.settings.data.label_column}'",
                remedy="태그 가운데 B-로 시작하는 것이 있는지, data.label_column이 맞는지 확인하세요.",
            )
        names = ("O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI"))
        check_number(names, self.settings, "태그")
        return names


class EntityEncoder(TokenLabelEncoder):
    """Encodes texts as windows of tokens. A token's tag is that of its first character."""

    def fit_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Make the tokenizer divide the end of an entity from the particle (조사) after it."""
        check_is_fast(tokenizer, TokenClassification.name)
        cut_words(tokenizer)

    def encode(
        self, rows: RowColumns, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int
    ) -> dict[str, list[Any]]:
        """Encode texts; see `RowEncoder.encode`.

        A long text makes several examples that overlap. Each of its characters counts in one of them. `start` and
        `end` hold the characters of each token, -1 for a token that does not count.
        """
        ids = {name: position for position, name in enumerate(label_names)}
        columns: dict[str, list[Any]] = defaultdict(list)
        for window in text_windows(rows["text"], tokenizer, max_length):
            for name, values in window.inputs.items():
                columns[name].append(values)
            columns["row"].append(rows["row"][window.position])
            columns["truncated"].append(False)
            columns["start"].append(window.starts)
            columns["end"].append(window.ends)
            if "label" in rows:
                tags = _tags_at(_spans(rows["label"][window.position], rows["text"][window.position]), window.starts)
                columns["label"].append([IGNORED if tag is None else ids[tag] for tag in tags])
        return dict(columns)


class EntityScorer(TokenLabelScorer):
    """Cross-entropy over the tokens that hold characters. The best model is the one of highest entity macro-F1.

    Predictions are the likeliest sequence of tags that is legal IOB2: no I- without an entity of its kind to continue.
    """

    best_metric = "entity_macro_f1"
    greater_is_better = True

    def gather(
        self, predictions: Sequence[Any], examples: Dataset, rows: Dataset, label_names: Sequence[str]
    ) -> list[list[TaggedToken]]:
        """Return each row's tokens that count, in the text's order; see `Scorer.gather`."""
        places: dict[int, list[tuple[int, int]]] = {number: [] for number in rows["row"][:]}
        parts: dict[int, list[np.ndarray]] = {number: [] for number in places}
        for scores, number, starts, ends in zip(
            predictions, examples["row"][:], examples["start"][:], examples["end"][:], strict=True
        ):
            places[number].extend(place for place in zip(starts, ends, strict=True) if place[0] >= 0)
            parts[number].append(scores[np.array(starts) >= 0])
        return tagged(list(places.values()), [np.concatenate(windows) for windows in parts.values()], label_names)

    def baseline(self, train_labels: Mapping[str, int], count: int, label_names: Sequence[str]) -> Naive | None:
        """Return the score of a model that finds no entity; see `Scorer.baseline`."""
        return Naive("개체를 하나도 찾지 않으면")

    def drawn_score(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]
    ) -> Callable[[np.ndarray], float]:
        """Return the macro-F1 over the entities of drawn rows; see `Scorer.drawn_score`."""
        counts = entity_counts(*_tagged(predictions, rows, label_names))
        return lambda places: macro_f1(counts[places].sum(0))

    def metrics(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute F1 over entities and over characters other than white space, as KLUE-baseline does.

        Entities count as in seqeval's strict mode. `char_macro_f1` is over all tags, O among them, with an O before and
        after every sentence; a tag that is in neither truth nor prediction counts as 1. `char_macro_f1_without_o` is
        over the tags in truth or prediction, without O.

        `klue_entity_macro_f1` and `klue_char_macro_f1` are of each token's likeliest tag as it is, as KLUE's published
        scores are: an I- that continues no entity of its kind is no entity there. In truth that is one
        which begins at a space, since KLUE leaves out spaces.
        """
        from sklearn.metrics import f1_score

        truth, predicted = _tagged(predictions, rows, label_names)
        kinds = list(entity_scores(truth, predicted).values())
        raw = [raw_tags(*pair, label_names) for pair in zip(predictions, rows["text"], strict=True)]
        raw_truth = [
            write_iob2([Span(*span) for span in json.loads(cell)], text)
            for cell, text in zip(rows["label"], rows["text"], strict=True)
        ]
        characters = [_joined(truth), _joined(predicted)]
        raw_characters = [_joined(raw_truth), _joined(raw)]
        inside = sorted({tag for side in characters for tag in side} - {"O"})
        return {
            "loss": loss,
            "entity_macro_f1": macro_average(kinds).f1,
            "entity_micro_f1": micro_average(truth, predicted).f1,
            "char_macro_f1": float(f1_score(*characters, labels=list(label_names), average="macro", zero_division=1)),
            "char_macro_f1_without_o": float(f1_score(*characters, labels=inside, average="macro", zero_division=0))
            if inside
            else 0.0,
            "klue_entity_macro_f1": macro_average(list(entity_scores(raw_truth, raw).values())).f1,
            "klue_char_macro_f1": float(
                f1_score(*raw_characters, labels=list(label_names), average="macro", zero_division=1)
            ),
        }


class EntityPresenter(Presenter):
    """Shows entities with their probabilities, and scores by kind of entity."""

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return the text and its entities; see `Presenter.show`."""
        if "label" not in row:
            return str(row["text"]), ""
        found = [f"{row['text'][start:end]} {label}" for start, end, label in _spans(row["label"], row["text"])]
        return str(row["text"]), ", ".join(found) or "없음"

    def readable(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """Return `entities` in the text's order. Start and end count characters of the text in NFC."""
        return {
            "entities": [
                {"text": row["text"][start:end], "label": label, "start": start, "end": end, "score": score}
                for (start, end, label), score in decode(prediction, label_names)
            ]
        }

    def labels_said(self, readable: Mapping[str, Any]) -> Sequence[str]:
        """Return the label of each entity."""
        return [entity["label"] for entity in readable["entities"]]

    def details(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> list[str]:
        """Return precision, recall and F1 of every kind of entity."""
        return [
            "개체별 precision, recall, F1",
            *(
                f"  {kind}: {score.precision:.4f}, {score.recall:.4f}, {score.f1:.4f} (정답 {score.support:,}개)"
                for kind, score in entity_scores(*_tagged(predictions, rows, label_names)).items()
            ),
        ]

    def evidence(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> Evidence:
        """Return scores and confusions by kind, and the rows with a wrong entity; see `Presenter.evidence`."""
        scores = entity_scores(*_tagged(predictions, rows, label_names))
        return entity_evidence(predictions, list(map(_spans, rows["label"], rows["text"])), label_names, scores)

    def case(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> Case:
        """Return the text twice, with its entities and with the predicted ones; see `Presenter.case`."""
        said = [span for span, _ in decode(prediction, label_names)]
        return Case(
            (
                Part("정답", row["text"], marks_of(_spans(row["label"], row["text"]))),
                Part("예측", row["text"], marks_of(said)),
            )
        )


def _joined(side: Sequence[Sequence[str]]) -> list[str]:
    """Return the tags of all rows as one sequence, with an O before and after each row."""
    return [tag for tags in side for tag in ("O", *tags, "O")]


def _spans(cell: str, text: str) -> list[Span]:
    """Return the entities of a row, without white space at their ends."""
    return trimmed((Span(*span) for span in json.loads(cell)), text)


def _strings(cell: Any, what: str) -> list[str]:
    """Return the strings of a cell that is a list, or a list as JSON."""
    items = listed(cell, what)
    if what == "태그" and any(isinstance(item, int) for item in items):
        raise BadRow("번호로 된 태그(B-PS처럼 이름으로 써야 합니다)")
    if not all(isinstance(item, str) and item for item in items):
        raise BadRow(f"비었거나 문자열이 아닌 {what}")
    return items


def _tags_at(spans: Sequence[Span], starts: Sequence[int]) -> list[str | None]:
    """Return the tag of the character at each place, None for a place of -1."""
    tags: list[str | None] = []
    rest = list(reversed(spans))
    for place in starts:
        while rest and rest[-1].end <= place:
            rest.pop()
        if place < 0:
            tags.append(None)
        elif not rest or place < rest[-1].start:
            tags.append("O")
        else:
            tags.append(f"{'B' if place == rest[-1].start else 'I'}-{rest[-1].label}")
    return tags


def _tagged(
    predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """Return true and predicted tags of every row's characters."""
    truth = [write_iob2(_spans(cell, text), text) for cell, text in zip(rows["label"], rows["text"], strict=True)]
    predicted = [
        write_iob2([span for span, _ in decode(prediction, label_names)], text)
        for prediction, text in zip(predictions, rows["text"], strict=True)
    ]
    return truth, predicted
