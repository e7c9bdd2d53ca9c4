"""Measurements of this program, also beside other trainers.

python -m benchmarks NAME ...        measure; the result is kept in benchmarks/results with the machine and the commit
python -m benchmarks NAME --help     what is measured, and on what data
python -m benchmarks NAME --tiny     run it on a few bundled rows, to see that it works; nothing is kept
python -m benchmarks readme          write the newest results into docs/memory-and-speed.md, docs/tasks.md and .en.md
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

from benchmarks.runner import save, say

NAMES = {
    "chat": "pairs with a system text and calls of tools on a base model, before and after",
    "decoding": "constrained decoding and the cut before particles, on trained models",
    "embedding": "embeddings beside sentence-transformers' trainer",
    "gpu": "everything that is open about GPUs, asked in one run of some minutes",
    "memory": "estimated memory beside the measured peak, of one setting at a time",
    "parsing": "dependency parsing on KLUE-DP beside the next word as every head",
    "parity": "accuracy on NSMC beside transformers.Trainer, seed by seed",
    "politeness": "polite answers of a base model, after SFT on mixed answers, and after DPO",
    "preference": "DPO beside TRL's DPOTrainer",
    "pretraining": "what the bundled encoder's pretraining is worth on NSMC",
    "quickstart": "the quick start, seed by seed, beside a model that counts words",
    "scale": "memory and time of the data's side as rows grow",
    "states": "dialogue states on made dialogues in the shape of KLUE-DST",
    "tasks": "each task on real Korean data beside what is had for nothing",
    "throughput": "training speed beside transformers.Trainer, TRL and the bare limit",
    "vocabulary": "what new Korean pieces in the vocabulary are worth",
}


def main(words: list[str]) -> None:
    """Run one benchmark, print its tables and keep them.

    Args:
        words: The command line after `python -m benchmarks`.
    """
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, formatter_class=shape)
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, summary in NAMES.items():
        commands.add_parser(name, help=summary, add_help=False)
    commands.add_parser("readme", help="write the newest results into the documents")
    name = parser.parse_known_args(words[:1])[0].name
    if name == "readme":
        from benchmarks import readme

        readme.update()
        return
    module = importlib.import_module(f"benchmarks.{name}")
    own = argparse.ArgumentParser(f"python -m benchmarks {name}", description=module.__doc__, formatter_class=shape)
    module.add_arguments(own)
    if "--tiny" in words:
        if not hasattr(module, "tiny"):
            own.error("has no tiny run: it needs a model and data that are not bundled")
        with tempfile.TemporaryDirectory() as folder:
            others = [word for word in words[1:] if word != "--tiny"]
            _print(module.run(own.parse_args([*module.tiny(Path(folder)), *others])))
        return
    arguments = own.parse_args(words[1:])
    tables = module.run(arguments)
    _print(tables)
    label = module.label(arguments) if hasattr(module, "label") else name
    say(f"kept in {save(label, vars(arguments), tables)}")


def _print(tables: list) -> None:
    """Print the tables; one without columns is only kept."""
    print("\n\n".join(table.markdown() for table in tables if table.columns), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
