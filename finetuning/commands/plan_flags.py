"""The flags of `plan`: what it compares, measures, and how many processes it plans for."""

from __future__ import annotations

import argparse

from exceptions import SettingsError

PLAN_FLAGS = ("--compare", "--time", "--processes")


def add_plan_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to the parser of the command line."""
    parser.add_argument(
        "--compare", nargs="+", metavar="모델", help="plan: tokenizer를 나란히 비교할 다른 모델들 (ID 또는 폴더)"
    )
    parser.add_argument(
        "--time", action="store_true", help="plan: 가중치를 읽어 몇 스텝을 실행해 보고 학습 시간을 추정합니다"
    )
    parser.add_argument(
        "--processes", type=_processes, metavar="개수",
        help="plan: 프로세스가 이만큼일 때 프로세스마다 필요한 메모리와 한 스텝에 주고받는 양을 계산합니다",
    )  # fmt: skip


def _processes(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise SettingsError(f"2 이상의 정수를 써야 합니다: {text}", where="--processes", remedy="예: --processes 8")
    return int(text)
