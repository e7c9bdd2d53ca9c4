"""Save and restore the state of one run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from exceptions import OutOfMemory, ResourceError
from finetuning.checkpoints.background import BackgroundSaver
from finetuning.checkpoints.scattered import Scattered, read_from_all
from finetuning.checkpoints.store import CheckpointStore
from finetuning.checkpoints.tensors import optimizer_tensors, restore_model, restore_optimizer, trained_tensors
from finetuning.checkpoints.together import TogetherSaver, read_shards
from finetuning.device.oom import MAY_BE_OUT_OF_MEMORY, is_out_of_memory
from finetuning.device.sharding import copy_part, like
from finetuning.inference.evaluator import Evaluator
from finetuning.models.pissa import factors, follow_checkpoint
from finetuning.reporting.recorder import Recorder
from finetuning.training.optimizers import allocate_states
from finetuning.training.state import KeptState, TrainingState
from finetuning.training.step import OptimizerStep
from finetuning.types import Checkpoint, Progress

_log = logging.getLogger(__name__)


class RunCheckpoints:
    """Saves the state of a run in the background, and restores it.

    Args:
        evaluator: Holds the model, its runtime and its memory.
        stepper: Holds the optimizer and fp16's loss scaler.
        store: Where checkpoints are.
        recorder: Writes metrics.jsonl, whose size belongs to a checkpoint.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        stepper: OptimizerStep,
        store: CheckpointStore,
        recorder: Recorder,
    ) -> None:
        self.model, self.runtime, self.memory = evaluator.model, evaluator.runtime, evaluator.memory
        self.whole_budget = evaluator.task.settings.data.batch_size * evaluator.max_length
        self.stepper, self.recorder, self.store = stepper, recorder, store
        self.shards = stepper.shards
        self.saver = BackgroundSaver(store) if self.shards is None else TogetherSaver(store, self.runtime)

    def save(self, state: TrainingState, fingerprint: dict[str, Any]) -> None:
        """Hand a checkpoint of the present state to the saver: the main process writes it, or all their shards."""
        state.saved_step = state.step
        if not self.runtime.is_main and self.shards is None:
            return
        self.memory.clean_up()  # unused blocks of the steps would stand beside the copy that is saved
        tensors, scalars = self._states()
        budget = self.memory.token_budget
        shrunk = budget if budget < self.whole_budget else None
        kept = KeptState(
            asdict(state),
            scalars,
            self.stepper.loss_scale.state_dict(),
            shrunk,
            self.memory.chosen,
            self._metrics_bytes(),
        )
        progress = Progress(state.epoch, state.window, state.step)
        model = trained_tensors(self.model) if self.shards is None else self._distinct_tensors()
        self.saver.save(Checkpoint(model, tensors, kept.to_json(), progress, fingerprint))

    def finish(self) -> None:
        """Wait until all checkpoints are written; raise ResourceError if writing failed."""
        self.saver.finish()
        self.recorder.size()

    def restore(self, checkpoint: Checkpoint) -> TrainingState:
        """Restore weights, optimizer, loss scale, token budget and records; return the state of the run."""
        kept = KeptState(**checkpoint.state)
        begun = factors(self.model)
        if checkpoint.shards is not None:
            allocate_states(self.stepper.optimizer)
            found = Scattered(checkpoint.shards, checkpoint.readers)
            self._read(found, self._distinct_tensors(), self._states()[0])
        elif self.shards is not None:
            restore_model(self.model, checkpoint.model)
            allocate_states(self.stepper.optimizer)
            for name, tensor in self._states()[0].items():
                copy_part(checkpoint.optimizer[name], tensor)
        else:
            restore_model(self.model, checkpoint.model)
            restore_optimizer(self.stepper.optimizer, self._names(), checkpoint.optimizer, kept.optimizer)
        follow_checkpoint(self.model, begun)
        if kept.scaler:  # none, where the checkpoint's run computed in another precision
            self.stepper.loss_scale.load_state_dict(kept.scaler)
        if kept.shrunk_token_budget is not None:
            self.memory.start_at(kept.shrunk_token_budget)
        self.recorder.cut(kept.metrics_bytes, checkpoint.progress.step)
        return TrainingState.from_json(kept.training)

    def _read(self, found: Scattered, model: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor]) -> None:
        if self.store.disks.is_one:
            read_shards(found.folder, model, optimizer)
        else:
            read_from_all(found, model, optimizer, self.store, self.runtime)

    def _metrics_bytes(self) -> int:
        """Return the size of metrics.jsonl. Records that cannot be written are no reason to save no checkpoint."""
        try:
            return self.recorder.size()
        except ResourceError as error:
            _log.warning("%s (%s) 체크포인트는 저장합니다.", error.what, error.where)
            return self.recorder.written()

    def _distinct_tensors(self) -> dict[str, torch.Tensor]:
        """Return the trained weights and buffers, tied ones by their first name alone."""
        first = {name for name, _ in (*self.model.named_parameters(), *self.model.named_buffers())}
        return {name: tensor for name, tensor in trained_tensors(self.model).items() if name in first}

    def _states(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the optimizer's states as `optimizer_tensors` does; those of shards as parts of whole tensors."""
        tensors, numbers = optimizer_tensors(self.stepper.optimizer, self._names())
        if self.shards is None:
            return tensors, numbers
        weights = dict(self.model.named_parameters())
        return {key: like(weights[key.partition("/")[2]], tensor) for key, tensor in tensors.items()}, numbers

    def _names(self) -> dict[torch.nn.Parameter, str]:
        """Return the name of each parameter that is stepped, or whose shard is."""
        stepped = {} if self.shards is None else self.shards.local
        named = self.model.named_parameters()
        return {stepped.get(parameter, parameter): name for name, parameter in named if parameter.requires_grad}


@contextmanager
def saved_on_out_of_memory(save: Callable[[], None], stepper: OptimizerStep, state: TrainingState) -> Iterator[None]:
    """If not even one example fits, save the run after its last complete step before raising the error.

    Args:
        save: Saves the run and waits until it is written.
        stepper: Its gradients are dropped first, and its memory manager makes the error.
        state: The state of the run.

    Raises:
        OutOfMemory: Memory ran out inside the block; the remedy says how to continue.
    """
    try:
        yield
    except (OutOfMemory, *MAY_BE_OUT_OF_MEMORY) as error:
        if not isinstance(error, OutOfMemory) and not is_out_of_memory(error):
            raise
        stepper.optimizer.zero_grad(set_to_none=True)
        shown = error if isinstance(error, OutOfMemory) else stepper.memory.ran_out("메모리가 부족합니다.")
        if stepper.shards is not None:  # the others wait inside a pass and cannot save with this one
            shown.remedy += ". 저장된 체크포인트에서 --resume으로 이어 갈 수 있습니다."
        elif state.step > 0:  # before the first step there is nothing to continue from
            save()
            shown.remedy += (
                f". 스텝 {state.step:,}까지의 상태를 저장했으므로, 메모리를 늘리거나 memory 설정을 바꾸면 "
                "--resume으로 이어 갈 수 있습니다. 다른 설정을 바꾸면 처음부터 학습해야 합니다."
            )
        raise shown from error
