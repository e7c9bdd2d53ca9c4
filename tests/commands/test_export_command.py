"""export as a user runs it: a folder that tells what it is, other formats, and the Hub without a network."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from exceptions import SettingsError
from finetuning.exports.base import require
from tests.support.cli import Cli, arguments_for, read_json


@pytest.fixture(scope="module")
def adapter(cli: Cli, tiny_model: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("내 모델") / "reviews"
    lora = ("--epochs", "1", "--set", "model.adapter.method=lora")
    run = cli(*arguments_for(tiny_model, reviews, folder, *lora))
    assert run.code == 0, run.err
    return folder


def test_an_exported_folder_knows_its_task_its_settings_and_its_scores(
    cli: Cli, adapter: Path, reviews: Path, tmp_path: Path
) -> None:
    from huggingface_hub import ModelCard

    out = tmp_path / "sent"
    run = cli("export", "--output_dir", adapter, "--output", out, "--push", "me/reviews", "--dry_run",
              "--license", "apache-2.0")  # fmt: skip
    assert run.code == 0, run.err
    record = read_json(out / "export.json")
    assert record["task"] == "text-classification" and set(record["files"]) < {path.name for path in out.iterdir()}
    saved = (out / "settings.yaml").read_text(encoding="utf-8")
    assert str(adapter.parent) not in saved and str(reviews.parent) not in saved
    assert yaml.safe_load(saved)["data"]["max_length"] == 64
    card = ModelCard.load(out / "README.md")
    assert card.data.license == "apache-2.0" and card.data.pipeline_tag == "text-classification"
    assert card.data.base_model is None and card.data.datasets is None  # both are folders of this machine
    scores = {result.metric_type: result.metric_value for result in card.data.eval_results or []}
    assert scores == pytest.approx(read_json(adapter / "summary.json")["test"])
    assert {result.dataset_split for result in card.data.eval_results or []} == {"test"}
    assert "올리지는 않았습니다" in run.err and "model.safetensors (" in run.err and "license: apache-2.0" in run.err
    predicted = cli("predict", "--model_name", out, stdin="재미있다\n")
    before = cli("predict", "--output_dir", adapter, stdin="재미있다\n")
    assert predicted.code == 0, predicted.err
    assert json.loads(predicted.out)["label"] == json.loads(before.out)["label"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--push", "me/reviews"], "HF_HUB_OFFLINE"),
        (["--push", "내/저장소", "--dry_run"], "저장소의 이름"),
        (["--format", "ggufs"], "혹시 gguf입니까?"),
        (["--format", "gguf"], "--format onnx"),
        (["--dry_run"], "--push와 함께"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    cli: Cli, adapter: Path, flags: list[str], said: str, tmp_path: Path
) -> None:
    run = cli("export", "--output_dir", adapter, "--output", tmp_path / "out", *flags)
    assert run.code == 2 and said in run.err, run.err
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(SettingsError) as error:
        require("onnx", json="json", no_such_module="no-such-package")
    assert error.value.what.endswith(": no-such-package") and "`pip install no-such-package`" in error.value.remedy


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")), reason="onnx is not installed"
)
@pytest.mark.parametrize(("name", "near"), [("onnx", 0.01), ("onnx-int8", 0.05)])
def test_an_encoder_gives_torchs_outputs_in_onnxruntime(
    cli: Cli, adapter: Path, name: str, near: float, tmp_path: Path
) -> None:
    import numpy as np
    import onnxruntime
    from transformers import AutoTokenizer

    run = cli("export", "--output_dir", adapter, "--output", tmp_path / "onnx", "--format", name)
    assert run.code == 0, run.err
    assert "출력 차이는 최대" in run.err
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "onnx")
    found = session.run(None, dict(tokenizer(["재미있다", "재미없다 1"], padding=True, return_tensors="np")))[0]
    shown = cli("predict", "--output_dir", adapter, stdin="재미있다\n재미없다 1\n")
    scores = np.exp(found) / np.exp(found).sum(-1, keepdims=True)
    expected = [json.loads(line)["score"] for line in shown.out.splitlines()]
    assert scores.max(-1) == pytest.approx(expected, abs=near)
