"""Question answering: windows against contexts, loss and spans against references, and the threshold of saying none."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from exceptions import ModelError
from finetuning.data.formats.registry import open_source
from finetuning.tasks.answering import metrics as answer_metrics
from finetuning.tasks.answering.scoring import Found, Window
from tests.support.answering import CONTEXT, character_tokenizer, row_of, task_of


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows as cleaning hands them to a task."""
    cells: dict[str, list[Any]] = {"row": list(range(1, len(rows) + 1))}
    for role in rows[0]:
        as_json = role == "answers"
        cells[role] = [json.dumps(row[role], ensure_ascii=False) if as_json else row[role] for row in rows]
    return cells


def examples_of(task: Any, tokenizer: Any, rows: list[dict[str, Any]], length: int) -> list[dict[str, Any]]:
    columns = task.encodes.encode(columns_of(rows), tokenizer, [], length)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return character_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    from transformers import BertConfig, BertForQuestionAnswering

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=128,
    )  # fmt: skip
    return BertForQuestionAnswering(config).eval()


# --- windows ---


def test_windows_cover_every_context_and_label_the_answer(tokenizer: Any) -> None:
    long = " ".join(f"{number}번 문장이다." for number in range(60))
    rows = [row_of("몇 번?", long, "37번"), row_of("언제?", CONTEXT, "1443년"), row_of("?" * 90, long, "3번", "37번")]
    rows += [row_of("처음은?", long, long[:2]), row_of("끝은?", long, long[-9:])]
    task = task_of(doc_stride=9)
    examples = examples_of(task, tokenizer, rows, 48)
    for number, row in enumerate(rows, 1):
        windows = [example for example in examples if example["row"] == number]
        covered: set[int] = set()
        holding = 0
        answer = row["answers"][0]["text"]
        for window in windows:
            first, after = window["context"]
            offsets = list(zip(window["offsets"][::2], window["offsets"][1::2], strict=True))
            assert len(window["input_ids"]) <= 48
            assert len(offsets) == after - first
            for position, (start, end) in enumerate(offsets, first):
                piece = tokenizer.convert_ids_to_tokens(window["input_ids"][position]).removeprefix("##")
                assert row["context"][start:end] == piece
            covered |= {place for start, end in offsets for place in range(start, end)}
            assert window["truncated"] == (number == 3)
            first_token, last_token = window["answer"]
            whole = (row["answers"][0]["answer_start"], row["answers"][0]["answer_start"] + len(answer))
            if offsets[0][0] <= whole[0] and whole[1] <= offsets[-1][1]:
                holding += 1
                assert offsets[first_token - first][0] == whole[0]
                assert offsets[last_token - first][1] == whole[1]
            else:
                assert (first_token, last_token) == (0, 0)
        assert covered >= {place for place, letter in enumerate(row["context"]) if letter != " "}
        assert holding >= 1
    assert sum(example["row"] == 2 for example in examples) == 1


def test_a_question_without_an_answer_points_at_the_first_token(tokenizer: Any) -> None:
    examples = examples_of(task_of(), tokenizer, [row_of("왜?", CONTEXT)], 64)
    assert [example["answer"] for example in examples] == [[0, 0]]
    assert "이 구간에는 없음" in task_of().encodes.describe(examples[0], tokenizer)


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(ModelError, match="question-answering에는 fast tokenizer"):
        task_of().encodes.fit_tokenizer(SimpleNamespace(is_fast=False))


def test_words_are_cut_before_particles_unless_settings_say_not_to() -> None:
    for cuts, expected in ((True, ["서울", "에서", "산다"]), (False, ["서울에서", "산다"])):
        tokenizer = character_tokenizer()
        task_of(cut_particles=cuts).encodes.fit_tokenizer(tokenizer)
        pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("서울에서 산다")
        assert [piece for piece, _ in pieces] == expected


def test_gold_spans_of_real_rows_read_back_as_the_gold_answers(e5_small: Path, real_data: Path) -> None:
    from transformers import AutoTokenizer

    source = open_source(real_data / "korquad" / "KorQuAD_v1.0_dev.json", None)
    rows = [
        {role: row[role] for role in ("question", "context", "answers")} for row in itertools.islice(source.rows, 200)
    ]
    examples = examples_of(task_of(), AutoTokenizer.from_pretrained(e5_small), rows, 384)
    held: dict[int, str] = {}
    for example in examples:
        first, last = example["answer"]
        if first:
            places = np.array(example["offsets"]).reshape(-1, 2)[first - example["context"][0] :]
            context = rows[example["row"] - 1]["context"]
            held[example["row"]] = context[places[0][0] : places[last - first][1]].strip()
    assert len(held) == len(rows)
    scores = []
    for number, text in held.items():
        answer = rows[number - 1]["answers"][0]["text"].strip()
        assert answer in text
        assert len(text) - len(answer) <= 4  # a subword may hold the particle after the answer, no more
        scores.append(answer_metrics.exact_match(text, [answer]))
    assert np.mean(scores) > 0.8


# --- loss and spans ---


def test_the_loss_is_that_of_transformers_where_an_answer_may_be_anywhere(tokenizer: Any, model: Any) -> None:
    task = task_of()
    rows = [
        row_of("언제?", CONTEXT, "1443년"),
        row_of("누가 만들었나?", CONTEXT, "세종대왕"),
        row_of("왜?", CONTEXT[:20]),
    ]
    examples = examples_of(task, tokenizer, rows, 64)
    batch = task.encodes.collate(examples, tokenizer, None)
    assert batch.items == len(examples) == 3
    assert batch.labels is not None
    assert batch.scope is not None
    with torch.no_grad():
        alone = [task.encodes.collate([example], tokenizer, None) for example in examples]
        parts = [task.scores.loss_sum(task.scores.forward(model, part), part) for part in alone]
        torch.testing.assert_close(sum(parts), task.scores.loss_sum(task.scores.forward(model, batch), batch))
        for part, loss in zip(alone, parts, strict=True):
            start, end = part.labels[:, 0], part.labels[:, 1]
            anywhere = dataclasses.replace(part, scope=torch.ones_like(part.scope))
            theirs = model(**part.inputs, start_positions=start, end_positions=end)
            torch.testing.assert_close(
                task.scores.loss_sum(task.scores.forward(model, anywhere), anywhere), theirs.loss
            )
            allowed = [0, *torch.nonzero(part.inputs["token_type_ids"][0] == 1).flatten().tolist()[:-1]]
            expected = 0.0
            for logits, gold in ((theirs.start_logits[0], start), (theirs.end_logits[0], end)):
                expected -= (logits[gold] - logits[allowed].logsumexp(0)).item() / 2
            assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_positions_outside_the_context_get_no_gradient(tokenizer: Any, model: Any) -> None:
    task = task_of()
    batch = task.encodes.collate(
        examples_of(task, tokenizer, [row_of("언제?", CONTEXT, "1443년")], 64), tokenizer, None
    )
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        logits = torch.zeros((1, batch.inputs["input_ids"].shape[1], 2), dtype=dtype, requires_grad=True)
        masked = logits.masked_fill((batch.scope == 0).unsqueeze(-1), torch.finfo(dtype).min)
        task.scores.loss_sum(masked, batch).backward()
        assert torch.isfinite(logits.grad).all()
        assert (logits.grad[batch.scope == 0] == 0).all()
        assert (logits.grad[batch.scope != 0] != 0).all()


def test_the_batch_goes_to_a_device_whole(tokenizer: Any) -> None:
    batch = task_of().encodes.collate(
        examples_of(task_of(), tokenizer, [row_of("언제?", CONTEXT, "1443년")], 64), tokenizer, None
    )
    moved = batch.mapped(lambda tensor: tensor.to("meta"))
    assert {moved.scope.device.type, moved.labels.device.type, moved.inputs["input_ids"].device.type} == {"meta"}


@pytest.mark.parametrize("most", [1, 3, 50])
def test_the_best_span_is_that_of_all_spans(tokenizer: Any, most: int) -> None:
    task = task_of(max_answer_length=most, doc_stride=5)
    rows = [row_of("언제?", CONTEXT, "1443년"), row_of("누가?", CONTEXT[:12], "세종대왕")]
    batch = task.encodes.collate(examples_of(task, tokenizer, rows, 32), tokenizer, None)
    shape = (*batch.inputs["input_ids"].shape, 2)
    random = np.random.default_rng(most)
    logits = torch.tensor(random.normal(0, 3, shape)).masked_fill((batch.scope == 0).unsqueeze(-1), -1e30)
    for window, scope, own in zip(task.scores.predictions(logits, batch), batch.scope.tolist(), logits, strict=True):
        logs = own.log_softmax(0)
        spans = {
            (first, last): float(logs[first, 0] + logs[last, 1])
            for first, last in itertools.product(range(shape[1]), repeat=2)
            if first <= last < first + most and all(mark == 1 for mark in scope[first : last + 1])
        }
        best = max(spans, key=lambda span: spans[span])
        assert (window.first, window.last) == best
        assert window.score == pytest.approx(spans[best])
        assert window.null == pytest.approx(float(logs[0].sum()))


def test_a_row_takes_the_best_of_its_windows(tokenizer: Any) -> None:
    from datasets import Dataset

    long = " ".join(f"{number}번 문장이다." for number in range(30))
    rows = [row_of("몇 번?", long, "20번"), row_of("누가?", CONTEXT[:12], "세종대왕")]
    task = task_of(doc_stride=5)
    examples = examples_of(task, tokenizer, rows, 48)
    predictions, right = [], 0
    for number, example in enumerate(examples):
        first, last = example["answer"]
        right += bool(first)
        some = example["context"][0] + 2
        predictions.append(Window(-0.1, -4.0, first, last) if first else Window(-2.0 - number, -0.5, some, some))
    assert right >= 2
    found = task.scores.gather(predictions, Dataset.from_list(examples), Dataset.from_dict(columns_of(rows)), [])
    assert [answer.text for answer in found] == ["20번", "세종대왕"]
    assert [(answer.score, answer.null) for answer in found] == [(-0.1, -4.0)] * 2
    for answer, row in zip(found, rows, strict=True):
        assert row["context"][answer.start : answer.end] == answer.text


def test_a_context_without_tokens_has_no_answer(tokenizer: Any, model: Any) -> None:
    from datasets import Dataset

    task = task_of()
    row = {"question": "왜?", "context": "\u200b", "answers": []}
    examples = examples_of(task, tokenizer, [row], 64)
    examples[0] |= {"context": [0, 0], "offsets": [], "answer": [0, 0]}
    batch = task.encodes.collate(examples, tokenizer, None)
    with torch.no_grad():
        predictions = task.scores.predictions(task.scores.forward(model, batch), batch)
    found = task.scores.gather(predictions, Dataset.from_list(examples), Dataset.from_dict(columns_of([row])), [])
    assert task.shows.readable(found[0], row, [], tokenizer) == {
        "answer": "", "score": pytest.approx(1.0), "start": None, "end": None,
    }  # fmt: skip
    assert math.isfinite(task.scores.calibrate(found, columns_of([row]), [])["null_threshold"])


# --- none ---

ANSWERED = '[{"text": "가", "answer_start": 0}]'


def found(text: str, score: float, null: float) -> Found:
    return Found(text, 0, len(text), score, null)


def test_no_answer_is_never_predicted_if_every_question_has_one() -> None:
    task = task_of()
    rows = {"answers": ['[{"text": "가", "answer_start": 0}]']}
    outcome = found("가", -9.0, -0.001)
    assert task.scores.calibrate([outcome], rows, []) == {"null_threshold": None}
    scores = task.scores.metrics([outcome], rows, [], 0.5)
    assert scores == {"loss": 0.5, "exact_match": 100, "f1": 100, "rouge_w": 100, "klue_exact_match": 100}


def test_the_threshold_is_the_best_of_all_on_validation() -> None:
    random = np.random.default_rng(1)
    golds = [[] if random.random() < 0.4 else [{"text": "가나", "answer_start": 0}] for _ in range(80)]
    predictions = []
    for gold in golds:
        margin = round(float(random.normal(1.5 if not gold else -1.5, 2.0)), 1)  # rounded, so that some are equal
        predictions.append(found(random.choice(["가나", "가다", "라"]), -1.0, -1.0 + margin))
    rows = {"answers": [json.dumps(gold) for gold in golds]}
    task = task_of()
    chosen = task.scores.calibrate(predictions, rows, [])["null_threshold"]

    def f1_at(threshold: float) -> float:
        task.scores.threshold = threshold
        return float(task.scores.metrics(predictions, rows, [], 0.0)["f1"])

    everywhere = [f1_at(edge) for edge in np.arange(-12, 12, 0.05)]
    assert f1_at(chosen) == pytest.approx(max(everywhere))
    assert f1_at(chosen) > max(everywhere[0], everywhere[-1])


def test_a_row_of_validation_is_scored_at_the_threshold_of_the_other_contexts() -> None:
    task = task_of()
    rows = {"context": ["가", "가", "나", "나"], "answers": ["[]", ANSWERED, "[]", ANSWERED]}
    # margins: at the threshold of the first context (between 1 and 3) the second has all wrong, and the other way round
    margins = [3.0, 1.0, -3.0, -5.0]
    predictions = [found("가", -6.0, -6.0 + margin) for margin in margins]
    decided = task.scores.cross_calibrated(predictions, rows, [])
    assert [task.scores.answer(one) for one in decided] == ["", "", "가", "가"]
    assert task.scores.metrics(decided, rows, [], 0.0)["f1"] == 50.0
    alone = {"context": ["가"] * 4, "answers": rows["answers"]}
    assert task.scores.cross_calibrated(predictions, alone, []) == predictions


def test_a_threshold_in_the_config_is_used_and_no_answer_is_scored_separately() -> None:
    from types import SimpleNamespace

    from transformers import BertConfig

    task = task_of()
    task.scores.fit_model(SimpleNamespace(config=BertConfig(null_threshold=1.0)), None)
    rows = {"answers": ["[]", '[{"text": "가", "answer_start": 0}]', "[]", '[{"text": "가", "answer_start": 0}]']}
    predictions = [found("가", -3.0, -1.0), found("가", -1.5, -1.0), found("나", -1.0, -5.0), found("가", -3.0, -1.0)]
    assert [task.shows.readable(outcome, {}, [], None)["answer"] for outcome in predictions] == ["", "가", "나", ""]
    scores = task.scores.metrics(predictions, rows, [], 0.0)
    assert (scores["exact_match"], scores["f1"], scores["null_threshold"]) == (50, 50, 1.0)
    assert task.shows.details(predictions, rows, []) == [
        "답이 있는 질문 2개: EM 50.00, F1 50.00", "답이 없는 질문 2개: EM 50.00, F1 50.00",
    ]  # fmt: skip
    assert task.shows.phrase(predictions[0], {}, [], None)[0] == "없음"


def test_a_row_is_shown_with_its_answers() -> None:
    answers = json.dumps([{"text": "가", "answer_start": 0}, {"text": "가", "answer_start": 3}])
    assert task_of().shows.show({"question": "뭐?", "answers": answers}) == ("뭐?", "가")
    assert task_of().shows.show({"question": "뭐?", "answers": "[]"}) == ("뭐?", "없음")
    assert task_of().shows.show({"question": "뭐?"}) == ("뭐?", "")


def test_scoring_a_large_split_is_quick() -> None:
    import time

    golds = [json.dumps([{"text": f"{number}년 3월에 있던 일", "answer_start": 0}]) for number in range(6000)]
    predictions = [found(f"{number}년 4월에 있던 어떤 일이었다", -1.0, -2.0) for number in range(6000)]
    started = time.process_time()
    task_of().scores.metrics(predictions, {"answers": golds}, [], 0.0)
    assert time.process_time() - started < 5
