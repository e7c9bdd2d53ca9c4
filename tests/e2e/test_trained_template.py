"""The chat template that a model was trained with is the model's: the user's file may change or go away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from exceptions import StopRequested
from tests.support.cli import Cli
from tests.support.runs import StopAfter, losses, run_train

TRAINED = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
EDITED = TRAINED.replace(": ", " = ")
TOLD = "학습을 시작할 때 저장한 chat template을 씁니다"


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "chat.jinja"
    path.write_text(TRAINED, encoding="utf-8")
    return path


def test_a_trained_model_uses_the_template_that_was_saved_with_it(
    cli: Cli, flags_for: Callable[[str], list[str]], template: Path, tmp_path: Path
) -> None:
    setting = ["--set", f"text_generation.chat_template={template}"]
    output_dir, cache = tmp_path / "model", ["--set", f"data.dataset_cache_dir={tmp_path / 'cache'}"]
    run_train([*flags_for("text-generation"), *setting, "--epochs", "1", "--output_dir", str(output_dir)], StopAfter())
    evaluate = ["evaluate", "--output_dir", output_dir, "--dataset", tmp_path / "train.csv", *cache]
    plain, same = cli(*evaluate), cli(*evaluate, *setting)
    assert plain.code == 0, plain.err
    assert same.out == plain.out and TOLD not in plain.err + same.err
    for change in (lambda: template.write_text(EDITED, encoding="utf-8"), template.unlink):
        change()
        again = cli(*evaluate, *setting)
        assert (again.code, again.out) == (0, plain.out), again.err
        assert TOLD in again.err and str(template) in again.err
        predict = ["predict", "--output_dir", output_dir, *cache]
        assert cli(*predict, *setting, stdin="안녕\n").out == cli(*predict, stdin="안녕\n").out


@pytest.mark.parametrize("change", ["edited", "removed"])
def test_a_run_goes_on_with_the_template_that_it_began_with(
    flags_for: Callable[[str], list[str]], template: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    change: str,
) -> None:  # fmt: skip
    flags = [*flags_for("text-generation"), "--set", f"text_generation.chat_template={template}"]
    whole, halved = tmp_path / "whole" / "model", tmp_path / "halved" / "model"
    run_train([*flags, "--output_dir", str(whole)], StopAfter())
    with pytest.raises(StopRequested):
        run_train([*flags, "--output_dir", str(halved)], StopAfter(2))  # before a model was saved
    assert not (halved / "config.json").exists()
    if change == "removed":
        template.unlink()
    else:
        template.write_text(EDITED, encoding="utf-8")
    caplog.clear()
    run_train([*flags, "--output_dir", str(halved), "--resume"], StopAfter())
    assert TOLD in caplog.text
    assert losses(halved) == losses(whole)
    assert (halved / "chat_template.jinja").read_text(encoding="utf-8") == TRAINED


def test_a_new_run_on_a_trained_model_takes_the_file(
    flags_for: Callable[[str], list[str]], template: Path, tmp_path: Path
) -> None:
    flags = [*flags_for("text-generation"), "--epochs", "1", "--set", f"text_generation.chat_template={template}"]
    run_train([*flags, "--output_dir", str(tmp_path / "first")], StopAfter())
    template.write_text(EDITED, encoding="utf-8")
    second = [*flags, "--model_name", str(tmp_path / "first"), "--output_dir", str(tmp_path / "second")]
    run_train(second, StopAfter())
    assert (tmp_path / "second" / "chat_template.jinja").read_text(encoding="utf-8") == EDITED
