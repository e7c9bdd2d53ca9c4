"""Named entities: files, tags, spans, loss and metrics against references."""

from __future__ import annotations

import json
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_manager import DataManager
from exceptions import BadRow, DataError
from finetuning.config.schema import Settings
from finetuning.data.formats.registry import open_source
from finetuning.tasks.registry import find_task
from finetuning.tasks.tagging.decoding import TaggedToken, decode, tagged
from finetuning.tasks.tagging.entities import entity_scores
from finetuning.tasks.tagging.spans import Span, composed, write_iob2
from tests.support.tagging import NAMES, as_tagged, task_of

KLUE = "## 주석\t있음\n경\tB-OG\n찰\tI-OG\n은\tO\n \tO\n또\tO\n\n## 둘째\n박\tB-PS\n씨\tO\n"


def spans_of(row: dict[str, Any]) -> list[tuple[str, str]]:
    text = unicodedata.normalize("NFC", row["text"])
    return [(text[start:end], label) for start, end, label in row["label"]]


# --- files ---


def test_a_file_of_one_character_and_tag_per_line_is_read(tmp_path: Path) -> None:
    for name, text in (("a.tsv", KLUE), ("b.txt", KLUE), ("c.tsv", KLUE.replace("\n", "\r\n"))):
        (tmp_path / name).write_bytes(text.encode())
        source = open_source(tmp_path / name, None)
        assert source.columns == ("tokens", "ner_tags")
        assert list(source.rows) == list(source.rows) == [
            {"tokens": ["경", "찰", "은", " ", "또"], "ner_tags": ["B-OG", "I-OG", "O", "O", "O"]},
            {"tokens": ["박", "씨"], "ner_tags": ["B-PS", "O"]},
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "words"),
    [("경찰 B-OG", ["둘이어야", "1개"]), ("경\tNNG\tB-OG", ["둘이어야", "3개"]), ("경\t", ["비었습니다"])],
)
def test_a_malformed_line_is_reported_with_its_number(tmp_path: Path, line: str, words: list[str]) -> None:
    path = tmp_path / "data.tsv"
    path.write_text(f"{KLUE * 20}{line}\n", encoding="utf-8")
    with pytest.raises(DataError) as error:
        list(open_source(path, None).rows)
    for word in [*words, f"{KLUE.count(chr(10)) * 20 + 1}번째 줄"]:
        assert word in str(error.value)


@pytest.mark.parametrize("labels", ["OX", "O", "01", ["B-반", "A-반"]])
def test_tables_stay_tables(tmp_path: Path, labels: Any) -> None:
    lines = [f"문장 {number}\t{labels[number % len(labels)]}\n" for number in range(30)]
    (tmp_path / "data.tsv").write_text("text\tlabel\n" + "".join(lines), encoding="utf-8")
    source = open_source(tmp_path / "data.tsv", None)
    assert source.columns == ("text", "label")
    assert len(list(source.rows)) == 30


def test_class_ids_in_lists_become_their_names() -> None:
    import datasets

    from finetuning.data.hub import HubSplit

    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(datasets.ClassLabel(names=NAMES))}
    )
    table = datasets.Dataset.from_dict({"tokens": [["박", "씨"], []], "ner_tags": [[3, 0], []]}, features)
    assert [row["ner_tags"] for row in HubSplit(table)] == [["B-PS", "O"], []]


# --- rows ---


@pytest.mark.parametrize(
    ("row", "text", "spans"),
    [
        ({"tokens": list("박씨 또"), "label": ["B-PS", "O", "O", "O"]}, "박씨 또", [("박", "PS")]),
        ({"tokens": ["경찰", "박씨"], "label": ["B-OG", "B-PS"]}, "경찰 박씨", [("경찰", "OG"), ("박씨", "PS")]),
        ({"tokens": ["서울", "시청", "은"], "label": ["B-OG", "I-OG", "O"]}, "서울 시청 은", [("서울 시청", "OG")]),
        ({"text": "박씨", "label": ["B-PS", "O"]}, "박씨", [("박", "PS")]),
        ({"text": ["박", "씨"], "label": ["B-PS", "B-PS"]}, "박씨", [("박", "PS"), ("씨", "PS")]),
        ({"tokens": '["경찰", "또"]', "label": '["B-OG", "O"]'}, "경찰 또", [("경찰", "OG")]),
        ({"tokens": list(" 박 "), "label": ["B-PS", "I-PS", "I-PS"]}, " 박 ", [(" 박 ", "PS")]),
        ({"tokens": ["또", " "], "label": ["O", "B-PS"]}, "또 ", []),
    ],
)
def test_tokens_and_tags_are_spans_of_a_text(row: dict[str, Any], text: str, spans: Any) -> None:
    prepared = task_of().reads.prepare(dict(row))
    assert (prepared["text"], spans_of(prepared)) == (text, spans)


@pytest.mark.parametrize("syllables", [True, False])
def test_decomposed_letters_move_no_entity(syllables: bool) -> None:
    """NFD, as a syllable of several letters a token or as a letter a token."""
    tokens = [unicodedata.normalize("NFD", letter) for letter in "홍길동은 경찰"]
    tags = ["B-PS", "I-PS", "I-PS", "O", "O", "B-OG", "I-OG"]
    if not syllables:
        tags = [
            tag if place == 0 else tag.replace("B-", "I-")
            for token, tag in zip(tokens, tags, strict=True)
            for place in range(len(token))
        ]
        tokens = list("".join(tokens))
    prepared = task_of().reads.prepare({"tokens": tokens, "label": tags})
    assert spans_of(prepared) == [("홍길동", "PS"), ("경찰", "OG")]


@given(st.text(st.sampled_from("가각한ㄱ𠮷é\u0301\u1100\u1161\u11a8 a"), min_size=1, max_size=12), st.data())
def test_a_span_of_whole_characters_is_the_same_span_of_the_composed_text(text: str, data: Any) -> None:
    whole = unicodedata.normalize("NFC", text)
    start = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(start + 1, len(whole)))
    apart = [unicodedata.normalize("NFD", part) for part in (whole[:start], whole[start:end], whole[end:])]
    if unicodedata.normalize("NFC", "".join(apart)) != whole:
        return  # the marks of neighbours changed places
    if any(unicodedata.combining(character) for character in whole[start : start + 1] + whole[end : end + 1]):
        return  # a mark goes with the letter before it
    span = Span(len(apart[0]), len(apart[0]) + len(apart[1]), "PS")
    assert composed([span], "".join(apart)) == [Span(start, end, "PS")]


@pytest.mark.parametrize(
    ("tokens", "tags", "reason"),
    [
        (["박", "씨"], ["I-PS", "O"], "잇지 않는"),
        (["박", "씨"], ["B-PS", "I-OG"], "잇지 않는"),
        (["박", "씨", "는"], ["B-PS", "O", "I-PS"], "잇지 않는"),
        (["박"], ["PS"], "아닌 태그"),
        (["박"], ["S-PS"], "아닌 태그"),
        (["박"], ["B-"], "아닌 태그"),
        (["박", "씨"], ["B-PS"], "수가 다른"),
        (["박"], [3], "번호로 된 태그"),
        (["박", 3], ["O", "O"], "문자열이 아닌 토큰"),
        (["박", ""], ["O", "O"], "문자열이 아닌 토큰"),
        ("박 씨", ["O", "O"], "목록이 아닌 토큰"),
        (["박"], "B-PS", "목록이 아닌 태그"),
        ("[박", ["O"], "JSON 목록이 아닌 토큰"),
        ([], [], "빈 토큰"),
    ],
)
def test_unusable_rows_are_reported_with_a_reason(tokens: Any, tags: Any, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        task_of().reads.prepare({"tokens": tokens, "label": tags})


def write_jsonl(path: Path, rows: list[tuple[str, list[str]]]) -> None:
    lines = [json.dumps({"tokens": list(text), "ner_tags": tags}, ensure_ascii=False) for text, tags in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


GOOD = [("박씨는", ["B-PS", "I-PS", "O"]), ("경찰은", ["B-OG", "I-OG", "O"])] * 10


def manager_of(folder: Path, cache: Path) -> DataManager:
    data = {"dataset_name": str(folder), "dataset_cache_dir": str(cache)}
    checked = Settings.model_validate({"model": {"task": "ner"}, "data": data})
    return DataManager(checked, find_task(checked))


def test_bad_rows_are_counted_and_named(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [*GOOD, ("박", ["I-PS"]), ("씨", ["O", "O"]), ("또", ["I-PS"])])
    with pytest.raises(DataError) as error:
        manager_of(tmp_path / "train.jsonl", tmp_path / "cache").load_splits()
    for words in ("I- 태그 2행(21, 23번째)", "수가 다른 태그 1행(22번째)", "train.jsonl"):
        assert words in str(error.value)


def test_an_entity_missing_in_train_is_reported_with_its_row(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", GOOD)
    write_jsonl(folder / "dev.jsonl", GOOD)
    write_jsonl(folder / "test.jsonl", [*GOOD[:2], ("서울은", ["B-LC", "I-LC", "O"])])
    data = manager_of(folder, tmp_path / "cache")
    splits = data.load_splits()
    with pytest.raises(DataError) as error:
        data.label_names(splits)
    for words in ("B-LC, I-LC", "test.jsonl, 3번째 행"):
        assert words in str(error.value)
    del splits["test"]
    assert data.label_names(splits) == tuple(NAMES)
    assert data.label_counts(splits["train"]) == {"O": 20, "B-PS": 10, "I-PS": 10, "B-OG": 10, "I-OG": 10}


def test_tags_are_completed_and_a_set_without_entities_is_refused() -> None:
    task = task_of()
    assert task.reads.label_names({"O": 3, "B-PS": 2, "B-OG": 1}) == tuple(NAMES)
    with pytest.raises(DataError, match="개체가 하나도"):
        task.reads.label_names({"O": 3})
    task = find_task(Settings.model_validate({"model": {"task": "ner", "num_labels": 7}}))
    with pytest.raises(DataError, match=r"5가지인데 model\.num_labels는 7"):
        task.reads.label_names({"B-PS": 2, "B-OG": 1})


@pytest.mark.parametrize(
    ("available", "role"),
    [
        ((), "text"), (("text",), "text"), (("문장",), "text"), (("id", "tokens"), "tokens"),
        (("sentence", "tokens", "ner_tags"), "tokens"), (("words",), "tokens"),
    ],
)  # fmt: skip
def test_tokens_are_read_where_there_are_some(available: tuple[str, ...], role: str) -> None:
    assert task_of().reads.columns(available)[0].role == role
    assert task_of(text_column="sentence").reads.columns(available)[0].role == "text"


# --- loss, predictions, metrics ---


def test_the_loss_is_that_of_transformers(tiny_model: Path) -> None:
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    task, tokenizer = task_of(), AutoTokenizer.from_pretrained(tiny_model)
    task.encodes.fit_tokenizer(tokenizer)
    model = AutoModelForTokenClassification.from_pretrained(tiny_model, **task.scores.config_options(NAMES)).eval()
    rows = {"row": [1, 2], "text": ["박씨는 정말", "경찰"], "label": ['[[0, 2, "PS"]]', '[[0, 2, "OG"]]']}
    columns = task.encodes.encode(rows, tokenizer, NAMES, 64)
    examples = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    assert [example["label"] for example in examples] == [[-100, 3, 0, 0, 0, -100], [-100, 1, -100]]
    batch = task.encodes.collate(examples, tokenizer, None)
    assert (batch.items, batch.tokens) == (5, 9)
    loss = task.scores.loss_sum(task.scores.forward(model, batch), batch)
    torch.testing.assert_close(loss / batch.items, model(**batch.inputs, labels=batch.labels).loss)
    alone = [task.encodes.collate([example], tokenizer, None) for example in examples]
    torch.testing.assert_close(
        sum(task.scores.loss_sum(task.scores.forward(model, part), part) for part in alone), loss
    )


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O B-PS I-PS O", [(1, 3, "PS")]),
        ("B-PS B-OG I-OG O", [(0, 1, "PS"), (1, 3, "OG")]),
        ("B-PS B-PS O B-PS", [(0, 1, "PS"), (1, 2, "PS"), (3, 4, "PS")]),
        ("O O O O", []),
    ],
)
def test_legal_tags_are_read_as_entities(tags: str, spans: list[tuple[int, int, str]]) -> None:
    found = decode(
        as_tagged((place, place + 1, NAMES.index(tag), 0.5 + place / 10) for place, tag in enumerate(tags.split())),
        NAMES,
    )
    assert [span for span, _ in found] == [Span(*span) for span in spans]
    for (start, end, _), score in found:
        assert score == pytest.approx(np.mean([0.5 + place / 10 for place in range(start, end)]))


ROWS = {
    "text": ["박씨는 경찰", "경찰 박씨", "또"],
    "label": ['[[0, 2, "PS"], [4, 6, "OG"]]', '[[0, 2, "OG"], [3, 5, "PS"]]', "[]"],
}
OUTCOMES = [  # the first person takes in the particle, the third row has one too many
    as_tagged([(0, 1, 3, 0.9), (1, 3, 4, 0.7), (4, 6, 1, 0.8)]),
    as_tagged([(0, 2, 1, 0.9), (3, 5, 3, 0.9)]),
    as_tagged([(0, 1, 3, 0.6)]),
]


def test_metrics_are_those_computed_by_hand() -> None:
    """PS: 1 of 3 said is right, 1 of 2 is found: F1 2/5. OG: 2 of 2. Characters by tag: see below."""
    names = [*NAMES, "B-LC", "I-LC"]
    found = task_of().scores.metrics(OUTCOMES, ROWS, names, 0.25)
    # B-PS 2 right of 3 said, I-PS 2 right of 3 said, B-OG and I-OG all
    characters = [4 / 5, 4 / 5, 1.0, 1.0]
    # KLUE's code: O before and after each sentence, 6 of the 8 there are, and tags that no side has count as right
    with_o = [*characters, 12 / 14, 1.0, 1.0]
    assert found == pytest.approx(
        {
            "loss": 0.25,
            "entity_macro_f1": (2 / 5 + 1) / 2,
            "entity_micro_f1": 2 * 3 / (5 + 4),
            "char_macro_f1": sum(with_o) / 7,
            "char_macro_f1_without_o": sum(characters) / 4,
            "klue_entity_macro_f1": (2 / 5 + 1) / 2,  # no I- is without a beginning here
            "klue_char_macro_f1": sum(with_o) / 7,
        }
    )
    assert task_of().shows.details(OUTCOMES, ROWS, NAMES)[1:] == [
        "  OG: 1.0000, 1.0000, 1.0000 (정답 2개)",
        "  PS: 0.3333, 0.5000, 0.4000 (정답 2개)",
    ]


def test_metrics_are_those_of_klue_on_the_same_characters() -> None:
    """KLUE's own evaluation makes one sequence of all sentences, with an O before and after each of them."""
    from sklearn.metrics import f1_score

    random = np.random.default_rng(0)
    texts, labels, predictions = [], [], []
    for _ in range(60):
        text = "".join(random.choice(list("가나다 "), 20))
        places = [place for place in range(20) if not text[place].isspace()]
        truth = [(place, place + 1, int(tag), 1.0) for place, tag in zip(places, random.choice(5, 20), strict=False)]
        labels.append(json.dumps([span for span, _ in decode(as_tagged(truth), NAMES)]))
        said = [part if random.random() < 0.7 else (*part[:2], int(random.choice(5)), 1.0) for part in truth]
        predictions.append(as_tagged(said))
        texts.append(text)
    found = task_of().scores.metrics(predictions, {"text": texts, "label": labels}, NAMES, 0.0)
    truth, predicted = (
        [tag for spans, text in zip(side, texts, strict=True) for tag in ["O", *write_iob2(spans, text), "O"]]
        for side in (
            [[Span(*span) for span in json.loads(cell)] for cell in labels],
            [[span for span, _ in decode(outcome, NAMES)] for outcome in predictions],
        )
    )
    whole = {"entity_macro_f1": 0.6873109998109999, "entity_micro_f1": 0.6872852233676976}  # seqeval's, on one sequence
    assert {name: found[name] for name in whole} == pytest.approx(whole, abs=1e-12)
    with_o = f1_score(truth, predicted, labels=NAMES, average="macro", zero_division=True)
    assert found["char_macro_f1"] == pytest.approx(with_o, abs=1e-12)
    inside = f1_score(truth, predicted, labels=NAMES[1:], average="macro")
    assert found["char_macro_f1_without_o"] == pytest.approx(inside)


def test_an_inside_tag_without_a_beginning_is_none_in_klues_score_alone() -> None:
    rows = {"text": ["박씨 경찰"], "label": ['[[0, 2, "PS"], [3, 5, "OG"]]']}
    chances = np.array([[0.1, 0.1, 0.1, 0.6, 0.1], [0.1, 0.3, 0.4, 0.1, 0.1]])  # B-PS, and I-OG just before B-OG
    predictions = tagged([[(0, 2), (3, 5)]], [np.log(chances)], NAMES)
    found = task_of().scores.metrics(predictions, rows, NAMES, 0.0)
    assert (found["entity_macro_f1"], found["char_macro_f1"]) == (1.0, 1.0)
    assert found["klue_entity_macro_f1"] == 0.5
    # B-OG: 0 of 1; I-OG: 1 of 1 with 2 said; O, B-PS and I-PS are right
    assert found["klue_char_macro_f1"] == pytest.approx((3 + 0 + 2 / 3) / 5)


def test_klues_scores_are_those_of_klue_baseline() -> None:
    """klue_ner_entity_macro_f1 and klue_ner_char_macro_f1 (KLUE-baseline 8a03c94) on the same raw tags.

    KLUE leaves out spaces, so that an entity which begins at one is left with an I- that begins nothing.
    """
    kept = json.loads((Path(__file__).parent / "klue_scores.json").read_text(encoding="utf-8"))["ner"]
    names, task, rows, predictions = kept["labels"], task_of(), [], []
    for truth, said in zip(kept["truth"], kept["said"], strict=True):
        tokens, tags, before = list[str](), list[str](), "O"
        for tag in truth:
            if tag[0] == "I" and before[2:] != tag[2:]:
                tokens, tags = [*tokens, " "], [*tags, f"B-{tag[2:]}"]
            tokens, tags, before = [*tokens, "가"], [*tags, tag], tag
        rows.append(task.reads.prepare({"tokens": tokens, "label": tags}))
        places = [place for place, token in enumerate(tokens) if token != " "]
        raw = zip(places, said, strict=True)
        predictions.append([TaggedToken(place, place + 1, 0, 1.0, names.index(tag)) for place, tag in raw])
    columns = {"text": [row["text"] for row in rows], "label": [json.dumps(row["label"]) for row in rows]}
    found = task.scores.metrics(predictions, columns, names, 0.0)
    assert any(tag[0] == "I" and before == "O" for tags in kept["truth"] for before, tag in pairwise(["O", *tags]))
    assert found["klue_entity_macro_f1"] == pytest.approx(kept["entity_macro_f1"], abs=1e-12)
    assert found["klue_char_macro_f1"] == pytest.approx(kept["char_macro_f1"], abs=1e-12)


def test_scores_of_raw_tags_are_those_of_the_tags_themselves() -> None:
    """The reference writes each token's tag onto its characters and counts the entities of the strict scheme."""
    from sklearn.metrics import f1_score

    random = np.random.default_rng(1)
    texts, labels, predictions, raw = [], [], [], []
    for _ in range(40):
        texts.append("가나다라마바사아")
        truth = [(place, place + 1, int(tag), 1.0) for place, tag in enumerate(random.choice(5, 8))]
        labels.append(json.dumps([span for span, _ in decode(as_tagged(truth), NAMES)]))
        said = [part if random.random() < 0.6 else (*part[:2], int(random.choice(5)), 1.0) for part in truth]
        predictions.append([TaggedToken(start, end, 0, 1.0, raw=tag) for start, end, tag, _ in said])
        raw.append([NAMES[tag] for _, _, tag, _ in said])
    found = task_of().scores.metrics(predictions, {"text": texts, "label": labels}, NAMES, 0.0)
    truths = [write_iob2([Span(*span) for span in json.loads(cell)], texts[0]) for cell in labels]
    entities = entity_scores(truths, raw)
    assert found["klue_entity_macro_f1"] == pytest.approx(np.mean([score.f1 for score in entities.values()]))
    joined = [[tag for tags in side for tag in ("O", *tags, "O")] for side in (truths, raw)]
    assert found["klue_char_macro_f1"] == pytest.approx(
        f1_score(*joined, labels=NAMES, average="macro", zero_division=1)
    )
    assert found["klue_entity_macro_f1"] > found["entity_macro_f1"] == 0.0  # which is of the legal tags, all O here


def test_a_split_without_entities_measures_nothing() -> None:
    rows = {"text": ["또"], "label": ["[]"]}
    found = task_of().scores.metrics([as_tagged([(0, 1, 0, 0.9)])], rows, NAMES, 0.5)
    assert (found["entity_macro_f1"], found["entity_micro_f1"], found["char_macro_f1"]) == (0.0, 0.0, 1.0)
    assert task_of().scores.metrics([as_tagged([(0, 1, 3, 0.9)])], rows, NAMES, 0.5)["entity_macro_f1"] == 0.0


def test_a_prediction_is_json_and_its_text_matches_its_offsets() -> None:
    row = {"row": 1, "text": "박씨는 경찰", "label": ROWS["label"][0]}
    found = task_of().shows.readable(OUTCOMES[0], row, NAMES, None)
    assert json.loads(json.dumps(found)) == found
    assert [(e["text"], e["label"], e["start"], e["end"]) for e in found["entities"]] == [
        ("박씨는", "PS", 0, 3), ("경찰", "OG", 4, 6),
    ]  # fmt: skip
    assert task_of().shows.show(row) == ("박씨는 경찰", "박씨 PS, 경찰 OG")
