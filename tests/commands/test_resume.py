"""A run of every task, stopped and resumed, ends with the very weights and losses of one that was never stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from exceptions import ModelError, StopRequested
from finetuning.tasks.registry import task_classes
from tests.support.runs import StopAfter, check_resumed_is_whole, losses, run_train


def some_and_all(tasks: Iterable[str], *some: str) -> list[Any]:
    """All tasks, of which some stand for their kind in `make test`; `make soak` runs the others."""
    return [task if task in some else pytest.param(task, marks=pytest.mark.soak) for task in sorted(tasks)]


@pytest.mark.parametrize("task", sorted(task_classes()))
def test_a_run_of_every_task_stopped_in_an_epoch(
    task: str, flags_for: Callable[[str], list[str]], tmp_path: Path
) -> None:
    check_resumed_is_whole(flags_for(task), StopAfter(looks=3), tmp_path)


@pytest.mark.parametrize("task", ["text-classification", "text-generation"])
def test_a_run_stopped_within_an_evaluation(task: str, flags_for: Callable[[str], list[str]], tmp_path: Path) -> None:
    check_resumed_is_whole(flags_for(task), StopAfter(looks_in_evaluation=0), tmp_path)


def test_continued_pretraining_on_plain_text(
    flags_for: Callable[[str], list[str]], tiny_causal: Path, tmp_path: Path
) -> None:
    flags = [*flags_for("fill-mask"), "--task", "text-generation", "--model_name", str(tiny_causal)]
    check_resumed_is_whole(flags, StopAfter(looks=3), tmp_path)
    settings = (tmp_path / "whole" / "model" / "settings.yaml").read_text(encoding="utf-8")
    assert "format: text" in settings  # told by the columns


def test_a_run_goes_on_under_the_settings_that_it_left(flags_for: Callable[[str], list[str]], tmp_path: Path) -> None:
    """The data had refined them: the shape of conversations was found."""
    flags, whole, halved = flags_for("text-generation"), tmp_path / "whole", tmp_path / "halved"
    run_train([*flags, "--output_dir", str(whole)], StopAfter())
    with pytest.raises(StopRequested):
        run_train([*flags, "--output_dir", str(halved)], StopAfter(looks=7))  # the first epoch has left a model
    run_train(["--config", str(halved / "settings.yaml"), "--resume"], StopAfter())
    assert losses(halved) == losses(whole)
    assert (halved / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_each_file_of_a_checkpoint_is_hashed_once(
    flags_for: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetuning.checkpoints import manifest

    flags = [*flags_for("text-classification"), "--output_dir", str(tmp_path)]
    hashed, hash_of = list[str](), manifest._hash

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return hash_of(path)

    with pytest.raises(StopRequested):
        run_train(flags, StopAfter(looks=2))
    monkeypatch.setattr(manifest, "_hash", counted)
    saved = next((tmp_path / "checkpoints").iterdir())
    for more in ([], ["--checkpoint_path", str(saved)]):
        hashed.clear()
        with pytest.raises(StopRequested):
            run_train([*flags, "--resume", *more], StopAfter(looks=0))
        assert sorted(hashed) == ["model.safetensors", "optimizer.safetensors", "state.json"]
    (saved / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="깨졌습니다"):
        run_train([*flags, "--resume", "--checkpoint_path", str(saved)], StopAfter())


def test_a_group_that_is_started_again_goes_back_to_the_named_checkpoint_until_it_has_saved(
    flags_for: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training_manager import TrainingManager

    saves = ["--set", "training.save_steps=1", "--set", "training.save_total_limit=9"]
    flags = [*flags_for("text-classification"), *saves]
    model, other = tmp_path / "model", tmp_path / "other"

    def steps(output_dir: Path) -> list[int]:
        found = sorted((output_dir / "checkpoints").glob("step-*"))
        return [int(path.name.removeprefix("step-")) for path in found]

    with pytest.raises(StopRequested):
        run_train([*flags, "--output_dir", str(model)], StopAfter(looks=3))
    first = model / "checkpoints" / "step-00000001"
    copied = shutil.copytree(first, tmp_path / "copied")

    def killed(_manager: TrainingManager) -> None:
        raise ZeroDivisionError

    for output_dir, named, left in ((model, first, [1, 2, 3, 4]), (other, copied, [])):
        words = [*flags, "--output_dir", str(output_dir), "--resume", "--checkpoint_path", str(named)]
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(TrainingManager, "run", killed)
            run_train(words, StopAfter())
        assert steps(output_dir) == left
        with monkeypatch.context() as patch:
            patch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
            for end in (2, 3):
                with pytest.raises(StopRequested):
                    run_train(words, StopAfter(looks=1))
                assert steps(output_dir)[-1] == end


@pytest.mark.parametrize("task", some_and_all(task_classes(), "text-classification", "text-generation", "embedding"))
def test_an_adapter_of_every_task(task: str, flags_for: Callable[[str], list[str]], tmp_path: Path) -> None:
    flags = [*flags_for(task), "--set", "model.adapter.method=lora", "--set", "model.adapter.r=4"]
    check_resumed_is_whole(flags, StopAfter(looks=3), tmp_path)
    assert (tmp_path / "whole" / "model" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("dora", ()),
        ("freeze", ()),
        ("pissa", ("model.adapter.rslora=true", "training.lora_plus_ratio=4", "training.optimizer=muon")),
    ],
)
def test_a_run_that_trains_a_part_of_the_model(
    method: str, more: tuple[str, ...], flags_for: Callable[[str], list[str]], tmp_path: Path
) -> None:
    flags = [*flags_for("text-classification"), "--set", f"model.adapter.method={method}"]
    flags += [word for setting in more for word in ("--set", setting)]
    check_resumed_is_whole([*flags, "--set", "model.adapter.layers=1"], StopAfter(looks=3), tmp_path)


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_an_adapter_beside_quantised_weights_is_resumed(
    kind: str, flags_for: Callable[[str], list[str]], tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    flags = [*flags_for("text-generation"), "--set", "model.adapter.method=lora", "--set", f"model.quantization={kind}"]
    check_resumed_is_whole(flags, StopAfter(looks=3), tmp_path)


# How far a logged loss may be from that of the plain run, as a part of it.
MEMORY_SETTINGS = {
    "memory.gradient_checkpointing=true": 1e-6,
    "memory.optimizer_in_backward=true": 5e-5,  # gradients are summed and scaled in another order
    "model.dtype=bfloat16": 5e-3,
    "training.optimizer=adafactor": 0.05,
    "training.optimizer=muon": 0.2,
    "training.optimizer=adamw_8bit": 1e-3,
}


@pytest.fixture(scope="module")
def plain_losses() -> dict[str, list[float]]:
    """By task, the losses of the run without savings, which the first test of a task trains."""
    return {}


def trained_losses(output_dir: Path) -> list[float]:
    return [line["loss"] for line in losses(output_dir) if line["kind"] == "train"]


@pytest.mark.parametrize(
    ("setting", "task"),
    [
        pytest.param(setting, task, marks=[] if (place + number) % 2 else pytest.mark.soak)
        for place, setting in enumerate(MEMORY_SETTINGS)
        for number, task in enumerate(("text-classification", "text-generation"))
    ],
)
def test_a_run_with_memory_savings_resumes_bit_for_bit(
    setting: str, task: str, flags_for: Callable[[str], list[str]], tmp_path: Path, plain_losses: dict[str, list[float]]
) -> None:
    if setting.endswith("8bit"):
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    flags = flags_for(task)
    if task not in plain_losses:
        run_train([*flags, "--output_dir", str(tmp_path / "plain" / "model")], StopAfter())
        plain_losses[task] = trained_losses(tmp_path / "plain" / "model")
    check_resumed_is_whole([*flags, "--set", setting], StopAfter(looks=3), tmp_path)
    plain, lean = plain_losses[task], trained_losses(tmp_path / "whole" / "model")
    assert len(plain) == len(lean)
    assert lean == pytest.approx(plain, rel=MEMORY_SETTINGS[setting])


@pytest.mark.soak
@pytest.mark.parametrize("task", ["text-classification", "text-generation"])
def test_compiled_layers(
    task: str, flags_for: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from finetuning.training.compile import CompiledLayers

    compiled, shapes = CompiledLayers.compile, list[int]()

    def compile_anew(self: CompiledLayers, step: Callable[[], object]) -> None:
        torch._dynamo.reset()  # as in a process of its own
        shapes.append(len(self.layers))
        compiled(self, step)

    monkeypatch.setattr(CompiledLayers, "compile", compile_anew)
    check_resumed_is_whole([*flags_for(task), "--set", "training.torch_compile=true"], StopAfter(looks=3), tmp_path)
    assert len(shapes) == 3  # each of the three runs compiled


@pytest.mark.parametrize("reason", ["out of memory", "no compiler"])
def test_automatic_compilation_that_fails_is_skipped(
    reason: str, flags_for: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exceptions import FinetuningError, SettingsError
    from finetuning.training.compile import CompiledLayers

    def fails(self: CompiledLayers, step: Callable[[], object]) -> None:
        raise MemoryError if reason == "out of memory" else SettingsError(reason)

    flags = flags_for("text-generation")
    run_train([*flags, "--output_dir", str(tmp_path / "plain" / "model")], StopAfter())
    monkeypatch.setattr(CompiledLayers, "compile", fails)
    monkeypatch.setattr("finetuning.training.step.is_worth_compiling", lambda *_: True)
    run_train([*flags, "--output_dir", str(tmp_path / "model")], StopAfter())
    assert losses(tmp_path / "model") == losses(tmp_path / "plain" / "model")
    with pytest.raises(FinetuningError):
        asked = ["--output_dir", str(tmp_path / "asked" / "model"), "--set", "training.torch_compile=true"]
        run_train([*flags, *asked], StopAfter())


def test_a_run_that_ends_early(flags_for: Callable[[str], list[str]], tmp_path: Path) -> None:
    flags = [*flags_for("text-classification"), "--learning_rate", "1e-12", "--epochs", "5"]
    flags += ["--set", "training.early_stopping_patience=2"]
    check_resumed_is_whole(flags, StopAfter(looks=3), tmp_path)
    run_train([*flags, "--output_dir", str(tmp_path / "halved" / "model"), "--resume"], StopAfter())  # it stays ended
    assert losses(tmp_path / "halved" / "model") == losses(tmp_path / "whole" / "model")
    assert [line["epoch"] for line in losses(tmp_path / "whole" / "model") if line["kind"] == "eval"] == [1, 2, 3]


def test_the_trained_model_is_gone_before_the_best_one_is_loaded(
    flags_for: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc

    from transformers import PreTrainedModel

    from model_manager import ModelManager

    alive: list[int] = []
    load_saved = ModelManager.load_saved

    def count(self: ModelManager) -> Any:
        alive.append(sum(isinstance(thing, PreTrainedModel) for thing in gc.get_objects()))
        return load_saved(self)

    gc.collect()
    before = sum(isinstance(thing, PreTrainedModel) for thing in gc.get_objects())  # other tests' fixtures
    monkeypatch.setattr(ModelManager, "load_saved", count)
    run_train([*flags_for("text-classification"), "--output_dir", str(tmp_path / "model")], StopAfter())
    assert alive == [before]


def test_a_causal_model_without_a_padding_token_classifies(
    flags_for: Callable[[str], list[str]], tiny_causal: Path, tmp_path: Path
) -> None:
    flags = [*flags_for("text-classification"), "--model_name", str(tiny_causal)]
    check_resumed_is_whole(flags, StopAfter(looks=3), tmp_path)
    config = json.loads((tmp_path / "whole" / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["pad_token_id"] == 0
