"""A model folder that anybody may have made: it runs no code, names no path to read and no place to write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cli import Cli

ALLOW = ("--set", "model.trust_remote_code=true")


def write_settings(folder: Path, **sections: dict[str, Any]) -> None:
    (folder / "settings.yaml").write_text(yaml.safe_dump(sections, allow_unicode=True), encoding="utf-8")


def with_code(source: Path, folder: Path, mark: Path) -> Path:
    """Copies a model into a folder whose config needs the Python file beside it, which leaves a mark when run."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = {
        "AutoConfig": "own.Own",
        "AutoModelForSequenceClassification": "own.Own",
        "AutoModelForCausalLM": "own.Own",
    }
    described = {**config, "model_type": "own", "auto_map": names}
    (folder / "config.json").write_text(json.dumps(described), encoding="utf-8")
    (folder / "own.py").write_text(
        f"from transformers import PretrainedConfig\nopen({str(mark)!r}, 'w').close()\n\n\n"
        "class Own(PretrainedConfig):\n    model_type = 'own'\n",
        encoding="utf-8",
    )
    write_settings(folder, model={"trust_remote_code": True})
    return folder


@pytest.mark.parametrize("command", ["evaluate", "predict", "chat", "export", "plan", "train"])
@pytest.mark.parametrize("named_by", ["--output_dir", "--model_name"])
def test_a_model_folder_cannot_allow_its_own_code(
    command: str, named_by: str, cli: Cli, tiny_model: Path, tiny_causal: Path, reviews: Path, tmp_path: Path
) -> None:
    mark, task = tmp_path / "ran", "text-generation" if command == "chat" else "text-classification"
    folder = with_code(tiny_causal if command == "chat" else tiny_model, tmp_path / "shared", mark)
    if command in ("plan", "train") and named_by == "--output_dir":
        pytest.skip("output_dir is not read")
    if command == "export":  # an adapter, on a base that needs code
        adapter = tmp_path / "adapter"
        shutil.copytree(tiny_model, adapter)
        described = {"base_model_name_or_path": str(folder), "peft_type": "LORA"}
        (adapter / "adapter_config.json").write_text(json.dumps(described), encoding="utf-8")
        write_settings(adapter, model={"trust_remote_code": True})
        folder = adapter
    words = [command, named_by, folder, "--task", task]
    if command in ("evaluate", "plan", "train"):
        words += ["--dataset", reviews, "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}"]
    if command in ("plan", "train"):
        words += ["--output_dir", tmp_path / "out"]
    run = cli(*words, stdin="안녕\n")
    assert not mark.exists(), run.err
    assert run.code == 4, run.err
    assert "파이썬 코드를 실행해야" in run.err
    assert "--set model.trust_remote_code=true" in run.err
    cli(*words, *ALLOW, stdin="안녕\n")
    assert mark.exists()


def test_code_runs_where_the_users_own_file_allows_it(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    folder = with_code(tiny_model, tmp_path / "shared", mark)
    (tmp_path / "mine.yaml").write_text("model: {trust_remote_code: true}\n", encoding="utf-8")
    cli("predict", "--config", tmp_path / "mine.yaml", "--output_dir", folder, stdin="안녕\n")
    assert mark.exists()


def test_a_model_folder_names_no_data_to_read(cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    shutil.copytree(tiny_model, folder)
    write_settings(folder, data={"dataset_name": str(reviews / "train.csv"), "dataset_cache_dir": str(tmp_path / "c")})
    run = cli("evaluate", "--output_dir", folder)
    assert run.code == 2
    assert (
        "evaluate" in run.err
        and f"--output_dir {folder} --dataset {reviews / 'train.csv'} --split validation" in run.err
    )
    assert not (tmp_path / "c").exists()


def test_a_model_folder_names_no_template_and_no_place_to_write(cli: Cli, tiny_causal: Path, tmp_path: Path) -> None:
    folder, secret = tmp_path / "shared", tmp_path / "secret.jinja"
    shutil.copytree(tiny_causal, folder)
    secret.write_text("{{ 1/0 }}", encoding="utf-8")
    write_settings(
        folder,
        model={"task": "text-generation", "output_dir": str(tmp_path / "w"), "cache_dir": str(tmp_path / "w")},
        data={"dataset_name": str(tmp_path / "nothing"), "dataset_cache_dir": str(tmp_path / "w"), "cache_max_gb": 0},
        text_generation={"format": "chat", "chat_template": str(secret)},
        generation={"max_new_tokens": 2},
        logging={"format": "\x1b[31m%(message)s", "level": "ERROR"},
    )
    run = cli("predict", "--model_name", folder, stdin="안녕\n")
    assert run.code == 0, run.err
    assert "generated" in json.loads(run.out)
    assert "\x1b" not in run.err
    adapter = {"base_model_name_or_path": str(tiny_causal), "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(adapter), encoding="utf-8")
    cli("export", "--model_name", folder)
    assert not (tmp_path / "w").exists()
