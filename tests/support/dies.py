"""The program, whose last process is killed once after its second step, as the system does where memory runs out."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def die_at_the_third_step() -> None:
    """Have the last process killed, when what was saved is on the disk."""
    from finetuning.checkpoints.background import BackgroundSaver
    from finetuning.training.step import OptimizerStep

    update, save = OptimizerStep.update, BackgroundSaver.save

    def save_and_wait(self: Any, checkpoint: Any) -> None:
        save(self, checkpoint)
        self.wait()

    def dying(self: Any, gradient: Any, norm: Any, step: int) -> Any:
        if step == 2 and os.environ["RANK"] == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        return update(self, gradient, norm, step)

    OptimizerStep.update = dying  # type: ignore[method-assign]
    BackgroundSaver.save = save_and_wait  # type: ignore[method-assign]


def main() -> int:
    """Run the program."""
    from finetuning_app import main as run

    die_at_the_third_step()
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
