"""torchrun with the exit code of the program that it starts, and without a traceback of its own.

    python -m finetuning.device.torchrun --nproc_per_node 2 finetuning_app.py ...

torchrun itself ends with 1 whatever its processes ended with, below a traceback that says nothing of the reason.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from finetuning.device.peers import OWN_LAUNCHER

_BY_SIGNAL = 128  # a shell's code of what a signal ended


def launch(words: Sequence[str]) -> int:
    """Run torchrun.

    Args:
        words: torchrun's flags, the program and its flags.

    Returns:
        The exit code of the first process that failed, or that of the signal that ended the launcher; 0 without either.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ[OWN_LAUNCHER] = "1"
    try:
        run(parse_args(list(words)))
    except ChildFailedError as failed:
        code = int(failed.get_first_failure()[1].exitcode)
        return code if code >= 0 else _BY_SIGNAL - code
    except SignalException as stopped:
        return _BY_SIGNAL + stopped.sigval
    return 0


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
