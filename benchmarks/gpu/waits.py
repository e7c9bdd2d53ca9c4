"""Check of where a run waits: for the device between two lines of the log, for its own data, and in which phase."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.plan import Facts
from benchmarks.gpu.speed import CHAT, SHORT, sized
from benchmarks.in_process import Clock, Finished, evaluator_of, manager_of, prepared_in, run_until_finished, session_by

_BEFORE, _TINY_BEFORE = 25, 3  # steps in which libraries load, buffers are made, and most shapes are recorded


def waits(bench: Bench) -> Iterator[Facts]:
    """Waits for the device between two lines of the log, by the line of code; kernels; milliseconds by phase."""
    works = {"encoder": ("encoder", SHORT, bench.short_texts()), "causal": ("causal-4-layers", CHAT, bench.dialogues())}
    for name, (model, work, data) in list(works.items())[: bench.pick(2, 1)]:
        words = sized(bench, work).words
        cache = f"data.dataset_cache_dir={bench.home / 'cache'}"
        silent = words(bench.model(model), data, bench.scratch() / "run", 0, cache, "logging.log_steps=1000")
        watch, as_they_are = _Watch(bench, bench.pick(10, 2)), ["--set", "training.cuda_graphs=false"]
        with warnings.catch_warnings(record=True) as seen:
            _run(bench, [*silent, *as_they_are], watch)  # a recording waits, once for each shape
        places = Counter(f"{Path(one.filename).name}:{one.lineno}" for one in seen if _is_wait(one))
        yield {"task": name, "steps": watch.steps, "waits": sum(places.values()), "at": dict(places.most_common(12))}
        kernels = _Kernels(bench, bench.pick(5, 2))
        _run(bench, silent, kernels)
        yield {"task": name, **kernels.facts()}
        profiled = words(bench.model(model), data, bench.scratch() / "run", 0, cache, "logging.profile=true")
        times = _run(bench, profiled, Clock(bench.pick(12, 3)).tick_and_stop).profile.times()
        yield {"task": name, "phases_ms": {key: 1000 * value / times.windows for key, value in times.seconds.items()}}


def _run(bench: Bench, words: list[str], each_step: Any) -> Any:
    bench.clean_up()
    prepared, tokenizer = prepared_in(session_by(words))
    manager = manager_of(prepared, evaluator_of(prepared, tokenizer), each_step, bench.scratch() / "model")
    run_until_finished(manager)
    return manager


def _is_wait(warning: warnings.WarningMessage) -> bool:
    return "synchronizing" in str(warning.message)


class _Watch:
    """Makes torch warn of each wait for the device in the steps after the first ones, and ends the run."""

    def __init__(self, bench: Bench, steps: int) -> None:
        self.bench, self.steps, self.step = bench, steps, 0
        self.before = bench.pick(_BEFORE, _TINY_BEFORE)

    def __call__(self) -> None:
        self.step += 1
        if self.step == self.before:
            warnings.simplefilter("always")
            self._warn("warn")
        elif self.step == self.before + self.steps:
            self._warn("default")
            raise Finished

    def _warn(self, mode: str) -> None:
        import torch

        if self.bench.on_gpu:
            torch.cuda.set_sync_debug_mode(mode)


class _Kernels:
    """Counts the device's kernels in the steps after the first ones, and the share of time that they fill."""

    def __init__(self, bench: Bench, steps: int) -> None:
        import torch

        activities = torch.profiler.ProfilerActivity
        kinds = [activities.CPU, *([activities.CUDA] if bench.on_gpu else [])]
        self.profile, self.steps, self.step = torch.profiler.profile(activities=kinds), steps, 0
        self.before = bench.pick(_BEFORE, _TINY_BEFORE)
        self.clock = Clock(2, uncounted=1)  # its two ends are those of the steps that are watched

    def __call__(self) -> None:
        self.step += 1
        if self.step == self.before:
            self.clock.tick()
            self.profile.start()
        elif self.step == self.before + self.steps:
            self.clock.tick()
            self.profile.stop()
            raise Finished

    def facts(self) -> Facts:
        import torch

        on_device = torch.autograd.DeviceType.CUDA
        kernels = [event for event in self.profile.key_averages() if event.device_type == on_device]
        busy = sum(event.self_device_time_total for event in kernels) / 1e6
        return {
            "kernels_a_step": round(sum(event.count for event in kernels) / self.steps),
            "embedding_kernels_a_step": round(sum(map(_launched, self._embedding_backward())) / self.steps),
            "device_busy": round(busy / self.clock.seconds(), 3),
        }

    def _embedding_backward(self) -> list[Any]:
        """The events of the embeddings' backward passes, which sort the places that they add to."""
        return [event for event in self.profile.events() or () if event.name == "aten::embedding_dense_backward"]


def _launched(event: Any) -> int:
    """How many kernels an operator launched, with the operators that it called."""
    return len(event.kernels) + sum(map(_launched, event.cpu_children))
