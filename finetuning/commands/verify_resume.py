"""verify-resume: check, with the user's settings, that a stopped and resumed run equals an uninterrupted one."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exceptions import FinetuningError, StopRequested
from finetuning.commands.session import Session, prepare
from finetuning.commands.what_next import step_to_train, tell
from finetuning.config.schema import Settings
from finetuning.files import writing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetuning.data.examples import Examples
    from finetuning.types import Checkpoint
    from training_manager import TrainingManager

_log = logging.getLogger(__name__)
_EPOCHS = 3  # two windows each, so the stop after half of the steps falls in the middle of the second epoch
_TIMED = frozenset({"examples_per_s", "tokens_per_s", "memory_bytes", "seconds", "waited"})
_VALIDATION_ROWS = 64
_COMPARED = ("가중치", "옵티마이저 상태", "진행 상태와 가장 좋은 모델의 기록", "기록한 손실과 지표")


@dataclass(frozen=True)
class Trial:
    """Result of one short run.

    Attributes:
        checkpoint: Its last checkpoint.
        records: The lines of its metrics.jsonl.
    """

    checkpoint: Checkpoint
    records: list[dict[str, Any]]


class Halfway:
    """Requests a stop once a run has done half of its steps."""

    def __init__(self) -> None:
        self.asked = False
        self.manager: TrainingManager | None = None

    def pending(self) -> int | None:
        """Return the signal that requests a stop, or None."""
        if self.manager is None or self.manager.state.step < self.manager.total_steps // 2:
            return None
        self.asked = True
        return signal.SIGINT


@dataclass(frozen=True)
class Proof:
    """Trains short runs on the same few examples. Each run loads a new model.

    Attributes:
        session: The session, with shortened settings.
        tokenizer: The model's tokenizer.
        label_names: Label names in the order of their ids.
        max_length: Most tokens of an example.
        examples: Examples by split.
        data_keys: Keys of the splits' rows, which a checkpoint stores.
    """

    session: Session
    tokenizer: PreTrainedTokenizerBase
    label_names: tuple[str, ...]
    max_length: int
    examples: Mapping[str, Examples]
    data_keys: Mapping[str, str]

    def undisturbed(self, folder: Path) -> Trial:
        """Train without a stop; folder: where the run saves."""
        self._manager(folder, lambda: None).run()
        return _ended(folder)

    def stopped_and_resumed(self, folder: Path) -> Trial:
        """Train the same run, stop halfway, and resume from the checkpoint with a newly loaded model."""
        self._stop_halfway(folder)
        _log.info("멈췄습니다. 체크포인트에서 이어서 학습합니다.")
        manager = self._manager(folder, lambda: None)
        manager.restore(manager.store.load(_newest(folder)), keeps_best=True)
        manager.run()
        return _ended(folder)

    def _stop_halfway(self, folder: Path) -> None:
        half = Halfway()
        half.manager = self._manager(folder, half.pending)
        try:
            half.manager.run()
        except StopRequested:
            if not half.asked:  # the user stopped the program
                raise

    def _manager(self, folder: Path, stop_signal: Callable[[], int | None]) -> TrainingManager:
        from finetuning.checkpoints.store import CheckpointStore
        from training_manager import TrainingManager

        folder.mkdir(exist_ok=True)
        return TrainingManager(
            self.session.settings,
            self.session.evaluator_to_train(self.tokenizer, self.label_names, self.max_length),
            self.examples["train"], self.examples["validation"], CheckpointStore(folder, keep=1),
            save_best=lambda *_: None,
            stop_signal=stop_signal,
            data_keys=self.data_keys,
            output_dir=folder,
        )  # fmt: skip


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Train a few steps without a stop, train them again with a stop in the middle, and compare the results bit by bit.

    Args:
        session: The session.
        arguments: The command line.

    Raises:
        FinetuningError: The results differ.
    """
    tokenizer = session.models.load_tokenizer()
    max_length = session.models.usable_length(tokenizer)
    prepared = prepare(session, tokenizer, max_length)
    session = replace(prepared.session, settings=_shortened(prepared.session.settings))
    data, memory, seed = session.settings.data, session.settings.memory, session.settings.training.seed
    window = data.batch_size * memory.gradient_accumulation_steps
    examples = {
        "train": _few(prepared.examples["train"], window + -(-window // 2), seed),
        "validation": _few(prepared.examples["validation"], _VALIDATION_ROWS, seed),
    }
    keys = {name: prepared.splits[name].key for name in examples}
    proof = Proof(session, tokenizer, prepared.label_names, max_length, examples, keys)
    # the trials save on the disk that checkpoints go to
    home = next(path for path in session.output_dir.absolute().parents if path.is_dir())
    with writing("시험 학습을 할 임시 폴더를 만들지 못했습니다", home):
        temporary = tempfile.TemporaryDirectory(prefix=".verify-resume-", dir=home, ignore_cleanup_errors=True)
    with temporary as name:
        _judge(proof, Path(name))
    tell([step_to_train(arguments)])


def _judge(proof: Proof, folder: Path) -> None:
    """Run the trials and print the verdict. If they differ, run once more to see whether the device is to blame."""
    _log.info("멈추지 않고 학습합니다.")
    whole = proof.undisturbed(folder / "whole")
    _log.info("같은 학습을 중간에 멈춥니다.")
    resumed = proof.stopped_and_resumed(folder / "resumed")
    steps = whole.checkpoint.progress.step
    print(f"{steps}스텝을 한 번에 학습한 것과, {steps // 2}스텝에서 멈췄다가 이어서 학습한 것을 비교합니다.")
    differences = _compare(whole, resumed)
    if not differences:
        print("판정: 비트 단위까지 동일합니다. 이 설정에서는 중단했다가 재개해도 한 번도 멈추지 않은 학습과 같습니다.")
        return
    _log.info("멈추지 않고 한 번 더 학습하여 장치의 연산이 항상 같은 값을 내는지 확인합니다.")
    if _differing(whole, proof.undisturbed(folder / "again")):
        raise FinetuningError(
            "판정: 다릅니다. 그러나 멈추지 않은 두 학습도 서로 다르므로, 이어서 학습했기 때문이 아닙니다.",
            where=f"다른 것: {', '.join(differences)}",
            remedy="이 장치의 연산은 실행할 때마다 값이 조금 다를 수 있습니다. GPU라면 "
            "--set training.deterministic=true를 더해 다시 실행하세요. CPU에서 확인하려면 "
            "CUDA_VISIBLE_DEVICES=-1을 설정하세요.",
        )
    raise FinetuningError(
        "판정: 다릅니다. 멈췄다가 이어서 학습한 결과가 멈추지 않은 학습과 다릅니다.",
        where=f"다른 것: {', '.join(differences)}",
        remedy="이 프로그램의 버그입니다. 설정 파일과 함께 신고해 주세요.",
    )


def _compare(whole: Trial, resumed: Trial) -> list[str]:
    """Print for each part whether it is the same; return the names of the parts that differ."""
    differing = _differing(whole, resumed)
    counts = (f"{len(whole.checkpoint.model)}개", f"{len(whole.checkpoint.optimizer)}개", "", f"{len(whole.records)}줄")
    for name, count in zip(_COMPARED, counts, strict=True):
        print(f"  {f'{name} {count}'.strip()}: {'다름' if name in differing else '같음'}")
    return differing


def _differing(one: Trial, other: Trial) -> list[str]:
    """Return the names of the parts that differ in any bit."""
    ours, theirs = (
        (
            _bits(trial.checkpoint.model),
            _bits(trial.checkpoint.optimizer),
            _untimed(trial.checkpoint.state),
            _untimed(trial.records),
        )
        for trial in (one, other)
    )
    return [name for name, left, right in zip(_COMPARED, ours, theirs, strict=True) if left != right]


def _bits(tensors: Mapping[str, Any]) -> dict[str, bytes]:
    import torch

    return {name: bytes(tensor.reshape(-1).view(torch.uint8).numpy()) for name, tensor in tensors.items()}


def _untimed(value: Any) -> Any:
    """Remove times, speeds and memory use from JSON values."""
    if isinstance(value, dict):
        return {k: _untimed(v) for k, v in value.items() if k not in _TIMED and k != "metrics_bytes"}
    return [_untimed(item) for item in value] if isinstance(value, list) else value


def _ended(folder: Path) -> Trial:
    """Read a finished run's newest checkpoint and its metrics."""
    from finetuning.checkpoints.store import CheckpointStore

    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return Trial(CheckpointStore(folder, keep=1).load(_newest(folder)), [json.loads(line) for line in lines])


def _newest(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("step-*"))


def _shortened(settings: Settings) -> Settings:
    """Return the settings with fewer epochs and steps, a log line for every step, and no trackers."""
    training = {"epochs": _EPOCHS, "save_steps": None, "eval_steps": None, "save_total_limit": 1}
    logging_changes = {"log_steps": 1, "progress_bar": False, "trackers": []}
    return settings.model_copy(
        update={
            "training": settings.training.model_copy(update=training),
            "logging": settings.logging.model_copy(update=logging_changes),
        }
    )


def _few(examples: Examples, wanted: int, seed: int) -> Examples:
    """Draw rows by the seed until they have the wanted number of examples; return all examples of these rows."""
    import numpy as np

    from finetuning.data.examples import Examples
    from finetuning.data.table import numbers

    owners = numbers(examples.table, "row")
    rows, counts = np.unique(owners, return_counts=True)
    drawn = np.random.default_rng(seed).permutation(len(rows))
    enough = int(np.searchsorted(np.cumsum(counts[drawn]), wanted)) + 1
    chosen = rows[drawn[:enough]]
    kept = np.flatnonzero(np.isin(owners, chosen))
    kept_rows = examples.rows.select(np.flatnonzero(np.isin(numbers(examples.rows, "row"), chosen)))
    return Examples(examples.table.select(kept), examples.lengths[kept], kept_rows, neighbours=examples.neighbours)
