"""A member of a group of processes that saves a divided model, and changes it as soon as `save` returns."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import fully_shard

_LONG_S = 60.0


def save_and_change(words: list[str]) -> int:
    """Save a model of ones and set it to twos; the words are the folder of the run, and `room` or `none` of memory."""
    from finetuning.checkpoints import background, together
    from finetuning.checkpoints.store import CheckpointStore
    from finetuning.checkpoints.together import TogetherSaver, read_shards
    from finetuning.device.runtime import start_runtime
    from finetuning.types import Checkpoint, Progress

    folder, memory = words
    runtime = start_runtime("no", deterministic=False)
    model: Any = torch.nn.Linear(6, 5)
    torch.nn.init.ones_(model.weight)
    torch.nn.init.ones_(model.bias)
    fully_shard(model)
    store, returned, write = CheckpointStore(Path(folder), keep=2), threading.Event(), together.write_shards

    def write_later(*arguments: Any) -> None:
        assert memory == "none" or returned.wait(_LONG_S)  # training has gone on by now
        write(*arguments)

    together.write_shards = write_later
    if memory == "none":
        background.available_bytes = lambda: 0
    with TogetherSaver(store, runtime) as saver:
        saver.save(Checkpoint(dict(model.named_parameters()), {}, {}, Progress(0, 1, 1), {}))
        assert store.path_of(1).is_dir() == (memory == "none")
        for parameter in model.parameters():
            parameter.to_local().detach().fill_(2.0)
        returned.set()
        saver.finish()
    assert store.newest() == store.path_of(1)
    read_shards(store.path_of(1), dict(model.named_parameters()), {})
    assert all(bool((parameter.to_local() == 1).all()) for parameter in model.parameters())
    torch.distributed.destroy_process_group()
    return 0
