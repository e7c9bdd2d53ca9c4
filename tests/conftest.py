"""Shared fixtures: tiny models and data made here, and real ones where they are."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.support.cli import Cli, Run, without_report
from tests.support.durations import is_slow, place_of, slow_tests
from tests.support.forked import run_forked
from tests.support.paths import REAL_DATA, ROOT
from tests.support.runs import data_of, own_flags
from tests.support.texts import NEGATIVE, POSITIVE

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two files of tests run at a time, and what they start
_AT_MOST_S = 300.0
_MANY_MODULES = 50  # torch alone brings a thousand
settings.register_profile("untimed", deadline=None)  # how long an example takes depends on what else the machine does
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests, which `make fast` leaves out, and begin with the files that take longest."""
    listed = slow_tests()
    for item in items:
        if is_slow(item.nodeid, listed):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: place_of(item.nodeid))


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run the program as a user does, in another process: a fork with the imports done, where fork exists.

    Tests of the report ask for it with `logging.report=true`: the other runs would spend most of their time drawing.
    """

    def run(*arguments: object, cwd: Path = ROOT, stdin: str = "") -> Run:
        words = without_report(list(map(str, arguments)))
        if os.name == "posix":
            return Run(*run_forked(words, cwd, stdin, _AT_MOST_S))
        done = subprocess.run(
            [sys.executable, str(ROOT / "finetuning_app.py"), *words],
            cwd=cwd, input=stdin, capture_output=True, text=True, encoding="utf-8", timeout=_AT_MOST_S,
        )  # fmt: skip
        return Run(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of train.csv and test.csv: 80 and 20 short reviews, text and label."""
    folder = tmp_path_factory.mktemp("reviews")
    for name, start, count in (("train", 0, 80), ("test", 1000, 20)):
        rows = [
            (f"{(POSITIVE if number % 2 else NEGATIVE)[number // 2 % 5]} {'ㅋ' * (number % 7)} {number}", number % 2)
            for number in range(start, start + count)
        ]
        text = "text,label\n" + "".join(f"{text},{'긍정' if label else '부정'}\n" for text, label in rows)
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer BERT of random weights, dropout on, and a character WordPiece tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    letters = sorted(set("".join(POSITIVE + NEGATIVE)) - {" "}) + list("0123456789ㅋ")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
    backend = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64, model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny") / "model"
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real Korean data, which is not part of this project."""
    if not REAL_DATA.is_dir():
        pytest.skip("the folder of real Korean data is not beside this project")
    return REAL_DATA


@pytest.fixture(scope="session")
def e5_small() -> Path:
    """The real multilingual encoder, made by shared/models/make_models.py into $REAL_MODELS."""
    folder = Path(os.environ.get("REAL_MODELS", "")) / "e5-small"
    if not (os.environ.get("REAL_MODELS") and (folder / "config.json").is_file()):
        pytest.skip("$REAL_MODELS names no folder with e5-small")
    return folder


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer Llama of random weights and a byte-level tokenizer, without a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    pieces = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", model_max_length=256)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=256, eos_token_id=0, bos_token_id=None,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("causal") / "model"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_seq2seq(tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer T5 of random weights, dropout on, and the byte-level tokenizer."""
    import torch
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0,
        eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("seq2seq") / "model"
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _imports_are_not_searched_for_garbage() -> Iterator[None]:
    """Hide what was imported from the garbage collector, as the program does: a run collects several times."""
    known = len(sys.modules)
    yield
    if len(sys.modules) - known >= _MANY_MODULES:
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def _no_accelerator_of_another_test() -> Iterator[None]:
    """Reset accelerate's precision, which it keeps for the whole process, since each test run sets another."""
    yield
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def model_of(tiny_model: Path, tiny_causal: Path, tiny_seq2seq: Path) -> Callable[[str], Path]:
    """The folder of a model that a task trains."""
    models = {
        "text-generation": tiny_causal,
        "preference": tiny_causal,
        "reward": tiny_causal,
        "causal-reranker": tiny_causal,
        "text2text-generation": tiny_seq2seq,
    }
    return lambda task: models.get(task, tiny_model)


@pytest.fixture
def flags_for(
    model_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[str]]:
    """The flags of a short run of a task, but for its output_dir."""
    monkeypatch.setattr(
        "finetuning.reporting.log.set_up_logging", lambda *_: None
    )  # it would take the log from the other tests

    def flags(task: str) -> list[str]:
        model = model_of(task)
        return [
            "--task", task, "--model_name", str(model), "--dataset", str(data_of(task, tmp_path)),
            "--batch_size", "4", "--gradient_accumulation_steps", "2", "--epochs", "2", "--learning_rate", "3e-3",
            "--max_length", "48", "--set", "logging.progress_bar=false", "--set", "logging.log_steps=2",
            "--set", "logging.report=false",
            "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}", "--set", "generation.max_new_tokens=4",
            *own_flags(task),
        ]  # fmt: skip

    return flags


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, bool], None]:
    """Simulate a machine with so many bytes and a run that takes needs() bytes, with or without bitsandbytes."""

    from finetuning.config.schema import Settings
    from finetuning.planning.types import Estimate
    from memory_utils import MemoryManager
    from tests.support.planning import needs

    def make(room: int, has_8bit: bool) -> None:
        def estimate(self: Any, settings: Settings) -> Estimate:
            return Estimate(1, 1, needs(settings), 0, 0, 0, 0, counted=True)

        monkeypatch.setattr(MemoryManager, "limit", lambda self: room)
        monkeypatch.setattr("finetuning.planning.fit.Fitting.estimate", estimate)
        monkeypatch.setattr("finetuning.planning.fit.Fitting.rough_estimate", estimate)
        monkeypatch.setattr("finetuning.planning.fit.Fitting.room", room)
        monkeypatch.setattr("finetuning.training.optimizers.has_8bit_optimizer", lambda device: has_8bit)

    return make
