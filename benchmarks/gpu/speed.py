"""Checks of speed: beside other trainers and the bare limit, compiled, and the start of a run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contenders import Timed, Work, train_as
from benchmarks.gpu.bench import GIB, Bench
from benchmarks.gpu.card import matrix_rate
from benchmarks.gpu.plan import Facts
from benchmarks.in_process import UNCOUNTED, Clock, evaluator_of, prepared_in, session_by
from benchmarks.runner import ROOT, ends_with_this

SHORT = Work("nsmc.yaml", "class", batch=64, accumulation=1, max_length=128, bare_width=64)
CHAT = Work("chatbot.yaml", "answers", batch=16, accumulation=1, max_length=512, bare_width=512)
ROWS = Work("continued-pretraining.yaml", "rows", batch=4, accumulation=2, max_length=2048, bare_width=2048)


def sized(bench: Bench, work: Work) -> Work:
    """Return the work, in a tiny bench a small one."""
    if not bench.tiny:
        return work
    length = min(work.max_length, 64)
    return replace(work, batch=4, accumulation=min(work.accumulation, 2), max_length=length, bare_width=32)


def short(bench: Bench) -> Iterator[Facts]:
    """BERT-base on short texts, 64 a step, beside Trainer in bf16 and Trainer tuned.

    Steps count once most shapes have come back, which this program records.
    """
    names = ("ours", "ours-unrecorded", "trainer", "trainer-tuned")
    steps, uncounted = bench.pick(60, 4), bench.pick(20, 2)
    turns = Turns(bench, sized(bench, SHORT), bench.model("encoder"), bench.short_texts(), steps, uncounted)
    yield from turns.take(names, rounds=bench.pick(3, 1))


def rows(bench: Bench) -> Iterator[Facts]:
    """A 1B Llama on rows of 2,048 tokens, all weights, beside Trainer and the card's measured rate of products."""
    work = sized(bench, ROWS)
    turns = Turns(bench, work, bench.model("causal-1b"), bench.documents(), bench.pick(8, 3))
    yield from turns.take(("ours", "trainer"), rounds=bench.pick(2, 1))
    flops, speeds = flops_of_token(turns.model, work.max_length), turns.medians("tokens_per_s")
    rate = matrix_rate(bench)
    yield {
        "flops_a_token": flops, "bf16_tflops_of_the_card": rate,
        "tflops": {name: round(flops * speed / 1e12, 2) for name, speed in speeds.items()},
        "share_of_rate": {name: round(flops * speed / 1e12 / rate, 4) for name, speed in speeds.items()},
    }  # fmt: skip


def peers(bench: Bench) -> Iterator[Facts]:
    """A 1B Llama on questions and answers beside SFTTrainer with packing, without and with Liger's kernels."""
    from importlib.util import find_spec

    names = ["ours", "sft-packing", *(["sft-packing-liger"] if find_spec("liger_kernel") and bench.on_gpu else [])]
    turns = Turns(bench, sized(bench, CHAT), bench.model("causal-1b"), bench.dialogues(), bench.pick(20, 3))
    yield from turns.take(names, rounds=bench.pick(2, 1))


def compiled(bench: Bench) -> Iterator[Facts]:
    """Layers compiled or not, of a 1B Llama on full rows and of BERT-base on short texts, and what compiling costs."""
    import torch._dynamo.utils

    works = {
        "rows": (ROWS, "causal-1b", bench.documents(), bench.pick(8, 3)),
        "short texts": (SHORT, "encoder", bench.short_texts(), bench.pick(20, 4)),
    }
    for name, (work, model, data, steps) in works.items():
        torch._dynamo.utils.counters.clear()
        turns = Turns(bench, sized(bench, work), bench.model(model), data, steps)
        with _graphs_alone() if bench.tiny else nullcontext():
            for facts in turns.take(("ours", "ours-compiled"), rounds=1):
                yield {"work": name, **facts}
        first = turns.medians("first_step_s")
        yield {
            "work": name, "compiling_s": round(first["ours-compiled"] - first["ours"], 1),
            "graphs": dict(torch._dynamo.utils.counters["stats"]),
            "graph_breaks": sum(torch._dynamo.utils.counters["graph_break"].values()),
        }  # fmt: skip


@contextmanager
def _graphs_alone() -> Iterator[None]:
    """Compile to graphs within the block, and not to code: that took half of the time of everything in miniature."""
    import torch

    compile_to_code = torch.compile
    torch.compile = partial(compile_to_code, backend="eager")
    try:
        yield
    finally:
        torch.compile = compile_to_code


class Turns:
    """Contenders that take turns, each time with a model newly loaded and a seed of the round.

    Args:
        bench: Where they run.
        work: What they train.
        model: The model's folder.
        data: The data's folder.
        steps: Steps of a run, at most an epoch.
        uncounted: The first of them, which do not count.
    """

    def __init__(
        self, bench: Bench, work: Work, model: Path, data: Path, steps: int, uncounted: int = UNCOUNTED
    ) -> None:
        self.bench, self.work, self.model, self.data = bench, work, model, data
        self.steps, self.uncounted = steps, uncounted
        self.runs: dict[str, list[Facts]] = {}

    def take(self, names: Iterator[str] | list[str] | tuple[str, ...], rounds: int) -> Iterator[Facts]:
        """Yield the facts of each run, and then medians over the rounds with their spread."""
        names = list(names)
        for number in range(rounds):
            for name in names:
                facts = self._run(name, seed=number)
                self.runs.setdefault(name, []).append(facts)
                yield {"round": number + 1, "contender": name, **facts}
        medians = self.medians("tokens_per_s")
        yield {
            "tokens_per_s": medians,
            "spread": {name: _spread([run["tokens_per_s"] for run in self.runs[name]]) for name in names},
            "ours_is": {name: round(medians["ours"] / medians[name], 3) for name in names if name != "ours"},
            "peak_gib": self.medians("peak_gib"),
            "first_step_s": self.medians("first_step_s"),
        }

    def medians(self, fact: str) -> dict[str, float]:
        """Return the median of a fact over the rounds, by contender."""
        return {name: statistics.median(run[fact] for run in runs) for name, runs in self.runs.items()}

    def _run(self, name: str, seed: int) -> Facts:
        from finetuning.device.usage import peak_bytes, used_bytes

        bench, scratch = self.bench, self.bench.scratch()
        bench.clean_up()
        before = used_bytes(bench.device) if bench.on_gpu else 0
        prepared, evaluator, clock, timed = self._trained(name, seed, scratch)
        facts = {
            "tokens_per_s": round(timed.tokens / timed.seconds, 1),
            "examples_per_s": round(timed.tokens / timed.seconds / float(prepared.examples["train"].lengths.mean()), 1),
            "step_ms": round(1000 * timed.seconds / (clock.steps - clock.uncounted), 1),
            "tokens_a_step": round(timed.tokens / (clock.steps - clock.uncounted)),
            "first_step_s": round(timed.first_step, 2),
            "peak_gib": round((peak_bytes(bench.device) - before) / GIB, 3),
            "precision": str(evaluator.runtime.precision),
        }
        bench.drop(scratch)
        return facts

    def _trained(self, name: str, seed: int, scratch: Path) -> tuple[Any, Any, Clock, Timed]:
        settings = [f"data.dataset_cache_dir={self.bench.home / 'cache'}"]
        settings += ["training.torch_compile=true"] if name == "ours-compiled" else []
        settings += ["training.cuda_graphs=false"] if name == "ours-unrecorded" else []
        words = self.work.words(self.model, self.data, scratch / "run", seed, *settings)
        prepared, tokenizer = prepared_in(session_by(words))
        evaluator = evaluator_of(prepared, tokenizer)
        clock = Clock(min(self.steps, len(prepared.examples["train"]) // self.work.window), self.uncounted)
        return prepared, evaluator, clock, train_as(name, self.work, prepared, evaluator, clock, scratch)


def _spread(values: list[float]) -> list[float]:
    return [min(values), max(values)]


def flops_of_token(folder: Path, tokens: int) -> float:
    """Floating-point operations of training on one token of a causal model in a row of `tokens`.

    Six for each weight of a product (the head's too, the embeddings' not), and those of attention's two products, half
    of them, since no token looks ahead.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    layers = sum(weight.numel() for layer in model.model.layers for weight in layer.parameters() if weight.ndim == 2)
    head = config.vocab_size * config.hidden_size
    return 6.0 * (layers + head + config.num_hidden_layers * config.hidden_size * tokens)


def start(bench: Bench) -> Iterator[Facts]:
    """How long a run of the command line takes, in a process of its own, until its first step is logged."""
    scratch = bench.scratch()
    words = sized(bench, SHORT).words(
        bench.model("encoder"), bench.short_texts(), scratch / "run", 0, "logging.log_steps=1",
        f"data.dataset_cache_dir={bench.home / 'cache'}",
    )  # fmt: skip
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "finetuning_app.py", *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, encoding="utf-8", **ends_with_this(),
    )  # fmt: skip
    lines: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if "스텝 1/" in line:
                yield {"first_step_logged_s": round(time.perf_counter() - began, 1)}
                return
        raise RuntimeError("no step was logged: " + "".join(lines)[-1500:])
    finally:
        process.kill()
        process.wait()
        bench.drop(scratch)
