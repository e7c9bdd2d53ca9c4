"""Model folders that would train something else than they seem to hold."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli, arguments_for


def rewrite(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def drop_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*.json"):
        path.unlink()


def leave_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def lead_out(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "w.safetensors")
    weights = {"bert.embeddings.word_embeddings.weight": "../w.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))


class Evil:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('ran')",)


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (drop_tokenizer, "tokenizer에 특수 토큰밖에 없어"),
        (leave_pointer, "lfs pull"),
        (lead_out, "모델 폴더 밖"),
        (pickle_weights, "파이썬 객체가 들어 있어 읽지 않았습니다"),
        (lambda folder: rewrite(folder / "config.json", num_hidden_layers=-1), "층이 -1개"),
        (lambda folder: rewrite(folder / "config.json", num_hidden_layers=0), "층이 0개"),
        (lambda folder: rewrite(folder / "config.json", num_hidden_layers=10**7), "층이 10,000,000개"),
        (lambda folder: rewrite(folder / "tokenizer_config.json", model_max_length=0), "최대 길이가 0 토큰"),
        (lambda folder: rewrite(folder / "tokenizer_config.json", model_max_length=-5), "최대 길이가 -5 토큰"),
    ],
)
def test_a_folder_that_cannot_be_meant_is_refused(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "base")
    damage(folder)
    run = cli(*arguments_for(folder, reviews, tmp_path / "model", "--set", "data.train_rows=40"))
    assert run.code == 4, run.err
    assert said in run.err and "Traceback" not in run.err and "weights_only" not in run.err


def test_layers_that_the_config_leaves_out_are_told(cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "base")
    rewrite(folder / "config.json", num_hidden_layers=1)
    flags = ["--set", "data.train_rows=40", "--epochs", "1"]
    run = cli(*arguments_for(folder, reviews, tmp_path / "model", *flags))
    assert run.code == 0, run.err
    assert "모델 파일에 있는 층 1개를 쓰지 않습니다: encoder.layer.1" in run.err
    assert "쓰지 않습니다" not in cli(*arguments_for(tiny_model, reviews, tmp_path / "other", *flags)).err


def test_a_file_and_a_broken_link_are_not_looked_up_in_the_hub(cli: Cli, reviews: Path, tmp_path: Path) -> None:
    file, link = tmp_path / "model.safetensors", tmp_path / "link"
    file.write_bytes(b"x")
    link.symlink_to("moved")
    for path, said in ((file, "파일입니다"), (link, "링크입니다")):
        run = cli(*arguments_for(path, reviews, tmp_path / "model"))
        assert run.code == 4 and said in run.err and "Hub" not in run.err
