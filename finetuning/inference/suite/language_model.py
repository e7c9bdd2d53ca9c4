"""A model of this program as lm-evaluation-harness asks for it: the same requests, computed without padding."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM

from finetuning.inference.evaluator import Evaluator
from finetuning.inference.suite.questions import Question, one_row, questions_of
from finetuning.models.probes import attends_within_sequences
from finetuning.ops.dense_attention import without_padding
from finetuning.ops.model_head import as_identity
from finetuning.ops.vocabulary_loss import items_with_all_logits
from finetuning.reporting.log import progress_bar
from finetuning.tasks.vocabulary import chosen_labels, only_head_positions, plain_head_of
from finetuning.types import Batch

Score = tuple[float, bool]
"""Log-probability of an answer, and whether it is what greedy decoding would say."""


class SuiteModel(HFLM):
    """Answers lm-evaluation-harness. Prompts are encoded, cut and generated from as its own `hf` model does it.

    The answers of one question share its tokens. A model whose sequences cannot stand in one row is given one request
    at a time, which has no padding either.

    Args:
        evaluator: Holds the model, on its device.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        super().__init__(pretrained=evaluator.model, tokenizer=evaluator.tokenizer, backend="causal", batch_size=1)
        self._evaluator = evaluator
        self._in_one_row = attends_within_sequences(evaluator.model, self.max_length)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[Score]:
        """Return the log-probability of each answer; see `LM.loglikelihood`."""
        found: list[Score] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return found

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = True,
        override_bs: int | None = None,
    ) -> list[Score]:
        if not self._in_one_row:
            found: list[Score] = super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)
            return found
        questions = questions_of([(context, answer) for _, context, answer in requests], self.max_length)
        evaluator, runtime = self._evaluator, self._evaluator.runtime
        options = evaluator.task.settings.logging
        with progress_bar(options, len(questions), 0, runtime.is_main, "채점", "문항") as bar:

            def work(indices: np.ndarray) -> list[list[Score]]:
                made = self._scores([questions[index] for index in indices])
                bar.update(len(indices))
                return made

            lengths = np.array([question.tokens for question in questions])
            scores = {
                place: score
                for question, own in zip(questions, evaluator.in_batches(lengths, work), strict=True)
                for place, score in zip(question.places, own, strict=True)
            }
        return [scores[place] for place in range(len(requests))]

    def _scores(self, questions: Sequence[Question]) -> list[list[Score]]:
        """Score the answers of questions that fit into one row."""
        runtime = self._evaluator.runtime
        batch = runtime.on_device(one_row(questions))
        with runtime.autocast(), without_padding(self.model, batch.dense):
            values, greedy = _answer_tokens(self.model, batch)
        sizes = [len(answer) for question in questions for answer in question.answers]
        sums = torch.stack([part.sum() for part in values.split(sizes)]).tolist()
        said = torch.stack([part.all() for part in greedy.split(sizes)]).tolist()
        answers = iter(zip(sums, said, strict=True))
        return [[next(answers) for _ in question.answers] for question in questions]


def _answer_tokens(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each labelled token's log-probability, and whether it is the likeliest; (items,) each.

    The logits are computed a chunk at a time where the head is plain.
    """
    labels, head = chosen_labels(batch), plain_head_of(model)
    with as_identity(head) if head is not None else nullcontext(), only_head_positions(model, batch):
        states = model(**batch.inputs, use_cache=False).logits[0]
    at_once = items_with_all_logits(states.device.type, len(head.weight)) if head is not None else len(states)
    values, greedy = [], []
    for part, wanted in zip(states.split(at_once), labels.split(at_once), strict=True):
        logits = (part if head is None else head(part)).float()
        values.append(logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0])
        greedy.append(logits.argmax(-1) == wanted)
    return torch.cat(values), torch.cat(greedy)
