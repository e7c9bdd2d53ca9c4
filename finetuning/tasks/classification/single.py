"""Classification of a text, or of a pair of texts, into one of several labels."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from exceptions import BadRow, DataError, SettingsError
from finetuning.cells import as_label
from finetuning.config.schema import Settings
from finetuning.korean.column_names import LABELS, TEXTS, pair_in
from finetuning.tasks.base import Batch, Column, RandomKey, Task, at_least_float32, encode_text, pad

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_MAX_LABELS = 1000
_MOSTLY = 0.9
_NO_RELATION = "no_relation"
_FOUND_PAIR = "text_pair"  # the settings' name for the second text of a pair that was found by its usual names


class TextClassification(Task):
    """Cross-entropy over a sequence-classification head; the best model is the one of highest accuracy."""

    name = "text-classification"
    aliases: ClassVar[tuple[str, ...]] = ("sequence-classification", "sentiment-analysis", "텍스트 분류", "문장 분류")
    auto_class = "AutoModelForSequenceClassification"
    pipeline = "text-classification"
    best_metric = "accuracy"
    greater_is_better = True
    has_labels = True

    @classmethod
    def for_settings(cls, settings: Settings) -> Task:
        """Regression where `model.num_labels` is 1; several labels for one text where `data.multi_label` is on."""
        from finetuning.tasks.classification.multi_label import MultiLabelClassification
        from finetuning.tasks.classification.regression import TextRegression

        if cls is not TextClassification:
            return cls(settings)
        if settings.model.num_labels == 1 and settings.data.multi_label:
            raise SettingsError(
                "회귀(model.num_labels: 1)와 다중 라벨 분류(data.multi_label: true)를 함께 할 수 없습니다.",
                where="model.num_labels, data.multi_label",
                remedy="점수를 맞히려면 multi_label을, 라벨을 여럿 고르려면 num_labels를 지우세요.",
            )
        if settings.model.num_labels == 1:
            return TextRegression(settings)
        return MultiLabelClassification(settings) if settings.data.multi_label else cls(settings)

    def for_data(self, roles: Sequence[str], train_labels: Mapping[str, int]) -> Task:
        """Regression where labels are numbers, some with a fraction, and `model.num_labels` does not say classes.

        A few rows whose label is no number leave it at that: regression counts them and names them.
        """
        from finetuning.tasks.classification.regression import TextRegression

        numbers = {label: number for label in train_labels if (number := _number(label)) is not None}
        rows = sum(train_labels[label] for label in numbers)
        task = self.for_roles(roles)
        if self.settings.model.num_labels is not None or rows < _MOSTLY * sum(train_labels.values()):
            return task
        if all(number.is_integer() for number in numbers.values()):
            return task
        _log.info(
            "라벨이 소수이므로 점수를 맞히는 회귀(text-regression)로 데이터를 다시 읽습니다. "
            "라벨로 분류하려면 model.num_labels에 라벨의 수를 쓰세요."
        )
        return TextRegression(task.settings)

    def for_roles(self, roles: Sequence[str]) -> Task:
        """The task whose settings say that texts are pairs, where the data was found to have such."""
        if "text_pair" not in roles or self.settings.data.text_pair_column is not None:
            return self
        data = self.settings.data.model_copy(update={"text_pair_column": _FOUND_PAIR})
        return type(self)(self.settings.model_copy(update={"data": data}))

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """A text, or a pair: as the settings say or, where they name no text and the source has none, a usual one."""
        data = self.settings.data
        texts = [Column("text", "text_column", data.text_column, TEXTS)]
        may_be_found = data.text_pair_column in (None, _FOUND_PAIR) and texts[0].is_default()
        if may_be_found and data.text_column not in available and (pair := pair_in(available)):
            first, second = (name.casefold() for name in pair)
            texts = [
                Column("text", "text_column", data.text_column, (first,)),
                Column("text_pair", "text_pair_column", None, (second,)),
            ]
        elif data.text_pair_column:
            texts.append(Column("text_pair", "text_pair_column", data.text_pair_column))
        return (*texts, Column("label", "label_column", data.label_column, LABELS, target=True))

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        if isinstance(row.get("label"), list | dict):
            raise BadRow("목록인 라벨(라벨이 여럿이면 data.multi_label: true)")
        if "label" in row:
            row["label"] = as_label(row["label"])
        return row

    def label_names(self, train_labels: Mapping[str, int]) -> tuple[str, ...]:
        column = self.settings.data.label_column
        if len(train_labels) < 2:
            only = next(iter(train_labels), "없음")
            raise DataError(
                f"학습 데이터의 라벨이 한 가지뿐입니다: {only}",
                where=f"라벨 열 '{column}'",
                remedy="라벨이 둘 이상 있는 데이터인지, data.label_column이 맞는지 확인하세요.",
            )
        if len(train_labels) > _MAX_LABELS or len(train_labels) == sum(train_labels.values()) > 20:
            raise DataError(
                f"라벨이 {len(train_labels):,}가지나 됩니다. 분류 라벨이 아닌 열로 보입니다.",
                where=f"라벨 열 '{column}'",
                remedy="data.label_column에 라벨이 있는 열의 이름을 쓰세요.",
            )
        return self.in_order(train_labels)

    def in_order(self, labels: Mapping[str, int]) -> tuple[str, ...]:
        """Labels in the order of their ids; DataError where there are not as many as `model.num_labels` says."""
        asked = self.settings.model.num_labels
        if asked not in (None, len(labels)):
            raise DataError(
                f"학습 데이터의 라벨은 {len(labels):,}가지인데 model.num_labels는 {asked:,}입니다.",
                where=f"라벨 열 '{self.settings.data.label_column}'",
                remedy="데이터를 확인하거나, model.num_labels를 지우고 데이터에서 찾게 하세요.",
            )
        return tuple(sorted(labels, key=label_order))

    def config_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        return {**super().config_options(label_names), "problem_type": "single_label_classification"}

    def encode(
        self,
        rows: Mapping[str, Sequence[Any]],
        tokenizer: PreTrainedTokenizerBase,
        label_names: Sequence[str],
        max_length: int,
    ) -> dict[str, list[Any]]:
        columns = encode_text(tokenizer, rows["text"], rows.get("text_pair"), max_length)
        if "label" in rows:
            ids = {name: position for position, name in enumerate(label_names)}
            columns["label"] = [ids[label] for label in rows["label"]]
        return columns

    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        import torch

        inputs, tokens = pad(examples, tokenizer)
        labels = torch.tensor([example["label"] for example in examples]) if "label" in examples[0] else None
        return Batch(inputs, labels, items=len(examples), tokens=tokens)

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = model(**batch.inputs).logits
        return logits

    def loss_sum(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        import torch

        assert batch.labels is not None
        return torch.nn.functional.cross_entropy(at_least_float32(logits), batch.labels, reduction="sum")

    def outcomes(self, logits: torch.Tensor, batch: Batch) -> list[Any]:
        """Each example's probability of every label."""
        return list(logits.float().softmax(-1).cpu().numpy())

    def metrics(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Accuracy and macro-F1; of relations, KLUE-RE's micro-F1 too, which leaves `no_relation` out."""
        from sklearn.metrics import accuracy_score, f1_score

        truth, predicted = list(rows["label"]), [label_names[int(scores.argmax())] for scores in outcomes]
        found = {
            "loss": loss,
            "accuracy": float(accuracy_score(truth, predicted)),
            "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0)),
        }
        if _NO_RELATION in label_names:
            relations = [name for name in label_names if name != _NO_RELATION]
            found["relation_micro_f1"] = float(
                f1_score(truth, predicted, labels=relations, average="micro", zero_division=0)
            )
        return found

    def readable(
        self, outcome: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        best = int(outcome.argmax())
        return {"label": label_names[best], "score": float(outcome[best])}

    def details(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]
    ) -> list[str]:
        from sklearn.metrics import confusion_matrix

        if len(label_names) > 20:
            return []
        predicted = [label_names[int(scores.argmax())] for scores in outcomes]
        table = confusion_matrix(list(rows["label"]), predicted, labels=list(label_names))
        lines = ["혼동 행렬 (행: 정답, 열: 예측)"]
        lines += [
            f"  {name}: " + ", ".join(f"{column} {count:,}" for column, count in zip(label_names, row, strict=True))
            for name, row in zip(label_names, table, strict=True)
        ]
        return lines


def label_order(name: str) -> tuple[int, float, str]:
    """Numbers by their value, before words by their spelling, so that ids agree with labels that are 0, 1, 2 ... 10."""
    number = _number(name)
    return (1, 0.0, name) if number is None else (0, number, name)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None  # `nan` and `inf` are words here: they have no place in an order
