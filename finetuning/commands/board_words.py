"""The words of the commands behind what is chosen on the page, and the models of its short list."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from config_manager import ConfigManager
from exceptions import SettingsError
from finetuning.commands.command_line import build_parser, overrides_in
from finetuning.config.flags import SETTING_FLAGS
from finetuning.config.schema import Settings
from finetuning.files import seen_from, user_path
from finetuning.web.work import Chosen, Offer

_HOME = Path(__file__).resolve().parents[2]
EXAMPLES = _HOME / "examples"
_FLAGS = {key: flag for flag, key, _, is_switch in SETTING_FLAGS if not is_switch}
_ENCODERS = (("klue/roberta-small", "68M"), ("klue/roberta-base", "111M"), ("klue/roberta-large", "337M"))
_WRITERS = (("skt/kogpt2-base-v2", "125M"), ("google/gemma-3-270m-it", "268M"), ("Qwen/Qwen3-0.6B", "596M"))
_OFFERS = {  # task → models of the recipes, the smallest first
    "question-answering": (("monologg/koelectra-base-v3-discriminator", "113M"), *_ENCODERS[1:]),
    "text-generation": _WRITERS,
    "preference": _WRITERS,
    "reward": _WRITERS,
    "text2text-generation": (("google/mt5-small", "300M"),),
    "embedding": (("intfloat/multilingual-e5-small", "118M"), ("intfloat/multilingual-e5-base", "278M")),
    "reranker": (("BAAI/bge-reranker-v2-m3", "568M"),),
    "causal-reranker": (("Qwen/Qwen3-Reranker-0.6B", "596M"),),
}
_WITH_BUNDLED = frozenset({
    "text-classification", "multi-label-classification", "text-regression", "token-classification", "fill-mask",
    "question-answering", "embedding", "reranker",
})  # fmt: skip


def train_words(chosen: Chosen, runs: Path) -> list[str]:
    """Return the command that trains what is chosen.

    Args:
        chosen: What is chosen so far; what is open is left to the settings' defaults.
        runs: The folder of the runs.

    Returns:
        The words after the program's name.
    """
    words = ["train"]
    for flag, value in (("--model_name", chosen.model), ("--task", chosen.task)):
        words += [flag, value] if value else []
    if chosen.test:
        words += ["--set", f"data.train_file={chosen.data}", "--set", f"data.test_file={chosen.test}"]
    elif chosen.data:
        words += ["--dataset", chosen.data]
        # a folder may have test data of its own, which then stay as they are
        words += ["--set", "data.test_split=0.1"]
    for setting, column in chosen.columns.items():
        words += _words_of(f"data.{setting}", column)
    if chosen.label_map:
        words += ["--set", f"data.label_map={json.dumps(dict(chosen.label_map), ensure_ascii=False)}"]
    words += ["--set", "training.preset=auto"] if chosen.preset else []
    words += words_of_settings(chosen.settings)
    return [*words, "--output_dir", str(runs / chosen.name)] if chosen.name else words


def words_of_settings(settings: Mapping[str, str]) -> list[str]:
    """Return flags that give settings by dotted key; those left empty give nothing."""
    return [word for key, value in settings.items() if value.strip() for word in _words_of(key, value.strip())]


def _words_of(key: str, value: str) -> list[str]:
    return [_FLAGS[key], value] if key in _FLAGS else ["--set", f"{key}={value}"]


def settings_in(words: Sequence[str]) -> Settings:
    """Return the settings of a command line, checked; config.yaml lies below them, as for the command itself."""
    overrides = overrides_in(build_parser().parse_args(list(words)))
    return ConfigManager.load(_HOME / "config.yaml", overrides)


def check_name(name: str) -> None:
    """Raise SettingsError for what cannot name the folder of a run."""
    remedy = "글자, 숫자, -, _로 된 이름을 쓰세요."
    if not name.strip():
        raise SettingsError("학습 이름이 비어 있습니다.", where="학습 이름", remedy=remedy)
    if name != Path(name).name or name.startswith(".") or unicodedata.normalize("NFC", name).strip() != name:
        raise SettingsError(f"폴더 이름으로 쓸 수 없습니다: {name}", where="학습 이름", remedy=remedy)
    try:
        user_path(name)
    except ValueError as error:
        raise SettingsError(f"{error}: {name[:40]}", where="학습 이름", remedy=remedy) from None


def model_offers(task: str) -> list[Offer]:
    """Return models for a task, the bundled one first where it can learn it."""
    bundled = seen_from(Path.cwd(), EXAMPLES / "encoder")
    here = [Offer(bundled, "4M", True)] if task in _WITH_BUNDLED else []
    return [*here, *(Offer(name, size, False) for name, size in _OFFERS.get(task, _ENCODERS))]
