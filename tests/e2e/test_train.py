"""Training, stopping, resuming, evaluating and predicting, through the command line as a user does."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.support.cli import Cli, arguments_for, data_flags
from tests.support.forked import run_group, stop_at
from tests.support.paths import ROOT
from tests.support.runs import final_state, losses


@pytest.fixture(scope="module")
def trained(cli: Cli, tiny_model: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output_dir of a run that was never stopped."""
    output_dir = tmp_path_factory.mktemp("trained") / "model"
    run = cli(*arguments_for(tiny_model, reviews, output_dir))
    assert run.code == 0, run.err
    assert "epoch 3/3" in run.err
    assert "정확도" in run.err
    return output_dir


def test_a_run_writes_every_documented_file(trained: Path) -> None:
    left = {path.name for path in trained.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "settings.yaml", "metrics.jsonl"} <= left
    assert not [name for name in left if "partial" in name]
    summary = json.loads((trained / "summary.json").read_text(encoding="utf-8"))
    assert summary["steps"] == 24
    assert {"loss", "accuracy", "macro_f1"} == set(summary["test"])
    assert (trained.parent / "checkpoint-latest" / "manifest.json").is_file()
    assert len(list((trained / "checkpoints").iterdir())) == 2
    evaluations = [record for record in losses(trained) if record["kind"] == "eval"]
    assert [record["epoch"] for record in evaluations] == [1, 2, 3]


def test_running_the_saved_settings_again_is_the_same_run(cli: Cli, trained: Path, tmp_path: Path) -> None:
    run = cli("--config", trained / "settings.yaml", "--output_dir", tmp_path / "again")
    assert run.code == 0, run.err
    assert losses(tmp_path / "again") == losses(trained)
    assert final_state(tmp_path / "again") == final_state(trained)


@pytest.mark.parametrize(
    ("line", "number"),
    [("epoch 2 스텝 12/", signal.SIGINT), ("epoch 2 스텝 16/", signal.SIGTERM)],
    ids=["SIGINT within epoch 2", "SIGTERM before the evaluation of epoch 2"],
)
def test_a_stopped_run_ends_as_one_never_stopped(
    cli: Cli, trained: Path, tiny_model: Path, reviews: Path, tmp_path: Path, line: str, number: int
) -> None:
    output_dir = tmp_path / "model"
    arguments = arguments_for(tiny_model, reviews, output_dir)
    code, log = stop_at(arguments, line, number)
    assert code == 128 + number, log
    assert "--resume" in log.splitlines()[-1]
    assert not (output_dir / "summary.json").exists()
    refused = cli(*arguments)
    assert refused.code == 2
    assert "--resume" in refused.err
    resumed = cli(*arguments, "--resume", "--checkpoint_path", tmp_path / "checkpoint-latest")
    assert resumed.code == 0, resumed.err
    assert losses(output_dir) == losses(trained)
    assert final_state(output_dir) == final_state(trained)
    assert (output_dir / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_a_checkpoint_of_other_settings_is_refused(cli: Cli, trained: Path, tiny_model: Path, reviews: Path) -> None:
    run = cli(*arguments_for(tiny_model, reviews, trained, "--resume", "--seed", "7"))
    assert run.code == 2
    assert "training.seed: 체크포인트 42 / 지금 7" in run.err
    assert (trained / "summary.json").exists()


def test_resume_without_a_checkpoint_says_so(cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    run = cli(*arguments_for(tiny_model, reviews, tmp_path / "new", "--resume"))
    assert run.code == 4
    assert "체크포인트가 없습니다" in run.err
    assert not (tmp_path / "new").exists()


def test_evaluate_prints_and_saves_what_training_reported(cli: Cli, trained: Path, reviews: Path) -> None:
    run = cli("evaluate", "--output_dir", trained, *data_flags(trained))
    assert run.code == 0, run.err
    assert "test 20행" in run.out
    saved = json.loads((trained / "metrics-test.json").read_text(encoding="utf-8"))
    reported = json.loads((trained / "summary.json").read_text(encoding="utf-8"))["test"]
    assert saved["accuracy"] == reported["accuracy"]
    assert saved["loss"] == pytest.approx(reported["loss"])


def test_evaluate_scores_all_of_a_file_that_is_given(cli: Cli, trained: Path, reviews: Path) -> None:
    run = cli("evaluate", "--output_dir", trained, "--dataset", reviews / "train.csv")
    assert run.code == 0, run.err
    assert "train 80행" in run.out
    assert json.loads((trained / "metrics-train.json").read_text(encoding="utf-8"))["rows"] == 80


def test_predict_agrees_with_pipeline(cli: Cli, trained: Path, tmp_path: Path) -> None:
    texts = ["정말 재미있다", "너무 지루하다", "", "배우 연기가 훌륭하다"]
    (tmp_path / "in.txt").write_text("text\n", encoding="utf-8")
    run = cli("predict", "--no-mixed_precision", "--output_dir", trained, stdin="\n".join(texts) + "\n")
    assert run.code == 0, run.err
    records = [json.loads(line) for line in run.out.splitlines()]
    assert [record["text"] for record in records] == texts
    assert "label" not in records[2]
    script = (
        "import sys, json; from transformers import pipeline;"
        "print(json.dumps(pipeline('text-classification', model=sys.argv[1])(json.loads(sys.argv[2]))))"
    )
    kept = [record for record in records if "label" in record]
    done = subprocess.run(
        [sys.executable, "-c", script, str(trained), json.dumps([record["text"] for record in kept])],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for record, expected in zip(kept, json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert record["label"] == expected["label"]
        assert record["score"] == pytest.approx(expected["score"], abs=1e-4)


def test_predict_reads_a_file_and_writes_csv(cli: Cli, trained: Path, reviews: Path, tmp_path: Path) -> None:
    run = cli("predict", "--output_dir", trained, "--input", reviews / "test.csv", "--output", tmp_path / "out.csv")
    assert run.code == 0, run.err
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert {"text", "label", "predicted_label", "score"} == set(rows[0])
    assert {row["label"] for row in rows} == {"긍정", "부정"}


def test_continued_pretraining_then_fine_tuning(cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    pretrained = tmp_path / "pretrained"
    run = cli(*arguments_for(tiny_model, reviews, pretrained, "--task", "fill-mask", "--epochs", "1",
                             "--set", "model.save_dtype=float16"))  # fmt: skip
    assert run.code == 0, run.err
    assert "perplexity" in run.err
    assert {str(tensor.dtype) for tensor in load_file(pretrained / "model.safetensors").values()} == {"torch.float16"}
    tuned = cli(*arguments_for(pretrained, reviews, tmp_path / "tuned", "--epochs", "1"))
    assert tuned.code == 0, tuned.err
    filled = cli("predict", "--output_dir", pretrained, stdin="정말 [MASK]\n")
    assert filled.code == 0, filled.err
    assert len(json.loads(filled.out)["tokens"]) == 1


def test_a_run_that_diverges_is_stopped_with_the_rows(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    run = cli(*arguments_for(tiny_model, reviews, tmp_path / "model", "--learning_rate", "1e30"))
    assert run.code == 4
    assert "5스텝 연속" in run.err
    assert "learning_rate" in run.err
    assert "Traceback" not in run.err


def test_two_processes_train_the_windows_of_one(tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    """The same seed gives the same windows and, without dropout, the same losses on one process and on two."""
    still = tmp_path / "still"
    shutil.copytree(tiny_model, still)
    config = json.loads((still / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (still / "config.json").write_text(json.dumps(config))
    found = {}
    for processes, batch_size in ((1, "10"), (2, "5")):
        output_dir = tmp_path / str(processes) / "model"
        arguments = arguments_for(still, reviews, output_dir, "--epochs", "1", "--batch_size", batch_size)
        done = run_group(processes, arguments, ROOT)
        assert not any(code for code, *_ in done), done
        found[processes] = losses(output_dir)
        assert "스텝당 예제 20개" in (output_dir / "README.md").read_text(encoding="utf-8")
    assert [record["step"] for record in found[1]] == [record["step"] for record in found[2]]
    for one, two in zip(found[1], found[2], strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
