"""Conversations: input shapes, trained tokens under any template, truncation, and generation that stops."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from data_manager import DataManager
from exceptions import BadRow, DataError
from finetuning.config.schema import Settings
from finetuning.tasks.generation.chat.encoding import Encoded, encode_rendered, prompt_ids, prompt_of
from finetuning.tasks.generation.chat.rendering import render
from finetuning.tasks.generation.chat.shapes import Conversation, read_conversation, shape_of
from finetuning.tasks.generation.chat.template import PLAIN_TEMPLATE, ChatTemplate
from finetuning.tasks.generation.decoding import Decoding
from finetuning.tasks.registry import find_task

TURNS = [
    {"role": "user", "content": "안녕"},
    {"role": "assistant", "content": "네, 안녕하세요"},
    {"role": "user", "content": "배고파"},
    {"role": "assistant", "content": "밥 먹어요"},
]
CHATML = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '</s>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
FORGETFUL = (  # earlier answers lose what comes before '|', as templates do that leave old thoughts out
    "{% for m in messages %}{% if m['role'] == 'assistant' and not loop.last %}"
    "{{ '<|assistant|>' + m['content'].split(',')[-1] + '</s>' }}"
    "{% else %}{{ '<|' + m['role'] + '|>' + m['content'] + '</s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
NO_END = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"  # noqa: E501


def to_messages(row: dict[str, Any], system_prompt: str | None) -> list[dict[str, Any]]:
    return list(read_conversation(shape_of(row), row, system_prompt, keeps_opening=True).messages)


def first_example(tokenizer: Any, messages: list[dict[str, str]], max_length: int) -> Encoded:
    template = ChatTemplate.of(tokenizer)
    return encode_rendered(render(Conversation(tuple(messages)), template)[0], template, max_length)


def task_of(**options: Any) -> Any:
    return find_task(Settings.model_validate({"model": {"task": "text-generation"}, **options}))


@pytest.fixture
def tokenizer(tiny_causal: Path) -> Any:
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(tiny_causal)
    made.pad_token = made.eos_token
    return made


def trained_texts(tokenizer: Any, messages: list[dict[str, str]], template: str, **options: Any) -> list[str]:
    """Decode the trained tokens of each example."""
    tokenizer.chat_template = template
    task = task_of(text_generation={"format": "chat", **options})
    columns = task.encodes.encode({"row": [1], "messages": [json.dumps(messages)]}, tokenizer, (), 1000)
    return [
        tokenizer.decode([token for token, is_trained in zip(ids, trained, strict=True) if is_trained])
        for ids, trained in zip(columns["input_ids"], columns["trained"], strict=True)
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": TURNS}, TURNS),
        ({"messages": json.dumps(TURNS)}, TURNS),
        (
            {"messages": [{"from": "human", "value": "안녕"}, {"from": "gpt", "value": "네, 안녕하세요"}]},
            TURNS[:2],
        ),
        ({"prompt": "안녕", "response": "네, 안녕하세요"}, TURNS[:2]),
        ({"prompt": "안녕"}, TURNS[:1]),
        ({"instruction": "안녕", "input": "", "output": "네, 안녕하세요"}, TURNS[:2]),
        ({"instruction": "안녕", "input": float("nan"), "output": "네, 안녕하세요"}, TURNS[:2]),
        (
            {"instruction": "요약해", "input": "긴 글", "output": "글"},
            [{"role": "user", "content": "요약해\n\n긴 글"}, {"role": "assistant", "content": "글"}],
        ),
    ],
)
def test_every_shape_is_converted_to_messages(row: dict[str, Any], expected: list[dict[str, str]]) -> None:
    assert to_messages(row, None) == expected
    assert to_messages(row, "친절히")[0] == {"role": "system", "content": "친절히"}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (TURNS[1:], "assistant로 시작"),
        ([TURNS[0], TURNS[2]], "번갈아"),
        ([{"role": "narrator", "content": "x"}], "role 'narrator'"),
        ([TURNS[0], {"role": "tool", "content": "x"}], "도구를 부르지 않았는데"),
        ([{"role": ["user"], "content": "x"}], "알 수 없는 role"),
        ([{"role": "user", "content": " "}], "빈 메시지"),
        ([{"role": "user", "content": 3}], "문자열이 아닌"),
        ([TURNS[0], TURNS[1], {"role": "system", "content": "x"}], "system"),
        ("[{", "JSON"),
        ([], "목록이 아닌"),
    ],
)
def test_invalid_conversations_are_reported_with_a_reason(messages: Any, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        to_messages({"messages": messages}, None)


@pytest.mark.parametrize(
    ("roles", "changes"),
    [
        (("고객", "상담사"), {"고객": "user", "상담사": "assistant"}),
        (("상담사", "손님", "상담사"), {"상담사": "assistant", "손님": "user"}),
        (("user1", "user2"), {"user1": "user", "user2": "assistant"}),
        (("user", "상대방"), {"상대방": "assistant"}),
        (("system", "A", "B"), {"A": "user", "B": "assistant"}),
        (("A", "B", "C"), {}),
    ],
)
def test_unknown_roles_are_all_named_with_what_to_write_instead(
    roles: tuple[str, ...], changes: dict[str, str]
) -> None:
    messages = [{"from": role, "value": "말"} for role in roles]
    with pytest.raises(BadRow, match="알 수 없는 role") as error:
        read_conversation("messages", {"messages": messages}, None, False)
    unknown = [role for role in dict.fromkeys(roles) if role not in ("user", "system")]
    assert str(error.value) == f"알 수 없는 role {', '.join(map(repr, unknown))}"
    for role, meant in changes.items():
        assert f'"from": "{role}" → "from": "{meant}"' in error.value.remedy
    assert error.value.remedy.count("→") == len(changes)


def test_messages_without_a_role_are_said_to_lack_it_and_which_keys_they_have() -> None:
    with pytest.raises(BadRow, match="role이 없는 메시지") as error:
        read_conversation("messages", {"messages": [{"speaker": "고객", "text": "안녕"}]}, None, False)
    assert "speaker, text" in error.value.found and '"role"' in error.value.remedy


def test_the_error_of_a_file_shows_what_to_write_for_its_roles(tmp_path: Path) -> None:
    turns = [{"role": "고객", "content": "문의합니다"}, {"role": "상담사", "content": "네"}]
    (tmp_path / "talk.jsonl").write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    settings = Settings.model_validate({
        "model": {"task": "text-generation"},
        "data": {"dataset_name": str(tmp_path / "talk.jsonl"), "dataset_cache_dir": str(tmp_path / "cache")},
    })  # fmt: skip
    with pytest.raises(DataError) as error:
        DataManager(settings, find_task(settings)).load_splits()
    assert "알 수 없는 role '고객', '상담사' 1행(1번째)" in error.value.what
    assert '"role": "고객" → "role": "user"' in error.value.remedy and "열 이름" not in error.value.remedy
    assert "max_bad_rows" not in error.value.remedy  # no row would be left


@pytest.mark.parametrize("template", [CHATML, PLAIN_TEMPLATE])
def test_answers_alone_are_trained_with_their_end(tokenizer: Any, template: str) -> None:
    assert trained_texts(tokenizer, TURNS, template) == ["네, 안녕하세요</s>밥 먹어요</s>"]


def test_an_answer_that_a_template_changes_later_is_trained_as_it_was_given(tokenizer: Any) -> None:
    assert trained_texts(tokenizer, TURNS, FORGETFUL) == ["네, 안녕하세요</s>", "밥 먹어요</s>"]


def test_a_template_without_an_end_gets_one(tokenizer: Any) -> None:
    assert trained_texts(tokenizer, TURNS[:2], NO_END) == ["네, 안녕하세요</s>"]
    assert ChatTemplate.of(tokenizer).end == tokenizer.eos_token


def test_train_on_all_trains_every_token(tokenizer: Any) -> None:
    texts = trained_texts(tokenizer, TURNS, CHATML, train_on="all")
    assert texts == [
        "<|user|>안녕</s>\n<|assistant|>네, 안녕하세요</s>\n<|user|>배고파</s>\n<|assistant|>밥 먹어요</s>"
    ]


def test_a_prompt_is_the_beginning_of_its_training_example(tokenizer: Any) -> None:
    tokenizer.chat_template = PLAIN_TEMPLATE
    asked = prompt_of(Conversation(tuple(TURNS)), ChatTemplate.of(tokenizer))
    prompt = tokenizer(asked, add_special_tokens=False)["input_ids"]
    encoded = first_example(tokenizer, TURNS, 1000)
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.trained[len(prompt)] and not encoded.trained[len(prompt) - 1]


def test_the_end_is_a_label_though_pad_is_the_same_token(tokenizer: Any) -> None:
    """Padding is found by position: the label of an answer's end token is kept, and padding has no label."""
    tokenizer.chat_template = CHATML
    task = task_of(text_generation={"format": "chat"})
    rows = {"row": [1, 2], "messages": [json.dumps(TURNS), json.dumps(TURNS[:2])]}
    columns = task.encodes.encode(rows, tokenizer, (), 1000)
    examples = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    batch = task.encodes.collate(examples, tokenizer, None)
    assert int((batch.labels == tokenizer.eos_token_id).sum()) == 3
    assert (batch.labels[batch.inputs["attention_mask"] == 0] == -100).all()
    assert batch.items == int((batch.labels != -100).sum())


def test_an_example_whose_answer_is_cut_off_is_dropped(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    task = task_of(text_generation={"format": "chat"})
    columns = task.encodes.encode({"row": [1], "messages": [json.dumps(TURNS[:2])]}, tokenizer, (), 20)
    assert columns["input_ids"] == [[]]
    assert columns["full_length"][0] > 20


def test_a_long_text_is_divided_and_nothing_is_lost(tokenizer: Any) -> None:
    task = task_of(text_generation={"format": "text"})
    columns = task.encodes.encode({"row": [1], "text": ["가" * 50]}, tokenizer, (), 40)
    ids = [token for piece in columns["input_ids"] for token in piece]
    assert tokenizer.decode(ids) == "가" * 50 + "</s>"
    assert max(map(len, columns["input_ids"])) <= 40


def test_loss_is_that_of_transformers(tokenizer: Any, tiny_causal: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_causal).eval()
    tokenizer.chat_template = CHATML
    task = task_of(text_generation={"format": "chat"})
    columns = task.encodes.encode({"row": [1], "messages": [json.dumps(TURNS)]}, tokenizer, (), 1000)
    example = {name: values[0] for name, values in columns.items()}
    batch = task.encodes.collate([example], tokenizer, None)
    ids = torch.tensor([example["input_ids"]])
    labels = torch.where(torch.tensor([example["trained"]]), ids, -100)
    reference = model(input_ids=ids, labels=labels).loss
    torch.testing.assert_close(task.scores.loss_sum(task.scores.forward(model, batch), batch) / batch.items, reference)


def test_the_trained_part_is_shown_between_brackets(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    task = task_of(text_generation={"format": "chat"})
    columns = task.encodes.encode({"row": [1], "messages": [json.dumps(TURNS[:2])]}, tokenizer, (), 1000)
    shown = task.encodes.describe({name: values[0] for name, values in columns.items()}, tokenizer)
    assert shown.rstrip() == "<|user|>안녕</s>\n<|assistant|>⟦네, 안녕하세요</s>⟧"


def test_characters_are_those_of_the_trained_text_that_is_kept(tokenizer: Any) -> None:
    """A Korean letter is three tokens of this tokenizer, and the token that ends an answer is no letter."""
    for template in (CHATML, PLAIN_TEMPLATE):
        tokenizer.chat_template = template
        assert first_example(tokenizer, TURNS, 1000).characters == len("네, 안녕하세요밥 먹어요")
    for template in (CHATML, PLAIN_TEMPLATE, NO_END):
        tokenizer.chat_template = template
        first = first_example(tokenizer, TURNS[:2], 1000)
        assert first.characters == len("네, 안녕하세요")
        start = first.trained.index(True)
        assert first_example(tokenizer, TURNS, start + 5).characters == len("네, ")


def test_characters_of_a_plain_text_are_counted_once(tokenizer: Any) -> None:
    task = task_of(text_generation={"format": "text"})
    columns = task.encodes.encode({"row": [1], "text": ["가나다 라"]}, tokenizer, (), 1000)
    assert columns["characters"] == [len("나다 라")]  # nothing comes before the first to predict it from


@pytest.mark.parametrize(
    ("data", "available", "roles"),
    [
        ({}, ["text"], ["text"]),
        ({}, ["질문", "답변"], ["prompt", "response"]),
        ({}, ["messages", "id"], ["messages"]),
        ({}, ["instruction", "input", "output"], ["instruction", "output", "input"]),
        ({"text_column": "본글"}, ["본글", "질문", "답변"], ["text"]),
        ({"text_column": "본글"}, ["본글", "messages"], ["text"]),
        ({"prompt_column": "물음", "response_column": "답"}, ["물음", "답", "messages"], ["prompt", "response"]),
        ({"prompt_column": "물음"}, ["물음", "instruction", "output"], ["prompt", "response"]),
    ],
)
def test_a_column_that_is_named_wins_over_shapes(data: Any, available: list[str], roles: list[str]) -> None:
    assert [column.role for column in task_of(data=data).reads.columns(available)] == roles


def test_the_end_of_a_prompt_that_is_too_long_is_kept(tokenizer: Any) -> None:
    tokenizer.chat_template = PLAIN_TEMPLATE
    messages = [{"role": "user", "content": "가" * 100}]
    ids = prompt_ids(Conversation(tuple(messages)), ChatTemplate.of(tokenizer), 40)
    assert len(ids) == 40
    assert tokenizer.decode(ids).endswith("가\n\n### 답변\n")


@pytest.mark.parametrize("new_tokens", [8, 500])
def test_generation_stays_within_the_positions_a_model_has(tokenizer: Any, new_tokens: int) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=0,
                   eos_token_id=0)
    ).eval()  # fmt: skip
    tokenizer.chat_template = PLAIN_TEMPLATE
    rows = [{"messages": json.dumps([{"role": "user", "content": "길다 " * 50}])}, {"messages": json.dumps(TURNS[:1])}]
    for options in ({"format": "chat"}, {"format": "text"}):
        task = task_of(text_generation=options)
        given = rows if options["format"] == "chat" else [{"text": "길다 " * 50}, {"text": "안녕"}]
        assert len(task.scores.generate(model, given, tokenizer, 32, Decoding(new_tokens))) == 2


def test_a_last_question_without_an_answer_is_left_out_and_counted_but_answered_in_predictions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ShareGPT's conversations often end this way. A conversation without any answer has nothing to train."""
    rows = [{"messages": TURNS}] * 9 + [{"messages": TURNS[:3]}, {"messages": TURNS[:1]}]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    data = {"dataset_name": str(path), "dataset_cache_dir": str(tmp_path / "cache"), "max_bad_rows": 0.2}
    settings = Settings.model_validate({"model": {"task": "text-generation"}, "data": data})
    manager = DataManager(settings, find_task(settings))
    caplog.set_level(logging.INFO)
    splits = manager.load_splits()
    kept = sorted(len(json.loads(cell)) for split in splits.values() for cell in split.table["messages"])
    assert kept == [2, *[4] * 9]
    assert "답이 없어 제외한 마지막 질문 1개(10번째 행 '배고파' → '')" in caplog.text
    assert "답이 없는 대화 1행(11번째)" in caplog.text
    ((asked, _),) = manager.load_unlabelled(path, ()).chunks()
    assert [len(json.loads(cell)) for cell in asked.table["messages"]] == [4] * 9 + [3, 1]
