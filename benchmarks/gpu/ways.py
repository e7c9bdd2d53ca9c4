"""Check of the ways of attention without padded rows: how near they are to these, and what a micro-batch costs."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.card import seconds_of
from benchmarks.gpu.plan import Facts

_MICRO_BATCHES = 5
_KERNELS = ("padded", "flash", "efficient")


@dataclass(frozen=True)
class Attended:
    """What is attended to: sequences of a length between two numbers, and a model's heads."""

    sequences: int
    lengths: tuple[int, int]
    heads: int
    groups: int
    width: int
    is_causal: bool
    dropout: float = 0.0
    window: int | None = None


_WORKS = {
    "short texts": Attended(64, (12, 60), 12, 1, 64, is_causal=False),
    "short texts, with dropout": Attended(64, (12, 60), 12, 1, 64, is_causal=False, dropout=0.1),
    "rows of 2,048": Attended(4, (2000, 2048), 32, 4, 64, is_causal=True),
    "rows of 2,048, windows of 512": Attended(4, (2000, 2048), 4, 4, 256, is_causal=True, window=512),
}


def ways(bench: Bench) -> Iterator[Facts]:
    """Each way in bfloat16: difference from padded rows in float32, and milliseconds in shapes new and seen."""
    yield from _each(bench, _KERNELS)


def flex(bench: Bench) -> Iterator[Facts]:
    """The same of FlexAttention, whose first call in each kind of work compiles for 10 to 20 seconds."""
    yield from _each(bench, ("padded", "flex"))


def _each(bench: Bench, names: Sequence[str]) -> Iterator[Facts]:
    for name, work in _WORKS.items():
        if bench.tiny:
            work = replace(work, sequences=3, lengths=(4, 20), window=work.window and 8)
        for way in names:
            yield {"work": name, "way": way, **_facts(bench, work, way)}


def _facts(bench: Bench, work: Attended, way: str) -> Facts:
    import torch

    from finetuning.ops import attention_ways

    attend, draw = getattr(attention_ways, way), random.Random(0)
    batches = [_lengths(work, draw) for _ in range(bench.pick(_MICRO_BATCHES, 1))]
    try:
        first = _timed(bench, work, attend, _lengths(work, draw))  # with what its first call loads or compiles
        differs = {} if work.dropout else _difference(bench, work, attend, batches[0])
        new, seen = ([_timed(bench, work, attend, lengths) for lengths in batches] for _ in range(2))
    except (RuntimeError, ValueError) as error:  # a compiler's errors are such, too
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return {"refused": str(error).strip().splitlines()[0].partition(". ")[0]}
    return {
        "first_ms": round(first, 1), "new_ms": round(statistics.median(new), 2),
        "seen_ms": round(statistics.median(seen), 2), "slowest_new_ms": round(max(new), 2), **differs,
    }  # fmt: skip


def _lengths(work: Attended, draw: random.Random) -> list[int]:
    """Lengths of a micro-batch, the first two different, so that an encoder's has padding."""
    low, high = work.lengths
    return [low, high, *(draw.randint(low, high) for _ in range(work.sequences - 2))]


def _call(bench: Bench, work: Attended, lengths: list[int], dtype: Any) -> Any:
    import torch

    from finetuning.ops.attention_ways import Call
    from finetuning.ops.dense_attention import causal_tokens, dense_tokens

    if work.is_causal:
        sequences: Any = causal_tokens(lengths)
    else:
        sequences = dense_tokens((torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long())
    random = torch.Generator(bench.device).manual_seed(0)

    def made(heads: int) -> Any:
        shape = (sum(lengths), heads, work.width)
        drawn = torch.randn(shape, device=bench.device, generator=random).bfloat16()  # the same numbers in each dtype
        return drawn.to(dtype).requires_grad_()

    module = SimpleNamespace(num_key_value_groups=work.groups)
    sequences = sequences.mapped(lambda tensor: tensor.to(bench.device))
    heads = (work.heads, work.heads // work.groups, work.heads // work.groups)
    return Call(module, *map(made, heads), sequences, work.dropout, None, work.window)


def _timed(bench: Bench, work: Attended, attend: Any, lengths: list[int]) -> float:
    """Milliseconds of forward and backward."""
    import torch

    call = _call(bench, work, lengths, torch.bfloat16)
    return 1000 * seconds_of(lambda: attend(call).sum().backward())


def _difference(bench: Bench, work: Attended, attend: Any, lengths: list[int]) -> Facts:
    """Relative differences of the result and of the gradients from those of padded rows in float32."""
    import torch

    from finetuning.ops.attention_ways import padded

    sides = []
    for way, dtype in ((padded, torch.float32), (attend, torch.bfloat16)):
        call = _call(bench, work, lengths, dtype)
        attended = way(call)
        weights = torch.linspace(-1, 1, attended.numel(), device=bench.device).view_as(attended)
        gradients = torch.autograd.grad((attended.float() * weights).sum(), (call.query, call.key, call.value))
        sides.append([attended.detach().float(), torch.cat([one.float().flatten() for one in gradients])])
    (expected, wanted), (found, gradient) = sides
    return {
        "differs_by": round(float((found - expected).norm() / expected.norm()), 5),
        "gradient_differs_by": round(float((gradient - wanted).norm() / wanted.norm()), 5),
    }
