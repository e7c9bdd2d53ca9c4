"""The flags of `board`, where the page is served, and `--live`, by which it and other programs ask a model."""

from __future__ import annotations

import argparse

from exceptions import SettingsError

BOARD_FLAGS = ("--port", "--host", "--folders")
DEFAULT_PORT, THIS_MACHINE = 7860, "127.0.0.1"


def add_board_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to the parser of the command line."""
    parser.add_argument("--port", type=_port, metavar="번호", help=f"board: 페이지의 포트 (기본값: {DEFAULT_PORT})")
    parser.add_argument(
        "--host", metavar="주소",
        help="board: 페이지를 열 주소. 0.0.0.0이면 다른 컴퓨터에서도 token이 든 주소로 엽니다 "
        f"(기본값: {THIS_MACHINE}, 이 컴퓨터만)",
    )  # fmt: skip
    parser.add_argument(
        "--folders", nargs="+", metavar="폴더", default=[],
        help="board: 올린 파일 말고도 페이지에서 읽어도 되는 데이터와 모델의 폴더",
    )  # fmt: skip
    parser.add_argument(
        "--live", action="store_true",
        help="predict, chat: 표준 입력에 JSON을 한 줄씩 쓰는 다른 프로그램에 줄마다 바로 답합니다",
    )  # fmt: skip


def check_live_flag(arguments: argparse.Namespace) -> None:
    """Raise SettingsError where --live stands beside a file to read or write."""
    if arguments.live and (arguments.input or arguments.output or arguments.corpus):
        raise SettingsError(
            "--live는 --input, --output, --corpus와 함께 쓸 수 없습니다.",
            where="명령줄",
            remedy="표준 입력에 JSON을 한 줄씩 쓰고 표준 출력에서 답을 읽거나, --live를 빼세요.",
        )


def _port(text: str) -> int:
    """Read a port; 0 takes any that is free."""
    if not text.isdecimal() or int(text) > 65535:
        raise SettingsError(
            f"포트는 0부터 65535까지의 정수입니다: {text}", where="--port", remedy=f"예: --port {DEFAULT_PORT}"
        )
    return int(text)
