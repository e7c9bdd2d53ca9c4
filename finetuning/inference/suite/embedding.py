"""Tasks of MTEB on a model of embeddings, with data of the Hub or of a folder: BEIR's shape, or pairs with scores."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import torch
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.models import ModelMeta

from exceptions import DataError, SettingsError, first_line_of
from finetuning.cells import as_number
from finetuning.data.folders import files_by_split, splits_in
from finetuning.data.formats.registry import open_source
from finetuning.data.retrieval_folder import is_retrieval, judged_ids
from finetuning.inference.corpus import embed
from finetuning.inference.evaluator import Evaluator
from finetuning.reporting.suite import TaskScore

_LANGUAGE = "kor"


@dataclass(frozen=True)
class EmbeddingSuite:
    """Tasks of MTEB.

    Attributes:
        tasks: The tasks, those of several languages in Korean alone.
    """

    tasks: Sequence[Any]


def load_suite(names: Sequence[str], folder: Path | None) -> EmbeddingSuite:
    """Load tasks of MTEB.

    Args:
        names: Their names, such as `Ko-StrategyQA`.
        folder: The folder with their data; None for the Hub.

    Returns:
        The tasks, with their data.

    Raises:
        SettingsError: There is no task of that name.
        DataError: The data of a task are not there.
    """
    logging.getLogger("mteb").setLevel(logging.ERROR)
    tasks = [_task(name) for name in names]
    for task in tasks:
        if folder is not None:
            _fill(task, folder)
            continue
        try:
            task.load_data()
        except Exception as error:  # mteb leaves errors of the Hub as they are, of many kinds
            raise DataError(
                f"{task.metadata.name}의 데이터를 Hugging Face Hub에서 읽지 못했습니다: {first_line_of(error)}",
                where="--suite",
                remedy="인터넷에 연결하거나, 내려받아 둔 데이터의 폴더를 --suite_data로 지정하세요.",
            ) from error
    return EmbeddingSuite(tasks)


def suite_scores(evaluator: Evaluator, suite: EmbeddingSuite) -> list[TaskScore]:
    """Score a model on a suite by MTEB's own evaluators.

    Args:
        evaluator: Holds the model, on its device.
        suite: The tasks.

    Returns:
        The tasks, in their order.
    """
    encoder, found = _Encoder(evaluator), list[TaskScore]()
    for task in suite.tasks:
        result = mteb.evaluate(encoder, task, cache=None, co2_tracker=False, show_progress_bar=False)
        (scored,) = result.task_results
        split = task.eval_splits[0]
        metrics = [one for one in scored.scores[split] if isinstance(one.get("main_score"), int | float)]
        numbers = {
            name: float(np.mean([one[name] for one in metrics]))
            for name, value in metrics[0].items()
            if isinstance(value, int | float) and name != "main_score"
        }
        found.append(TaskScore(task.metadata.name, 0, False, _rows(task, split), task.metadata.main_score, numbers))
    return found


class _Encoder:
    """The model as MTEB asks for it."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.mteb_model_meta = ModelMeta.create_empty({"name": "finetuning/model", "revision": "1"})

    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> np.ndarray:
        """Return vectors, behind the prefix of passages for passages and that of questions for all else."""
        texts = [text for batch in inputs for text in batch["text"]]
        role = "context" if str(getattr(prompt_type, "value", prompt_type)) == "document" else "question"
        return embed(self.evaluator, texts, role)

    def similarity(self, first: Any, second: Any) -> torch.Tensor:
        """Return the products of all vectors, (first, second)."""
        return torch.as_tensor(first) @ torch.as_tensor(second).T

    def similarity_pairwise(self, first: Any, second: Any) -> torch.Tensor:
        """Return the product of each pair of vectors, (pairs,)."""
        return (torch.as_tensor(first) * torch.as_tensor(second)).sum(-1)


def _task(name: str) -> Any:
    try:
        return mteb.get_task(name, languages=[_LANGUAGE])
    except (KeyError, ValueError):
        known = [task.metadata.name for task in mteb.get_tasks(languages=[_LANGUAGE])]
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"혹시 {near[0]}입니까? " if near else ""
        raise SettingsError(
            f"MTEB에 한국어 과제 '{name}' 항목이 없습니다.",
            where="--suite",
            remedy=f"{guess}예: --suite Ko-StrategyQA,AutoRAGRetrieval",
        ) from None


def _fill(task: Any, folder: Path) -> None:
    """Give a task the data of a folder: one of its name or of its dataset's, or the folder itself."""
    name = task.metadata.name
    names = (name, task.metadata.dataset["path"].rpartition("/")[2])
    home = next((folder / one for one in names if (folder / one).is_dir()), folder)
    if isinstance(task, AbsTaskRetrieval):
        data = {task.eval_splits[0]: _judged(name, home, task.eval_splits[0])}
        task.dataset = {subset: data for subset in task.hf_subsets}
    elif isinstance(task, AbsTaskSTS):
        data = {task.eval_splits[0]: _pairs(name, home, task.eval_splits[0])}
        task.dataset = {subset: data for subset in task.hf_subsets} if task.metadata.is_multilingual else data
        task.dataset_transform()
    else:
        raise SettingsError(
            f"{name} 과제의 데이터는 폴더에서 읽지 않습니다. 검색(Retrieval)과 STS 과제만 읽습니다.",
            where="--suite_data",
            remedy="--suite_data를 지우고 Hugging Face Hub에서 읽으세요.",
        )
    task.data_loaded = True


def _judged(name: str, home: Path, split: str) -> dict[str, Any]:
    """Return the queries, the corpus and the judgements of a split as MTEB holds them."""
    wanted = f"{home}/corpus.jsonl, queries.jsonl, qrels/{split}.tsv"
    if not is_retrieval(home):
        raise DataError(
            f"{name} 과제의 데이터가 폴더에 없습니다.", where=f"--suite_data: {home}", remedy=f"필요한 파일: {wanted}"
        )
    corpus, queries, by_split = judged_ids(home, lambda path: open_source(path, None))
    known = next((own for own in (split, *splits_in(split)) if own in by_split), None)
    if known is None:
        raise DataError(
            f"qrels에 {split} split이 없습니다.", where=f"--suite_data: {home}", remedy=f"필요한 파일: {wanted}"
        )
    judged = by_split[known]
    asked = {key: text for key, text in queries.items() if key in judged}
    return {
        "corpus": Dataset.from_dict({"id": list(corpus), "text": list(corpus.values())}),
        "queries": Dataset.from_dict({"id": list(asked), "text": list(asked.values())}),
        "relevant_docs": judged, "top_ranked": None,
    }  # fmt: skip


def _pairs(name: str, home: Path, split: str) -> Dataset:
    """Return the rows of a split as they are published; scores that a file holds as text become numbers."""
    files = files_by_split(home)
    own = next((files[role] for role in splits_in(split) if role in files), None)
    if own is None:
        raise DataError(
            f"{name} 과제의 {split} 파일이 폴더에 없습니다. 있는 split: {', '.join(files)}",
            where=f"--suite_data: {home}",
            remedy=f"예: {home}/{split}.jsonl (sentence1, sentence2, score)",
        )
    rows = [dict(row) for path in own for row in open_source(path, None).rows]
    for number, row in enumerate(rows, 1):
        if "score" in row:
            where = f"{own[0]}, {number:,}번째 행"
            row["score"] = as_number(
                row["score"], "점수가 숫자가 아닙니다", where, "공개된 파일 그대로인지 확인하세요."
            )
    return Dataset.from_list(rows)


def _rows(task: Any, split: str) -> int:
    """Return how many rows of a split a task scores, over its subsets."""
    held = task.dataset
    parts = [held[split]] if split in held else [of_subset[split] for of_subset in held.values()]
    return sum(len(part["queries"]) if isinstance(part, Mapping) else len(part) for part in parts)
