"""The estimate of a run's memory, made without training."""

from __future__ import annotations

from finetuning.commands import session as workbench
from finetuning.planning.fit import Fitting, fitting_of
from finetuning.planning.options import Option
from finetuning_app import build_parser, overrides_in, read_settings
from tests.support.runs import StopAfter


def fitting_for(flags: list[str]) -> Fitting:
    arguments = build_parser().parse_args(flags)
    bench = workbench.build(read_settings(arguments), StopAfter(), frozenset(overrides_in(arguments)))
    tokenizer = bench.models.load_tokenizer()
    length = bench.models.usable_length(tokenizer)
    made = workbench.prepare(bench, tokenizer, length)
    examples = made.examples
    return fitting_of(made.bench, tokenizer, made.label_names, length, examples["train"], examples["validation"])


def needs(option: Option) -> int:
    """Bytes that stand for what an option takes: less on each rung."""
    optimizer = {"adamw": 20, "adamw_8bit": 10, "adafactor": 5}[option.optimizer]
    return 100 - 30 * option.gradient_checkpointing + optimizer - 10 * (option.dtype == "bfloat16")
