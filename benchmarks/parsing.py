"""Dependency parsing on the published dev file of KLUE-DP, beside the next word as every head; seed by seed.

DP_FILE is klue-dp-v1.1_dev.tsv. A seed decides which fifth of its 2,000 sentences is for test and which tenth of the
others is for validation, and what is trained. Every run is this program's own command line with the recipe klue-dp,
but for the model, the learning rate and the epochs. UAS and LAS are shares of the test's words; the macro-F1 are
KLUE-baseline's, over numbers of heads and over relations.

Every run is added to the KEPT file at once. A run that is there is not repeated, so runs may be divided among several
commands, of different encoders and at the same time too. The table is of all runs in the file; `--seeds` without a
number trains nothing and makes the table.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.kept import keep, kept
from benchmarks.runner import ROOT, Table, call_apart, flags_of, program, say, summary_of

_METRICS = ("uas", "las", "klue_uas_macro_f1", "klue_las_macro_f1")
_PARSER = ("parser", "epochs", "learning rate")
_COLUMNS = ("seed", *_PARSER, "sentences", "words", *_METRICS)
_NEXT_WORD = "the next word"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="DP_FILE")
    parser.add_argument("model", type=Path, nargs="?", default=ROOT / "examples" / "encoder", metavar="ENCODER")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--kept", type=Path, default=Path("parsing.jsonl"), metavar="KEPT")


def tiny(folder: Path) -> list[str]:
    """Arguments of a run that measures nothing."""
    sentences = make_sentences(folder / "dp.tsv", 40)
    return [str(sentences), "--seeds", "0", "--epochs", "1", "--kept", str(folder / "kept.jsonl")]


def make_sentences(path: Path, count: int) -> Path:
    """Write sentences in KLUE-DP's shape, each word beside the next one."""
    sentences = []
    for number in range(count):
        words = f"{number}번 손님은 오늘 영화를 보았다".split()
        heads = [*range(2, len(words) + 1), 0]
        lines = [f"{n}\t{word}\t{word}\tNNG\t{head}\t{'NP' if head else 'VP'}"
                 for n, (word, head) in enumerate(zip(words, heads, strict=True), 1)]  # fmt: skip
        sentences.append("\n".join(lines))
    path.write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
    return path


def run(arguments: argparse.Namespace) -> list[Table]:
    """Train and score what is not in the file of results, and tell the scores and the means of what is."""
    mine = {
        "parser": arguments.model.name, "epochs": arguments.epochs, "learning rate": arguments.learning_rate,
    }  # fmt: skip
    for seed in arguments.seeds:
        if any(row.items() >= {**mine, "seed": seed}.items() for row in kept(arguments.kept)):
            continue
        say(f"{arguments.model.name}, seed {seed}")
        keep(arguments.kept, train_and_score(arguments, seed, mine))
    return [_scores(kept(arguments.kept))]


def train_and_score(arguments: argparse.Namespace, seed: int, mine: dict[str, Any]) -> list[dict[str, Any]]:
    """Train with a seed.

    Args:
        arguments: The command line.
        seed: Seed of the split and of training.
        mine: What the model's row says of it.

    Returns:
        The scores of the next word and of the model on the same sentences.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        flags = flags_of(
            {
                "--recipe": "klue-dp", "--model_name": arguments.model, "--dataset": arguments.file,
                "--output_dir": scratch / "model", "--seed": seed, "--learning_rate": arguments.learning_rate,
                "--epochs": arguments.epochs,
            },
            ("data.test_split=0.2", f"data.dataset_cache_dir={scratch / 'cache'}", "logging.progress_bar=false"),
        )  # fmt: skip
        program("train", *flags)
        summary = summary_of(scratch / "model")
        next_word = call_apart("parsing:next_word_scores", flags=flags)
    shared = {"seed": seed, "sentences": summary["rows"]["test"], "words": next_word.pop("words")}
    return [
        {**shared, **parser, **{metric: scores[metric] for metric in _METRICS}}
        for parser, scores in (({"parser": _NEXT_WORD}, next_word), (mine, summary["test"]))
    ]


def next_word_scores(flags: list[str]) -> dict[str, float]:
    """Scores on the test rows of a run of taking the next word, and the number of words."""
    from data_manager import DataManager
    from finetuning.tasks.parsing.trees import arcs_in
    from finetuning.tasks.registry import find_task
    from finetuning_app import build_parser, read_settings

    settings = read_settings(build_parser().parse_args(["train", *flags]))
    task = find_task(settings)
    data = DataManager(settings, task)
    splits = data.load_splits()
    cells = splits["test"].table["label"][:]
    naive = task.scores.baseline(data.label_counts(splits["train"]), len(cells), ())
    assert naive is not None and naive.predictions is not None
    scores = task.scores.metrics(naive.predictions, {"label": cells}, (), 0.0)
    return {**scores, "words": sum(len(arcs_in(cell)) for cell in cells)}


def _scores(rows: list[dict[str, Any]]) -> Table:
    """The scores of each parser by seed, and after them the means over the seeds."""
    by_parser: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["parser"] != _NEXT_WORD, row["parser"], row["seed"])):
        by_parser.setdefault(tuple(map(row.get, _PARSER)), {})[row["seed"]] = row
    means = []
    for parser, runs in by_parser.items():
        scores = {metric: sum(row[metric] for row in runs.values()) / len(runs) for metric in _METRICS}
        means.append({"seed": "mean", **dict(zip(_PARSER, parser, strict=True)), **scores})
    found = [row for runs in by_parser.values() for row in runs.values()]
    return Table(_COLUMNS, [*found, *means], "KLUE-DP dev, by seed and their mean")
