"""From a base model to a polite one: the share of polite answers before, after SFT on mixed answers, and after DPO.

DATA is ChatbotData.csv; MODEL is a causal model that speaks Korean, such as gemma3-270m. Every run is this program's
own command line. SFT (LoRA) takes 1,000 questions of the data, every other one with a rude answer in 반말 written for
this benchmark instead of the data's own in 존댓말. DPO (a new LoRA on the merged result) takes 300 other questions with
both answers. 50 further questions are asked; an answer is polite if it has a polite sentence and no plain one
(finetuning/korean/text_quality.py).
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.runner import Table, flags_of, program, say, summary_of
from finetuning.korean.text_quality import is_polite

RUDE = (
    "몰라, 네가 알아서 해.", "그걸 왜 나한테 물어봐.", "귀찮게 하지 마.", "그래서 어쩌라고.", "나도 몰라.",
    "됐어, 그만해.",
    "네 마음대로 해.", "그게 뭐가 중요해.", "바빠, 나중에 물어봐.", "시끄러워.", "별것도 아닌데 호들갑 떨지 마.",
    "그런 건 검색이나 해.", "당연한 걸 왜 물어봐.", "너 때문에 피곤해.", "관심 없어.", "그 정도는 혼자 해.",
    "또 그 얘기야?", "말 걸지 마.", "그럴 줄 알았어.", "한심하다.", "웃기지 마.", "내가 그걸 어떻게 알아.",
    "그만 좀 징징대.", "알 게 뭐야.",
)  # fmt: skip
OPTIONS = ("model.adapter.method=lora", "training.warmup_ratio=0.1", "data.batch_size=16", "data.max_length=256",
           "memory.gradient_accumulation_steps=1", "logging.progress_bar=false", "generation.validation_rows=0",
           "generation.max_new_tokens=40")  # fmt: skip
ASKED, HELD_OUT = 50, 20


def polite_pairs(data: Path) -> list[tuple[str, str]]:
    """Return the questions with polite answers, in an order of their own."""
    with data.open(encoding="utf-8-sig", newline="") as file:
        pairs = [(row["Q"], row["A"]) for row in csv.DictReader(file) if is_polite(row["A"])]
    random.Random(0).shuffle(pairs)
    return pairs


def write_sft(folder: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Write train and validation of questions, every other one with a rude answer."""
    folder.mkdir()
    for name, part in (("validation", pairs[:HELD_OUT]), ("train", pairs[HELD_OUT:])):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("prompt", "response"))
            writer.writerows(
                (asked, RUDE[number // 2 % len(RUDE)] if number % 2 else answer)
                for number, (asked, answer) in enumerate(part)
            )


def write_preferences(folder: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Write train and validation of questions with a polite and a rude answer."""
    folder.mkdir()
    for name, part in (("validation", pairs[:HELD_OUT]), ("train", pairs[HELD_OUT:])):
        rows = [
            {"prompt": asked, "chosen": answer, "rejected": RUDE[number % len(RUDE)]}
            for number, (asked, answer) in enumerate(part)
        ]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def train(task: str, model: Path, data: Path, output_dir: Path, options: Sequence[str]) -> None:
    """Train, and merge the adapter into its base."""
    given = {"--task": task, "--model_name": model, "--dataset": data, "--output_dir": output_dir, "--seed": 42}
    cache = f"data.dataset_cache_dir={output_dir.parent / 'cache'}"
    program("train", *flags_of(given, (*OPTIONS, cache, *options)))
    program("export", "--output_dir", output_dir, "--format", "merged", "--output", output_dir.with_suffix(".merged"))
    say(f"{task}: {summary_of(output_dir)['steps']} steps")


def answers(folder: Path, asked: Path) -> list[str]:
    """Generate an answer to each question."""
    chosen = ("text_generation.format=chat", "generation.max_new_tokens=40")
    words = ("--task", "text-generation", "--model_name", folder, "--input", asked, *flags_of({}, chosen))
    return [json.loads(line)["generated"] for line in program("predict", *words).splitlines()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="ChatbotData.csv")
    parser.add_argument("model", type=Path, help="a folder with a causal model that speaks Korean")
    parser.add_argument("--sft", type=int, default=1000, help="questions for SFT")
    parser.add_argument("--pairs", type=int, default=300, help="pairs for DPO")
    parser.add_argument("--keep", type=Path, help="a folder that the models are left in")


def run(arguments: argparse.Namespace) -> list[Table]:
    """Train in two steps; tables of the share of polite answers, and of ten answers as they came."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        pairs = polite_pairs(arguments.data)
        asked, rest = pairs[:ASKED], pairs[ASKED:]
        (scratch / "asked.csv").write_text("prompt\n", encoding="utf-8")
        with (scratch / "asked.csv").open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([question] for question, _ in asked)
        sft, dpo = rest[: arguments.sft + HELD_OUT], rest[arguments.sft + HELD_OUT :][: arguments.pairs + HELD_OUT]
        write_sft(scratch / "sft-data", sft)
        write_preferences(scratch / "dpo-data", dpo)
        base = Path(shutil.copytree(arguments.model, scratch / "base"))  # nothing is written beside the user's model
        rate = "training.learning_rate=2e-4"
        train("text-generation", base, scratch / "sft-data", scratch / "sft", ("training.epochs=1", rate))
        merged, rate = scratch / "sft.merged", "training.learning_rate=5e-5"
        train("preference", merged, scratch / "dpo-data", scratch / "dpo", ("training.epochs=1", rate))
        models = {"before": base, "after SFT": merged, "after DPO": scratch / "dpo.merged"}
        made = {name: answers(model, scratch / "asked.csv") for name, model in models.items()}
        if arguments.keep:
            shutil.copytree(scratch, arguments.keep, dirs_exist_ok=True)
    shares = {name: sum(map(is_polite, texts)) / len(texts) for name, texts in made.items()}
    shown = [
        {"question": question, **{name: texts[number] for name, texts in made.items()}}
        for number, (question, _) in enumerate(asked[:10])
    ]
    return [
        Table(("polite answers", *made), [{"polite answers": f"of {ASKED}", **shares}]),
        Table(("question", *made), shown),
    ]
