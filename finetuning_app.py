"""The command line: flags → settings → managers → one command, and the exit code."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from exceptions import FinetuningError, ModelError, ResourceError, SettingsError, StopRequested, with_particle

if TYPE_CHECKING:
    from accelerate import Accelerator

    from batching import Examples
    from config_manager import Settings
    from data_manager import DataManager, Rows
    from evaluation import Evaluator
    from model_manager import ModelManager
    from tasks.base import Task
    from training_manager import TrainingState

_log = logging.getLogger("finetuning")
_COMMANDS = ("train", "evaluate", "predict")
_HERE = Path(__file__).resolve().parent
_SEE_HELP = "python finetuning_app.py --help로 쓸 수 있는 명령과 플래그를 확인하세요."

# flag → (settings key, Korean help)
_SETTING_FLAGS = {
    "--model_name": ("model.name", "Hugging Face 모델 ID 또는 모델 폴더"),
    "--task": ("model.task", "태스크 이름. 예: text-classification, fill-mask"),
    "--output_dir": ("model.output_dir", "파인튜닝한 모델을 저장할 폴더"),
    "--cache_dir": ("model.cache_dir", "사전학습 모델을 내려받아 둘 폴더"),
    "--dataset": ("data.dataset_name", "Hugging Face 데이터셋 ID, 데이터 파일, 또는 split별 파일이 있는 폴더"),
    "--dataset_config": ("data.dataset_config", "데이터셋의 설정(config) 이름"),
    "--text_column": ("data.text_column", "텍스트 열 이름"),
    "--text_pair_column": ("data.text_pair_column", "두 번째 텍스트 열 이름 (문장 쌍 분류)"),
    "--label_column": ("data.label_column", "라벨 열 이름"),
    "--max_length": ("data.max_length", "최대 토큰 수"),
    "--batch_size": ("data.batch_size", "배치 크기"),
    "--epochs": ("training.epochs", "전체 데이터를 반복할 횟수"),
    "--learning_rate": ("training.learning_rate", "학습률"),
    "--weight_decay": ("training.weight_decay", "가중치 감쇠"),
    "--warmup_steps": ("training.warmup_steps", "학습률을 천천히 올릴 스텝 수"),
    "--gradient_accumulation_steps": ("memory.gradient_accumulation_steps", "그래디언트 누적 스텝 수"),
    "--seed": ("training.seed", "난수 seed"),
    "--log_level": ("logging.level", "로그 수준: DEBUG, INFO, WARNING, ERROR"),
}


class _KoreanParser(argparse.ArgumentParser):
    """Says what is wrong with the flags as every other error is said."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        for word in args:
            flag = word.partition("=")[0]
            if flag.startswith("--") and flag not in self._option_string_actions:
                raise _unknown("플래그", flag, self._option_string_actions)
        arguments = super().parse_args(args, namespace)
        if arguments.command not in _COMMANDS:
            raise _unknown("명령", arguments.command, _COMMANDS)
        return arguments

    def error(self, message: str) -> NoReturn:
        lacking = re.fullmatch(r"argument (.+): expected one argument", message)
        what = f"{lacking[1]} 뒤에 값이 없습니다." if lacking else f"명령줄을 읽을 수 없습니다: {message}"
        raise SettingsError(what, where="명령줄", remedy=_SEE_HELP)


def _unknown(kind: str, name: str, known: Iterable[str]) -> SettingsError:
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"혹시 {near[0]}입니까? " if near else ""
    return SettingsError(f"'{name}' {with_particle(kind, '이/가')} 없습니다.", where="명령줄", remedy=guess + _SEE_HELP)


def build_parser() -> argparse.ArgumentParser:
    """The command line of DESIGN.md section 5. Values stay text here: the settings check them."""
    parser = _KoreanParser(
        prog="python finetuning_app.py",
        description="Hugging Face 모델을 한국어 텍스트로 파인튜닝합니다. 명령을 쓰지 않으면 train입니다.",
        epilog="우선순위: 기본값 < --config 파일 < 플래그. 모든 설정은 config.yaml에 설명이 있습니다.",
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("command", nargs="?", default="train", metavar="명령",
                        help="train(학습), evaluate(평가), predict(예측)")  # fmt: skip
    parser.add_argument("-h", "--help", action="help", help="이 도움말을 보여 주고 끝냅니다")
    parser.add_argument("--config", type=Path, metavar="파일", help="설정 파일 (기본값: 프로그램 옆의 config.yaml)")
    for flag, (key, text) in _SETTING_FLAGS.items():
        parser.add_argument(flag, metavar="값", help=f"{text} ({key})")
    parser.add_argument("--mixed_precision", action=argparse.BooleanOptionalAction, default=None,
                        help="혼합 정밀도 학습 (memory.mixed_precision)")  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="섹션.키=값", help="다른 모든 설정. 여러 번 쓸 수 있습니다"
    )
    parser.add_argument("--resume", action="store_true", help="저장된 체크포인트에서 이어서 학습합니다")
    parser.add_argument(
        "--checkpoint_path", type=Path, metavar="경로", help="이어서 학습할 체크포인트 (--resume과 함께)"
    )
    parser.add_argument("--split", metavar="이름", help="evaluate: 평가할 split (기본값: test, 없으면 validation)")
    parser.add_argument(
        "--input", type=Path, metavar="파일", help="predict: 예측할 파일 (기본값: 표준 입력, 한 줄에 하나)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="파일", help="predict: 결과를 쓸 .jsonl 또는 .csv (기본값: 표준 출력)"
    )
    return parser


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Settings in force. For a saved model, its own settings.yaml stands in where no --config is given."""
    from config_manager import ConfigManager, Override, parse_assignment

    overrides: dict[str, Override] = {}
    for flag, (key, _) in _SETTING_FLAGS.items():
        value = getattr(arguments, flag.removeprefix("--"))
        if value is not None:
            overrides[key] = Override(value, flag)
    if arguments.mixed_precision is not None:
        overrides["memory.mixed_precision"] = Override(arguments.mixed_precision, "--mixed_precision")
    for text in arguments.set:
        key, value = parse_assignment(text)
        overrides[key] = Override(value, "--set")
    config = arguments.config or _HERE / "config.yaml"
    if arguments.command != "train" and arguments.config is None:
        saved = Path(arguments.model_name or ConfigManager.load(config, overrides).model.output_dir) / "settings.yaml"
        config = saved if saved.is_file() else config
    return ConfigManager.load(config, overrides)


class StopSignal:
    """SIGINT and SIGTERM: before training they end the program; in training the step finishes first; twice, at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.patient = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: Any) -> None:
        if not self.patient:
            raise StopRequested(number)
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        # not through the log: the signal may have come in the middle of a write to the same stream
        os.write(
            2,
            "\n중단 요청을 받았습니다. 지금 스텝을 마치고 상태를 저장합니다. 한 번 더 누르면 바로 끝납니다.\n".encode(),
        )

    def pending(self) -> int | None:
        """The signal that asked for a stop, or None."""
        return self.number

    def check(self) -> None:
        """Raises StopRequested where a stop was asked for."""
        if self.number is not None:
            raise StopRequested(self.number)


@dataclass(frozen=True)
class Workbench:
    """Everything that a command needs, built once from the settings."""

    settings: Settings
    task: Task
    accelerator: Accelerator
    data: DataManager
    models: ModelManager
    output_dir: Path
    stop: StopSignal

    def evaluator(self, model: Any, tokenizer: Any, label_names: Sequence[str], max_length: int) -> Evaluator:
        from evaluation import Evaluator
        from memory_utils import MemoryManager

        memory = MemoryManager(self.settings, self.accelerator.device, max_length)
        model.to(self.accelerator.device)
        return Evaluator(
            self.task, model, tokenizer, label_names, max_length, self.accelerator, memory, self.stop.check
        )


def build(settings: Settings, stop: StopSignal) -> Workbench:
    """Settings → task, device, precision, processes and managers."""
    from memory_utils import autocast_precision, prepare_allocator

    prepare_allocator(settings)
    if not all(Path(name).expanduser().exists() for name in (settings.model.name, settings.data.dataset_name)):
        from readers.hub import notice_offline

        notice_offline()
    import torch
    from accelerate import Accelerator

    from data_manager import DataManager
    from model_manager import ModelManager
    from reporting import quiet_libraries, set_up_logging
    from tasks import find_task

    on_cpu = not torch.accelerator.is_available()  # said outright, so that several processes find each other on CPUs
    accelerator = Accelerator(mixed_precision=autocast_precision(settings), cpu=on_cpu)
    set_up_logging(settings.logging, accelerator.is_main_process)
    quiet_libraries()
    task = find_task(settings)
    output_dir = Path(settings.model.output_dir).expanduser()
    return Workbench(
        settings, task, accelerator, DataManager(settings, task), ModelManager(settings, task), output_dir, stop
    )


# --- commands ---


def train(bench: Workbench, arguments: argparse.Namespace) -> None:
    """Fine-tunes, keeps the best model in output_dir, evaluates it on held-out rows and writes the report."""
    from checkpointing import CheckpointStore
    from training_manager import TrainingManager

    started, settings, output_dir = time.perf_counter(), bench.settings, bench.output_dir
    _check_writable(output_dir)
    tokenizer = bench.models.load_tokenizer()
    max_length = bench.models.usable_length(tokenizer)
    store = CheckpointStore(output_dir, settings.training.save_total_limit)
    checkpoint = _checkpoint_to_resume(store, arguments, output_dir)
    with bench.accelerator.main_process_first():
        splits = bench.data.load_splits()
        label_names = bench.data.label_names(splits)
        examples = {name: bench.data.encode(rows, tokenizer, label_names, max_length) for name, rows in splits.items()}
    _log.info("데이터: %s", ", ".join(f"{name} {len(rows):,}행" for name, rows in splits.items()))
    _seed_head(settings.training.seed)
    evaluator = bench.evaluator(bench.models.load_model(label_names), tokenizer, label_names, max_length)
    evaluator.memory.fit_model(evaluator.model)
    manager = TrainingManager(
        settings, evaluator, examples["train"], examples["validation"], store,
        save_best=lambda model: bench.models.save(model, tokenizer, output_dir),
        stop_signal=bench.stop.pending,
        data_keys={**{name: splits[name].key for name in ("train", "validation")}, "max_length": str(max_length)},
        output_dir=output_dir,
    )  # fmt: skip
    if checkpoint is not None:
        manager.restore(checkpoint)
        _log.info("스텝 %s까지 마친 체크포인트에서 이어서 학습합니다.", f"{manager.state.step:,}")
    _prepare_output(output_dir, settings, starts_anew=checkpoint is None)
    bench.stop.patient = True
    state = manager.run()
    _report(bench, splits, examples, evaluator, state, time.perf_counter() - started)


def _report(
    bench: Workbench, splits: dict[str, Rows], examples: dict[str, Examples], trained: Evaluator,
    state: TrainingState, seconds: float,
) -> None:  # fmt: skip
    """Evaluates the best model as it was saved, on test or else validation; says and writes what the run came to."""
    from reporting import log_evaluation, log_predictions, summary, write_json, write_model_card

    split, settings, output_dir = "test" if "test" in splits else "validation", bench.settings, bench.output_dir
    bench.models.name = str(output_dir)
    best = bench.evaluator(bench.models.load_model(()), trained.tokenizer, trained.label_names, trained.max_length)
    evaluation = best.evaluate(examples[split], settings.training.seed)
    if not bench.accelerator.is_main_process:
        return
    counts = {name: len(rows) for name, rows in splits.items()}
    texts = [splits[split].table[position] for position in range(0, counts[split], max(1, counts[split] // 5))][:5]
    outcomes = [evaluation.outcomes[position] for position in range(0, counts[split], max(1, counts[split] // 5))][:5]
    log_predictions(texts, [bench.task.readable(o, trained.label_names, trained.tokenizer) for o in outcomes])
    log_evaluation(split, counts[split], evaluation.metrics, evaluation.details)
    write_model_card(output_dir, settings, bench.task.name, counts, evaluation.metrics)
    facts = {
        "task": bench.task.name, "model": settings.model.name, "rows": counts, "steps": state.step,
        "best_step": state.best_step, f"best_validation_{bench.task.best_metric}": state.best_metric,
        "last_validation": state.last_metrics, split: evaluation.metrics, "seconds": round(seconds, 1),
        "peak_memory_bytes": trained.memory.peak(), "precision": bench.accelerator.mixed_precision,
        "seed": settings.training.seed,
    }  # fmt: skip
    write_json(output_dir / "summary.json", summary(facts))
    _log.info("걸린 시간 %.0f초, %s", seconds, trained.memory.describe())
    _log.info("가장 좋은 모델(스텝 %s)을 저장했습니다: %s", f"{state.best_step:,}", output_dir)


def _checkpoint_to_resume(store: Any, arguments: argparse.Namespace, output_dir: Path) -> Any:
    """The checkpoint that --resume means; refuses to start anew over a run that is not finished."""
    if arguments.resume or arguments.checkpoint_path is not None:
        path = arguments.checkpoint_path or store.newest()
        if path is None:
            raise ModelError(
                "이어서 학습할 체크포인트가 없습니다.",
                where=str(output_dir / "checkpoints"),
                remedy="--output_dir가 그 학습의 폴더인지 확인하거나, --resume 없이 처음부터 학습하세요.",
            )
        return store.load(path)
    if not (output_dir / "summary.json").exists() and store.newest() is not None:
        raise SettingsError(
            "끝나지 않은 학습이 이 폴더에 있습니다. 덮어쓰지 않습니다.",
            where=str(output_dir / "checkpoints"),
            remedy="이어서 하려면 --resume을 붙이고, 새로 하려면 --output_dir를 바꾸거나 checkpoints 폴더를 지우세요.",
        )
    return None


def _check_writable(output_dir: Path) -> None:
    """ResourceError where output_dir cannot be made or written, before time goes into anything else."""
    nearest = next(path for path in (output_dir, *output_dir.absolute().parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise ResourceError(
            "output_dir에 쓸 수 없습니다.",
            where=f"model.output_dir: {output_dir}",
            remedy=f"{nearest} 경로가 폴더인지, 쓰기 권한이 있는지 확인하거나 --output_dir로 다른 폴더를 고르세요.",
        )


def _prepare_output(output_dir: Path, settings: Settings, starts_anew: bool) -> None:
    """Makes output_dir, clears what a finished run left of its progress, and writes the settings in force."""
    from reporting import write_atomically

    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        if starts_anew:
            for name in ("summary.json", "metrics.jsonl"):
                (output_dir / name).unlink(missing_ok=True)
            shutil.rmtree(output_dir / "checkpoints", ignore_errors=True)
        write_atomically(output_dir / "settings.yaml", settings.to_yaml())
    except OSError as error:
        raise ResourceError(
            f"output_dir에 쓸 수 없습니다: {error.strerror or error}",
            where=str(output_dir),
            remedy="쓰기 권한과 디스크의 남은 공간을 확인하거나, --output_dir로 다른 폴더를 고르세요.",
        ) from error


def evaluate(bench: Workbench, arguments: argparse.Namespace) -> None:
    """Prints and saves the metrics of one split under a saved model."""
    from reporting import log_evaluation, metrics_line, write_json

    evaluator = _saved_model(bench, arguments)
    split, rows = bench.data.load_split(arguments.split)
    if evaluator.label_names:
        bench.data.check_labels(rows, evaluator.label_names)
    examples = bench.data.encode(rows, evaluator.tokenizer, evaluator.label_names, evaluator.max_length)
    evaluation = evaluator.evaluate(examples, bench.settings.training.seed)
    log_evaluation(split, len(rows), evaluation.metrics, evaluation.details)
    path = Path(bench.models.name) / f"metrics-{split}.json"
    write_json(path, {"split": split, "rows": len(rows), "source": rows.where, **evaluation.metrics})
    print(f"{split} {len(rows):,}행: {metrics_line(evaluation.metrics)}")
    _log.info("지표를 저장했습니다: %s", path)


def predict(bench: Workbench, arguments: argparse.Namespace) -> None:
    """Predicts the rows of a file, or lines from standard input, as JSONL or CSV in the order they came."""
    from reporting import write_predictions

    evaluator = _saved_model(bench, arguments)
    rows, originals = bench.data.load_unlabelled(arguments.input, sys.stdin)
    records: list[dict[str, Any]] = [dict(original) for original in originals]
    if len(rows):
        examples = bench.data.encode(rows, evaluator.tokenizer, evaluator.label_names, evaluator.max_length)
        outcomes = evaluator.predict(examples)
        for number, outcome in zip(rows.table["row"], outcomes, strict=True):
            records[number - 1] |= bench.task.readable(outcome, evaluator.label_names, evaluator.tokenizer)
    write_predictions(arguments.output, records)


def _saved_model(bench: Workbench, arguments: argparse.Namespace) -> Evaluator:
    """The model that was fine-tuned: that of --model_name, or else of output_dir."""
    if arguments.model_name is None:
        bench.models.name = str(bench.output_dir)
        if not (bench.output_dir / "config.json").is_file():
            raise ModelError(
                "아직 저장된 모델이 없습니다.",
                where=str(bench.output_dir),
                remedy="먼저 학습을 실행하거나, --output_dir 또는 --model_name으로 모델 폴더를 지정하세요.",
            )
    tokenizer = bench.models.load_tokenizer()
    max_length = bench.models.usable_length(tokenizer)
    label_names = bench.models.label_names()
    return bench.evaluator(bench.models.load_model(()), tokenizer, label_names, max_length)


def _seed_head(seed: int) -> None:
    """Makes the new head's random weights the same for the same seed."""
    import torch

    torch.manual_seed(seed)


def main(argv: Sequence[str]) -> int:
    """Runs one command; returns the exit code of DESIGN.md section 5."""
    try:
        stop = StopSignal()
        arguments = build_parser().parse_args(argv)
        commands: dict[str, Callable[[Workbench, argparse.Namespace], None]] = {
            "train": train, "evaluate": evaluate, "predict": predict,
        }  # fmt: skip
        commands[arguments.command](build(read_settings(arguments), stop), arguments)
    except StopRequested as stopped:
        again = [word for word in argv if word != "--resume"]
        if stop.patient:
            print(f"상태를 저장하고 멈췄습니다. 이어서 하려면: {_command([*again, '--resume'])}", file=sys.stderr)
        else:
            print("멈췄습니다. 저장할 학습 상태는 없습니다.", file=sys.stderr)
        return stopped.exit_code
    except FinetuningError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _command(argv: Sequence[str]) -> str:
    return shlex.join(["python", "finetuning_app.py", *argv])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
