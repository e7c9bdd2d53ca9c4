"""The command line: its commands and flags, what may go with what, and the settings that flags give."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from exceptions import SettingsError
from finetuning.commands.adapters_flag import add_adapters_flag, name_first_adapter
from finetuning.commands.board_flags import BOARD_FLAGS, add_board_flags, check_live_flag
from finetuning.commands.corpus_flags import CORPUS_FLAGS, add_corpus_flags, check_corpus_flags
from finetuning.commands.export_flags import add_export_flags
from finetuning.commands.generate_flags import GENERATE_FLAGS, add_generate_flags, check_generate_flags
from finetuning.commands.plan_flags import PLAN_FLAGS, add_plan_flags
from finetuning.commands.repeated_flags import unread_settings, unused_values
from finetuning.config.flags import SETTING_FLAGS
from finetuning.device.peers import launcher_words
from finetuning.files import command_of_this_program, typed, user_path
from finetuning.korean.particles import with_particle

if TYPE_CHECKING:
    from finetuning.config.overrides import Override
    from finetuning.config.schema import DataSettings

COMMANDS = {"train": "학습", "evaluate": "평가", "predict": "예측", "chat": "대화", "plan": "미리 보기",
            "export": "다른 프로그램이 읽는 형식으로 저장", "verify-resume": "재개한 학습이 똑같은지 확인",
            "runs": "학습들을 표로 비교", "sweep": "설정을 바꿔 가며 여러 번 학습",
            "generate": "답을 여러 개 만들어 좋은 것을 학습 데이터로", "mine": "학습에 쓸 오답 문서 찾기",
            "board": "브라우저에서 보는 페이지"}  # fmt: skip
# The other commands work on a saved model, with the settings saved beside it.
TRAINING_COMMANDS = ("train", "plan", "verify-resume", "sweep")
WITHOUT_MODEL = ("runs", "sweep", "seeds", "board")  # modules of commands that load no model themselves
_SEE_HELP = "python finetuning_app.py --help로 쓸 수 있는 명령과 플래그를 확인하세요."

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


class _KoreanHelp(argparse.HelpFormatter):
    """Help with a Korean usage heading."""

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, prefix or "사용법: ")


class _KoreanParser(argparse.ArgumentParser):
    """A parser that raises SettingsError, with a Korean message, for wrong flags."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = list(args)
        for word in self._words:
            flag = word.partition("=")[0]
            if flag.startswith("--") and flag not in self._option_string_actions:
                raise _unknown("플래그", flag, self._option_string_actions)
        arguments = super().parse_args(args, namespace)
        if arguments.command not in COMMANDS:
            raise _unknown("명령", arguments.command, COMMANDS, _right_form(self._words, arguments.command))
        if arguments.folder is not None and arguments.command not in ("runs", "board"):
            self.error(f"unrecognized arguments: {arguments.folder}")
        _check_flags_of(arguments)
        arguments.words = tuple(self._words)
        if arguments.recipe is not None:
            from finetuning.commands.recipe_flag import settings_of_recipe

            arguments.config, arguments.listed = settings_of_recipe(arguments)
        lone = {flag: action for flag, action in self._option_string_actions.items() if action.nargs != "+"}
        takes_value = {flag: action.nargs != 0 for flag, action in lone.items()}
        arguments.unused = unused_values(self._words, takes_value)
        if arguments.command not in TRAINING_COMMANDS:
            arguments.unused += unread_settings(arguments.command, self._words, takes_value)
        arguments.axes = []
        if arguments.command == "sweep":
            from finetuning.commands.combinations import axes_in

            arguments.axes, arguments.set = axes_in(arguments.set)
        return arguments

    def error(self, message: str) -> NoReturn:
        guess = ""
        lacking = re.fullmatch(r"argument (.+): expected (?:at least )?one argument", message)
        surplus = re.fullmatch(r"unrecognized arguments: (.+)", message)
        if lacking:
            what = f"{lacking[1]} 뒤에 값이 없습니다."
        elif surplus:
            what = f"알 수 없는 인자입니다: {surplus[1]}"
            guess = next((form for word in surplus[1].split() if (form := _right_form(self._words, word))), "")
        else:
            what = f"명령줄을 읽을 수 없습니다: {message}"
        raise SettingsError(what, where="명령줄", remedy=guess or _SEE_HELP)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser. Values of settings stay strings here, since the settings check them."""
    parser = _KoreanParser(
        prog="python finetuning_app.py",
        description="Hugging Face 모델을 한국어 텍스트로 파인튜닝합니다. 명령을 쓰지 않으면 train입니다.",
        epilog="우선순위: 기본값 < config.yaml < preset < --config 파일 < 플래그. 설명은 config.yaml에 있습니다.",
        allow_abbrev=False,
        add_help=False,
        formatter_class=_KoreanHelp,
    )
    parser.set_defaults(run=None, listed=None)
    parser._positionals.title, parser._optionals.title = "명령", "플래그"
    parser.add_argument("command", nargs="?", default="train", metavar="명령",
                        help=", ".join(f"{name}({text})" for name, text in COMMANDS.items()))  # fmt: skip
    parser.add_argument("folder", nargs="?", type=_path, metavar="폴더",
                        help="runs, board: 학습 결과가 들어 있는 폴더 (기본값: output_dir의 상위 폴더)")  # fmt: skip
    parser.add_argument("-h", "--help", action="help", help="이 도움말을 출력하고 종료합니다")
    _add_setting_flags(parser)
    _add_command_flags(parser)
    return parser


def overrides_in(arguments: argparse.Namespace) -> dict[str, Override]:
    """Collect the settings given on the command line, by dotted key; --set wins over the other flags."""
    from finetuning.config.overrides import Override, parse_assignment

    overrides: dict[str, Override] = {}
    for flag, key, _, _ in SETTING_FLAGS:
        value = getattr(arguments, flag.removeprefix("--"))
        if value is not None:
            overrides[key] = Override(value, flag)
    for text in arguments.set:
        key, value = parse_assignment(text)
        overrides[key] = Override(value, "--set")
    return overrides


def resume_command(argv: Sequence[str], run_folder: Path | None = None) -> str:
    """Return the command that continues this run, quoted for a shell, by its launcher; see `words_to_resume`."""
    words = words_to_resume(argv, run_folder)
    launcher = launcher_words()
    return typed(*launcher, sys.argv[0], *words) if launcher else command_of_this_program(*words)


def words_to_resume(argv: Sequence[str], run_folder: Path | None = None) -> list[str]:
    """Return the words of a command that continues this run from its newest checkpoint, whichever one it started from.

    Args:
        argv: The words of the command that started the run.
        run_folder: The folder of the run; named where the run started from a checkpoint that was named.

    Returns:
        The words after the program's name.
    """
    words: list[str] = []
    following, named = iter(argv), False
    for word in following:
        if word == "--checkpoint_path":
            next(following, None)
        elif word != "--resume" and not word.startswith("--checkpoint_path="):
            words.append(word)
            continue
        named = named or word != "--resume"
    folder = ["--checkpoint_path", str(run_folder)] if named and run_folder is not None else []
    return [*words, "--resume", *folder]


def module_of(arguments: argparse.Namespace) -> str:
    """Return the name of the module in `finetuning/commands` that runs a command line."""
    return "seeds" if arguments.seeds is not None else str(arguments.command.replace("-", "_"))


def check_data_named(folder: Path, trained_on: str | None, users: DataSettings, words: Sequence[str]) -> None:
    """Check that the user names the data of `evaluate`: a model folder may come from anybody, and names none.

    Args:
        folder: The model's folder.
        trained_on: The data that its settings.yaml names.
        users: The user's own settings of the data.
        words: The words of the command line.

    Raises:
        SettingsError: They differ. It shows the command that evaluates on the folder's.
    """
    if trained_on is None or trained_on == users.shown_name() or users.split_files() or users.mix:
        return
    is_path = bool(Path(trained_on).suffix) or trained_on.startswith((".", "/", "~"))
    if is_path and not Path(trained_on).expanduser().exists():
        remedy = f"이 모델을 학습한 데이터는 {trained_on}인데, 지금 폴더({Path.cwd()})에서는 찾을 수 없습니다."
    else:
        named = any(word.partition("=")[0] == "--split" for word in words)
        # all rows of a single file are scored, unless it is divided as in training
        split = ["--split", "validation"] if Path(trained_on).suffix and not named else []
        command = command_of_this_program(*words, "--dataset", trained_on, *split)
        remedy = f"이 모델을 학습할 때의 데이터로 평가하려면: {command}"
    raise SettingsError(
        "평가할 데이터를 --dataset으로 지정하세요. 모델 폴더는 남이 만든 것일 수 있으므로, 거기 적힌 데이터를 알아서 "
        "읽지는 않습니다.",
        where=f"{folder / 'settings.yaml'}, data.dataset_name",
        remedy=remedy,
    )


def _add_setting_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=_path, metavar="파일", help="설정 파일 (기본값: 프로그램 옆의 config.yaml)")
    parser.add_argument("--recipe", metavar="이름", help="recipes/이름.yaml을 설정 파일로 씁니다 (--config 대신)")
    for flag, key, text, is_switch in SETTING_FLAGS:
        if is_switch:
            action = argparse.BooleanOptionalAction
            parser.add_argument(flag, action=action, default=None, help=f"{text} ({key})")
        else:
            parser.add_argument(flag, metavar="값", help=f"{text} ({key})")
    parser.add_argument(
        "--set", action="append", default=[], metavar="섹션.키=값", help="다른 모든 설정. 여러 번 쓸 수 있습니다"
    )


def _add_command_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", action="store_true", help="저장된 체크포인트에서 이어서 학습합니다")
    parser.add_argument(
        "--checkpoint_path", type=_path, metavar="경로", help="이어서 학습할 체크포인트 (--resume과 함께)"
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
        "--suite_data", type=_path, metavar="폴더",
        help="--suite: 내려받아 둔 벤치마크 데이터 (기본값: Hugging Face Hub)",
    )  # fmt: skip
    parser.add_argument(
        "--input", type=_path, metavar="파일", help="predict, generate: 읽을 파일 (기본값: 표준 입력, 한 줄에 하나)"
    )
    parser.add_argument(
        "--output", type=_path, metavar="경로",
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


def _path(text: str) -> Path:
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


def _check_flags_of(arguments: argparse.Namespace) -> None:
    """Raise SettingsError for a flag of another command."""
    for flag, commands in _COMMAND_FLAGS.items():
        if getattr(arguments, flag.removeprefix("--")) and arguments.command not in commands:
            raise SettingsError(
                f"{flag} 플래그는 {arguments.command} 명령에 쓸 수 없습니다.",
                where="명령줄",
                remedy=f"{', '.join(commands)} 명령의 플래그입니다. {_SEE_HELP}",
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


def _unknown(kind: str, name: str, known: Iterable[str], form: str = "") -> SettingsError:
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"혹시 {near[0]}입니까? " if near else ""
    remedy = guess + _SEE_HELP if near or not form else form
    return SettingsError(f"'{name}' {with_particle(kind, '이/가')} 없습니다.", where="명령줄", remedy=remedy)


def _right_form(words: Sequence[str], stray: str) -> str:
    """Return the likely mistake behind a word that belongs to no flag, and what to write; "" if there is no guess.

    Args:
        words: The command line.
        stray: The word.

    Returns:
        A Korean sentence, or "".
    """
    if stray in COMMANDS:
        return f"명령은 하나만, 맨 앞에 쓰세요: python finetuning_app.py {stray} --플래그 값"
    place = words.index(stray) if stray in words else 0
    start = next((number for number in range(place, -1, -1) if words[number].startswith("--")), None)
    if start is None:
        return f"데이터 파일이면 --dataset {typed(stray)} 플래그로 쓰세요." if Path(stray).exists() else ""
    end = next((number for number in range(place, len(words)) if words[number].startswith("--")), len(words))
    flag, equals, first = words[start].partition("=")
    values = [*([first] if equals else []), *words[start + 1 : end]]
    if flag == "--set" and "=" not in values[0]:
        return f"설정과 값은 =로 연결하세요: --set {typed(f'{values[0]}={chr(32).join(values[1:])}')}"
    return f"공백이 있는 값은 따옴표로 감싸세요: {flag} {typed(' '.join(values))}"
