"""The command line: flags → settings → managers → one command, and the exit code."""

from __future__ import annotations

import argparse
import difflib
import gc
import importlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from exceptions import FinetuningError, SettingsError, StopRequested
from finetuning.commands.console import abandon_output, prepare_output
from finetuning.korean.particles import with_particle

if TYPE_CHECKING:
    from config_manager import Override
    from finetuning.config.schema import Settings

_COMMANDS = {"train": "학습", "evaluate": "평가", "predict": "예측", "chat": "대화", "plan": "미리 보기",
             "export": "어댑터를 합친 모델 저장", "verify-resume": "멈췄다가 이은 학습이 같은지 확인"}  # fmt: skip
_CLOSED_PIPE = 141  # 128 + SIGPIPE, which Windows does not have
_ABOUT_A_RUN_TO_COME = (
    "train",
    "plan",
    "verify-resume",
)  # the others are about a model that a run has saved, with its settings
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


# flags that a command has and the others have not
_COMMAND_FLAGS = {
    "--resume": ("train",),
    "--checkpoint_path": ("train",),
    "--allow_changed": ("train",),
    "--split": ("evaluate",),
    "--input": ("predict",),
    "--output": ("predict", "export"),
    "--compare": ("plan",),
}


class _KoreanHelp(argparse.HelpFormatter):
    """Help under Korean headings."""

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, prefix or "사용법: ")


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
        for flag, commands in _COMMAND_FLAGS.items():
            if getattr(arguments, flag.removeprefix("--")) and arguments.command not in commands:
                raise SettingsError(
                    f"{flag} 플래그는 {arguments.command} 명령에 쓸 수 없습니다.",
                    where="명령줄",
                    remedy=f"{', '.join(commands)} 명령의 플래그입니다. {_SEE_HELP}",
                )
        if arguments.allow_changed and not (arguments.resume or arguments.checkpoint_path):
            raise SettingsError(
                "--allow_changed는 이어서 학습할 때만 쓸 수 있습니다.", where="명령줄", remedy="--resume과 함께 쓰세요."
            )
        return arguments

    def error(self, message: str) -> NoReturn:
        lacking = re.fullmatch(r"argument (.+): expected (?:at least )?one argument", message)
        surplus = re.fullmatch(r"unrecognized arguments: (.+)", message)
        if lacking:
            what = f"{lacking[1]} 뒤에 값이 없습니다."
        elif surplus:
            what = f"무슨 뜻인지 알 수 없는 말이 있습니다: {surplus[1]}"
        else:
            what = f"명령줄을 읽을 수 없습니다: {message}"
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
        formatter_class=_KoreanHelp,
    )
    parser._positionals.title, parser._optionals.title = "명령", "플래그"
    parser.add_argument("command", nargs="?", default="train", metavar="명령",
                        help=", ".join(f"{name}({text})" for name, text in _COMMANDS.items()))  # fmt: skip
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
    parser.add_argument(
        "--compare", nargs="+", metavar="모델", help="plan: tokenizer를 나란히 견줄 다른 모델들 (ID 또는 폴더)"
    )
    parser.add_argument(
        "--allow_changed", action="store_true",
        help="--resume: 학습률처럼 앞으로의 스텝만 바꾸는 설정은 체크포인트와 달라도 새 값으로 이어 갑니다",
    )  # fmt: skip
    parser.add_argument("--split", metavar="이름", help="evaluate: 평가할 split (기본값: test, 없으면 validation)")
    parser.add_argument(
        "--input", type=Path, metavar="파일", help="predict: 예측할 파일 (기본값: 표준 입력, 한 줄에 하나)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="경로",
        help="predict: 결과를 쓸 .jsonl 또는 .csv (기본값: 표준 출력). export: 저장할 폴더 (기본값: output_dir/merged)",
    )  # fmt: skip
    return parser


def overrides_in(arguments: argparse.Namespace) -> dict[str, Override]:
    """The settings that the command line has, by their dotted keys."""
    from config_manager import Override, parse_assignment

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
    return overrides


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Settings in force. For a saved model, its own settings.yaml stands in where no --config is given."""
    from config_manager import ConfigManager

    overrides = overrides_in(arguments)
    config = arguments.config or _HERE / "config.yaml"
    if arguments.command not in _ABOUT_A_RUN_TO_COME and arguments.config is None:
        folder = Path(arguments.model_name or ConfigManager.load(config, overrides).model.output_dir).expanduser()
        config = folder / "settings.yaml" if (folder / "settings.yaml").is_file() else config
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


def main(argv: Sequence[str]) -> int:
    """Runs one command; returns the exit code of DESIGN.md section 5."""
    prepare_output()
    try:
        stop = StopSignal()
        arguments = build_parser().parse_args(argv)
        settings = read_settings(arguments)
        with _kept_from_collection():
            command = importlib.import_module(f"finetuning.commands.{arguments.command.replace('-', '_')}")
            workbench, given = (
                importlib.import_module("finetuning.commands.session"),
                frozenset(overrides_in(arguments)),
            )
            bench = workbench.build(settings, stop, given)
        command.run(bench, arguments)
        sys.stdout.flush()
    except StopRequested as stopped:
        if stop.patient:
            print(f"상태를 저장하고 멈췄습니다. 이어서 하려면: {_resuming(argv)}", file=sys.stderr)
        else:
            print("멈췄습니다. 저장할 학습 상태는 없습니다.", file=sys.stderr)
        return stopped.exit_code
    except FinetuningError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # as `| head` leaves it
        abandon_output()
        return _CLOSED_PIPE
    except (RuntimeError, MemoryError, OSError, ImportError) as error:
        from finetuning.config.ladder import remedies
        from finetuning.device.oom import is_out_of_memory, out_of_memory

        if not is_out_of_memory(error):
            raise
        helping = remedies(settings, "train" if arguments.command in _ABOUT_A_RUN_TO_COME else "use")
        told = out_of_memory("메모리가 부족합니다.", f"{arguments.command} 명령", helping)
        print(told, file=sys.stderr)
        return told.exit_code
    return 0


@contextmanager
def _kept_from_collection() -> Iterator[None]:
    """What is imported within is there to stay: to look through it for garbage, then and later, takes a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _resuming(argv: Sequence[str]) -> str:
    """The command that goes on from the newest checkpoint, whatever this one began from."""
    words: list[str] = []
    following = iter(argv)
    for word in following:
        if word == "--checkpoint_path":
            next(following, None)
        elif word != "--resume" and not word.startswith("--checkpoint_path="):
            words.append(word)
    return shlex.join(["python", sys.argv[0], *words, "--resume"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
