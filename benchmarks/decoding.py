"""What constrained decoding and the cut before particles are worth, on trained models, seed by seed.

NER_FILE is klue-ner-v1.1_dev.tsv, QA_FILE is KorQuAD_v1.0_dev.json. A seed decides which fifth of the rows is for test
(whole passages of KorQuAD) and which tenth of the others is for validation, and what is trained. Each task and seed is
trained twice, with a tokenizer that cuts words before their particle and around marks, and with the model's own. Each
trained model is scored twice. Constrained: the likeliest legal IOB2 tags, the likeliest span of at most 50 tokens.
Free: the likeliest tag of each token, the likeliest first and last token of an answer, which is none if the last comes
first.

Every run is a process of its own and is added to the KEPT file at once. A run that is there is not repeated, so runs
may be divided among several commands, at the same time too. The table is of all runs in the file; `--seeds` without a
number trains nothing and makes the table.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.kept import keep, kept
from benchmarks.runner import ROOT, Table, call_apart, flags_of, say


@dataclass(frozen=True)
class Job:
    """A task of the comparison. recipe: its recipe; settings: further settings; metrics: what the table shows."""

    recipe: str
    settings: tuple[str, ...]
    metrics: tuple[str, str]


JOBS = {
    "ner": Job(
        "klue-ner", ("training.epochs=3", "training.learning_rate=2e-4", "data.batch_size=32"),
        ("entity_macro_f1", "entity_micro_f1"),
    ),
    "qa": Job(
        "korquad",
        ("training.epochs=2", "training.learning_rate=2e-4", "data.batch_size=16", "data.max_length=256",
         "question_answering.doc_stride=64", "question_answering.max_answer_length=50"),
        ("exact_match", "f1"),
    ),
}  # fmt: skip
_EVERY_JOB = (
    "training.warmup_ratio=0.1", "training.weight_decay=0.01", "data.test_split=0.2", "logging.progress_bar=false",
    "logging.report=false",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ner", type=Path, metavar="NER_FILE")
    parser.add_argument("qa", type=Path, metavar="QA_FILE")
    parser.add_argument("model", type=Path, nargs="?", default=ROOT / "examples" / "encoder", metavar="ENCODER")
    parser.add_argument("--only", choices=tuple(JOBS), nargs="+", default=list(JOBS))
    parser.add_argument("--words", choices=("cut", "whole"), nargs="+", default=["cut", "whole"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--ner-rows", type=int, default=5000, help="rows, of which a fifth is for test")
    parser.add_argument("--qa-rows", type=int, default=1500, help="questions, of which a fifth is for test")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="a further setting of every run")
    parser.add_argument("--kept", type=Path, default=Path("decoding.jsonl"), metavar="KEPT")


def tiny(folder: Path) -> list[str]:
    """Arguments of a run that measures nothing."""
    sentences = [f"{number}번\t홍길동은 서울에 산다" for number in range(40)]
    tagged = ["\n".join(f"{letter}\t{tag}" for letter, tag in _tags(text.split("\t")[1])) for text in sentences]
    (folder / "ner.tsv").write_text("\n\n".join(tagged) + "\n", encoding="utf-8")
    passages = [f"{number}번 학생은 서울에 산다." for number in range(40)]
    data = [
        {"paragraphs": [{"context": text, "qas": [{"id": str(n), "question": f"{n}번 학생은 어디에 사나?",
         "answers": [{"text": "서울", "answer_start": text.index("서울")}]}]}]}
        for n, text in enumerate(passages)
    ]  # fmt: skip
    (folder / "qa.json").write_text(json.dumps({"data": data}, ensure_ascii=False), encoding="utf-8")
    return [str(folder / "ner.tsv"), str(folder / "qa.json"), "--seeds", "0", "--kept",
            str(folder / "kept.jsonl"), "--set", "training.epochs=1"]  # fmt: skip


def _tags(text: str) -> list[tuple[str, str]]:
    tags = ["O"] * len(text)
    for word, kind in (("홍길동", "PS"), ("서울", "LC")):
        start = text.index(word)
        tags[start : start + len(word)] = [f"B-{kind}", *[f"I-{kind}"] * (len(word) - 1)]
    return list(zip(text, tags, strict=True))


def run(arguments: argparse.Namespace) -> list[Table]:
    """Train and score what is not in the file of results, and tell the means of what is."""
    for seed in arguments.seeds:
        for name in arguments.only:
            for words in arguments.words:
                known = {(row["task"], row["seed"], row["cut"]) for row in kept(arguments.kept)}
                if (name, seed, words == "cut") in known:
                    continue
                say(f"{name}, seed {seed}, words {words}")
                rows = call_apart(
                    "decoding:train_and_score", name=name, file=getattr(arguments, name).resolve(),
                    model=arguments.model.resolve(), seed=seed, cut=words == "cut",
                    rows=getattr(arguments, f"{name}_rows"), settings=arguments.settings,
                )  # fmt: skip
                keep(arguments.kept, rows)
    found = kept(arguments.kept)
    return [_means(name, [row for row in found if row["task"] == name]) for name in arguments.only]


def train_and_score(
    name: str, file: str, model: str, seed: int, cut: bool, rows: int, settings: list[str]
) -> list[dict[str, Any]]:
    """Train one model; return its scores with constrained and with free decoding.

    Args:
        name: Key of JOBS.
        file: The data.
        model: The encoder.
        seed: Seed of the split and of training.
        cut: Whether words are cut before their particle.
        rows: Most rows.
        settings: Further settings.

    Returns:
        A row for each kind of decoding.
    """
    import finetuning_app
    from benchmarks.in_process import session_by
    from finetuning.commands.session import load_saved_model
    from finetuning.inference.evaluator import columns_of

    job, started = JOBS[name], time.perf_counter()
    if not cut and name == "ner":
        _leave_words_whole()
    elif not cut:
        settings = ["question_answering.cut_particles=false", *settings]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        flags = flags_of(
            {"--recipe": job.recipe, "--model_name": model, "--dataset": file, "--output_dir": scratch / "model",
             "--seed": seed},
            (*job.settings, *_EVERY_JOB, f"data.train_rows={rows}",
             f"data.dataset_cache_dir={scratch / 'cache'}", *settings),
        )  # fmt: skip
        code = finetuning_app.main(["train", *flags])
        assert code == 0, f"the run ended with code {code}"
        seconds = time.perf_counter() - started
        session = session_by(["train", *flags])
        session.models.name = str(scratch / "model")
        evaluator = load_saved_model(session)
        _, test = session.data.load_split("test")
        examples = session.data.encode(test, evaluator.tokenizer, evaluator.label_names, evaluator.max_length)
        found = {"constrained": evaluator.predict(examples), "free": _free(name, evaluator, examples)}
    cells, scorer = columns_of(examples), evaluator.task.scores
    shared = {"task": name, "seed": seed, "cut": cut, "rows": len(test), "train_seconds": round(seconds)}
    scored = {kind: scorer.metrics(said, cells, evaluator.label_names, 0.0) for kind, said in found.items()}
    return [
        {**shared, "decoding": kind, **{metric: scores[metric] for metric in job.metrics}}
        for kind, scores in scored.items()
    ]


def _leave_words_whole() -> None:
    """Have this process tag the model's own tokens; the program has no setting for it."""
    from finetuning.tasks.tagging import task

    task.cut_words = lambda tokenizer: None  # type: ignore[attr-defined]


def _free(name: str, evaluator: Any, examples: Any) -> list[Any]:
    """Predictions of each token by itself."""
    if name == "ner":
        return [[token._replace(tag=token.raw) for token in row] for row in evaluator.predict(examples)]
    scorer = evaluator.task.scores
    scorer.predictions = _free_spans
    try:
        found: list[Any] = evaluator.predict(examples)
        return found
    finally:
        del scorer.predictions


def _free_spans(outputs: Any, batch: Any) -> list[Any]:
    """Each window's likeliest first and likeliest last token in the context, whatever lies between them."""
    from finetuning.tasks.answering.encoding import IN_CONTEXT, NO_ANSWER
    from finetuning.tasks.answering.scoring import Window
    from finetuning.tasks.tensors import at_least_float32

    logs = at_least_float32(outputs).log_softmax(1)
    null = logs.masked_fill((batch.scope != NO_ANSWER).unsqueeze(-1), -math.inf).amax(1).sum(-1)
    scores, places = logs.masked_fill((batch.scope != IN_CONTEXT).unsqueeze(-1), -math.inf).max(1)
    columns = (scores.sum(-1).tolist(), null.tolist(), *places.unbind(-1))
    return [Window(*map(float, one[:2]), *map(int, one[2:])) for one in zip(*columns, strict=True)]


# --- results ---


def _means(name: str, rows: Sequence[dict[str, Any]]) -> Table:
    """The mean of each score over the seeds, and each seed's own."""
    metrics = JOBS[name].metrics
    found = []
    for cut in (True, False):
        for decoding in ("constrained", "free"):
            own = sorted(
                (row for row in rows if row["cut"] == cut and row["decoding"] == decoding), key=lambda row: row["seed"]
            )
            if not own:
                continue
            line: dict[str, Any] = {
                "words": "cut" if cut else "whole", "decoding": decoding, "test rows": own[0]["rows"],
                "seeds": [row["seed"] for row in own],
            }  # fmt: skip
            for metric in metrics:
                values = [row[metric] for row in own]
                line |= {metric: sum(values) / len(values), f"{metric} by seed": values}
            found.append(line)
    columns = ("words", "decoding", "test rows", "seeds", *(part for metric in metrics
               for part in (metric, f"{metric} by seed")))  # fmt: skip
    return Table(columns, found, f"{JOBS[name].recipe}, by seed and their mean")
