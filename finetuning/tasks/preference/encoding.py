"""Preferences as examples: a pair of answers behind their common beginning, or an answer that was judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetuning.tasks.generation.causal import ConversationEncoder, as_conversation, tools_of
from finetuning.tasks.generation.chat.encoding import Encoded, encode_rendered, prompt_ids
from finetuning.tasks.generation.chat.rendering import render
from finetuning.tasks.generation.chat.shapes import SEGMENT, Conversation
from finetuning.tasks.generation.chat.template import ChatTemplate, TemplateRefused
from finetuning.tasks.parts import RowColumns, Rows
from finetuning.tasks.preference.losses import LOSSES, PreferenceLoss
from finetuning.types import Answers, Batch, RandomKey

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER, PROMPT = 1, 2  # in the column `trained`: a token of an answer; one of a prompt that orpo trains, too
_COLUMNS = ("row", "input_ids", "trained", "branches", "truncated", "full_length", "refused", "liked", "other",
            "other_trained")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Answered:
    """A conversation with its last answer.

    Attributes:
        ids: Token ids.
        start: Where the answer begins; 0 where `max_length` left nothing of it.
        trained: Which tokens are the answer's.
        full_length: Number of tokens before the cut.
    """

    ids: list[int]
    start: int
    trained: list[bool]
    full_length: int


class PreferenceEncoder(ConversationEncoder):
    """Encodes pairs of answers to one prompt, or under kto single answers.

    A pair's tokens are the beginning that both answers share, the rest of the good one and the rest of the bad one;
    `branches` has the length of each. The last shared token stands in both branches, since it predicts the first
    token of each. Under kto `other` has an answer to another question behind the example's own prompt.
    """

    shares_beginnings = True

    @property
    def loss(self) -> PreferenceLoss:
        """The loss that the examples are made for."""
        return LOSSES[self.settings.preference.loss]

    def encode(
        self, rows: RowColumns, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int
    ) -> dict[str, list[Any]]:
        """Encode pairs or judged answers; see `RowEncoder.encode`. `trained` holds ANSWER, PROMPT or 0."""
        columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        template = ChatTemplate.of(tokenizer)
        rejected = rows.get("rejected") or [""] * len(rows["row"])
        judged = rows.get("judged") or [""] * len(rows["row"])
        for number, good, bad, liked, tools in zip(
            rows["row"], rows["messages"], rejected, judged, tools_of(rows), strict=True
        ):
            try:
                made = self._examples(good, bad, liked, tools, template, max_length)
            except TemplateRefused as reason:
                made = [_example([], [], [], 0, refused=str(reason))]
            for example in made:
                columns["row"].append(number)
                for name, value in example.items():
                    columns[name].append(value)
        if self.loss.is_of_pairs:
            unused = ["other", "other_trained", "liked"]
        else:
            unused = ["branches"]
            _pair_with_others(columns)
        for name in unused:
            del columns[name]
        return columns

    def _examples(
        self, good: str, bad: str, liked: str, tools: str, template: ChatTemplate, max_length: int
    ) -> list[dict[str, Any]]:
        conversation = as_conversation(good, tools)
        if conversation.messages[-1]["role"] not in ("assistant", SEGMENT):  # to predict
            ids = prompt_ids(conversation, template, max_length)
            return [_example(ids, [0] * len(ids), [0, len(ids), 0], len(ids))]
        first = _answered(conversation, template, max_length)
        if not bad:
            return [_judged(first, liked == "true")]
        second = _answered(as_conversation(bad, tools), template, max_length)
        if not self.loss.is_of_pairs:
            return [_judged(first, liked=True), _judged(second, liked=False)]
        return [_pair(first, second, trains_prompt=self.loss.trains == "prompt and answer")]

    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        """Pad examples, a row for each answer; see `RowEncoder.collate`."""
        rows = [part for example in examples for part in _answers_of(example)]
        batch = self.arranged([[row] for row in rows], tokenizer, shows_padding=True)
        return self._with_answers(batch, examples, tokenizer, rows, shows_padding=True)

    def collate_rows(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, key: RandomKey | None = None) -> Batch:
        """Collate examples in one row, the beginning of a pair once; see `RowEncoder.collate_rows`."""
        (row,) = rows
        batch = self.arranged([row], tokenizer, shows_padding=False)
        return self._with_answers(batch, row, tokenizer, row, shows_padding=False)

    def joined(self, examples: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Return the examples as they are: those of pairs have a beginning that they share already."""
        return examples

    def _with_answers(
        self, batch: Batch, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase,
        sequences: Sequence[Mapping[str, Any]], shows_padding: bool,
    ) -> Batch:  # fmt: skip
        """Tell which place belongs to which answer. Places are in the order of the sequences' tokens."""
        import torch

        is_pair = bool(examples[0].get("branches"))
        each = 2 if is_pair else 1
        count = len(examples) * each
        owners = torch.cat([_owners(one, number, is_pair, count) for number, one in enumerate(sequences)])
        known = [example["reference"] for example in examples if "reference" in example]
        reference = torch.tensor([value for pair in known for value in pair[:each]], dtype=torch.float64)
        liked = None if is_pair else torch.tensor([bool(example.get("liked")) for example in examples])
        answers = Answers(owners, count, reference if known else None, liked)
        others = None
        if not is_pair and examples[0].get("other"):
            others = self._others(examples, tokenizer, [second for _, second in known], shows_padding)
        return dataclasses.replace(batch, items=len(examples), sequences=len(examples), answers=answers, others=others)

    def _others(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, known: Sequence[float],
        shows_padding: bool,
    ) -> Batch:  # fmt: skip
        import torch

        others = [{"input_ids": one["other"], "trained": one["other_trained"]} for one in examples]
        rows = [[one] for one in others] if shows_padding else [others]
        batch = self.arranged(rows, tokenizer, shows_padding)
        owners = torch.cat([_owners(one, number, False, len(others)) for number, one in enumerate(others)])
        reference = torch.tensor(known, dtype=torch.float64) if known else None
        answers = Answers(owners, len(others), reference)
        return dataclasses.replace(batch, items=len(others), sequences=len(others), answers=answers)

    def describe(self, example: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
        """Return both answers behind their prompt, each between ⟦ and ⟧."""
        parts = _answers_of(example)
        shown = [super(PreferenceEncoder, self).describe(_as_sft(part), tokenizer) for part in parts]
        if len(shown) == 1:
            return f"{shown[0]}\n({'좋은' if example.get('liked') else '나쁜'} 답)"
        return f"(좋은 답) {shown[0]}\n(나쁜 답) {shown[1]}"


def _answered(conversation: Conversation, template: ChatTemplate, max_length: int) -> _Answered:
    rendered = render(conversation, template)
    if len(rendered) > 1:
        raise TemplateRefused("chat template이 지난 답을 다음 차례에 다르게 출력하는, 답이 여럿인 쌍")
    encoded: Encoded = encode_rendered(rendered[0], template, max_length)
    start = next((place for place, is_trained in enumerate(encoded.trained) if is_trained), 0)
    return _Answered(encoded.input_ids, start, encoded.trained, encoded.full_length)


def _pair(good: _Answered, bad: _Answered, trains_prompt: bool) -> dict[str, Any]:
    """Return the example of a pair; one without tokens where the cut leaves nothing that tells the answers apart."""
    if not (good.start and bad.start) or good.ids == bad.ids:
        return _example([], [], [], max(good.full_length, bad.full_length))
    most = min(good.start, bad.start)
    same = next((place for place in range(most) if good.ids[place] != bad.ids[place]), most)
    shared = max(0, same - 1)
    untrained = PROMPT if trains_prompt else 0
    first = [ANSWER if is_trained else untrained for is_trained in good.trained]
    second = [ANSWER if is_trained else 0 for is_trained in bad.trained]
    ids = [*good.ids, *bad.ids[shared:]]
    branches = [shared, len(good.ids) - shared, len(bad.ids) - shared]
    return _example(ids, [*first, *second[shared:]], branches, max(good.full_length, bad.full_length) + len(ids) - max(
        len(good.ids), len(bad.ids)
    ))  # fmt: skip


def _judged(answer: _Answered, liked: bool) -> dict[str, Any]:
    if not answer.start:
        return _example([], [], [], answer.full_length)
    trained = [ANSWER if is_trained else 0 for is_trained in answer.trained]
    return {**_example(answer.ids, trained, [], answer.full_length), "liked": liked}


def _example(
    ids: list[int], trained: list[int], branches: list[int], full_length: int, refused: str = ""
) -> dict[str, Any]:
    return {
        "input_ids": ids, "trained": trained, "branches": branches, "truncated": full_length > len(ids),
        "full_length": full_length, "refused": refused, "liked": False, "other": [], "other_trained": [],
    }  # fmt: skip


def _pair_with_others(columns: dict[str, list[Any]]) -> None:
    """Give each example the answer of the one before it, of another prompt where there is one, behind its own prompt.

    TRL pairs so within each batch.
    """
    there = [place for place, ids in enumerate(columns["input_ids"]) if ids]
    starts = {place: columns["trained"][place].index(ANSWER) for place in there if ANSWER in columns["trained"][place]}
    prompts = {place: columns["input_ids"][place][:start] for place, start in starts.items()}
    for number, place in enumerate(there):
        if place not in starts:
            continue
        before = [there[(number - back) % len(there)] for back in range(1, len(there))]
        other = next((one for one in before if one in starts and prompts[one] != prompts[place]), place)
        answer = slice(starts[other], None)
        columns["other"][place] = [*prompts[place], *columns["input_ids"][other][answer]]
        columns["other_trained"][place] = [*([0] * starts[place]), *columns["trained"][other][answer]]


def _answers_of(example: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a pair's two sequences, each whole, or the example itself."""
    if not example.get("branches"):
        return [example]
    shared, first, _second = example["branches"]
    parts = (slice(0, shared), slice(shared, shared + first), slice(shared + first, None))
    ids, trained = ([list(example[name])[part] for part in parts] for name in ("input_ids", "trained"))
    again = [0] * shared  # what orpo trains of the prompt counts once, with the good answer
    return [
        {"input_ids": [*ids[0], *ids[1]], "trained": [*trained[0], *trained[1]]},
        {"input_ids": [*ids[0], *ids[2]], "trained": [*again, *trained[2]]},
    ]


def _as_sft(sequence: Mapping[str, Any]) -> dict[str, Any]:
    return {"input_ids": sequence["input_ids"], "trained": [kind == ANSWER for kind in sequence["trained"]]}


def _owners(sequence: Mapping[str, Any], number: int, is_pair: bool, count: int) -> Any:
    """Return the owner of each place of a sequence (see types.Answers).

    Args:
        sequence: A pair as a whole, one of its answers, or a judged answer.
        number: Its number among the batch's sequences.
        is_pair: Whether the batch's examples are pairs.
        count: Number of answers of the batch.

    Returns:
        (places,) int64.
    """
    import torch

    kinds = torch.tensor(sequence["trained"])[1:]
    kinds = kinds[kinds > 0]
    if not is_pair:
        return torch.full_like(kinds, number)
    if sequence.get("branches"):
        shared, first, _second = sequence["branches"]
        places = (torch.tensor(sequence["trained"])[1:] > 0).nonzero().squeeze(1) + 1
        answer, example = 2 * number + (places >= shared + first).long(), number
        return torch.where(kinds == ANSWER, answer, count + example)
    return torch.where(kinds == ANSWER, number, count + number // 2)
