"""Documents that are longer than a window: read whole, one example each, and the same for other programs."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetuning.config.schema import Settings
from finetuning.korean.sentences import KIWI, PUNCTUATION, TOKENS, sentence_starts
from finetuning.tasks.classification.documents import encode_documents, window_spans
from finetuning.tasks.registry import find_task
from finetuning.windows.order import Window
from tests.support.cli import Cli, check_evaluate_repeats_training
from tests.support.managers import gradient_at
from tests.support.members import manager_of
from tests.support.preference import write_rows
from tests.support.texts import NEGATIVE, POSITIVE

LENGTH, STRIDE = 24, 6
FILLER = "또 보고 싶다. "


@given(st.integers(0, 300), st.integers(1, 40), st.integers(0, 60), st.sets(st.integers(0, 300)))
def test_windows_leave_no_token_out_and_end_with_sentences(tokens: int, room: int, stride: int, cuts: set[int]) -> None:
    stride = min(stride, (room - 1) // 2)
    spans = window_spans(tokens, room, stride, np.array(sorted(cuts), dtype=np.int64))
    assert spans[0][0] == 0
    assert spans[-1][1] == tokens
    assert all(end - start <= room for start, end in spans)
    for (start, end), (later, last) in pairwise(spans):
        assert start < later <= end < last
        assert end - later <= stride
        is_sentence = end in cuts
        assert is_sentence or (end == start + room and not cuts & set(range(start + room // 2 + 1, end)))


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def test_without_sentences_windows_are_those_of_the_tokenizer(tokenizer: Any) -> None:
    texts = ["", POSITIVE[0], " ".join(POSITIVE * 4), " ".join(NEGATIVE * 9)]
    ours = encode_documents(tokenizer, texts, LENGTH, STRIDE, sentence_starts(TOKENS))
    theirs = tokenizer(texts, truncation=True, max_length=LENGTH, stride=STRIDE, return_overflowing_tokens=True)
    owners = theirs["overflow_to_sample_mapping"]
    for number, (ids, sizes) in enumerate(zip(ours["input_ids"], ours["sizes"], strict=True)):
        own = [found for found, owner in zip(theirs["input_ids"], owners, strict=True) if owner == number]
        assert sizes == [len(found) for found in own]
        assert ids == [token for found in own for token in found]
    assert set(theirs) - {"attention_mask", "overflow_to_sample_mapping"} == set(ours) - {"sizes", "truncated"}


@pytest.mark.parametrize("way", [PUNCTUATION, KIWI])
def test_windows_begin_with_sentences(tokenizer: Any, way: str) -> None:
    if way == KIWI:
        pytest.importorskip("kiwipiepy", reason="kiwipiepy is not installed")
    sentences = [f"{text}." for text in POSITIVE + NEGATIVE]
    columns = encode_documents(tokenizer, [" ".join(sentences)], LENGTH, STRIDE, sentence_starts(way))
    ends = np.cumsum(columns["sizes"][0]).tolist()
    windows = [columns["input_ids"][0][start:end] for start, end in pairwise([0, *ends])]
    assert len(windows) > 3
    firsts = {tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in sentences}
    for ids in windows:
        assert any(tuple(ids[1 : 1 + len(first)]) == first for first in firsts)


def documents(count: int, offset: int = 0) -> list[dict[str, Any]]:
    """Documents of one to seven windows whose label is that of their last sentence; the others say nothing."""
    return [
        {
            "text": FILLER * (number % 7 * 2 + 1) + (NEGATIVE if number % 2 else POSITIVE)[number // 2 % 3],
            "label": ("긍정", "부정")[number % 2],
        }
        for number in range(offset, offset + count)
    ]


def flags(model: Path, data: Path, folder: Path) -> list[str]:
    return [
        "--model_name", str(model), "--dataset", str(data), "--output_dir", str(folder / "model"), "--max_length",
        str(LENGTH), "--batch_size", "4", "--gradient_accumulation_steps", "2", "--epochs", "12", "--learning_rate",
        "3e-3", "--no-mixed_precision", "--set", "text_classification.long_documents=pool", "--set",
        f"text_classification.doc_stride={STRIDE}", "--set", "text_classification.sentence_ends=punctuation", "--set",
        f"data.dataset_cache_dir={folder / 'cache'}", "--set", "data.test_split=0.2",
    ]  # fmt: skip


@pytest.mark.parametrize("packing", [True, False])
def test_the_gradient_is_the_same_for_every_cut_of_the_window(tiny_model: Path, tmp_path: Path, packing: bool) -> None:
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    still = AutoConfig.from_pretrained(tiny_model, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    AutoModelForMaskedLM.from_pretrained(tiny_model, config=still).save_pretrained(tmp_path / "still")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "still")
    data = write_rows(tmp_path / "documents.jsonl", documents(30))
    asked = [*flags(tmp_path / "still", data, tmp_path), "--set", f"data.packing={str(packing).lower()}"]
    manager = manager_of(asked, torch.float64)
    assert max(len(sizes) for sizes in manager.train_examples.table["sizes"]) > 3
    window = Window(0, 0, np.arange(8))
    found = [gradient_at(manager, window, budget) for budget in (10**6, 1, 60, 100, 200)]
    for one in found[1:]:
        assert float((one - found[0]).norm() / found[0].norm()) <= 1e-10
    logits = []
    for example in manager.train_examples.fetch(range(8)):  # by hand: a document alone, a window at a time
        ends = np.cumsum([0, *example["sizes"]])
        parts = [torch.tensor([example["input_ids"][start:end]]) for start, end in pairwise(ends)]
        logits.append(torch.cat([manager.model(part).logits for part in parts]).mean(0))
    labels = torch.tensor(manager.train_examples.table["label"][:8])
    torch.nn.functional.cross_entropy(torch.stack(logits), labels).backward()
    expected = torch.cat([p.grad.flatten() for p in manager.model.parameters() if p.grad is not None])
    torch.testing.assert_close(found[0], expected, rtol=1e-8, atol=1e-12)


def test_what_stands_at_the_end_of_a_document_is_learned(tiny_model: Path, tmp_path: Path, cli: Cli) -> None:
    data, output_dir = write_rows(tmp_path / "documents.jsonl", documents(96)), tmp_path / "model"
    done = cli(*flags(tiny_model, data, tmp_path))
    assert done.code == 0, done.err
    assert "나누어 끝까지 읽습니다" in done.err and "잘렸습니다" not in done.err
    assert check_evaluate_repeats_training(cli, output_dir)["accuracy"] > 0.95
    asked = [f"{FILLER * 5}{end}" for end in (POSITIVE[0], NEGATIVE[0])]
    said = cli("predict", "--output_dir", output_dir, stdin="\n".join(asked))
    assert said.code == 0, said.err
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row["label"] for row in rows] == ["긍정", "부정"]
    assert run_card(output_dir, asked[1]).softmax(-1).max().item() == pytest.approx(rows[1]["score"], abs=1e-5)


def run_card(folder: Path, text: str) -> torch.Tensor:
    """Run the code of the model card on a text; return the document's logits."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code = code.replace("이 폴더의 경로", str(folder)).replace('"긴 문서"', repr(text))
    names: dict[str, Any] = {}
    exec(code.replace("print(torch", "found = (torch"), names)
    found: torch.Tensor = names["found"]
    return found


def test_pairs_of_texts_are_refused(tiny_model: Path, tmp_path: Path, cli: Cli) -> None:
    rows = [{"sentence1": row["text"], "sentence2": row["text"], "label": row["label"]} for row in documents(20)]
    done = cli(*flags(tiny_model, write_rows(tmp_path / "pairs.jsonl", rows), tmp_path))
    assert done.code == 2
    assert "텍스트 쌍" in done.err


def test_the_settings_of_a_run_say_how_sentences_were_found() -> None:
    asked = {"model": {"task": "text-classification"}, "text_classification": {"long_documents": "pool"}}
    refined = find_task(Settings.model_validate(asked)).reads.refine(("text", "label"), {"a": 1, "b": 1})
    assert refined.text_classification.sentence_ends in (KIWI, PUNCTUATION)
