"""Checks of memory: what fits a small card, the estimate beside the peak, and a run whose memory ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.contenders import Work
from benchmarks.gpu.bench import GIB, Bench
from benchmarks.gpu.plan import Facts
from benchmarks.gpu.speed import CHAT, SHORT, sized
from benchmarks.in_process import Clock, evaluator_of, manager_of, prepared_in, run_until_finished, session_by

_ONE_ROW = Work("continued-pretraining.yaml", "rows", batch=1, accumulation=4, max_length=1024, bare_width=1024)
# What this program takes at most of a card of 8 GB and of one of 10 GB: 0.95 of what the context of CUDA (an estimate:
# 0.55 GiB) and kernels that are loaded later leave of it.
_OF_8_GB, _OF_10_GB = 6.8, 8.7


def full_1b(bench: Bench) -> Iterator[Facts]:
    """All weights of a 1B Llama on what a card of 8 GB leaves, under the settings that the tool chooses there."""
    yield measured(bench, Run("causal-1b", bench.documents(), _ONE_ROW, limit_gib=_OF_8_GB))


def qlora(bench: Bench) -> Iterator[Facts]:
    """LoRA beside an 8B Llama in 4 bits on what a card of 10 GB leaves, in weights of float32 and of bfloat16."""
    adapter = ("model.adapter.method=lora", "model.quantization=4bit")
    yield measured(bench, Run("causal-8b", bench.documents(), _ONE_ROW, adapter, _OF_10_GB))
    yield measured(bench, Run("causal-8b", bench.documents(), _ONE_ROW, (*adapter, "model.dtype=bfloat16"), _OF_10_GB))


def estimate(bench: Bench) -> Iterator[Facts]:
    """The estimate that a run logs beside its measured peak, of a few settings, without a limit."""
    four, chat, checkpointing = "causal-4-layers", bench.dialogues(), "memory.gradient_checkpointing=true"
    runs = (
        Run(four, chat, CHAT), Run("encoder", bench.short_texts(), SHORT), Run(four, chat, CHAT, (checkpointing,)),
        Run(four, chat, CHAT, ("model.adapter.method=lora",)),
    )  # fmt: skip
    for run in runs[: bench.pick(4, 1)]:
        yield measured(bench, replace(run, is_whole=not bench.tiny))


def cut_again(bench: Bench) -> Iterator[Facts]:
    """A run under half of the memory that its steps need: cut smaller, with the same losses."""
    window = replace(CHAT, batch=256)
    plain = ("memory.optimize_memory_usage=false", "memory.gradient_checkpointing=false")
    whole = _Trained(bench, Run("causal-4-layers", bench.dialogues(), window, plain))
    yield whole.facts()
    limit = (whole.kept + whole.peak) / 2 / GIB if bench.on_gpu else None
    cut = _Trained(bench, Run("causal-4-layers", bench.dialogues(), window, plain, limit))
    yield cut.facts()
    yield {
        "was_cut": cut.budget_left < cut.budget,
        "losses_differ_by": differ_by(whole.losses, cut.losses),
    }


# --- one run ---


@dataclass(frozen=True)
class Run:
    """A run of a few steps.

    Attributes:
        model: The model's name.
        data: The data's folder.
        work: What is trained.
        settings: Further settings.
        limit_gib: GiB that the run may use of the card; None for no limit.
        is_whole: Whether an epoch is trained, and with it the heaviest window, which the estimate is of. A few steps
            will do where all windows are alike.
    """

    model: str
    data: Path
    work: Work
    settings: tuple[str, ...] = ()
    limit_gib: float | None = None
    is_whole: bool = False


def measured(bench: Bench, run: Run) -> Facts:
    """Train some steps under the settings that the tool chooses, and return the estimate beside the peak."""
    return _Trained(bench, run, fits=True).facts()


class _Trained:
    """A run that was trained.

    Args:
        bench: Where it runs.
        run: The run.
        fits: Whether the tool chooses settings that fit into memory, as its command line does.
    """

    def __init__(self, bench: Bench, run: Run, fits: bool = False) -> None:
        from finetuning.device.usage import peak_bytes, used_bytes

        bench.clean_up()
        self.bench, self.run, self.changes, self.estimate = bench, run, Facts(), 0
        scratch = bench.scratch()
        prepared, tokenizer = prepared_in(session_by(self._words(scratch)))
        if fits:
            prepared = self._fitted(prepared, tokenizer)
        before = used_bytes(bench.device)
        evaluator = evaluator_of(prepared, tokenizer)
        self.budget = evaluator.memory.token_budget
        clock = Clock(len(prepared.examples["train"]) // run.work.window if run.is_whole else bench.pick(4, 3))
        manager = manager_of(prepared, evaluator, clock.tick_and_stop, scratch / "model")
        run_until_finished(manager)
        self.layout = type(manager.planner.layout).__name__
        self.step_s = clock.seconds() / (clock.steps - clock.uncounted)
        self.peak, self.kept = (count(bench.device) - before for count in (peak_bytes, used_bytes))
        self.budget_left, self.losses = evaluator.memory.token_budget, logged_losses(scratch / "model")
        self.reserved = self._reserved()
        bench.drop(scratch)

    def _words(self, scratch: Path) -> list[str]:
        from finetuning.device.usage import gpu_limit_bytes

        run, work = self.run, sized(self.bench, self.run.work)
        settings = [*run.settings, "logging.log_steps=1", f"data.dataset_cache_dir={self.bench.home / 'cache'}"]
        if run.limit_gib is not None and self.bench.on_gpu:
            all_there_is = gpu_limit_bytes(self.bench.device, 1.0)
            settings.append(f"memory.max_gpu_memory_usage={min(1.0, run.limit_gib * GIB / all_there_is):.5f}")
        return work.words(self.bench.model(run.model), run.data, scratch / "run", 0, *settings)

    def _fitted(self, prepared: Any, tokenizer: Any) -> Any:
        """The run under the settings that fit, and what they are estimated to need."""
        from finetuning.commands.fitting import fitting_of
        from finetuning.config.ladder import with_changes
        from finetuning.planning.fit import choose

        session, examples = prepared.session, prepared.examples
        length = session.models.usable_length(tokenizer)
        fitting = fitting_of(
            session, tokenizer, prepared.label_names, length, examples["train"], examples["validation"]
        )
        changes, _ = choose(fitting)
        settings = with_changes(session.settings, changes)
        self.changes, self.estimate = dict(changes), fitting.estimate(settings).total
        return prepared.under(settings)

    def _reserved(self) -> Facts:
        """What the allocator holds, and what the whole process has taken of the card."""
        import torch

        if not self.bench.on_gpu:
            return {}
        free, total = torch.cuda.mem_get_info()
        retries = torch.cuda.memory_stats().get("num_alloc_retries", 0)
        return {
            "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 3),
            "process_gib": round((total - free) / GIB, 3), "alloc_retries": retries,
        }  # fmt: skip

    def facts(self) -> Facts:
        found: Facts = {
            "model": self.run.model, "settings": list(self.run.settings), "chosen": self.changes,
            "limit_gib": self.run.limit_gib, "peak_gib": round(self.peak / GIB, 3), **self.reserved,
            "layout": self.layout, "step_s": round(self.step_s, 3), "token_budget": [self.budget, self.budget_left],
        }  # fmt: skip
        if self.estimate:
            found |= {
                "estimate_gib": round(self.estimate / GIB, 3),
                "estimate_of_peak": round(self.estimate / self.peak, 3) if self.peak > 0 else None,
            }
        return found


def logged_losses(folder: Path) -> list[float | None]:
    """Return the losses that a run logged, a step each where `logging.log_steps` is 1; None for a step left out."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record["loss"] for record in map(json.loads, lines) if record["kind"] == "train"]


def differ_by(ones: list[float | None], others: list[float | None]) -> float | None:
    """Return the largest relative difference of two runs' losses over the steps that both took; None for no step."""
    pairs = zip(ones, others, strict=True)
    return max((abs(a - b) / abs(a) for a, b in pairs if a is not None and b is not None), default=None)
