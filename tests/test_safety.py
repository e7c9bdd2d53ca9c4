"""What SECURITY.md promises: no code out of data or models, no token in what a run leaves or says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from exceptions import DataError, FinetuningError, ModelError
from finetuning.config.schema import Settings
from finetuning.data.hub import load_hub
from finetuning.tasks.registry import find_task
from model_manager import ModelManager
from tests.support.runs import StopAfter, run_train

TOKEN = "hf_" + "NeverToBeSeenAnywhere" * 2


class Code:
    """What unpickling would run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.mark), "w"))


def models(folder: Path) -> ModelManager:
    settings = Settings.model_validate({"model": {"name": str(folder)}})
    return ModelManager(settings, find_task(settings))


def test_a_hub_token_is_in_no_file_and_no_output(
    flags_for: Callable[[str], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, TOKEN)
    caplog.set_level("DEBUG")
    flags = [*flags_for("text-classification"), "--log_level", "DEBUG"]
    run_train([*flags, "--output_dir", str(tmp_path / "models" / "mine")], StopAfter())
    told = []
    for bad in (["--model_name", "somebody/private"], ["--dataset", "somebody/private"]):
        with pytest.raises(FinetuningError) as error:
            run_train([*flags, *bad, "--output_dir", str(tmp_path / "models" / "other")], StopAfter())
        told.append(str(error.value))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"settings.yaml", "README.md", "summary.json", "state.json"} <= {path.name for path in written}
    assert [path for path in written if TOKEN.encode() in path.read_bytes()] == []
    assert TOKEN not in caplog.text + "".join(capfd.readouterr()) + "".join(told)


def test_code_beside_a_model_is_not_run(tiny_model: Path, tmp_path: Path) -> None:
    folder, mark = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": names}))
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    with pytest.raises(ModelError) as error:
        models(folder).load_model(("0", "1"))
    assert "model.trust_remote_code" in str(error.value)
    assert not mark.exists()


def test_weights_that_are_a_pickle_of_code_are_not_unpickled(tiny_model: Path, tmp_path: Path) -> None:
    folder, mark = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Code(mark)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError):
        models(folder).load_model(("0", "1"))
    assert not mark.exists()


def test_a_dataset_script_is_not_run(tmp_path: Path) -> None:
    folder, mark = tmp_path / "own", tmp_path / "ran"
    folder.mkdir()
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    with pytest.raises(DataError):
        load_hub(str(folder), None, str(tmp_path / "cache"))
    assert not mark.exists()
