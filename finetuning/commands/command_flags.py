"""The flags of single commands: what they are, which commands take them, and what may go with what."""

from __future__ import annotations

import argparse
from pathlib import Path

from exceptions import SettingsError
from finetuning.commands.adapters_flag import add_adapters_flag, name_first_adapter
from finetuning.commands.board_flags import BOARD_FLAGS, add_board_flags, check_live_flag
from finetuning.commands.corpus_flags import CORPUS_FLAGS, add_corpus_flags, check_corpus_flags
from finetuning.commands.export_flags import add_export_flags
from finetuning.commands.generate_flags import GENERATE_FLAGS, add_generate_flags, check_generate_flags
from finetuning.commands.plan_flags import PLAN_FLAGS, add_plan_flags
from finetuning.files import user_path

# The other commands work on a saved model, with the settings saved beside it.
TRAINING_COMMANDS = ("train", "plan", "verify-resume", "sweep")
SEE_HELP = "python finetuning_app.py --help로 쓸 수 있는 명령과 플래그를 확인하세요."

# flag → commands that take it
_COMMAND_FLAGS = {
    "--resume": ("train", "sweep"),
    "--checkpoint_path": ("train",),
    "--allow_changed": ("train",),
    "--split": ("evaluate",),
    "--suite": ("evaluate",),
    "--suite_data": ("evaluate",),
    "--input": ("predict", "generate"),
    "--output": ("predict", "export", "generate", "mine"),
    **CORPUS_FLAGS,
    **dict.fromkeys(GENERATE_FLAGS, ("generate",)),
    **dict.fromkeys(BOARD_FLAGS, ("board",)),
    "--live": ("predict", "chat"),
    "--format": ("export",),
    "--push": ("export",),
    "--license": ("export",),
    "--adapters": ("export",),
    "--defuse_formulas": ("predict",),
    **dict.fromkeys(PLAN_FLAGS, ("plan",)),
    "--seeds": ("train",),
    "--trials": ("sweep",),
    "--html": ("runs",),
    "--dry_run": ("sweep", "train", "export"),
    "--keep_checkpoints": ("sweep", "train"),
}


def add_command_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", action="store_true", help="저장된 체크포인트에서 이어서 학습합니다")
    parser.add_argument(
        "--checkpoint_path", type=as_path, metavar="경로", help="이어서 학습할 체크포인트 (--resume과 함께)"
    )
    parser.add_argument(
        "--html", action="store_true", help="runs: 같은 표를 학습 곡선과 함께 폴더의 runs.html 파일로도 씁니다"
    )
    parser.add_argument(
        "--seeds", type=_count, metavar="개수",
        help="train: 시드를 1씩 늘려 가며 여러 번 학습하고 점수의 평균과 표준편차를 냅니다",
    )  # fmt: skip
    parser.add_argument(
        "--trials", type=_count, metavar="횟수",
        help="sweep: --set 키=작은값..큰값으로 쓴 범위에서 optuna가 고른 값으로 이만큼 학습합니다",
    )  # fmt: skip
    parser.add_argument(
        "--dry_run", action="store_true",
        help="sweep, train --seeds: 학습하지 않고 무엇을 학습할지 보여 줍니다. export --push: 올리지 않고 올릴 파일과 "
        "모델 카드를 보여 줍니다",
    )  # fmt: skip
    parser.add_argument(
        "--keep_checkpoints", action="store_true",
        help="sweep, train --seeds: 끝난 학습의 체크포인트를 지우지 않습니다 (기본값: 가장 좋은 모델만 남김)",
    )  # fmt: skip
    parser.add_argument(
        "--allow_changed", action="store_true",
        help="--resume: 학습률처럼 앞으로의 스텝에만 영향을 주는 설정은 체크포인트와 달라도 새 값으로 이어 갑니다",
    )  # fmt: skip
    parser.add_argument("--split", metavar="이름", help="evaluate: 평가할 split (기본값: test, 없으면 validation)")
    parser.add_argument(
        "--suite", metavar="이름,...",
        help="evaluate: lm-eval(임베딩은 mteb)의 과제로 평가하고 학습 전 모델과 비교합니다. 예: kobest,kmmlu,haerae",
    )  # fmt: skip
    parser.add_argument(
        "--suite_data", type=as_path, metavar="폴더",
        help="--suite: 내려받아 둔 벤치마크 데이터 (기본값: Hugging Face Hub)",
    )  # fmt: skip
    parser.add_argument(
        "--input", type=as_path, metavar="파일", help="predict, generate: 읽을 파일 (기본값: 표준 입력, 한 줄에 하나)"
    )
    parser.add_argument(
        "--output", type=as_path, metavar="경로",
        help="predict: 결과를 쓸 .jsonl 또는 .csv (기본값: 표준 출력). export: 저장할 폴더 (기본값: output_dir/형식). "
        "generate, mine: 결과를 쓸 .jsonl",
    )  # fmt: skip
    add_export_flags(parser)
    add_adapters_flag(parser)
    parser.add_argument(
        "--defuse_formulas", action="store_true",
        help="predict: .csv에서 =, +, -, @로 시작하는 텍스트 앞에 작은따옴표를 붙여 엑셀이 수식으로 실행하지 못하게 함",
    )  # fmt: skip
    for add_flags in (add_plan_flags, add_generate_flags, add_corpus_flags, add_board_flags):
        add_flags(parser)


def as_path(text: str) -> Path:
    """Read a path; a shell leaves `~` in `--output=~/x` as it is."""
    try:
        return Path(user_path(text))
    except ValueError as error:
        raise SettingsError(f"{error}: {text[:80]}", where="명령줄", remedy="경로의 철자를 확인하세요.") from None


def _count(text: str) -> int:
    """Read how many runs there shall be."""
    if not text.isdecimal() or int(text) < 2:
        raise SettingsError(f"2 이상의 정수를 써야 합니다: {text}", where="명령줄", remedy="예: --seeds 3, --trials 10")
    return int(text)


def check_flags_of(arguments: argparse.Namespace) -> None:
    """Raise SettingsError for a flag of another command."""
    for flag, commands in _COMMAND_FLAGS.items():
        if getattr(arguments, flag.removeprefix("--")) and arguments.command not in commands:
            raise SettingsError(
                f"{flag} 플래그는 {arguments.command} 명령에 쓸 수 없습니다.",
                where="명령줄",
                remedy=f"{', '.join(commands)} 명령의 플래그입니다. {SEE_HELP}",
            )
    if arguments.command == "generate":
        check_generate_flags(arguments)
    check_corpus_flags(arguments)
    name_first_adapter(arguments)
    check_live_flag(arguments)
    if arguments.defuse_formulas and not (arguments.output and arguments.output.suffix.lower() == ".csv"):
        raise SettingsError(
            "--defuse_formulas는 CSV 파일로 쓸 때만 쓸 수 있습니다.",
            where="명령줄",
            remedy="--output에 .csv로 끝나는 이름을 쓰세요.",
        )
    if arguments.command == "export" and arguments.dry_run and arguments.push is None:
        raise SettingsError(
            "export의 --dry_run은 --push와 함께 씁니다.",
            where="명령줄",
            remedy="예: export --push 사용자/이름 --dry_run",
        )
    several = arguments.command in ("sweep", "export") or arguments.seeds is not None
    for flag in () if several else ("--dry_run", "--keep_checkpoints"):
        if getattr(arguments, flag.removeprefix("--")):
            raise SettingsError(
                f"{flag} 플래그는 여러 번 학습할 때만 쓸 수 있습니다.",
                where="명령줄",
                remedy="sweep 명령이나 train --seeds 3과 함께 쓰세요.",
            )
    if arguments.seeds is not None and (arguments.checkpoint_path or arguments.allow_changed):
        raise SettingsError(
            "--seeds는 --checkpoint_path, --allow_changed와 함께 쓸 수 없습니다.",
            where="명령줄",
            remedy="멈춘 학습들은 같은 명령을 다시 실행하면 이어집니다.",
        )
    if arguments.command not in TRAINING_COMMANDS and any(_key(text) == "model.name" for text in arguments.set):
        raise SettingsError(
            f"{arguments.command} 명령은 model.name을 읽지 않습니다. 학습을 시작한 모델의 이름입니다.",
            where="--set model.name",
            remedy=f"{arguments.command}에 쓸 모델의 폴더는 --model_name이나 --output_dir로 지정하세요.",
        )
    if arguments.allow_changed and not (arguments.resume or arguments.checkpoint_path):
        raise SettingsError(
            "--allow_changed는 이어서 학습할 때만 쓸 수 있습니다.", where="명령줄", remedy="--resume과 함께 쓰세요."
        )


def _key(assignment: str) -> str:
    return assignment.partition("=")[0].strip()
