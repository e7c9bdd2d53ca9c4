"""SIGKILL of one of several processes at random moments, saving included: the run goes on, on 1, 2 or 4 of them.

`KILLS=40 python -m pytest -m soak -s tests/faults/test_kill_one_of_many.py`; `KILLS=3` is a quick try.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.forked import places_in_group
from tests.support.victim import PHASES, Victim

pytestmark = [pytest.mark.skipif(os.name != "posix", reason="there is no fork, and no SIGKILL"), pytest.mark.soak]
KILLS = int(os.environ.get("KILLS", "40"))
PROCESSES = (1, 2, 4)
WINDOW = 8
LIFE_S = 120.0
WITHIN_A_PHASE_S = 0.05


@pytest.fixture
def without_dropout(tiny_model: Path, tmp_path: Path) -> Path:
    """A model whose training does not depend on the number of processes but for rounding."""
    made = Path(shutil.copytree(tiny_model, tmp_path / "still"))
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (made / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return made


@pytest.mark.parametrize("shard", ["none", "full"])
def test_a_run_goes_on_after_each_kill(
    shard: str, cli: Cli, without_dropout: Path, reviews: Path, tmp_path: Path
) -> None:
    def words(folder: str, processes: int, *more: str) -> list[str]:
        settings = ("logging.report=false", "logging.progress_bar=false", "training.save_steps=2",
                    f"data.dataset_cache_dir={tmp_path / 'cache'}", f"distributed.shard={shard}")  # fmt: skip
        return ["--model_name", str(without_dropout), "--dataset", str(reviews), "--max_length", "64",
                "--output_dir", str(tmp_path / folder / "model"), "--batch_size", str(WINDOW // processes // 2),
                "--gradient_accumulation_steps", "2", "--epochs", "3", "--no-mixed_precision",
                *[word for one in settings for word in ("--set", one)], *more]  # fmt: skip

    def begin(folder: str, processes: int) -> list[Victim]:
        saved = list((tmp_path / folder / "model" / "checkpoints").glob("step-*"))
        more = ["--resume"] if saved else []
        places = places_in_group(processes) if processes > 1 else [{}]
        return [Victim(words(folder, processes, *more), tmp_path / "log.txt", place) for place in places]

    assert cli(*words("whole", 1)).code == 0
    whole = json.loads((tmp_path / "whole" / "model" / "summary.json").read_text(encoding="utf-8"))
    moments, killed, number = random.Random(KILLS), Counter[str](), 0
    while killed.total() < KILLS:
        folder = f"run-{number}"
        members = begin(folder, moments.choice(PROCESSES))
        victim = moments.choice(members)
        if moments.random() < 0.5:
            victim.wait(moments.uniform(0, 10))
        else:
            victim.wait_for(moments.choice(PHASES), LIFE_S)
            victim.wait(moments.uniform(0, WITHIN_A_PHASE_S))
        phase = victim.kill()
        if phase == PHASES[0]:  # the group may not have met, and only the launcher knows that one of it is gone
            for one in members:
                one.kill()
        codes = [one.exit_code(LIFE_S) for one in members if one is not victim]
        log = (tmp_path / "log.txt").read_text(encoding="utf-8")[-3000:]
        for one in members:
            one.kill()
        assert None not in codes, log  # the others do not wait for ever
        if phase is None and set(codes) <= {0}:  # it ended before it was killed
            last = json.loads((tmp_path / folder / "model" / "summary.json").read_text(encoding="utf-8"))
            assert last["steps"] == whole["steps"]
            assert last["test"]["loss"] == pytest.approx(whole["test"]["loss"], rel=1e-3)
            number += 1
        else:
            killed[phase or "after its end"] += 1
    for one in begin(folder, 2):
        assert one.exit_code(LIFE_S) == 0, (tmp_path / "log.txt").read_text(encoding="utf-8")[-3000:]
    print(shard, KILLS, dict(killed), f"{number} runs ended in between")
