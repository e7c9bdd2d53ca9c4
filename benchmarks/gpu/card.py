"""Checks of the card itself: what it is, its rate of products, and what attention costs in a new shape."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

from benchmarks.gpu.bench import GIB, Bench
from benchmarks.gpu.plan import Facts
from benchmarks.in_process import wait_for_device

_PACKAGES = ("torch", "triton", "transformers", "tokenizers", "accelerate", "peft", "datasets", "bitsandbytes", "trl",
             "liger-kernel")  # fmt: skip
_NEW, _SEEN = 0, 1
_SHAPES = ((7, 133), (9, 101), (12, 77), (5, 190), (11, 91))  # rows, tokens


def card(bench: Bench) -> Iterator[Facts]:
    """The card, its driver and what torch was built for; the rate of bf16 matrix products."""
    import torch

    facts: Facts = {"device": "cpu", "packages": _versions()}
    if bench.on_gpu:
        properties, free = torch.cuda.get_device_properties(0), torch.cuda.mem_get_info()[0]
        facts |= {
            "device": properties.name, "capability": [properties.major, properties.minor],
            "multiprocessors": properties.multi_processor_count, "memory_gib": round(properties.total_memory / GIB, 2),
            "free_gib": round(free / GIB, 2), "driver": _driver(), "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(), "built_for": torch.cuda.get_arch_list(),
            "has_bf16": torch.cuda.is_bf16_supported(including_emulation=False),
        }  # fmt: skip
    yield facts
    yield {"bf16_tflops": matrix_rate(bench), "edge": _edge(bench)}


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _driver() -> str | None:
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=20).stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def _edge(bench: Bench) -> int:
    return bench.pick(8192, 256)


def matrix_rate(bench: Bench) -> float:
    """Return the TFLOP/s of bf16 products of random square matrices, the best of three stretches."""
    import torch

    edge, times = _edge(bench), bench.pick(20, 2)
    left, right = (torch.randn(edge, edge, device=bench.device).to(torch.bfloat16) for _ in range(2))
    stretch = seconds_of(lambda: left @ right)
    best = min(min(seconds_of(lambda: left @ right, times) for _ in range(3)), stretch * times)
    return round(2 * edge**3 * times / best / 1e12, 3)


def seconds_of(work: Callable[[], Any], times: int = 1) -> float:
    """Return the seconds of some calls, until the device has done what they ask for."""
    wait_for_device()
    began = time.perf_counter()
    for _ in range(times):
        work()
    wait_for_device()
    return time.perf_counter() - began


def attention(bench: Bench) -> Iterator[Facts]:
    """Forward and backward of attention by backend, in a shape that is new and in one that is not, in milliseconds."""
    from torch.nn.attention import SDPBackend

    backends = {
        "math": SDPBackend.MATH, "efficient": SDPBackend.EFFICIENT_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
    }  # fmt: skip
    for kind in ("causal", "padded", "padded, with dropout"):
        for name, backend in backends.items():
            yield {"kind": kind, "backend": name, **_attention_times(bench, kind, backend)}


def _attention_times(bench: Bench, kind: str, backend: Any) -> Facts:
    from torch.nn.attention import sdpa_kernel

    spent: tuple[list[float], list[float]] = ([], [])
    shapes = _SHAPES[: bench.pick(len(_SHAPES), 1)]
    try:
        with sdpa_kernel(backend):
            _attend(bench, kind, 3, 64)  # what the first call of a backend loads is not the shape's
            for turn in (_NEW, _SEEN):
                spent[turn].extend(1000 * _attend(bench, kind, rows, tokens) for rows, tokens in shapes)
    except RuntimeError as error:
        if "out of memory" in str(error):
            raise
        return {"refused": str(error).splitlines()[0]}
    return {
        "new_ms": round(statistics.median(spent[_NEW]), 2), "seen_ms": round(statistics.median(spent[_SEEN]), 2),
        "slowest_new_ms": round(max(spent[_NEW]), 2),
    }  # fmt: skip


def _attend(bench: Bench, kind: str, rows: int, tokens: int) -> float:
    """Seconds of attention, 12 heads of 64, forward and backward."""
    import torch

    shape = (rows, tokens, 12, 64)
    query, key, value = (
        torch.randn(shape, device=bench.device, dtype=torch.bfloat16).transpose(1, 2).requires_grad_() for _ in range(3)
    )
    is_causal = kind == "causal"
    mask = None if is_causal else (torch.arange(tokens, device=bench.device) < tokens - 3).expand(rows, 1, 1, tokens)
    dropout = 0.1 if kind.endswith("dropout") else 0.0

    def work() -> None:
        torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=is_causal
        ).sum().backward()

    return seconds_of(work)
