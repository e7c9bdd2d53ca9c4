"""Questions with several possible answers, as one row of tokens without padding: a question's own tokens stand once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from finetuning.ops.dense_attention import branching_tokens
from finetuning.tasks.vocabulary import vocabulary_batch
from finetuning.types import IGNORED, Batch


@dataclass(frozen=True)
class Question:
    """A context and the answers to be scored behind it.

    Attributes:
        context: Token ids, at least one.
        answers: Token ids of each answer, at least one each.
        places: Where each answer stands among the requests.
    """

    context: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    places: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens that the layers compute. Each answer begins with the last token of the context, which predicts it."""
        return len(self.context) - 1 + sum(map(len, self.answers))


def questions_of(requests: Sequence[tuple[Sequence[int], Sequence[int]]], max_length: int) -> list[Question]:
    """Gather the answers to the same context.

    Args:
        requests: Token ids of a context and of an answer.
        max_length: Tokens that the model reads at once. Of a longer request the end counts, as lm-evaluation-harness
            has it: its last token is only predicted, so one more is kept.

    Returns:
        The questions.

    Raises:
        ValueError: An answer is longer than the model reads.
    """
    gathered: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
    for place, (context, answer) in enumerate(requests):
        if not 0 < len(answer) <= max_length:
            raise ValueError(f"an answer of {len(answer)} tokens, of at most {max_length}")
        kept = tuple(context)[-(max_length + 1 - len(answer)) :]
        gathered.setdefault(kept, []).append((place, tuple(answer)))
    return [
        Question(context, tuple(answer for _, answer in own), tuple(place for place, _ in own))
        for context, own in gathered.items()
    ]


def one_row(questions: Sequence[Question]) -> Batch:
    """Put questions into one row; each answer attends to its own question and itself.

    Args:
        questions: The questions.

    Returns:
        The batch. Its labels are the answers' tokens, in the order of the questions and of their answers.
    """
    ids, positions, labels, shapes = list[int](), list[int](), list[int](), []
    for question in questions:
        shared = len(question.context) - 1
        ids += question.context[:-1]
        positions += range(shared)
        labels += [IGNORED] * shared
        for answer in question.answers:
            ids += [question.context[-1], *answer[:-1]]
            positions += range(shared, shared + len(answer))
            labels += answer
        shapes.append((shared, [len(answer) for answer in question.answers]))
    inputs = {"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([positions])}
    batch = vocabulary_batch(inputs, torch.tensor([labels]), len(ids), sequences=len(questions))
    return Batch(**{**vars(batch), "dense": branching_tokens(shapes)})
