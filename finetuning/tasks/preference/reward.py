"""A reward model: a number for an answer, trained on pairs of which one is better (Bradley and Terry 1952)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exceptions import BadRow, ModelError
from finetuning.config.schema import Settings
from finetuning.tasks.base import Task
from finetuning.tasks.generation.causal import last_turn
from finetuning.tasks.parts import RowColumns, Rows
from finetuning.tasks.preference.encoding import PreferenceEncoder
from finetuning.tasks.preference.losses import LOSSES, PreferenceLoss
from finetuning.tasks.preference.reader import PreferenceReader
from finetuning.tasks.presenter import Presenter
from finetuning.tasks.scorer import Scorer
from finetuning.tasks.tensors import at_least_float32
from finetuning.types import Batch, Column, RandomKey

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class RewardTask(Task):
    """-log σ of the difference between the rewards of a good and a bad answer."""

    name = "reward"
    aliases = ("reward-model", "reward-modeling", "보상 모델")
    auto_class = "AutoModelForSequenceClassification"
    pipeline = "text-classification"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reads = RewardReader(settings)
        self.encodes = RewardEncoder(settings)
        self.scores = RewardScorer(settings)
        self.shows = RewardPresenter()


class RewardReader(PreferenceReader):
    """Reads pairs of answers; to predict, conversations that end with an answer."""

    @property
    def is_of_pairs(self) -> bool:
        """Always: rewards are learned from pairs."""
        return True

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """Return the columns of a pair, or of a question and its answer; see `RowReader.columns`."""
        found = super().columns(available)
        if available and not any(column.name in available for column in found if column.role == "rejected"):
            answered = self._prompt(available, with_answer=True)
            asked = tuple(dataclasses.replace(column, target=False) for column in answered)
            return (*asked, *(column for column in found if column.role in ("chosen", "rejected")))
        return found

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        """Bring a row into `messages`, `tools` and `rejected`; see `RowReader.prepare`."""
        made = super().prepare(row)
        if made["messages"][-1]["role"] != "assistant":
            raise BadRow("점수를 매길 답이 없는 행")
        return made


class RewardEncoder(PreferenceEncoder):
    """Encodes answers; a batch's places are where each answer's reward is read: at its last token."""

    @property
    def loss(self) -> PreferenceLoss:
        """A loss of pairs, which trains no token."""
        return LOSSES["dpo"]

    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        """Pad examples, a row for each answer; see `RowEncoder.collate`."""
        batch = super().collate(examples, tokenizer, key)
        width = batch.inputs["input_ids"].shape[1]
        lengths = [length for example in examples for length in _lengths(example)]
        return _read_at(batch, [(row * width, row * width + length) for row, length in enumerate(lengths)], tokenizer)

    def collate_rows(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, key: RandomKey | None = None) -> Batch:
        """Collate examples in one row; see `RowEncoder.collate_rows`."""
        spans, start = [], 0
        for example in rows[0]:
            shared, *branches = example.get("branches") or (0, len(example["input_ids"]))
            start += shared
            for length in branches:
                spans.append((start, start + length))
                start += length
        return _read_at(super().collate_rows(rows, tokenizer, key), spans, tokenizer)


class RewardScorer(Scorer):
    """The reward of the last token of each answer, by the head of a model for sequence classification."""

    best_metric = "reward_accuracy"
    greater_is_better = True

    def config_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        """Return a single output."""
        return {"num_labels": 1}

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Tell the model its padding; see `Scorer.fit_model`. Raise ModelError for an encoder."""
        if not hasattr(model, "score"):
            raise ModelError(
                f"{model.config.model_type} 모델로는 보상 모델을 만들 수 없습니다.",
                where=f"model.name: {self.settings.model.name}",
                remedy="GPT나 Llama 같은 생성 모델을 고르세요. 보통 대화로 학습한 모델에서 시작합니다.",
            )
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the reward of each answer, (answers,)."""
        assert batch.places is not None
        states = model.base_model(**batch.inputs, use_cache=False).last_hidden_state
        head: Any = model.score
        rewards: torch.Tensor = head(states.flatten(0, 1).index_select(0, batch.places))
        return at_least_float32(rewards.squeeze(-1))

    def loss_sum(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the loss summed over pairs; 0 for answers that are alone."""
        from torch.nn.functional import logsigmoid

        if batch.answers is None or batch.answers.count == batch.items:
            return outputs.sum() * 0
        return -logsigmoid(outputs[::2] - outputs[1::2]).sum()

    def predictions(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """Return the rewards of each example: two of a pair, one of an answer alone."""
        rewards: list[list[float]] = outputs.float().view(batch.items, -1).tolist()
        return rewards

    def metrics(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute how often the good answer has the higher reward, and by how much."""
        good, bad = zip(*predictions, strict=True)
        count = len(predictions)
        return {
            "loss": loss,
            "reward_accuracy": sum(one > other for one, other in predictions) / count,
            "reward_margin": (sum(good) - sum(bad)) / count,
            "reward_good": sum(good) / count,
            "reward_bad": sum(bad) / count,
        }


class RewardPresenter(Presenter):
    """Shows questions with their answer and its reward."""

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return the last question with its answer; see `Presenter.show`."""
        asked, answer = last_turn(row["messages"])
        return f"{asked} / {answer}", ""

    def readable(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """Return the reward of the answer, and of a pair that of the bad one, too."""
        return dict(zip(("reward", "reward_rejected"), prediction, strict=False))


def _lengths(example: Mapping[str, Any]) -> list[int]:
    """Return the number of tokens of each of an example's answers with its prompt."""
    shared, *branches = example.get("branches") or (0, len(example["input_ids"]))
    return [shared + length for length in branches]


def _read_at(batch: Batch, spans: Sequence[tuple[int, int]], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Let rewards be read at the last token of each span that is no padding token, as transformers' pipeline does."""
    import torch

    ids, padding = batch.inputs["input_ids"].flatten(), tokenizer.pad_token_id
    places = []
    for start, end in spans:
        while end - 1 > start and ids[end - 1] == padding:
            end -= 1
        places.append(end - 1)
    return dataclasses.replace(batch, labels=None, places=torch.tensor(places))
