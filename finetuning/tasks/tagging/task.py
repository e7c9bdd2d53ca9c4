"""Named entities: a tag for every token, read as spans of the text's characters."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from exceptions import BadRow, DataError
from finetuning.korean.column_names import TEXTS
from finetuning.korean.word_cuts import cut_into_pieces, windows_of
from finetuning.tasks.base import IGNORED, Batch, Column, RandomKey, Task, at_least_float32, pad
from finetuning.tasks.tagging.spans import Span, composed, join_tokens, read_iob2, trimmed, write_iob2

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TOKENS = ("tokens", "words", "토큰", "어절")
_TAGS = ("ner_tags", "tags", "labels", "ner", "태그", "개체명")


class TokenClassification(Task):
    """Cross-entropy over the tokens that hold characters; the best model is the one of highest entity macro-F1.

    A token's tag is that of its first character. Predictions are each token's likeliest tag, read so that they are
    always IOB2: an I- that continues no entity of its kind begins one.
    """

    name = "token-classification"
    aliases = ("ner", "named-entity-recognition", "개체명 인식", "토큰 분류")
    auto_class = "AutoModelForTokenClassification"
    pipeline: ClassVar[str | None] = "token-classification"
    best_metric = "entity_macro_f1"
    counts_characters = True
    greater_is_better = True
    has_labels = True

    def fit_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Keeps a token from holding the end of an entity and the particle (조사) after it."""
        cut_into_pieces(tokenizer, self.name)

    # --- rows ---

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """Tokens and their tags; where there are no tokens, a text, with a tag for each of its characters."""
        data = self.settings.data
        tokens = next((name for name in available if name.casefold() in _TOKENS), None)
        text = Column("text", "text_column", data.text_column, TEXTS)
        if tokens and data.text_column == type(data).model_fields["text_column"].default:
            text = Column("tokens", "text_column", tokens)
        return text, Column("label", "label_column", data.label_column, _TAGS, target=True)

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        """`text`, and as `label` its entities: a list of [start, end, label] in the characters of its NFC."""
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
        return {"text": text, "label": [list(span) for span in composed(trimmed(spans, text), text)]}

    def labels_in(self, cell: str) -> Sequence[str]:
        """The tags of a row, each once."""
        tags = {"O": None}
        for start, end, label in _spans(cell):
            tags |= dict.fromkeys((f"B-{label}", f"I-{label}")[: end - start])
        return list(tags)

    def label_names(self, train_labels: Mapping[str, int]) -> tuple[str, ...]:
        """O, then B- and I- of every kind of entity: both, so that whatever is predicted can be said."""
        column, asked = self.settings.data.label_column, self.settings.model.num_labels
        kinds = sorted({tag.partition("-")[2] for tag in train_labels} - {""})
        if not kinds:
            raise DataError(
                "학습 데이터에 개체가 하나도 없습니다.",
                where=f"라벨 열 '{column}'",
                remedy="태그 가운데 B-로 시작하는 것이 있는지, data.label_column이 맞는지 확인하세요.",
            )
        names = ("O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI"))
        if asked not in (None, len(names)):
            raise DataError(
                f"학습 데이터의 태그는 {len(names):,}가지인데 model.num_labels는 {asked:,}입니다.",
                where=f"라벨 열 '{column}'",
                remedy="데이터를 확인하거나, model.num_labels를 지우고 데이터에서 찾게 하세요.",
            )
        return names

    # --- examples ---

    def encode(
        self,
        rows: Mapping[str, Sequence[Any]],
        tokenizer: PreTrainedTokenizerBase,
        label_names: Sequence[str],
        max_length: int,
    ) -> dict[str, list[Any]]:
        """A text that is too long makes several examples, which overlap; each of its characters counts in one."""
        ids = {name: position for position, name in enumerate(label_names)}
        columns: dict[str, list[Any]] = defaultdict(list)
        for window in windows_of(rows["text"], tokenizer, max_length):
            for name, values in window.inputs.items():
                columns[name].append(values)
            columns["row"].append(rows["row"][window.position])
            columns["truncated"].append(False)
            columns["start"].append(window.starts)
            columns["end"].append(window.ends)
            if "label" in rows:
                tags = _tags_at(_spans(rows["label"][window.position]), window.starts)
                columns["label"].append([IGNORED if tag is None else ids[tag] for tag in tags])
        return dict(columns)

    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        import torch

        inputs, tokens = pad(examples, tokenizer)
        if "label" not in examples[0]:
            return Batch(inputs, None, items=len(examples), tokens=tokens)
        labels = torch.full_like(inputs["input_ids"], IGNORED)
        for position, example in enumerate(examples):
            labels[position, : len(example["label"])] = torch.tensor(example["label"])
        return Batch(inputs, labels, items=int((labels != IGNORED).sum()), tokens=tokens)

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = model(**batch.inputs).logits
        return logits

    def loss_sum(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        import torch

        assert batch.labels is not None
        logits = at_least_float32(logits)
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )

    # --- predictions ---

    def outcomes(self, logits: torch.Tensor, batch: Batch) -> list[Any]:
        """Each example's (likeliest tag's id, its probability) by token."""
        scores, ids = logits.float().softmax(-1).max(-1)
        lengths = batch.inputs["attention_mask"].sum(1).tolist()
        return [
            (found[:length], sure[:length])
            for found, sure, length in zip(ids.cpu().numpy(), scores.cpu().numpy(), lengths, strict=True)
        ]

    def gather(self, outcomes: Sequence[Any], examples: Dataset, rows: Dataset) -> list[Any]:
        """Each row's (start, end, tag's id, probability) of every token that counts, in the order of its text."""
        found: dict[int, list[tuple[int, int, int, float]]] = {number: [] for number in rows["row"][:]}
        for (ids, scores), number, starts, ends in zip(
            outcomes, examples["row"][:], examples["start"][:], examples["end"][:], strict=True
        ):
            parts = zip(starts, ends, ids.tolist(), scores.tolist(), strict=True)
            found[number].extend(part for part in parts if part[0] >= 0)
        return list(found.values())

    def metrics(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Entities and characters, white space left out, as KLUE-baseline counts them.

        Entities: seqeval, strict IOB2. char_macro_f1: over all tags, O among them, with an O before and after every
        sentence; a tag that neither side has counts as 1. char_macro_f1_without_o: over the tags that a side has.
        """
        from sklearn.metrics import f1_score

        truth, predicted = _tagged(outcomes, rows, label_names)
        report = _entity_report(truth, predicted)
        characters = [[tag for tags in side for tag in ("O", *tags, "O")] for side in (truth, predicted)]
        inside = sorted({tag for side in characters for tag in side} - {"O"})
        return {
            "loss": loss,
            "entity_macro_f1": float(report["macro avg"]["f1-score"]) if inside else 0.0,
            "entity_micro_f1": float(report["micro avg"]["f1-score"]) if inside else 0.0,
            "char_macro_f1": float(f1_score(*characters, labels=list(label_names), average="macro", zero_division=1)),
            "char_macro_f1_without_o": float(f1_score(*characters, labels=inside, average="macro", zero_division=0))
            if inside
            else 0.0,
        }

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        if "label" not in row:
            return str(row["text"]), ""
        found = [f"{row['text'][start:end]} {label}" for start, end, label in _spans(row["label"])]
        return str(row["text"]), ", ".join(found) or "없음"

    def readable(
        self, outcome: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """`entities` in the order of the text; start and end count characters of the text in NFC."""
        return {
            "entities": [
                {"text": row["text"][start:end], "label": label, "start": start, "end": end, "score": score}
                for (start, end, label), score in decode(outcome, label_names)
            ]
        }

    def details(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]
    ) -> list[str]:
        report = _entity_report(*_tagged(outcomes, rows, label_names))
        return [
            "개체별 precision, recall, F1",
            *(
                f"  {name}: {line['precision']:.4f}, {line['recall']:.4f}, {line['f1-score']:.4f} "
                f"(정답 {int(line['support']):,}개)"
                for name, line in report.items()
                if not name.endswith(" avg")
            ),
        ]


def decode(pieces: Sequence[tuple[int, int, int, float]], label_names: Sequence[str]) -> list[tuple[Span, float]]:
    """Entities of a row's pieces (start, end, tag's id, probability), each with the mean of its probabilities."""
    found: list[tuple[Span, list[float]]] = []
    before = ""
    for start, end, tag, score in pieces:
        prefix, _, label = label_names[tag].partition("-")
        if prefix == "I" and label == before:
            span, scores = found[-1]
            found[-1] = (span._replace(end=end), [*scores, score])
        elif label:
            found.append((Span(start, end, label), [score]))
        before = label
    return [(span, float(np.mean(scores))) for span, scores in found]


def _spans(cell: str) -> list[Span]:
    return [Span(*span) for span in json.loads(cell)]


def _strings(cell: Any, what: str) -> list[str]:
    """A cell that is a list of strings, or that list as JSON."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = json.loads(cell)
        except ValueError:
            raise BadRow(f"JSON 목록이 아닌 {what}") from None
    if not isinstance(cell, list):
        raise BadRow(f"목록이 아닌 {what}")
    if what == "태그" and any(isinstance(item, int) for item in cell):
        raise BadRow("번호로 된 태그(B-PS처럼 이름으로 써야 합니다)")
    if not all(isinstance(item, str) and item for item in cell):
        raise BadRow(f"비었거나 문자열이 아닌 {what}")
    return cell


def _tags_at(spans: Sequence[Span], starts: Sequence[int]) -> list[str | None]:
    """The tag of the character at each place; None where the place is -1."""
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
    outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """Tags of every row's characters: the truth, and the prediction."""
    truth = [write_iob2(_spans(cell), text) for cell, text in zip(rows["label"], rows["text"], strict=True)]
    predicted = [
        write_iob2([span for span, _ in decode(outcome, label_names)], text)
        for outcome, text in zip(outcomes, rows["text"], strict=True)
    ]
    return truth, predicted


def _entity_report(truth: list[list[str]], predicted: list[list[str]]) -> dict[str, Any]:
    from seqeval.metrics import classification_report
    from seqeval.scheme import IOB2

    if not any(tag != "O" for side in (truth, predicted) for tags in side for tag in tags):
        return {}
    report: dict[str, Any] = classification_report(
        truth, predicted, mode="strict", scheme=IOB2, output_dict=True, zero_division=0
    )
    return report
