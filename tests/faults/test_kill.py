"""SIGKILL at random moments: a run that is begun again each time ends with the weights of one never disturbed.

`KILLS=1000 python -m pytest -m soak -s tests/faults/test_kill.py` kills as often as that.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.test_train import arguments_for, final_state, losses
from tests.faults.victim import PHASES, Victim

FLAGS = ["--set", "training.save_steps=2", "--set", "training.eval_steps=5"]
LONGEST_WITHIN_A_PHASE_S = 0.02
LIFE_S = 60.0  # of a run that nobody kills: fifty times what it takes
SOAK = int(os.environ.get("KILLS", "240"))


def kill_at_a_moment(victim: Victim, moments: random.Random, usual_life_s: float) -> str | None:
    """Kills a run at any moment of its life or, every other time, within a phase; its phase, or None if it ended."""
    if moments.random() < 0.5:
        victim.wait(moments.uniform(0, usual_life_s))
    else:
        victim.wait_for(moments.choice(PHASES), LIFE_S)
        victim.wait(moments.uniform(0, LONGEST_WITHIN_A_PHASE_S))
    return victim.kill()


def check_like(output_dir: Path, whole: Path) -> None:
    assert losses(output_dir) == losses(whole)
    assert final_state(output_dir) == final_state(whole)
    assert (output_dir / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    left = {path.name for path in output_dir.rglob("*")} | {path.name for path in output_dir.parent.iterdir()}
    assert not [name for name in left if "partial" in name or name == ".lock"]


@pytest.mark.parametrize("kills", [16, pytest.param(SOAK, marks=pytest.mark.soak)])
def test_a_run_that_is_killed_again_and_again(tiny_model: Path, reviews: Path, tmp_path: Path, kills: int) -> None:
    moments, killed, ended = random.Random(kills), Counter[str](), 0
    whole, log = tmp_path / "whole" / "model", tmp_path / "log.txt"
    for output_dir in (tmp_path / "first" / "model", whole):  # the first also waits for what is imported once
        began = time.perf_counter()
        assert Victim(arguments_for(tiny_model, reviews, output_dir, *FLAGS), log).ended_well(LIFE_S), log.read_text()
        usual_life_s = time.perf_counter() - began
    while killed.total() < kills:
        output_dir = tmp_path / str(ended) / "model"
        while True:
            resume = ["--resume"] if list((output_dir / "checkpoints").glob("step-*")) else []
            victim = Victim([*arguments_for(tiny_model, reviews, output_dir, *FLAGS), *resume], log)
            phase = kill_at_a_moment(victim, moments, usual_life_s) if killed.total() < kills else None
            if phase is None:
                assert victim.ended_well(LIFE_S), log.read_text()[-4000:]
                break
            killed[phase] += 1
        check_like(output_dir, whole)
        ended += 1
    print(f"\n{killed.total()} kills, {ended} runs that ended as the one never disturbed: {dict(killed)}")
    assert kills < len(PHASES) ** 2 or killed.keys() == set(PHASES)
