"""mine: hard negatives of questions by a model, written as data to train embeddings and rerankers on."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from exceptions import SettingsError
from finetuning.commands.session import Session, saved_model
from finetuning.commands.what_next import tell
from finetuning.files import command_of_this_program
from finetuning.reporting.next_steps import NextStep

if TYPE_CHECKING:
    from finetuning.inference.mining import Ranking, Tally

_log = logging.getLogger(__name__)


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Find the negatives of the questions of --dataset in the passages of --corpus, and write them as JSONL.

    The file is written when all of them are found: a stop leaves none.

    Args:
        session: The session.
        arguments: The command line.

    Raises:
        SettingsError: The model gives no vectors, or a package is missing.
        DataError: The data cannot be read.
    """
    from finetuning.inference.corpus import check_memory, embed
    from finetuning.inference.mining import Rule, Tally, mined
    from finetuning.reporting.predictions import check_output, write_records

    check_output(arguments.output)
    _check(session, arguments)
    evaluator = saved_model(session, arguments)
    asked = _questions(session.data.load_to_train().table)
    found = [one.passages for one in asked.values()]
    texts = list(dict.fromkeys([*_corpus(session, arguments), *(text for own in found for text in own)]))
    check_memory(evaluator, 문서=len(texts), 질문=len(asked))
    places = {text: place for place, text in enumerate(texts)}
    right, tally = [[places[text] for text in own] for own in found], Tally()
    rankings = _rankings(arguments.by, texts, list(asked))
    corpus, queries = embed(evaluator, texts, "context"), embed(evaluator, list(asked), "question")
    rule = Rule(arguments.negatives, arguments.margin)
    made = mined(queries, corpus, texts, right, rankings, rule, tally)
    write_records(arguments.output, _rows(asked, ([texts[place] for place in own] for own in made)))
    _tell(tally, arguments)


class _Asked:
    """What a question has: its passages, and negatives that the data have already."""

    def __init__(self) -> None:
        self.passages, self.negatives = dict[str, None](), dict[str, None]()


def _check(session: Session, arguments: argparse.Namespace) -> None:
    from importlib.util import find_spec

    if session.task.name != "embedding" or session.settings.embedding.loss != "infonce":
        raise SettingsError(
            "mine은 질문과 정답 문서를 찾는 임베딩 모델로 실행합니다.",
            where=f"태스크: {session.task.name}, embedding.loss: {session.settings.embedding.loss}",
            remedy="임베딩 모델의 폴더를 --model_name으로 지정하세요. 학습하지 않은 모델이면 --task embedding과, "
            "모델의 prefix(--set embedding.query_prefix=...)도 쓰세요.",
        )
    if arguments.by != "dense" and find_spec("kiwipiepy") is None:
        raise SettingsError(
            "BM25에 쓸 형태소를 나누는 kiwipiepy 패키지가 없습니다.",
            where=f"--by {arguments.by}",
            remedy="`pip install kiwipiepy -c requirements-lock.txt` 명령으로 설치하거나 --by dense로 실행하세요.",
        )


def _questions(rows: Iterable[Mapping[str, Any]]) -> dict[str, _Asked]:
    """Return the distinct questions in the order of the rows, each with what all of its rows have."""
    found: dict[str, _Asked] = {}
    for row in rows:
        own = found.setdefault(row["question"], _Asked())
        own.passages.update(dict.fromkeys([row["context"], *json.loads(row.get("positives") or "[]")]))
        own.negatives.update(dict.fromkeys(json.loads(row.get("negatives") or "[]")))
    return found


def _corpus(session: Session, arguments: argparse.Namespace) -> Iterable[str]:
    from finetuning.inference.corpus import Passages

    source = session.data.corpus(arguments.corpus)
    return () if source is None else Passages.of(source).texts


def _rankings(by: str, texts: list[str], questions: list[str]) -> list[Ranking | None]:
    """Return what passages are ranked by; None stands for the model's vectors."""
    if by == "dense":
        return [None]
    from finetuning.inference.lexical import Lexical
    from finetuning.tasks.generation.overlap import load_morphemes

    morphemes = load_morphemes()
    assert morphemes is not None  # or `_check` had refused it
    _log.info("문서 %s개와 질문 %s개를 형태소로 나눕니다.", f"{len(texts):,}", f"{len(questions):,}")
    ranking = Lexical(texts, questions, morphemes)
    return [ranking] if by == "bm25" else [None, ranking]


def _rows(asked: Mapping[str, _Asked], mined: Iterable[list[str]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each question; negatives that the data had stand first."""
    for (question, own), negatives in zip(asked.items(), mined, strict=True):
        kept = dict.fromkeys([*own.negatives, *negatives])
        yield {
            "question": question, "positives": list(own.passages),
            "negatives": [text for text in kept if text not in own.passages],
        }  # fmt: skip


def _tell(tally: Tally, arguments: argparse.Namespace) -> None:
    _log.info(
        "질문 %s개 가운데 %s개에서 오답 문서를 %s개씩 찾았습니다. 하나도 없는 질문 %s개. 정답 문서만큼 가까워, 정답일 "
        "수 있어 뺀 문서 %s개(--margin %g)",
        f"{tally.queries:,}", f"{tally.full:,}", arguments.negatives, f"{tally.none:,}", f"{tally.too_near:,}",
        arguments.margin,
    )  # fmt: skip
    _log.info("오답 문서를 넣은 학습 데이터를 저장했습니다: %s", arguments.output)
    steps = []
    for recipe, what in (("embedding", "임베딩 모델"), ("reranker", "리랭커")):
        command = command_of_this_program("--recipe", recipe, "--dataset", arguments.output)
        steps.append(NextStep("train", f"이 데이터로 {what} 학습하기", command))
    tell(steps)
