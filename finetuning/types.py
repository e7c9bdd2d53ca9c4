"""Frozen types that rooms hand to each other. This module imports nothing of the project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch

OF_TOKENS = ("input_ids", "token_type_ids")  # columns of examples with a value for each token
IGNORED = -100  # label of a token that has no loss, PyTorch's default `ignore_index`


@dataclass(frozen=True)
class Column:
    """A column that a task reads from a data source.

    Attributes:
        role: Key under which the task finds the cell in a row, whatever the source calls the column.
        setting: Field of the `data` section that names the column.
        name: Name to look for, or None if the task can do without the column.
        default: The setting's default value.
        usual: Common names in lower case, tried while the setting has its default.
        target: Whether the column holds what is to be predicted. Unlabelled data lacks such columns.
        optional: Whether the column, or a row's cell in it, may be missing.
    """

    role: str
    setting: str
    name: str | None
    default: str | None = None
    usual: tuple[str, ...] = ()
    target: bool = False
    optional: bool = False

    def is_default(self) -> bool:
        """Return whether the name is the setting's default, so that a common name may stand in for it."""
        return self.name == self.default


@dataclass(frozen=True)
class DenseTokens:
    """Index maps between a padded batch, one sequence a row, and one dense row of its real tokens.

    Attributes:
        gather: Place of each real token in the flattened padded batch, (real tokens,) int64; where `is_filled`, of
            each row of the dense row, (length,).
        spread: Place in the dense row for each padded position, (rows, tokens) int64. A padding position
            points to the token before it.
        bounds: Where each sequence begins in the dense row, and where the last one ends, (sequences + 1,) int32; what
            fills the row up to a multiple counts as a sequence. None where sequences share tokens.
        real: Which positions are real tokens, (rows, 1, 1, tokens) bool. None under causal attention, where
            padding at the end of a sequence is never attended to.
        repeated: Of tokens that stand in more than one padded row, since sequences share them: the token's place in
            the dense row, and the place of each further copy in the flattened padded batch; (copies,) int64 each.
        attend: The way to compute attention (ops/attention_ways.py); None for padded rows.
        multiple: The dense row's length is a multiple of it.
        is_filled: Whether `gather` also has a place for what fills the dense row up: the one behind the padded batch.
            Shapes then say nothing about the number of real tokens, and come back.
        made: What that way has made of the maps, to make it once.
        groups: The maps of runs of rows of like length, in the order of the rows, each padded to its own longest, for
            attention on padded rows. Empty where all rows are one group.
        embeds: Whether an encoder's embeddings are looked up for the dense row, too.
        firsts: Whether an encoder's last layer computes the first token of each sequence alone, since nothing reads the
            others.
    """

    gather: torch.Tensor
    spread: torch.Tensor
    bounds: torch.Tensor | None
    real: torch.Tensor | None
    repeated: tuple[torch.Tensor, torch.Tensor] | None = None
    attend: Callable[..., torch.Tensor] | None = None
    multiple: int = 1
    is_filled: bool = False
    made: dict[Any, Any] = field(default_factory=dict, compare=False)
    groups: tuple[DenseTokens, ...] = ()
    embeds: bool = False
    firsts: bool = False

    def mapped(self, convert: Callable[[torch.Tensor], torch.Tensor]) -> DenseTokens:
        """Return a copy with `convert` applied to each tensor, such as a move to another device."""
        real = None if self.real is None else convert(self.real)
        bounds = None if self.bounds is None else convert(self.bounds)
        repeated = None if self.repeated is None else (convert(self.repeated[0]), convert(self.repeated[1]))
        return DenseTokens(
            convert(self.gather), convert(self.spread), bounds, real, repeated, self.attend, self.multiple,
            self.is_filled, groups=tuple(group.mapped(convert) for group in self.groups), embeds=self.embeds,
            firsts=self.firsts,
        )  # fmt: skip

    @property
    def length(self) -> int:
        """Rows of the dense row: the real tokens, and zeros up to a multiple."""
        return -(-len(self.gather) // self.multiple) * self.multiple

    @property
    def is_whole(self) -> bool:
        """Whether the padded rows have no padding, so that they are the dense row in another shape."""
        fits = self.spread.numel() == len(self.gather) == self.length
        return fits and self.repeated is None and not self.is_filled


@dataclass(frozen=True)
class Card:
    """What a GPU is, for the choice of its kernels.

    Attributes:
        capability: Its compute capability; None where the model computes on something else.
        precision: Autocast's precision: `bf16`, `fp16` or `no`.
        has_triton: Whether kernels can be compiled.
    """

    capability: tuple[int, int] | None = None
    precision: str = "no"
    has_triton: bool = False


NO_CARD = Card()


@dataclass(frozen=True)
class Answers:
    """Which labelled positions make up which answer, for losses of whole answers.

    Attributes:
        owners: The answer that each of the batch's places belongs to, (places,) int64; for a place of a prompt the
            number of all answers + its example. A pair's good answer is 2 × example, its bad one 2 × example + 1.
        count: Number of answers.
        reference: Log-probability of each answer before training, (answers,) float64, or None.
        liked: Whether each answer was judged good, (answers,) bool, or None for pairs.
    """

    owners: torch.Tensor
    count: int
    reference: torch.Tensor | None = None
    liked: torch.Tensor | None = None

    def mapped(self, convert: Callable[[torch.Tensor], torch.Tensor]) -> Answers:
        """Return a copy with `convert` applied to each tensor, such as a move to another device."""
        reference, liked = (None if part is None else convert(part) for part in (self.reference, self.liked))
        return Answers(convert(self.owners), self.count, reference, liked)


@dataclass(frozen=True)
class Texts:
    """Which text of a window each sequence of a batch is, for losses that compare texts. It stays on the host.

    Attributes:
        examples: Position of the sequence's example in the split, (sequences,) int64.
        places: Its place in the example, (sequences,) int64: 0 the query, 1 its passage, from 2 on its hard negatives.
        contents: A number that is the same for the same tokens, (sequences,) int64.
        scores: How similar the example's two texts are, (sequences,) float64; NaN where that is not known.
    """

    examples: np.ndarray
    places: np.ndarray
    contents: np.ndarray
    scores: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """Return the texts of several batches as those of one."""
        import numpy as np

        names = [entry.name for entry in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Lists:
    """Which rows of a batch are of one example: the passages of a query, which are compared, or windows of a document.

    Attributes:
        sizes: Number of rows of each list.
        owners: The list that each row belongs to, (rows,) int64.
        teacher: A teacher's score of each row, (rows,), or None.
        pairs: Rows of a relevant and an irrelevant passage of one list, (pairs, 2) int64; None without a teacher.
    """

    sizes: tuple[int, ...]
    owners: torch.Tensor
    teacher: torch.Tensor | None = None
    pairs: torch.Tensor | None = None

    def mapped(self, convert: Callable[[torch.Tensor], torch.Tensor]) -> Lists:
        """Return a copy with `convert` applied to each tensor, such as a move to another device."""
        teacher, pairs = (None if part is None else convert(part) for part in (self.teacher, self.pairs))
        return Lists(self.sizes, convert(self.owners), teacher, pairs)


@dataclass(frozen=True)
class Noise:
    """Noise on the embeddings of one example, drawn when the model runs.

    Attributes:
        row: The example's row in the batch.
        start: Its first token in that row.
        length: Number of its tokens.
        seed: What the noise is drawn from.
        alpha: Its size; it lies within alpha / sqrt(tokens · dimensions).
    """

    row: int
    start: int
    length: int
    seed: int
    alpha: float


@dataclass(frozen=True)
class Batch:
    """One micro-batch as tensors.

    Attributes:
        inputs: Keyword arguments of the model's forward, (rows, tokens) int64 each.
        labels: Labels in the task's own shape, or None in prediction.
        items: Number of terms that the batch's loss sums.
        tokens: Number of real tokens, without padding.
        sequences: Number of examples, if a row may hold several. None means one per row.
        scope: Marks of the positions that a prediction may choose, (rows, tokens) int64.
        places: Positions of the labels in the flattened batch, (items,) int64. They are computed on the host,
            so that selecting them needs no device sync.
        dense: Where the real tokens are, if the layers skip padding.
        answers: Which places belong to which answer, for losses of whole answers.
        others: Sequences of the same examples that the objective computes first, without gradients.
        texts: Which text of the window each sequence is, for losses that compare texts.
        lists: Which rows are of one example: passages of a query, windows of a document.
        noise: Noise on embeddings, in training only.
        is_idle: Whether it is computed only because other processes of a sharded model have one more: it adds nothing.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor | None
    items: int
    tokens: int
    sequences: int | None = None
    scope: torch.Tensor | None = None
    places: torch.Tensor | None = None
    dense: DenseTokens | None = None
    answers: Answers | None = None
    others: Batch | None = None
    texts: Texts | None = None
    lists: Lists | None = None
    noise: tuple[Noise, ...] = ()
    is_idle: bool = False

    @property
    def scores_places(self) -> bool:
        """Whether its loss is of places in the rows, whose number differs from batch to batch."""
        return self.places is not None or self.scope is not None

    def computed_tokens(self) -> int:
        """Return how many tokens the model's layers compute: padding unless it is skipped, shared ones once."""
        is_encoder = self.dense is not None and self.dense.real is not None
        return self.tokens if is_encoder else self.inputs["input_ids"].numel()

    def budgeted_tokens(self) -> int:
        """Return how many tokens a budget counts: padding but in groups of rows, and shared ones for each sequence."""
        if self.dense is not None and self.dense.groups:
            return self.tokens
        return max(self.inputs["input_ids"].numel(), self.tokens)

    def mapped(self, convert: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """Return a copy with `convert` applied to each tensor, such as a move to another device."""
        return replace(
            self,
            inputs={name: convert(tensor) for name, tensor in self.inputs.items()},
            labels=None if self.labels is None else convert(self.labels),
            scope=None if self.scope is None else convert(self.scope),
            places=None if self.places is None else convert(self.places),
            dense=None if self.dense is None else self.dense.mapped(convert),
            answers=None if self.answers is None else self.answers.mapped(convert),
            others=None if self.others is None else self.others.mapped(convert),
            lists=None if self.lists is None else self.lists.mapped(convert),
        )

    def examples(self) -> int:
        """Return the number of examples in the batch."""
        return len(self.inputs["input_ids"]) if self.sequences is None else self.sequences


@dataclass(frozen=True)
class RandomKey:
    """Seed and epoch from which a batch's random choices are derived, together with each example's row.

    Choices made this way do not depend on how a window is cut into micro-batches.
    """

    seed: int
    epoch: int


@dataclass(frozen=True)
class Progress:
    """Position of a run.

    Attributes:
        epoch: The current epoch, from 0.
        window: The next window of that epoch, from 0.
        step: The number of optimizer steps taken so far.
    """

    epoch: int
    window: int
    step: int


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to continue as if it had never stopped. Nothing in it is ever unpickled.

    Attributes:
        model: Trained weights and buffers by parameter name.
        optimizer: Optimizer state by `<entry>/<parameter name>`, for example `exp_avg/encoder.weight`.
        state: JSON values that the training loop restores.
        progress: Where the run continues.
        fingerprint: JSON facts that a resumed run must share.
        shards: Folder with the tensors of a checkpoint that several processes wrote; None where they are here.
        readers: The process that reads each file of it, where not all see one disk.
    """

    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    state: dict[str, Any]
    progress: Progress
    fingerprint: dict[str, Any]
    shards: Path | None = None
    readers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Naive:
    """What is had without training.

    Attributes:
        said: A Korean clause that names it, before its score.
        predictions: One of each row; None where the score needs none.
        score: The score, where there are no predictions.
    """

    said: str
    predictions: list[Any] | None = None
    score: float = 0.0


@dataclass(frozen=True)
class Remark:
    """Something about a source's row that its reader does not use.

    Attributes:
        kind: `field`, a field of a nested cell that is not read, or `opening`, a turn before a conversation's first
            question.
        found: The field's name, or the turn's text.
    """

    kind: Literal["field", "opening"]
    found: str
