"""SIGKILL at random moments, SIGINT and SIGTERM in each phase: a run that is begun again ends as one never disturbed.

`KILLS=1000 python -m pytest -m soak -s tests/faults/test_kill.py` kills as often as that.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cli import arguments_for
from tests.support.runs import final_state, losses
from tests.support.victim import PHASES, Victim

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is no fork, and no SIGKILL")
FLAGS = ["--set", "training.save_steps=2", "--set", "training.eval_steps=5"]
LONGEST_WITHIN_A_PHASE_S = 0.02
LIFE_S = 60.0  # of a run that nobody kills: fifty times what it takes
SOAK = int(os.environ.get("KILLS", "240"))
NOTHING_TO_SAVE = {"loading", "tokenising"}
SAMPLE = {("tokenising", signal.SIGTERM), ("training", signal.SIGINT), ("saving", signal.SIGTERM)}


@dataclass(frozen=True)
class Undisturbed:
    """An uninterrupted run: its folder and its duration."""

    output_dir: Path
    seconds: float
    model: Path
    data: Path

    def begin(self, output_dir: Path) -> Victim:
        """The same run elsewhere, from its newest checkpoint where there is one."""
        resume = ["--resume"] if list((output_dir / "checkpoints").glob("step-*")) else []
        arguments = [*arguments_for(self.model, self.data, output_dir, *FLAGS), *resume]
        return Victim(arguments, output_dir.parents[1] / "log.txt")

    def check_like(self, output_dir: Path) -> None:
        """A run that ended is as this one to the bit, and has left nothing half-made."""
        ours = self.output_dir
        assert losses(output_dir) == losses(ours)
        assert final_state(output_dir) == final_state(ours)
        assert (output_dir / "model.safetensors").read_bytes() == (ours / "model.safetensors").read_bytes()
        left = {path.name for path in output_dir.rglob("*")} | {path.name for path in output_dir.parent.iterdir()}
        assert not [name for name in left if "partial" in name or "replaced" in name or name == ".lock"]


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder, seconds = tmp_path_factory.mktemp("undisturbed"), 0.0
    for name in ("first", "second"):  # the first also waits for what is imported once
        began = time.perf_counter()
        victim = Undisturbed(folder, 0.0, tiny_model, reviews).begin(folder / name / "model")
        assert victim.exit_code(LIFE_S) == 0, (folder / "log.txt").read_text(encoding="utf-8")
        seconds = time.perf_counter() - began
    return Undisturbed(folder / "second" / "model", seconds, tiny_model, reviews)


def kill_at_a_moment(victim: Victim, moments: random.Random, usual_life_s: float) -> str | None:
    """Kills a run at any moment of its life or, every other time, within a phase; its phase, or None if it ended."""
    if moments.random() < 0.5:
        victim.wait(moments.uniform(0, usual_life_s))
    else:
        victim.wait_for(moments.choice(PHASES), LIFE_S)
        victim.wait(moments.uniform(0, LONGEST_WITHIN_A_PHASE_S))
    return victim.kill()


@pytest.mark.parametrize("kills", [8, pytest.param(SOAK, marks=pytest.mark.soak)])
def test_a_run_that_is_killed_again_and_again(undisturbed: Undisturbed, tmp_path: Path, kills: int) -> None:
    moments, killed, ended = random.Random(kills), Counter[str](), 0
    while killed.total() < kills:
        output_dir = tmp_path / str(ended) / "model"
        while True:
            victim = undisturbed.begin(output_dir)
            phase = kill_at_a_moment(victim, moments, undisturbed.seconds) if killed.total() < kills else None
            if phase is None:
                assert victim.exit_code(LIFE_S) == 0, (tmp_path / "log.txt").read_text(encoding="utf-8")[-4000:]
                break
            killed[phase] += 1
        undisturbed.check_like(output_dir)
        ended += 1
    print(f"\n{killed.total()} kills, {ended} runs that ended as the one never disturbed: {dict(killed)}")
    assert kills < len(PHASES) ** 2 or killed.keys() == set(PHASES)


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        pytest.param(phase, number, marks=[] if (phase, number) in SAMPLE else pytest.mark.soak)
        for phase in PHASES[1:]
        for number in (signal.SIGINT, signal.SIGTERM)
    ],
)
def test_a_run_that_is_stopped_in_each_phase(
    undisturbed: Undisturbed, tmp_path: Path, phase: str, number: signal.Signals
) -> None:
    output_dir, log = tmp_path / "0" / "model", tmp_path / "log.txt"
    victim = undisturbed.begin(output_dir)
    victim.wait_for(phase, LIFE_S)
    victim.send(number)
    assert victim.exit_code(LIFE_S) == 128 + number, log.read_text(encoding="utf-8")
    said = log.read_text(encoding="utf-8")
    assert "Traceback" not in said
    if phase in NOTHING_TO_SAVE:
        assert "저장할 학습 상태는 없습니다" in said
        assert not output_dir.exists()
    else:
        assert "이어서 하려면" in said
        assert list((output_dir / "checkpoints").glob("step-*"))
    assert undisturbed.begin(output_dir).exit_code(LIFE_S) == 0
    undisturbed.check_like(output_dir)
