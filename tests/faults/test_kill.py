"""SIGKILL at random moments: a run that is begun again each time ends with the weights of one never disturbed."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Cli
from tests.e2e.test_train import arguments_for, final_state, losses

LONGEST_LIFE_S = 12.0  # a whole run takes about as long


def is_killed(arguments: list[str], after_s: float) -> bool:
    """Starts a run and kills it after so long, unless it has ended by itself: then it must have ended well."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "finetuning_app.py"), *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        _, said = process.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    assert process.returncode == 0, said
    return False


@pytest.mark.parametrize("kills", [2, pytest.param(60, marks=pytest.mark.soak)])
def test_a_run_that_is_killed_again_and_again(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path, kills: int
) -> None:
    moments = random.Random(kills)
    flags = ["--set", "training.save_steps=2", "--set", "training.eval_steps=5"]
    whole = tmp_path / "whole" / "model"
    undisturbed = cli(*arguments_for(tiny_model, reviews, whole, *flags))
    assert undisturbed.code == 0, undisturbed.err
    done, output_dir = 0, tmp_path / "0" / "model"
    while True:
        life = moments.uniform(1.0, LONGEST_LIFE_S) if done < kills else 300.0
        resume = ["--resume"] if list((output_dir / "checkpoints").glob("step-*")) else []
        if is_killed([*arguments_for(tiny_model, reviews, output_dir, *flags), *resume], life):
            done += 1
            continue
        assert losses(output_dir) == losses(whole)
        assert final_state(output_dir) == final_state(whole)
        assert (output_dir / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
        assert not [path.name for path in output_dir.rglob("*") if "partial" in path.name]
        if done >= kills:
            return
        output_dir = tmp_path / str(done) / "model"
