"""Tokenizers that cut before particles, and windows: tags of tokens lead back to the characters."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from finetuning.data.formats.registry import open_source
from finetuning.korean.word_cuts import cut_words
from finetuning.tasks.tagging.spans import Span, trimmed
from finetuning.tasks.tagging.task import decode
from tests.support.paths import ROOT
from tests.support.tagging import NAMES, task_of

PARTICLES = ["은", "는", "이", "가", "을", "를", "의", "에서", "부터", "까지", "으로", ""]


@pytest.fixture(scope="module")
def unigram() -> Any:
    """SentencePiece's kind of tokenizer, with pieces that hold an entity's last syllable and its particle."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    syllables = [(letter, -8.0) for letter in "가나다라마바사은는이을를의에서부터까지으로명일경찰박씨"]
    words = [("명이", -2.0), ("일부터", -2.0), ("▁경찰은", -2.0), ("▁", -4.0), ("▁나", -4.0)]
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *syllables, *words], 0, False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def tokenizers(tiny_model: Path, tiny_causal: Path, unigram: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """WordPiece, byte-level BPE and Unigram, cut."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("unigram")
    unigram.save_pretrained(folder)
    found = {name: AutoTokenizer.from_pretrained(path) for name, path in
             (("wordpiece", tiny_model), ("bytes", tiny_causal), ("unigram", folder))}  # fmt: skip
    for tokenizer in found.values():
        task_of().encodes.fit_tokenizer(tokenizer)
    return found


def certain(tags: list[int], count: int) -> np.ndarray:
    """Log-probabilities of a model that is sure of every tag, (tokens, tags); of no label, the first."""
    return np.where(np.eye(count, dtype=bool)[np.maximum(tags, 0)], 0.0, -30.0).astype(np.float32)


def perfect(task: Any, tokenizer: Any, row: dict[str, Any], max_length: int) -> list[Span]:
    """The spans that come out where the model says every token's label."""
    rows = {"row": [7], "text": [row["text"]], "label": [json.dumps(row["label"])]}
    examples = task.encodes.encode(rows, tokenizer, NAMES, max_length)
    assert all(len(ids) <= max_length for ids in examples["input_ids"])
    said = [certain(tags, len(NAMES)) for tags in examples["label"]]
    (outcome,) = task.scores.gather(said, examples, {"row": [7]}, NAMES)
    return [span for span, _ in decode(outcome, NAMES)]


def test_a_subword_that_holds_a_particle_is_cut(unigram: Any) -> None:
    text, tokenizer = "경찰은 명이 나", copy.deepcopy(unigram)
    assert tokenizer.tokenize(text) == ["▁경찰은", "▁", "명이", "▁나"]
    cut_words(tokenizer)
    once = tokenizer.backend_tokenizer.to_str()
    cut_words(tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == once
    assert tokenizer.tokenize(text) == ["▁", "경", "찰", "은", "▁", "명", "이", "▁나"]


@pytest.mark.parametrize("kind", ["wordpiece", "bytes", "unigram"])
def test_a_tokenizer_that_was_cut_is_saved_so(tokenizers: Any, kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    text = "경찰은 3일부터 12명이 (나)를 보았다."
    tokenizers[kind].save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(text)["input_ids"] == tokenizers[kind](text)["input_ids"]
    task_of().encodes.fit_tokenizer(loaded)
    assert loaded.backend_tokenizer.to_str() == tokenizers[kind].backend_tokenizer.to_str()


def test_bytes_that_get_a_space_before_each_piece_stay_uncut(tiny_causal: Path) -> None:
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    before = tokenizer("경찰은 박씨를")["input_ids"]
    cut_words(tokenizer)
    assert tokenizer("경찰은 박씨를")["input_ids"] == before


def test_a_slow_tokenizer_is_refused() -> None:
    from types import SimpleNamespace

    from exceptions import ModelError

    with pytest.raises(ModelError, match="fast tokenizer"):
        task_of().encodes.fit_tokenizer(SimpleNamespace(is_fast=False))


WORD = st.tuples(
    st.text(st.sampled_from("가나박씨경찰명일뷁ABz35(·𠮷 "), min_size=1, max_size=5),
    st.sampled_from(PARTICLES),
    st.sampled_from(["", "PS", "OG"]),
    st.sampled_from([" ", ".", ", "]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORD, min_size=1, max_size=12), st.sampled_from(["wordpiece", "bytes", "unigram"]), st.integers(16, 64))
def test_tags_of_tokens_lead_back_to_the_spans(tokenizers: Any, words: Any, kind: str, max_length: int) -> None:
    """Entities with particles, in one window or in several, come out as they went in, where no token straddles one."""
    tokens: list[str] = []
    tags: list[str] = []
    for name, particle, label, after in words:
        inside = [f"B-{label}", *[f"I-{label}"] * (len(name) - 1)] if label else ["O"] * len(name)
        tokens += [*name, *particle, *after]
        tags += [*inside, *["O"] * len(particle + after)]
    assume("".join(tokens).strip())
    task, tokenizer = task_of(), tokenizers[kind]
    row = task.reads.prepare({"tokens": tokens, "label": tags})
    edges = {edge for start, end, _ in row["label"] for edge in (start, end)}
    offsets = tokenizer(row["text"], return_offsets_mapping=True)["offset_mapping"]
    straddled = (edge for start, end in offsets for edge in edges if start < edge < end)
    assume(all(row["text"][max(0, edge - 1)].isspace() for edge in straddled))
    assert perfect(task, tokenizer, row, max_length) == trimmed(map(Span._make, row["label"]), row["text"])


@pytest.mark.parametrize("kind", ["wordpiece", "bytes", "unigram"])
def test_every_character_of_a_long_text_counts_once(tokenizers: Any, kind: str) -> None:
    text = "경찰은 3일부터 박씨를 나가라 " * 40
    rows = {"row": [3, 9], "text": ["경찰은", text], "label": ["[]", "[]"]}
    examples = task_of().encodes.encode(rows, tokenizers[kind], NAMES, 48)
    assert examples["row"][:2] == [3, 9]
    assert examples["row"].count(9) == len(examples["row"]) - 1 > 5
    covered = [
        place
        for number, starts, ends in zip(examples["row"], examples["start"], examples["end"], strict=True)
        for start, end in zip(starts, ends, strict=True)
        for place in range(start, end)
        if number == 9
    ]
    assert covered == [place for place, character in enumerate(text) if not character.isspace()]


def test_nearly_every_entity_of_klue_can_be_said(real_data: Path) -> None:
    """With the tokenizer as it was, one entity of seven ended inside a token."""
    from transformers import AutoTokenizer

    tokenizer, task = AutoTokenizer.from_pretrained(ROOT / "examples" / "encoder"), task_of()
    source = open_source(real_data / "klue-ner" / "klue-ner-v1.1_dev.tsv", None)
    rows = [task.reads.prepare({"tokens": row["tokens"], "label": row["ner_tags"]}) for row in source.rows]
    assert len(rows) == 5000
    rows = rows[::5]
    names = task.reads.label_names({f"B-{label}": 1 for row in rows for _, _, label in row["label"]})
    columns = {
        "row": list(range(1000)),
        "text": [row["text"] for row in rows],
        "label": [json.dumps(row["label"]) for row in rows],
    }
    shares = []
    for _ in range(2):
        examples = task.encodes.encode(columns, tokenizer, names, 256)
        said = [certain(tags, len(names)) for tags in examples["label"]]
        predictions = task.scores.gather(said, examples, columns, names)
        shares.append(task.scores.metrics(predictions, columns, names, 0.0)["entity_macro_f1"])
        task.encodes.fit_tokenizer(tokenizer)
    assert shares[0] < 0.9
    assert shares[1] > 0.98
