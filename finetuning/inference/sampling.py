"""Several answers to each prompt, in batches of like length whose results are kept as they are made.

The batches are a function of the prompts and the settings alone; several processes make them in turns. So answers that
were stopped and resumed, on any number of processes, are those of a run that never stopped, bit for bit on one kind of
device, unless memory ran out in one of the two and a batch was halved.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetuning.data.examples import batches_by_length
from finetuning.device.sharding import is_sharded
from finetuning.inference.evaluator import BUDGET_FACTOR, Evaluator, unless_out_of_memory
from finetuning.inference.journal import Journal, open_journal
from finetuning.korean.text_quality import GeneratedText
from finetuning.tasks.generation.causal import CausalScorer
from finetuning.tasks.generation.decoding import Decoding

_log = logging.getLogger(__name__)
_TOLD = 10  # lines of progress


@dataclass(frozen=True)
class Sampler:
    """Draws answers.

    Attributes:
        evaluator: Holds the model, of a task whose scores are a CausalScorer.
        scorer: That scorer.
        decoding: How answers are drawn.
        count: Number of answers to each prompt.
        weights: A hash of the model's weights.
    """

    evaluator: Evaluator
    scorer: CausalScorer
    decoding: Decoding
    count: int
    weights: str

    def sample(self, rows: Sequence[Mapping[str, Any]], path: Path) -> list[list[GeneratedText]]:
        """Draw the answers to each row's prompt.

        Args:
            rows: Clean rows of conversations.
            path: The file that keeps the answers until all are made.

        Returns:
            `count` answers to each row, in the order of the rows.

        Raises:
            SettingsError: The file holds answers of other work.
            StopRequested: A stop was asked for. The batches so far are kept.
        """
        evaluator = self.evaluator
        prompts = self.scorer.prompts(evaluator.model, rows, evaluator.tokenizer, evaluator.max_length, self.decoding)
        lengths = np.repeat([len(ids) for ids in prompts], self.count) + self.decoding.max_new_tokens
        budget = BUDGET_FACTOR * evaluator.memory.token_budget
        numbers = np.concatenate(self._numbers(prompts))
        runtime = evaluator.runtime
        journal = runtime.on_main(lambda: open_journal(path, self._work(prompts, budget)))
        batches, texts = batches_by_length(lengths, budget), dict[int, GeneratedText]()
        if journal.done:
            _log.info("만들어 둔 답에서 이어서 만듭니다. 묶음 %s/%s개", f"{len(journal.done):,}", f"{len(batches):,}")
        evaluator.model.eval()
        todo = [number for number in range(len(batches)) if number not in journal.done]
        for start in range(0, len(todo), runtime.processes):  # a batch for each process
            turn = todo[start : start + runtime.processes]
            evaluator.check_stop()
            mine = turn[min(runtime.process, len(turn) - 1)]  # all run a sharded model equally often
            made = self._made(prompts, batches[mine], numbers, lengths)
            found = runtime.by_process([[one.text, one.ended] for one in made])[: len(turn)]
            runtime.on_main(partial(_keep, journal, turn, found, len(batches)))
            journal.done.update(zip(turn, found, strict=True))
        for number, batch in enumerate(batches):
            kept = (GeneratedText(text, ended) for text, ended in journal.done[number])
            texts.update(zip(batch.tolist(), kept, strict=True))
        return [[texts[row * self.count + answer] for answer in range(self.count)] for row in range(len(rows))]

    def _numbers(self, prompts: Sequence[Sequence[int]]) -> list[range]:
        """Return the numbers of each row's answers: those of a prompt that occurs again go on counting."""
        seen, found = Counter[tuple[int, ...]](), list[range]()
        for ids in map(tuple, prompts):
            first = seen[ids] * self.count
            found.append(range(first, first + self.count))
            seen[ids] += 1
        return found

    def _made(
        self, prompts: list[list[int]], batch: np.ndarray, numbers: np.ndarray, lengths: np.ndarray
    ) -> list[GeneratedText]:
        """Return the answers of a batch, of its halves where it does not fit into memory."""
        evaluator = self.evaluator

        def work(places: np.ndarray) -> list[GeneratedText]:
            asked = [prompts[place] for place in (places // self.count).tolist()]
            answers = numbers[places].tolist()
            with evaluator.runtime.generating():
                return self.scorer.continued(evaluator.model, asked, evaluator.tokenizer, self.decoding, answers)

        if (made := unless_out_of_memory(work, batch)) is not None:
            return made
        if is_sharded(evaluator.model):  # the others wait for this process inside a pass
            raise evaluator.memory.ran_out("답을 만드는 도중에 메모리가 부족해졌습니다.")
        evaluator.memory.shrink(int(lengths[batch].max()) * len(batch), len(batch))
        halves = np.array_split(batch, 2)
        return [one for half in halves for one in self._made(prompts, half, numbers, lengths)]

    def _work(self, prompts: Sequence[Sequence[int]], budget: int) -> dict[str, str]:
        """Return what the answers depend on, by a Korean name."""
        evaluator = self.evaluator
        settings = [
            repr(self.decoding), self.count, budget, evaluator.task.settings.training.seed,
            evaluator.runtime.precision, evaluator.runtime.device_name, torch.__version__,
        ]  # fmt: skip
        return {
            "모델": self.weights,
            "프롬프트": hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest(),
            "생성 설정": json.dumps(settings, ensure_ascii=False),
        }


def _keep(journal: Journal, turn: Sequence[int], made: Sequence[Any], batches: int) -> None:
    """Add batches to the journal, and log the progress some ten times."""
    for number, own in zip(turn, made, strict=True):
        journal.add(number, own)
        if (number + 1) * _TOLD // batches > number * _TOLD // batches:
            _log.info("답을 만드는 중: 묶음 %s/%s개", f"{len(journal.done):,}", f"{batches:,}")
