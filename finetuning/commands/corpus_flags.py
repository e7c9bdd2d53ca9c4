"""The flags of what works on a corpus of passages: `mine`, `predict --corpus` and `evaluate --corpus`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from exceptions import SettingsError
from finetuning.files import user_path

WAYS = ("dense", "bm25", "both")
_USUAL_TOP, _USUAL_NEGATIVES, _USUAL_MARGIN = 5, 4, 0.05
CORPUS_FLAGS: Mapping[str, tuple[str, ...]] = MappingProxyType({  # flag → commands that take it
    "--corpus": ("predict", "mine", "evaluate"), "--top": ("predict",), "--negatives": ("mine",), "--margin": ("mine",),
    "--by": ("mine",),
})  # fmt: skip


def add_corpus_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to the parser of the command line."""
    parser.add_argument(
        "--corpus", metavar="파일",
        help="predict: 질문마다 이 파일의 문서에서 가까운 것을 찾습니다(임베딩 모델). evaluate: "
        "질문마다 이 파일의 문서 전체에서 찾아 점수를 냅니다. "
        "mine: 오답 문서를 찾을 문서들(기본값: --dataset의 문서들)",
    )  # fmt: skip
    parser.add_argument("--top", metavar="개수", help=f"predict --corpus: 찾을 문서의 개수 (기본값: {_USUAL_TOP})")
    parser.add_argument(
        "--negatives", metavar="개수", help=f"mine: 질문마다 찾을 오답 문서의 개수 (기본값: {_USUAL_NEGATIVES})"
    )
    parser.add_argument(
        "--margin", metavar="비율",
        help="mine: 정답 문서의 유사도보다 이 비율만큼은 낮은 문서만 오답으로 씁니다. 정답인데 표시되지 않은 문서를 "
        f"거릅니다 (기본값: {_USUAL_MARGIN})",
    )  # fmt: skip
    parser.add_argument(
        "--by",
        metavar="방법",
        help="mine: 오답 문서를 찾는 방법. dense(모델의 벡터), bm25(형태소. kiwipiepy 필요), both (기본값: dense)",
    )


def check_corpus_flags(arguments: argparse.Namespace) -> None:
    """Check the flags, and put defaults in place of what was not given.

    Args:
        arguments: The command line of any command.

    Raises:
        SettingsError: A value is wrong, or a flag lacks another.
    """
    if arguments.command == "predict" and arguments.top and not arguments.corpus:
        raise SettingsError(
            "--top은 --corpus와 함께 씁니다.", where="명령줄", remedy="문서가 있는 파일을 --corpus로 지정하세요."
        )
    arguments.corpus = Path(user_path(arguments.corpus)) if arguments.corpus else None
    arguments.top = _count(arguments.top or str(_USUAL_TOP), "--top")
    if arguments.command != "mine":
        return
    arguments.negatives = _count(arguments.negatives or str(_USUAL_NEGATIVES), "--negatives")
    arguments.margin = _share(arguments.margin or str(_USUAL_MARGIN))
    arguments.by = (arguments.by or WAYS[0]).lower()
    if arguments.by not in WAYS:
        raise SettingsError(
            f"알 수 없는 방법입니다: {arguments.by}", where="--by", remedy=f"쓸 수 있는 값: {', '.join(WAYS)}"
        )
    if arguments.output is None or arguments.output.suffix.lower() not in (".jsonl", ".ndjson"):
        raise SettingsError(
            "찾은 오답 문서를 쓸 JSONL 파일을 --output으로 지정하세요.",
            where=f"--output: {arguments.output}",
            remedy="예: --output train.jsonl",
        )
    if arguments.dataset is None and not any(text.strip().startswith("data.") for text in arguments.set):
        raise SettingsError(
            "질문과 정답 문서의 데이터를 --dataset으로 지정하세요.", where="mine", remedy="예: --dataset pairs.csv"
        )


def _count(text: str, flag: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"1 이상의 정수를 써야 합니다: {text}", where=flag, remedy=f"예: {flag} 5")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise SettingsError(f"0 이상, 1 미만의 수를 써야 합니다: {text}", where="--margin", remedy="예: --margin 0.05")
    return value
