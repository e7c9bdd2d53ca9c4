"""Sums of many tensors over the processes of a group, in few messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist

_BUCKET_BYTES = 32 * 2**20  # large enough for the bandwidth of a network, small beside a model's gradients
_IN_FLIGHT = 2  # one bucket is filled while the one before it is summed


def sum_in_buckets(tensors: Sequence[torch.Tensor], bucket_bytes: int = _BUCKET_BYTES) -> None:
    """Replace each tensor by its sum over all processes, in place.

    Tensors are copied into a flat buffer a bucket, so few messages are sent and no second copy of all of them exists.

    Args:
        tensors: Tensors of the same shapes and dtypes, in the same order, in every process.
        bucket_bytes: Most bytes of a bucket; a larger tensor is a bucket of its own.
    """
    waiting: deque[tuple[list[torch.Tensor], torch.Tensor, dist.Work]] = deque()
    for bucket in _buckets(tensors, bucket_bytes):
        flat = torch.cat([one.flatten() for one in bucket])
        waiting.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        if len(waiting) == _IN_FLIGHT:
            _finish(*waiting.popleft())
    while waiting:
        _finish(*waiting.popleft())


def _finish(bucket: list[torch.Tensor], flat: torch.Tensor, work: dist.Work) -> None:
    work.wait()
    parts = flat.split([one.numel() for one in bucket])
    torch._foreach_copy_(bucket, [part.view_as(one) for part, one in zip(parts, bucket, strict=True)])


def _buckets(tensors: Sequence[torch.Tensor], bucket_bytes: int) -> Iterator[list[torch.Tensor]]:
    """Yield the tensors in order of their dtypes, in buckets of one dtype."""
    kinds: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.dtype, []).append(tensor)
    for kind in kinds.values():
        bucket, size = list[torch.Tensor](), 0
        for tensor in kind:
            if bucket and size + tensor.nbytes > bucket_bytes:
                yield bucket
                bucket, size = [], 0
            bucket.append(tensor)
            size += tensor.nbytes
        if bucket:
            yield bucket
