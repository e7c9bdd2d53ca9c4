"""The other processes of a group where one of them fails: one message from one of them, no traceback of the rest."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from exceptions import ResourceError
from finetuning.files import command_of_this_program, typed

BY_ACCELERATE = "ACCELERATE_DYNAMO_BACKEND"  # variable that accelerate launch always sets
BY_SCRIPT = "FINETUNING_SCRIPT"  # variable of a batch script such as recipes/slurm.sh: what is typed before the flags
OWN_LAUNCHER = "FINETUNING_LAUNCHER"  # variable that device/torchrun.py sets
_LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "connection refused", "socket closed")
_SOON_S = 1.0  # in which the process that failed says why
_STAY_S = 3.0  # for which the main process waits for the others to ask who says a message
_LOOKED_S = 0.02
_TURN_S = 10.0  # for which others of a machine let its first process speak


def is_main(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process speaks for its group; known before the group has met."""
    return environment.get("RANK", "0") == "0"


def is_on_main_machine(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process runs on the machine of the main process; known before the group has met."""
    return int(environment.get("GROUP_RANK", "0")) == 0


def launches_several(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a launcher such as torchrun started this process, and hands signals on to it."""
    return "TORCHELASTIC_RUN_ID" in environment


def is_elastic(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the launcher starts the group again where a process of it ends, perhaps with fewer machines.

    torchrun counts such starts only where a process failed, and not where a machine came or went.
    """
    return environment.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"


def is_restarted(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the launcher started the group again because a process of it had failed."""
    return environment.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def command_of_this_group(*words: object) -> str:
    """Return a command of this program as it is typed here, by the launcher that started this process if one did."""
    script = os.environ.get(BY_SCRIPT)
    if script:
        return f"{script} {typed(*words)}"
    launcher = launcher_words()
    return typed(*launcher, sys.argv[0], *words) if launcher else command_of_this_program(*words)


def launcher_words(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the words that started the group of processes, before the program; none where nothing launched it."""
    if not launches_several(environment):
        return []
    if BY_ACCELERATE in environment:
        return accelerate_words(_words_of_parent()) or ["accelerate", "launch"]
    nodes = environment.get("GROUP_WORLD_SIZE", "1")
    more = [] if nodes == "1" else ["--nnodes", nodes, "--rdzv_endpoint", environment.get("MASTER_ADDR", "HOST")]
    torchrun = ["python", "-m", "finetuning.device.torchrun"] if OWN_LAUNCHER in environment else ["torchrun"]
    return [*torchrun, "--nproc_per_node", environment.get("LOCAL_WORLD_SIZE", "1"), *more]


def accelerate_words(words: Sequence[str]) -> list[str]:
    """Return what was typed before the program where words are those of `accelerate launch`; else nothing."""
    names = [Path(word).name for word in words]
    if "accelerate" not in names or Path(sys.argv[0]).name not in names:
        return []
    return ["accelerate", *words[names.index("accelerate") + 1 : names.index(Path(sys.argv[0]).name)]]


def _words_of_parent() -> list[str]:
    import psutil

    try:
        words: list[str] = psutil.Process(os.getppid()).cmdline()
    except psutil.Error:  # of another user
        words = []
    return words


def is_peer_lost(error: BaseException) -> bool:
    """Return whether an error means that another process of the group has ended."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and "WORLD_SIZE" in os.environ and any(one in text for one in _LOST)


def peer_lost(resume: str) -> ResourceError:
    """Build the error of a process whose peer has ended without a word; resume: the command that goes on."""
    return ResourceError(
        "다른 프로세스가 끝나 버려 함께 멈춥니다.",
        where=f"프로세스 {os.environ.get('RANK')}번",
        remedy="그 프로세스가 남긴 메시지가 없으면 메모리가 부족해 운영체제가 끝냈을 수 있습니다. 저장된 "
        f"체크포인트에서 이어서 하려면: {resume}",
    )


def say_once(message: str, show: Callable[[], None], after_others: bool = False) -> None:
    """Show a message that others of the group may have, too, in the first process that asks.

    The store that knows who was first lies in the main process, so that one stays until all have asked or `_STAY_S`
    is over: a process that finds no store cannot know whether its message was shown, and shows it.

    Args:
        message: What tells this message from others; each is shown once. A run of one process always shows it.
        show: Shows it.
        after_others: Whether any message of another process makes this one unnecessary.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        show()
        return
    store = _store()
    if store is None:  # what fails before the group has met fails in all of them
        if os.environ.get("LOCAL_RANK", "0") == "0":
            show()
        elif launches_several():
            _wait_to_be_ended()
            show()
        return
    if after_others:
        time.sleep(_SOON_S)
    try:
        said = store.add("said", 1)
        is_first = said == 1 if after_others else store.add(hashlib.sha256(message.encode()).hexdigest(), 1) == 1
        asked = store.add("asked", 1)
    except RuntimeError:  # the store went with the process that had it
        show()
        return
    if is_first:
        show()
    end = time.monotonic() + _STAY_S
    while is_main() and asked < int(os.environ["WORLD_SIZE"]) and time.monotonic() < end:
        time.sleep(_LOOKED_S)
        asked = store.add("asked", 0)


def _wait_to_be_ended() -> None:
    """Let the machine's first process fail and speak: the launcher ends the others when one has ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    time.sleep(_TURN_S)


def _store() -> Any:
    """Return what the processes of the group share, or None before they have met."""
    try:
        import torch.distributed as dist
    except ImportError:
        return None
    return dist.distributed_c10d._get_default_store() if dist.is_initialized() else None
