"""Training by 1, 2 and 4 processes, whole models and sharded ones: the same mathematics, and checkpoints for all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.cli import Cli, data_flags, read_json
from tests.support.dies import die_at_the_third_step
from tests.support.forked import answer_signals, run_group
from tests.support.launches import launcher
from tests.support.members import train_cases
from tests.support.paths import ROOT
from tests.support.runs import data_of
from tests.support.runs_out import at_the_third_step, while_micro_batches_are_large

pytestmark = pytest.mark.skipif(os.name != "posix", reason="gloo is tried where the launcher runs")

# name → task, and the flags beside those of all
KINDS = {
    "encoder": ("text-classification", ()),
    # In a window of "encoder" each label stands as often as the other, and the gradients of its examples cancel: of 0.5
    # the classifier's bias keeps 0.0014, the largest of all. What float32 rounds there is 1e-5 of that. Not so here.
    "uneven": ("text-classification", ("training.class_weights={긍정: 1.0, 부정: 3.0}",)),
    "causal": ("text-generation", ()),
    "recomputing": ("text-generation", ("memory.gradient_checkpointing=true",)),
    "scaled": ("text-generation", ()),  # a model that divides its logits by a number
    "halved": ("text-generation", ("memory.mixed_precision=true",)),  # bfloat16 where the machine has it
    "halved-norms": (
        "text-classification",
        ("memory.mixed_precision=true", "training.class_weights={긍정: 1, 부정: 3}"),
    ),
    "lora": ("text-generation", ("model.adapter.method=lora", "model.adapter.dropout=0")),
    "quantised": (
        "text-generation",
        ("model.adapter.method=lora", "model.adapter.dropout=0", "model.quantization=4bit"),
    ),
    "halved-quantised": (
        "text-generation",
        (
            "model.adapter.method=lora",
            "model.adapter.dropout=0",
            "model.quantization=4bit",
            "memory.mixed_precision=true",
            "memory.gradient_checkpointing=true",
        ),
    ),
    "quantised-dora": (
        "text-generation",
        ("model.adapter.method=dora", "model.adapter.dropout=0", "model.quantization=4bit"),
    ),
    "dpo": ("preference", ()),
    "kto": ("preference", ("preference.loss=kto",)),
    "contrastive": ("embedding", ()),
}
GRANITE = {"model_type": "granite", "architectures": ["GraniteForCausalLM"], "logits_scaling": 4.0}
WINDOW = 8
NO_TRUE_GRADIENT = 1e-12  # of the largest one: what AdamW turns into steps there is rounding

Found = dict[str, dict[str, Any]]


def still(model: Path, made: Path, ties: bool = False, **changes: object) -> Path:
    """A copy of a model without dropout; on request its head is the embedding, as in most small language models.

    Its files are in float16 then, as theirs often are in another dtype than the training's.
    """
    shutil.copytree(model, made)
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))
    config |= {name: 0.0 for name in ("hidden_dropout_prob", "attention_probs_dropout_prob") if name in config}
    config |= changes
    if ties:
        config["tie_word_embeddings"] = True
        weights = load_file(made / "model.safetensors")
        del weights["lm_head.weight"]
        weights = {name: one.half() for name, one in weights.items()}  # another dtype than the training's
        save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
    (made / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return made


def numbered(data: Path) -> Path:
    """The data with a number in front of each text. What begins alike is computed once in a micro-batch.

    The model's norms round in float32 what its gradient sums up, in another order for each cut: 1e-8 of it.
    """
    head, *rows = data.read_text(encoding="utf-8").splitlines()
    data.write_text("\n".join([head, *(f"{place}) {row}" for place, row in enumerate(rows))]) + "\n", encoding="utf-8")
    return data


@pytest.fixture(scope="module")
def flags_of(model_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """The flags of a kind's short run by a number of processes, which share windows of eight examples."""
    home = tmp_path_factory.mktemp("many")
    encoder = still(model_of("text-classification"), home / "encoder-model")
    models = {
        "text-classification": encoder, "embedding": encoder,
        "text-generation": still(model_of("text-generation"), home / "tied-model", ties=True),
        "preference": still(model_of("text-generation"), home / "causal-model"),
        "scaled": still(model_of("text-generation"), home / "scaled-model", **GRANITE),
    }  # fmt: skip

    def flags(kind: str, processes: int, shard: str, *more: object) -> list[str]:
        task, own = KINDS[kind]
        folder = home / kind
        folder.mkdir(exist_ok=True)
        chosen = [
            f"distributed.shard={shard}", f"data.dataset_cache_dir={home / 'cache'}", "training.max_grad_norm=null",
            "logging.progress_bar=false", "logging.report=false", "logging.log_steps=1",
            "generation.max_new_tokens=4", "memory.mixed_precision=false", *own,
        ]  # fmt: skip
        return [
            "--task", task, "--model_name", str(models.get(kind, models[task])),
            "--dataset", str(numbered(data_of(task, folder)) if task == "text-generation" else data_of(task, folder)),
            "--output_dir", str(folder / "model"), "--batch_size", str(WINDOW // processes // 2),
            "--gradient_accumulation_steps", "2", "--epochs", "1", "--max_length", "64",
            *[word for setting in chosen for word in ("--set", setting)], *map(str, more),
        ]  # fmt: skip

    return flags


Plans = dict[int, list[tuple[str, str, str]]]  # processes → kind, shard, dtype
_FLOAT32 = [("causal", "full", "float32"), ("uneven", "full", "float32")]
FEW: Plans = {
    1: [*((kind, "none", "float64") for kind in ("encoder", "causal", "lora", "dpo", "contrastive")),
        ("causal", "none", "float32"), ("uneven", "none", "float32")],
    2: [*((kind, "full", "float64") for kind in ("causal", "lora", "dpo", "contrastive")),
        ("encoder", "none", "float64"), *_FLOAT32],
    4: [("causal", "hybrid", "float64")],
}  # fmt: skip
HALVED: Plans = {
    1: [("halved", "none", "float32"), ("halved-norms", "none", "float32")],
    2: [("halved", "none", "float32"), ("halved", "full", "float32"), ("halved-norms", "full", "float32")],
}
QUANTISED: Plans = {
    processes: [(kind, shard, "float32") for kind in ("quantised", "quantised-dora")]
    for processes, shard in {1: "none", 2: "full"}.items()
}
HALVED_QUANTISED: Plans = {1: [("halved-quantised", "none", "float32")], 2: [("halved-quantised", "full", "float32")]}
EXACT = [kind for kind in KINDS if not kind.startswith(("halved", "quantised"))]
ALL: Plans = {
    1: [*((kind, "none", "float64") for kind in EXACT), ("causal", "none", "float32")],
    2: [*((kind, shard, "float64") for kind in EXACT for shard in ("none", "full"))],
    4: [("encoder", "none", "float64"), ("causal", "full", "float64"), ("causal", "hybrid", "float64")],
}


@pytest.fixture(scope="module")
def compute(
    flags_of: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Plans], dict[int, Found]]:
    """What computes plans: what each number of processes found, by `kind shard dtype`."""
    return lambda plans: {
        n: found_by(n, cases, flags_of, tmp_path_factory.mktemp("found")) for n, cases in plans.items()
    }


def found_by(
    processes: int, cases: list[tuple[str, str, str]], flags_of: Callable[..., list[str]], folder: Path
) -> Found:
    lines = [
        json.dumps({"name": f"{kind} {shard} {dtype}", "dtype": dtype, "flags": flags_of(kind, processes, shard),
                    "processes_here": 2 if shard == "hybrid" else processes})
        for kind, shard, dtype in cases
    ]  # fmt: skip
    done = run_group(processes, [str(folder / "found.pt"), *lines], ROOT, program=train_cases)
    assert not any(code for code, *_ in done), done
    found: Found = torch.load(folder / "found.pt")
    return found


@pytest.mark.parametrize(
    "plans",
    [FEW, QUANTISED, *(pytest.param(plans, marks=pytest.mark.soak) for plans in (ALL, HALVED, HALVED_QUANTISED))],
    ids=["few", "quantised", "all", "halved", "halved-quantised"],
)
def test_losses_gradients_and_weights_do_not_depend_on_the_processes(
    plans: Plans, compute: Callable[[Plans], dict[int, Found]]
) -> None:
    if plans in (QUANTISED, HALVED_QUANTISED):
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    found = compute(plans)
    for processes in plans.keys() - {1}:
        for name, many in found[processes].items():
            kind, shard, dtype = name.split()
            one = found[1][f"{kind} none {dtype}"]
            close = 0.03 if kind.startswith("halved") else 1e-9 if dtype == "float64" else 1e-6
            where = f"{name} by {processes}"
            assert many["is_sharded"] == (shard != "none"), where
            for (loss, norm), (expected, expected_norm) in zip(many["steps"], one["steps"], strict=True):
                assert loss == pytest.approx(expected, rel=close), where
                assert norm == pytest.approx(expected_norm, rel=close), where
            assert many["gradient"].keys() == one["gradient"].keys(), where
            largest = max(float(part.abs().max()) for part in one["gradient"].values())
            for parameter, expected in one["gradient"].items():
                assert float((many["gradient"][parameter] - expected).abs().max()) <= close * largest, where
                if dtype == "float64" and float(expected.abs().max()) > NO_TRUE_GRADIENT * largest:
                    weight = one["weights"][parameter]
                    assert torch.allclose(many["weights"][parameter], weight, rtol=1e-9, atol=1e-9), (where, parameter)
            if kind != "contrastive":  # its validation compares texts in windows of one process's size
                assert many["metrics"]["loss"] == pytest.approx(one["metrics"]["loss"], rel=max(close, 1e-6)), where


def run_on_two(words: list[str]) -> None:
    done = run_group(2, words, ROOT)
    assert not any(code for code, *_ in done), done


def test_a_sharded_run_goes_on_by_as_many_processes_bit_for_bit_and_by_one_closely(
    flags_of: Callable[..., list[str]], cli: Cli, tmp_path: Path
) -> None:
    def words(processes: int, shard: str, home: str, *more: str) -> list[str]:
        saves = ["--set", "training.save_steps=2", "--set", "training.save_total_limit=9"]
        return [*flags_of("causal", processes, shard), *saves, "--output_dir", str(tmp_path / home / "model"), *more]

    run_on_two(words(2, "full", "whole"))
    first = tmp_path / "whole" / "model" / "checkpoints" / "step-00000002"
    assert len(list(first.glob("shard-*.safetensors"))) == 2
    for home in ("two", "one"):
        shutil.copytree(first, tmp_path / home / "model" / "checkpoints" / first.name)
    run_on_two(words(2, "full", "two", "--resume"))
    run = cli(*words(1, "none", "one", "--resume"))
    assert run.code == 0, run.err
    # a process is killed at the third step; the launcher starts the group again, which nobody told to resume
    restart = {"TORCHELASTIC_MAX_RESTARTS": "1", "TORCHELASTIC_RESTART_COUNT": "0"}
    (code, *_), (killed, *_) = run_group(
        2, words(2, "full", "again"), ROOT, prepare=die_at_the_third_step, environment=restart
    )
    assert (code, killed) == (5, -signal.SIGKILL)
    done = run_group(2, words(2, "full", "again"), ROOT, environment={**restart, "TORCHELASTIC_RESTART_COUNT": "1"})
    assert [code for code, *_ in done] == [0, 0], done
    assert "스텝 2까지 마친 체크포인트에서 이어서 학습합니다" in done[0][2]
    whole, two, one, again = (
        load_file(tmp_path / home / "model" / "model.safetensors") for home in ("whole", "two", "one", "again")
    )
    assert whole.keys() == two.keys() == one.keys() == again.keys()
    for name, weight in whole.items():
        assert torch.equal(two[name], weight) and torch.equal(again[name], weight), name
        assert torch.allclose(one[name], weight, rtol=1e-4, atol=1e-6), name


def test_a_quantised_run_in_shards_goes_on_and_its_adapter_is_read_by_one_process(
    flags_of: Callable[..., list[str]], cli: Cli, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

    def words(processes: int, shard: str, home: str, *more: str) -> list[str]:
        saves = ["--set", "training.save_steps=2", "--set", "training.save_total_limit=9"]
        return [*flags_of("quantised", processes, shard), *saves, "--output_dir", str(tmp_path / home / "model"), *more]

    run_on_two(words(2, "full", "whole"))
    first = tmp_path / "whole" / "model" / "checkpoints" / "step-00000002"
    held = [name for path in first.glob("shard-*.safetensors") for name in load_file(path)]
    assert held and all("lora_" in name for name in held)
    for home in ("two", "one"):
        shutil.copytree(first, tmp_path / home / "model" / "checkpoints" / first.name)
    run_on_two(words(2, "full", "two", "--resume"))
    run = cli(*words(1, "none", "one", "--resume"))
    assert run.code == 0, run.err
    whole, two, one = (
        load_file(tmp_path / home / "model" / "adapter_model.safetensors") for home in ("whole", "two", "one")
    )
    assert whole.keys() == two.keys() == one.keys()
    for name, weight in whole.items():
        assert torch.equal(two[name], weight), name
        assert torch.allclose(one[name], weight, rtol=1e-4, atol=1e-6), name
    saved = tmp_path / "whole" / "model"
    evaluated = cli("evaluate", "--output_dir", saved, *data_flags(saved), "--split", "validation")
    assert evaluated.code == 0, evaluated.err
    reported = read_json(saved / "summary.json")["validation"]["loss"]
    assert read_json(saved / "metrics-validation.json")["loss"] == pytest.approx(reported, rel=1e-6)


@pytest.mark.parametrize(
    "setting",
    ["training.optimizer=adafactor", "memory.optimizer_in_backward=true", "training.torch_compile=true",
     "model.quantization=8bit"],
)  # fmt: skip
def test_what_needs_whole_weights_is_refused_by_name(
    setting: str, flags_of: Callable[..., list[str]], cli: Cli
) -> None:
    kind = "lora" if "quantization" in setting else "causal"
    run = cli(*flags_of(kind, 1, "full"), "--set", setting)
    assert run.code == 2 and setting.partition("=")[0] in run.err and "distributed.shard" in run.err


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.soak), signal.SIGTERM])
def test_a_stop_of_the_launcher_saves_and_the_line_to_resume_names_it(
    number: signal.Signals, flags_of: Callable[..., list[str]], tmp_path: Path
) -> None:
    flags = [*flags_of("encoder", 2, "full"), "--epochs", "200", "--output_dir", str(tmp_path / "model")]
    process = subprocess.Popen(
        [*launcher(2), "finetuning_app.py", *flags],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=answer_signals,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    log: list[str] = []
    for line in process.stderr:
        log.append(line)
        if "스텝 3/" in line:
            if number == signal.SIGINT:  # from a terminal, to the launcher and to all that it started
                os.killpg(process.pid, number)
            else:  # from Slurm or Kubernetes, to the launcher alone
                process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    said = "".join(log)
    assert said.count("이어서 하려면: python -m finetuning.device.torchrun --nproc_per_node 2") == 1, said[-3000:]
    assert "Traceback" not in said, said[-3000:]
    assert list((tmp_path / "model" / "checkpoints").glob("step-*/manifest.json"))


def test_a_killed_process_is_told_once_without_tracebacks(flags_of: Callable[..., list[str]], tmp_path: Path) -> None:
    flags = [*flags_of("encoder", 2, "full"), "--epochs", "200", "--output_dir", str(tmp_path / "model")]
    (code, _, said), (killed, *_) = run_group(2, flags, ROOT, prepare=die_at_the_third_step)
    assert (code, killed) == (5, -signal.SIGKILL)
    assert said.count("다른 프로세스가 끝나 버려") == 1 and "Traceback" not in said, said


def test_memory_that_runs_out_in_one_process_makes_micro_batches_smaller_or_is_told_once(
    flags_of: Callable[..., list[str]], tmp_path: Path
) -> None:
    whole = [*flags_of("encoder", 2, "none"), "--output_dir", str(tmp_path / "whole")]
    done = run_group(2, whole, ROOT, prepare=while_micro_batches_are_large)
    said = "".join(err for *_, err in done)
    assert [code for code, *_ in done] == [0, 0], said
    assert said.count("다른 프로세스의 메모리가 부족하여") == 1, said

    divided = [*flags_of("encoder", 2, "full"), "--output_dir", str(tmp_path / "divided")]
    done = run_group(2, divided, ROOT, prepare=at_the_third_step)
    said = "".join(err for *_, err in done)
    assert [code for code, *_ in done] == [5, 5], said
    assert said.count("오류: ") == said.count("학습하는 도중에 메모리가 부족해졌습니다") == 1, said
    assert "--resume" in said and "Traceback" not in said, said
