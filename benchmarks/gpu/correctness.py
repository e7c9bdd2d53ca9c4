"""Checks of what a run computes: on the card as on the CPU, in every layout, stopped and resumed, and in fp16."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks.contenders import Work
from benchmarks.gpu.bench import GIB, Bench
from benchmarks.gpu.memory import differ_by, logged_losses
from benchmarks.gpu.plan import Facts
from benchmarks.gpu.speed import CHAT, ROWS, SHORT, sized
from benchmarks.in_process import Clock, evaluator_of, manager_of, prepared_in, run_until_finished, session_by

_TASKS: dict[str, tuple[str, Work]] = {
    "encoder": ("encoder-4-layers", replace(SHORT, batch=32)),
    "causal": ("causal-4-layers", replace(CHAT, batch=16, max_length=256)),
}


def _data(bench: Bench, work: Work) -> Any:
    made = {"class": bench.short_texts, "answers": bench.dialogues, "rows": bench.documents}
    return made[work.trained]()


def _session(bench: Bench, model: str, work: Work, *settings: str) -> Any:
    every = (*settings, f"data.dataset_cache_dir={bench.home / 'cache'}")
    words = sized(bench, work).words(bench.model(model), _data(bench, work), bench.scratch() / "run", 0, *every)
    return session_by(words)


# --- parity ---


def parity(bench: Bench) -> Iterator[Facts]:
    """Loss and gradient of one window, by device and layout, beside those of padded rows in float32 on the CPU."""
    for task, (model, work) in _TASKS.items():
        reference = None
        for on_cpu in (True, False) if bench.on_gpu else (True,):
            for is_padded in (True, False):
                facts, gradients = _gradient(bench, model, work, on_cpu, is_padded, "memory.mixed_precision=false")
                reference = reference or (facts["loss"], gradients)
                yield {"task": task, **facts, **_difference(reference, facts["loss"], gradients)}
        assert reference is not None
        facts, gradients = _gradient(bench, model, work, not bench.on_gpu, False)
        yield {"task": task, **facts, **_difference(reference, facts["loss"], gradients)}


def _gradient(
    bench: Bench, model: str, work: Work, on_cpu: bool, is_padded: bool, *settings: str
) -> tuple[Facts, dict[str, Any]]:
    """Facts of the first window without dropout, and its gradient by parameter, on the CPU."""
    from finetuning.reporting.profile import NoProfile
    from finetuning.training.ahead import WindowPlanner
    from finetuning.training.step import OptimizerStep
    from finetuning.windows.layouts import Padded, choose_layout
    from finetuning.windows.order import epoch_order, window_of

    bench.clean_up()
    session = _session(bench, model, work, *settings)
    if on_cpu and bench.on_gpu:
        session = replace(session, runtime=_cpu_runtime())
    prepared, tokenizer = prepared_in(session)
    evaluator = evaluator_of(prepared, tokenizer)
    net, task, train = evaluator.model.eval(), evaluator.task, prepared.examples["train"]
    layout = choose_layout(task, net, evaluator.max_length, card=evaluator.runtime.card)
    if is_padded:
        layout = Padded(layout.fixed_cost, evaluator.max_length)
    planner = WindowPlanner(task, tokenizer, train, layout, 0, evaluator.runtime)
    stepper = OptimizerStep(
        prepared.session.settings, evaluator, NoProfile(),
        lambda window: planner.plan(window, evaluator.memory.token_budget),
    )  # fmt: skip
    window = window_of(epoch_order(len(train), 0, 0), sized(bench, work).window, 0, 0)
    found = stepper.gradient(stepper.plan(window), 0)
    gradients = {
        name: weight.grad.detach().float().cpu() for name, weight in net.named_parameters() if weight.grad is not None
    }
    facts = {
        "device": str(evaluator.runtime.device), "layout": type(layout).__name__,
        "precision": evaluator.runtime.precision,
        "loss": float(found.loss_sum) / found.counts[0], "micro_batches": len(found.batches),
    }  # fmt: skip
    return facts, gradients


def _cpu_runtime() -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from finetuning.device.runtime import Runtime

    AcceleratorState._reset_state(reset_partial_state=True)
    return Runtime(Accelerator(mixed_precision="no", cpu=True))


def _difference(reference: tuple[float, dict[str, Any]], loss: float, gradients: dict[str, Any]) -> Facts:
    """How far loss and gradient are from the reference: as a whole, and of the parameter that is the farthest.

    Parameters whose gradient is nearly nothing (the bias of attention's keys) do not count.
    """
    expected_loss, expected = reference
    whole = math.sqrt(sum(float(one.norm()) ** 2 for one in expected.values()))
    apart = {name: float((gradients[name] - one).norm()) for name, one in expected.items()}
    counted = {name: apart[name] / float(one.norm()) for name, one in expected.items() if one.norm() > 1e-3 * whole}
    worst = max(counted, key=lambda name: counted[name])
    return {
        "loss_differs_by": abs(loss - expected_loss) / abs(expected_loss),
        "gradient_differs_by": math.sqrt(sum(one**2 for one in apart.values())) / whole,
        "worst_parameter": worst, "worst_differs_by": counted[worst],
    }  # fmt: skip


# --- resuming ---


def resume(bench: Bench) -> Iterator[Facts]:
    """Whether a run that is stopped and resumed is, to the bit, the run that was not stopped.

    Where it is not, the same is tried under `training.deterministic`.
    """
    runs = {
        "encoder": ("encoder-4-layers", SHORT, ()),
        "causal": ("causal-small", CHAT, ()),
        "causal, bfloat16 weights": ("causal-small", CHAT, ("model.dtype=bfloat16",)),
        "causal, rows of 2,048": ("causal-small", replace(ROWS, batch=2, accumulation=1), ()),
    }
    for name, (model, work, settings) in list(runs.items())[: bench.pick(4, 1)]:
        differs = _differs(bench, model, work, *settings)
        yield {"run": name, "same": differs is None, "differs": differs}
        if differs is not None:
            differs = _differs(bench, model, work, *settings, "training.deterministic=true")
        yield {"run": name, "same_if_deterministic": differs is None, "differs": differs}


def _differs(bench: Bench, model: str, work: Work, *settings: str) -> str | None:
    """What the program's own check says of a resumed run that differs; None where it is the same."""
    from exceptions import FinetuningError
    from finetuning.commands import verify_resume
    from finetuning.commands.command_line import build_parser

    bench.clean_up()
    session = _session(bench, model, work, "generation.validation_rows=0", *settings)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            verify_resume.run(session, build_parser().parse_args(["verify-resume"]))
    except FinetuningError as error:
        return f"{error.what} {error.where}"
    return None


# --- CUDA graphs ---


def graphs(bench: Bench) -> Iterator[Facts]:
    """Losses, end weights, time and memory of steps whose passes are recorded, and of the same steps as they are."""
    import torch

    runs = {}
    for is_recorded in (False, True):
        bench.clean_up()
        session = _session(bench, *_TASKS["encoder"], "logging.log_steps=1", f"training.cuda_graphs={is_recorded}")
        prepared, tokenizer = prepared_in(session)
        clock = Clock(bench.pick(60, 3), uncounted=bench.pick(40, 1))  # most shapes have come back by then
        evaluator, folder = evaluator_of(prepared, tokenizer), bench.scratch() / "run"
        manager = manager_of(prepared, evaluator, clock.tick_and_stop, folder)
        run_until_finished(manager)
        weights = [weight.detach().cpu() for weight in evaluator.model.parameters()]
        runs[is_recorded] = logged_losses(folder), weights
        recorded = manager.stepper.recorded
        yield {
            "recorded": is_recorded,
            "recordings": 0 if recorded is None else len(recorded),
            "steps": clock.steps,
            "step_ms": round(1000 * clock.seconds() / (clock.steps - clock.uncounted), 2),
            "layout": type(manager.planner.layout).__name__,
            "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 3) if bench.on_gpu else None,
        }
    (losses, weights), (others, other_weights) = runs.values()
    same = all(map(torch.equal, weights, other_weights))
    yield {"losses_differ_by": differ_by(losses, others), "same_losses": losses == others, "same_weights": same}


# --- fp16 ---


def half_precision(bench: Bench) -> Iterator[Facts]:
    """Steps in fp16 with its loss scaler, as a T4 takes them, beside the same steps in the card's own precision.

    On a CPU, which has no fp16 here, both are in its own precision.
    """
    losses = {}
    for task, (model, work) in list(_TASKS.items())[: bench.pick(2, 1)]:
        for name in ("own", "fp16"):
            facts, losses[name] = _steps_in(bench, model, work, name)
            yield {"task": task, **facts}
        yield {"task": task, "losses_differ_by": differ_by(losses["own"], losses["fp16"])}


def _steps_in(bench: Bench, model: str, work: Work, precision: str) -> tuple[Facts, list[float | None]]:
    from accelerate.state import AcceleratorState

    from finetuning.device.runtime import start_runtime

    bench.clean_up()
    session = _session(bench, model, work, "logging.log_steps=1")
    if precision == "fp16" and bench.on_gpu:
        AcceleratorState._reset_state(reset_partial_state=True)
        session = replace(session, runtime=start_runtime("fp16", deterministic=False))
    prepared, tokenizer = prepared_in(session)
    evaluator, clock, folder = evaluator_of(prepared, tokenizer), Clock(bench.pick(16, 3)), bench.scratch() / "model"
    manager = manager_of(prepared, evaluator, clock.tick_and_stop, folder)
    before = manager.loss_scale.value
    run_until_finished(manager)
    losses = logged_losses(folder)
    facts = {
        "precision": evaluator.runtime.precision, "scale": [before, manager.loss_scale.value],
        "steps": clock.steps, "left_out": losses.count(None), "last_loss": losses[-1],
    }  # fmt: skip
    return facts, losses
