"""What the checks work with: the device, models with random weights in real shapes, and data out of bundled texts."""

from __future__ import annotations

import csv
import gc
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.runner import ROOT
from benchmarks.throughput import make_encoder

GIB = 2**30
_SMALLEST = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
_CAUSAL: dict[str, dict[str, Any]] = {
    "causal-small": {
        "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4,
        "intermediate_size": 2048, "vocab_size": 12032,
    },
    "causal-4-layers": {
        "hidden_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 4,
        "intermediate_size": 4096, "vocab_size": 32768,
    },
    "causal-1b": {  # the shape of Llama 3.2 1B
        "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 8192, "vocab_size": 128256, "tie_word_embeddings": True,
    },
    "causal-8b": {  # the shape of Llama 3.1 8B
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14336, "vocab_size": 128256,
    },
}  # fmt: skip
_ENCODERS: dict[str, dict[str, int]] = {"encoder": {}, "encoder-4-layers": {"num_hidden_layers": 4}}
_HELD_OUT = 64


@dataclass(frozen=True)
class Bench:
    """Where the checks work.

    Attributes:
        home: Folder of everything that is written; models and data in it are made once.
        tiny: Whether models and data are as small as can be, to try the checks on a CPU.
    """

    home: Path
    tiny: bool

    @cached_property
    def device(self) -> Any:
        """The device that the checks are about."""
        import torch

        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def on_gpu(self) -> bool:
        return bool(self.device.type == "cuda")

    def pick(self, full: int, tiny: int) -> int:
        """Return a number of steps, rounds or rows."""
        return tiny if self.tiny else full

    def scratch(self) -> Path:
        """Return a new folder."""
        return Path(tempfile.mkdtemp(dir=self.home))

    def drop(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def clean_up(self) -> None:
        """Free what earlier checks left on the device, and measure peaks anew."""
        import torch

        gc.collect()
        if self.on_gpu:
            torch.cuda.set_per_process_memory_fraction(1.0)
            torch.cuda.set_sync_debug_mode("default")
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    # --- models ---

    def model(self, name: str) -> Path:
        """Return the folder of a model with random weights."""
        return self._made(name, lambda folder: self._make_model(name, folder))

    def _make_model(self, name: str, folder: Path) -> None:
        if name in _ENCODERS:
            make_encoder(folder, **(_SMALLEST if self.tiny else _ENCODERS[name]))
            return
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(ROOT / "examples" / "encoder" / "tokenizer.json"),
            eos_token="[SEP]", bos_token="[CLS]", pad_token="[PAD]", unk_token="[UNK]",
        )  # fmt: skip
        smallest = {**_SMALLEST, "num_key_value_heads": 2, "vocab_size": len(tokenizer)}
        ids = {
            "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }  # fmt: skip
        config = LlamaConfig(max_position_embeddings=4096, **ids, **(smallest if self.tiny else _CAUSAL[name]))
        torch.manual_seed(0)
        with self.device:
            model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(folder, max_shard_size="4GB")
        tokenizer.save_pretrained(folder)
        del model
        self.clean_up()

    # --- data ---

    def short_texts(self) -> Path:
        """Return a folder in NSMC's format: texts of some words, a few of them long, and two classes."""

        def write(folder: Path) -> None:
            draw, texts = random.Random(0), _texts()
            rows = [
                (number, " ".join(draw.choices(texts, k=1 + int(draw.expovariate(1.5)))), draw.choice("01"))
                for number in range(self.pick(4096, 96) + _HELD_OUT)
            ]
            for name, part in (("train", rows[_HELD_OUT:]), ("validation", rows[:_HELD_OUT])):
                lines = ["\t".join(map(str, row)) + "\n" for row in part]
                (folder / f"{name}.txt").write_text("id\tdocument\tlabel\n" + "".join(lines), encoding="utf-8")

        return self._made("short-texts", write)

    def dialogues(self) -> Path:
        """Return a folder of questions and answers, the answers of one to some dozens of sentences."""

        def write(folder: Path) -> None:
            draw, texts = random.Random(1), _texts()
            rows = [
                (draw.choice(texts), " ".join(draw.choices(texts, k=1 + int(draw.expovariate(0.3)))))
                for _ in range(self.pick(1024, 48) + _HELD_OUT)
            ]
            _write_csv(folder, ("Q", "A"), rows)

        return self._made("dialogues", write)

    def documents(self) -> Path:
        """Return a folder of texts so long that nearly all of their rows are full; this program cuts them to rows."""

        def write(folder: Path) -> None:
            draw, texts = random.Random(2), _texts()
            count, sentences = self.pick(6, 2), self.pick(3600, 100)
            rows = [(" ".join(draw.choices(texts, k=sentences)),) for _ in range(count)]
            _write_csv(folder, ("document",), [*rows, (" ".join(texts[:100]),)], held_out=1)

        return self._made("documents", write)

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        """Return a folder, which is made where it is not there yet; one half made by a process that ended is not."""
        whole = self.home / name
        if not whole.exists():
            part = self.scratch()
            make(part)
            part.rename(whole)
        return whole


def _texts() -> list[str]:
    with (ROOT / "examples" / "reviews" / "train.csv").open(encoding="utf-8-sig", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def _write_csv(folder: Path, head: tuple[str, ...], rows: list[tuple[str, ...]], held_out: int = _HELD_OUT) -> None:
    """Write train.csv and validation.csv; the last rows are held out."""
    for name, part in (("train", rows[:-held_out]), ("validation", rows[-held_out:])):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([head, *part])
