"""The command line: its commands, how its words are read, and the settings that flags give."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from exceptions import SettingsError
from finetuning.commands.command_flags import SEE_HELP, TRAINING_COMMANDS, add_command_flags, as_path, check_flags_of
from finetuning.commands.repeated_flags import unread_settings, unused_values
from finetuning.config.flags import SETTING_FLAGS
from finetuning.device.peers import command_of_this_group
from finetuning.files import typed
from finetuning.korean.particles import with_particle

if TYPE_CHECKING:
    from finetuning.config.overrides import Override

COMMANDS = {"train": "학습", "evaluate": "평가", "predict": "예측", "chat": "대화", "plan": "미리 보기",
            "export": "다른 프로그램이 읽는 형식으로 저장", "verify-resume": "재개한 학습이 똑같은지 확인",
            "runs": "학습들을 표로 비교", "sweep": "설정을 바꿔 가며 여러 번 학습",
            "generate": "답을 여러 개 만들어 좋은 것을 학습 데이터로", "mine": "학습에 쓸 오답 문서 찾기",
            "board": "브라우저에서 보는 페이지"}  # fmt: skip
WITHOUT_MODEL = ("runs", "sweep", "seeds", "board")  # modules of commands that load no model themselves


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
            raise _unknown(
                "명령", arguments.command, COMMANDS, _right_form(self._words, arguments.command, self._switches())
            )
        if arguments.folder is not None and arguments.command not in ("runs", "board"):
            self.error(f"unrecognized arguments: {arguments.folder}")
        check_flags_of(arguments)
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
            forms = (_right_form(self._words, word, self._switches()) for word in surplus[1].split())
            guess = next(filter(None, forms), "")
        else:
            what = f"명령줄을 읽을 수 없습니다: {message}"
        raise SettingsError(what, where="명령줄", remedy=guess or SEE_HELP)

    def _switches(self) -> set[str]:
        """Return the flags that take no value."""
        return {flag for flag, action in self._option_string_actions.items() if action.nargs == 0}


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
    parser.add_argument("folder", nargs="?", type=as_path, metavar="폴더",
                        help="runs, board: 학습 결과가 들어 있는 폴더 (기본값: output_dir의 상위 폴더)")  # fmt: skip
    parser.add_argument("-h", "--help", action="help", help="이 도움말을 출력하고 종료합니다")
    _add_setting_flags(parser)
    add_command_flags(parser)
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
    return command_of_this_group(*words_to_resume(argv, run_folder))


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


def _add_setting_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=as_path, metavar="파일", help="설정 파일 (기본값: 프로그램 옆의 config.yaml)")
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


def _unknown(kind: str, name: str, known: Iterable[str], form: str = "") -> SettingsError:
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"혹시 {near[0]}입니까? " if near else ""
    remedy = guess + SEE_HELP if near or not form else form
    return SettingsError(f"'{name}' {with_particle(kind, '이/가')} 없습니다.", where="명령줄", remedy=remedy)


def _right_form(words: Sequence[str], stray: str, switches: Collection[str]) -> str:
    """Return the likely mistake behind a word that belongs to no flag, and what to write; "" if there is no guess.

    Args:
        words: The command line.
        stray: The word.
        switches: The flags that take no value.

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
    opposite = f"--no-{flag.removeprefix('--')}"
    if opposite in switches and stray.casefold() in ("false", "no", "off", "0"):
        return f"{with_particle(flag, '은/는')} 값을 받지 않습니다. 끄려면 {opposite} 플래그를 쓰세요."
    if flag in switches:
        return f"{with_particle(flag, '은/는')} 값을 받지 않습니다. 뒤의 {with_particle(stray, '을/를')} 지우세요."
    if flag == "--set" and "=" not in values[0]:
        return f"설정과 값은 =로 연결하세요: --set {typed(f'{values[0]}={chr(32).join(values[1:])}')}"
    return f"공백이 있는 값은 따옴표로 감싸세요: {flag} {typed(' '.join(values))}"
