"""Members of a group of processes that save a divided model, and change it as soon as `save` returns, or fail."""

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
    runtime, model = start_runtime("no", deterministic=False), _divided()
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


def save_and_fail(words: list[str]) -> int:
    """Save twice; the first save fails in the last process alone. The words are the folder of the run and the error."""
    from exceptions import ResourceError
    from finetuning.checkpoints import together
    from finetuning.checkpoints.store import CheckpointStore
    from finetuning.checkpoints.together import TogetherSaver
    from finetuning.device.runtime import start_runtime
    from finetuning.types import Checkpoint, Progress

    error = {"memory": MemoryError(), "defect": KeyError("defect")}[words[1]]
    expected: type[Exception] = {"memory": ResourceError, "defect": KeyError}[words[1]]
    runtime, model = start_runtime("no", deterministic=False), _divided()
    store, write = CheckpointStore(Path(words[0]), keep=2), together.facts_of

    def fail(*arguments: Any) -> Any:
        if runtime.process == runtime.processes - 1:
            raise error
        return write(*arguments)

    with TogetherSaver(store, runtime) as saver:
        together.facts_of = fail
        saver.save(Checkpoint(dict(model.named_parameters()), {}, {}, Progress(0, 1, 1), {}))
        try:
            saver.finish()
        except expected as told:
            assert words[1] == "defect" or "메모리가 부족해" in str(told), told
        else:
            raise AssertionError("a save that failed was taken for one that did not")
        runtime.together(lambda: None)  # the one that keeps the folder has cleared it
        assert list(store.folder.iterdir()) == []
        runtime.together(lambda: None)  # all have looked
        together.facts_of = write
        saver.save(Checkpoint(dict(model.named_parameters()), {}, {}, Progress(0, 2, 2), {}))
        saver.finish()
        assert store.newest() == store.path_of(2)
        runtime.together(lambda: None)
        try:  # an error of the block is not replaced by that of a save
            with TogetherSaver(store, runtime) as other:
                together.facts_of = fail
                other.save(Checkpoint(dict(model.named_parameters()), {}, {}, Progress(0, 3, 3), {}))
                raise ValueError("diverged")
        except ValueError as ended:
            assert str(ended) == "diverged"
    torch.distributed.destroy_process_group()
    return 0


def keep_the_best(words: list[str]) -> int:
    """Save a best model on a disk that fails after its first tensor, and then on one that does not."""
    from exceptions import ResourceError
    from finetuning.checkpoints.store import CheckpointStore
    from finetuning.device.runtime import start_runtime
    from finetuning.training.best_model import BestModel
    from finetuning.training.state import TrainingState

    runtime, model = start_runtime("no", deterministic=False), _divided()
    saved = dict[str, torch.Tensor]()
    Path(words[0]).mkdir(exist_ok=True)

    def save(_: Any, weights: Any) -> None:
        if state.step == 1:
            next(iter(weights))
            raise ResourceError("디스크가 가득 찼습니다.", where="모델", remedy="공간을 비우세요.")
        saved.update(weights.in_memory())

    best, state = BestModel(save, CheckpointStore(Path(words[0]), keep=2), runtime), TrainingState(step=1)
    best.keep(model, state, 0.5, greater_is_better=True)
    assert (state.best_step, saved) == (0, {})
    state.step = 2
    best.keep(model, state, 0.6, greater_is_better=True)
    assert state.best_step == 2
    assert {name: tuple(one.shape) for name, one in saved.items()} == (
        {"weight": (5, 6), "bias": (5,)} if runtime.is_main else {}
    )
    assert all(bool((one == 1).all()) for one in saved.values())
    torch.distributed.destroy_process_group()
    return 0


def _divided() -> Any:
    """A model of ones that the processes divide."""
    model: Any = torch.nn.Linear(6, 5)
    torch.nn.init.ones_(model.weight)
    torch.nn.init.ones_(model.bias)
    fully_shard(model)
    return model
