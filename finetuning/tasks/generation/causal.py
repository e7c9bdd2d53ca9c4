"""Causal language models: continued pretraining on plain text, and instruction tuning on conversations."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from exceptions import ModelError
from finetuning.config.schema import Settings
from finetuning.korean.text_quality import GeneratedText
from finetuning.tasks.base import Task
from finetuning.tasks.generation.beginnings import joined_by_beginning
from finetuning.tasks.generation.chat.encoding import Encoded, encode_rendered, prompt_ids, trained_characters
from finetuning.tasks.generation.chat.reader import ConversationReader
from finetuning.tasks.generation.chat.rendering import render
from finetuning.tasks.generation.chat.shapes import SEGMENT, Conversation
from finetuning.tasks.generation.chat.template import ChatTemplate, TemplateRefused, special_tokens
from finetuning.tasks.generation.chat.template_choice import keep_trained_template, set_template
from finetuning.tasks.generation.decoding import Decoding, positions_of
from finetuning.tasks.generation.noise import noise_of, on_embeddings
from finetuning.tasks.generation.shared import (
    Answer,
    GeneratedTextPresenter,
    GeneratingScorer,
    generate_texts,
    generated_pairs,
)
from finetuning.tasks.model_kind import sees_later_tokens
from finetuning.tasks.parts import RowColumns, RowEncoder, Rows
from finetuning.tasks.text_encoding import read_end
from finetuning.tasks.vocabulary import losses_by_example, only_head_positions, vocabulary_batch
from finetuning.types import IGNORED, Batch, RandomKey

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_IS_ENCODER = (
    "BERT 같은 인코더로 보입니다. 분류하려면 --task text-classification, 이어서 사전학습하려면 --task masked-lm "
    "플래그를 쓰고, 텍스트를 생성하려면 GPT나 Llama 같은 생성 모델을 고르세요. "
)


class TextGeneration(Task):
    """Cross-entropy over the trained tokens: every token of plain text, the answers of a conversation."""

    name = "text-generation"
    aliases = ("causal-lm", "causal-language-modeling", "instruction-tuning", "sft", "chat", "텍스트 생성", "언어 모델")
    auto_class = "AutoModelForCausalLM"
    pipeline = "text-generation"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reads = ConversationReader(settings)
        self.encodes = ConversationEncoder(settings)
        self.scores = CausalScorer(settings)
        self.shows = ConversationPresenter()


class ConversationEncoder(RowEncoder):
    """Encodes conversations and texts, and packs them into rows."""

    def fit_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Set the chat template: the user's, the tokenizer's own, or a plain one. It is saved with the tokenizer.

        Args:
            tokenizer: Tokenizer to change.

        Raises:
            SettingsError: The template's file cannot be read.
            ModelError: The tokenizer is slow or has no end token.
        """
        set_template(tokenizer, self.settings.text_generation)
        _check_tokenizer(tokenizer)

    def fit_saved_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Leave the template that was saved; see `RowEncoder.fit_saved_tokenizer`."""
        keep_trained_template(tokenizer, self.settings.text_generation)
        _check_tokenizer(tokenizer)

    def encode(
        self, rows: RowColumns, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int
    ) -> dict[str, list[Any]]:
        """Encode conversations or texts; see `RowEncoder.encode`.

        `trained` (bool lists) says which tokens have a loss, `characters` how many characters they stand for.
        """
        columns: dict[str, list[Any]] = {
            name: [] for name in ("row", "input_ids", "trained", "truncated", "full_length", "characters", "refused")
        }
        template = None if "text" in rows else ChatTemplate.of(tokenizer)
        special = frozenset(special_tokens(tokenizer).values())
        for number, text, tools in zip(rows["row"], rows.get("text") or rows["messages"], tools_of(rows), strict=True):
            refused = ""
            if template is None:
                made = _text_examples(text, tokenizer, max_length, special)
            else:
                try:
                    made = self._answer_examples(as_conversation(text, tools), template, max_length)
                except TemplateRefused as reason:
                    made, refused = [Encoded([], [], 0, 0)], str(reason)
            for encoded in made:
                columns["row"].append(number)
                columns["input_ids"].append(encoded.input_ids)
                columns["trained"].append(encoded.trained)
                columns["truncated"].append(encoded.full_length > len(encoded.input_ids))
                columns["full_length"].append(encoded.full_length)
                columns["characters"].append(encoded.characters)
                columns["refused"].append(refused)
        return columns

    def _answer_examples(self, conversation: Conversation, template: ChatTemplate, max_length: int) -> list[Encoded]:
        """Return a conversation's examples. One without trained tokens after the cut is left empty."""
        if conversation.messages[-1]["role"] not in ("assistant", SEGMENT):
            ids = prompt_ids(conversation, template, max_length)
            return [Encoded(ids, [False] * len(ids), len(ids), 0)]
        made, options = [], self.settings.text_generation
        for rendered in render(conversation, template, options.train_on == "all", options.train_thoughts):
            encoded = encode_rendered(rendered, template, max_length)
            made.append(encoded if any(encoded.trained[1:]) else Encoded([], [], encoded.full_length, 0))
        return made

    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        """Pad examples; see `RowEncoder.collate`. Labels are shifted: each position has the id of the next token."""
        rows = [[example] for example in examples]
        return self._noisy(self.arranged(rows, tokenizer, shows_padding=True), rows, key)

    def why_several(self) -> str:
        """Return why a conversation may make several examples; see `RowEncoder.why_several`."""
        if self.settings.text_generation.format == "text":
            return ""
        return (
            "chat template이 지난 답을 다음 차례에는 다르게 출력하므로, 그런 답은 처음 출력된 형태로 따로 학습합니다."
        )

    def packs(self) -> bool:
        """Return whether windows may be packed, as `data.packing` says."""
        return self.settings.data.packing is not False

    def collate_rows(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, key: RandomKey | None = None) -> Batch:
        """Collate rows of several examples; see `RowEncoder.collate_rows`.

        Positions start again with each example: without a mask transformers isolates sequences by that.
        """
        return self._noisy(self.arranged(rows, tokenizer, shows_padding=False), rows, key)

    def joined(self, examples: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Join examples that begin alike; with noise on embeddings each has its own, from its first token."""
        return examples if self.settings.training.neftune_alpha else joined_by_beginning(examples)

    def _noisy(self, batch: Batch, rows: Rows, key: RandomKey | None) -> Batch:
        """Return the batch with the noise that `training.neftune_alpha` asks for."""
        alpha = self.settings.training.neftune_alpha
        return batch if key is None or alpha == 0 else replace(batch, noise=noise_of(rows, key, alpha))

    def positions(self, example: Mapping[str, Any]) -> torch.Tensor:
        """Return the position of each of an example's tokens, (tokens,) int64; branches begin behind what is shared."""
        import torch

        shared, *branches = example.get("branches") or (0, len(example["input_ids"]))
        return torch.cat([torch.arange(shared), *(torch.arange(shared, shared + length) for length in branches)])

    def arranged(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, shows_padding: bool) -> Batch:
        """Put the examples of each row one behind the other, and pad the rows.

        Args:
            rows: The examples of each row.
            tokenizer: Gives the padding id.
            shows_padding: Whether the model is given a mask of the real tokens.

        Returns:
            The batch. labels: (rows, tokens) int64, the token that follows each position, -100 where none is trained.
        """
        import torch

        width = max(sum(len(example["input_ids"]) for example in row) for row in rows)
        shape, tokens = (len(rows), width), 0
        input_ids = torch.full(shape, tokenizer.pad_token_id or 0)
        labels, positions = torch.full(shape, IGNORED), torch.zeros(shape, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.long)
        for number, row in enumerate(rows):
            start = 0
            for example in row:
                ids, trained = torch.tensor(example["input_ids"]), torch.tensor(example["trained"])
                end = start + len(ids)
                input_ids[number, start:end] = ids
                positions[number, start:end] = self.positions(example)
                labels[number, start : end - 1] = torch.where(trained[1:] > 0, ids[1:], IGNORED)
                mask[number, start:end] = 1
                start, tokens = end, tokens + len(ids)
        inputs = {"input_ids": input_ids, "position_ids": positions}
        if shows_padding:
            inputs["attention_mask"] = mask
        return vocabulary_batch(inputs, labels, tokens, sequences=sum(map(len, rows)))

    def describe(self, example: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
        """Return the example's text, with trained tokens between ⟦ and ⟧."""
        pieces: list[str] = []
        start = 0
        trained = [False, *example["trained"][1:]]  # the first token has no token before it to be predicted from
        for position in range(1, len(trained) + 1):
            if position == len(trained) or trained[position] != trained[start]:
                text = str(tokenizer.decode(example["input_ids"][start:position]))
                pieces.append(f"⟦{text}⟧" if trained[start] else text)
                start = position
        return "".join(pieces)


class CausalScorer(GeneratingScorer):
    """Cross-entropy of the trained tokens. The best model is the one of lowest loss."""

    validation_texts = 16
    final_texts = 16
    reads = GeneratingScorer.reads | {"neftune_alpha"}

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Make `generate` stop at the end of text and at the end of an answer; see `Scorer.fit_model`.

        Args:
            model: Model to fit.
            tokenizer: Its tokenizer.

        Raises:
            ModelError: The model is an encoder, whose tokens see the ones that come after them.
        """
        if sees_later_tokens(model.config):
            raise ModelError(
                f"{model.config.model_type} 모델은 뒤에 오는 토큰까지 보므로 텍스트 생성을 학습할 수 없습니다.",
                where=f"model.name: {self.settings.model.name}",
                remedy=_IS_ENCODER.strip(),
            )
        super().fit_model(model, tokenizer)
        ends = {tokenizer.eos_token_id}
        if self.settings.text_generation.format != "text" and tokenizer.chat_template is not None:
            template = ChatTemplate.of(tokenizer)
            ends.add(None if template.end is None else tokenizer.convert_tokens_to_ids(template.end))
        known = model.generation_config.eos_token_id
        ends |= set(known if isinstance(known, list) else [known])
        model.generation_config.eos_token_id = sorted(end for end in ends if end is not None)
        model.generation_config.pad_token_id = tokenizer.pad_token_id

    def training_loss(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the loss, with noise on the embeddings if the batch has any; see `Scorer.training_loss`."""
        with on_embeddings(model, batch) if batch.noise else nullcontext():
            return super().training_loss(model, batch)

    def project(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the head's output at the labelled positions, (items, vocabulary)."""
        assert batch.labels is not None
        with only_head_positions(model, batch):
            logits: torch.Tensor = model(**batch.inputs, use_cache=False).logits
        return logits[0]

    def predictions(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """Return each example's loss sum and number of trained tokens."""
        return list(losses_by_example(outputs, batch))

    def gather(
        self, predictions: Sequence[Any], examples: Dataset, rows: Dataset, label_names: Sequence[str]
    ) -> list[Any]:
        """Sum the losses of each row's examples; see `Scorer.gather`."""
        found: dict[int, Answer] = {number: Answer() for number in rows["row"]}
        for number, characters, (loss, items) in zip(examples["row"], examples["characters"], predictions, strict=True):
            sums = found[number]
            found[number] = Answer(sums.loss_sum + loss, sums.items + items, sums.characters + characters)
        return list(found.values())

    def generate(
        self,
        model: PreTrainedModel,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        decoding: Decoding,
    ) -> list[GeneratedText]:
        """Generate the answer to each conversation, or what follows the first third of each text.

        See `GeneratingScorer.generate`.
        """
        return self.continued(model, self.prompts(model, rows, tokenizer, max_length, decoding), tokenizer, decoding)

    def continued(
        self, model: PreTrainedModel, ids: list[list[int]], tokenizer: PreTrainedTokenizerBase,
        decoding: Decoding, answers: Sequence[int] = (),
    ) -> list[GeneratedText]:  # fmt: skip
        """Generate what follows each prompt.

        Args:
            model: The model.
            ids: Token ids of each prompt, as `prompts` returns them.
            tokenizer: Tokenizer of the model.
            decoding: How texts are generated.
            answers: Which answer to its prompt each is, where several are drawn.

        Returns:
            The texts.
        """
        inputs = tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt").to(model.device)
        numbers = decoding.numbers(self.settings.training.seed, ids, answers)
        return generate_texts(model, dict(inputs), tokenizer, decoding, inputs["input_ids"].shape[1], numbers)

    def prompts(
        self,
        model: PreTrainedModel,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        decoding: Decoding,
    ) -> list[list[int]]:
        """Return the token ids that a text is generated after, for each row; see `GeneratingScorer.generate`."""
        positions = positions_of(model) or max_length + decoding.max_new_tokens
        room = max(1, min(max_length, positions - decoding.max_new_tokens))
        if "messages" in rows[0]:
            template = ChatTemplate.of(tokenizer)
            return [prompt_ids(as_conversation(row["messages"], row.get("tools", "")), template, room) for row in rows]
        texts = [read_end(tokenizer, _beginning(row["text"]), room) for row in rows]
        return [tokenizer(text)["input_ids"][-room:] for text in texts]

    def metrics(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute loss and perplexity per trained token and per character, and metrics of the generated texts.

        The values per character compare models with different tokenizers. Generated answers are compared with those of
        the data; a plain text has many good continuations, so those are not.
        """
        found = {"loss": loss, "perplexity": math.exp(min(loss, 700))}
        characters = sum(prediction.characters for prediction in predictions)
        if characters:
            found["loss_per_char"] = sum(prediction.loss_sum for prediction in predictions) / characters
            found["perplexity_per_char"] = math.exp(min(found["loss_per_char"], 700))
        if "messages" in rows:
            pairs = generated_pairs(predictions, rows["messages"])
            found |= self.compared([(made, last_turn(messages)[1]) for made, messages in pairs])
        return found | self.quality(predictions)


class ConversationPresenter(GeneratedTextPresenter):
    """Shows questions with expected and generated answers, and texts with their continuation."""

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return the last question and its answer, or the beginning of a text; see `Presenter.show`."""
        if "text" in row:
            return _beginning(row["text"]), ""
        return last_turn(row["messages"])


def last_turn(cell: str) -> tuple[str, str]:
    """Return the last question of a conversation, and its answer or "", from `messages` as JSON."""
    messages = json.loads(cell)
    has_answer = messages[-1]["role"] in ("assistant", SEGMENT)
    asked = messages[-2] if has_answer and len(messages) > 1 else messages[-1]
    return asked["content"], _shown(messages[-1]) if has_answer else ""


def _shown(answer: Mapping[str, Any]) -> str:
    """Return an answer's text, or the calls of tools that it consists of."""
    calls = answer.get("tool_calls", [])
    return answer["content"] or "".join(json.dumps(call["function"], ensure_ascii=False) for call in calls)


def as_conversation(messages: str, tools: str) -> Conversation:
    """Return a conversation from the cells of a clean row, JSON both; `tools` may be empty."""
    return Conversation(tuple(json.loads(messages)), tuple(json.loads(tools)) if tools else ())


def tools_of(rows: RowColumns) -> Sequence[str]:
    """Return the cell of tools of each row; rows of plain text have none."""
    return rows["tools"] if "tools" in rows else [""] * len(rows["row"])


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.eos_token_id is None or not tokenizer.is_fast:
        encoder = _IS_ENCODER if tokenizer.eos_token_id is None and tokenizer.mask_token_id is not None else ""
        raise ModelError(
            "text-generation에는 끝 토큰(eos)이 있는 fast tokenizer가 필요합니다.",
            where="model.name",
            remedy=f"{encoder}tokenizer.json이 있고 eos_token이 정해진 모델을 고르세요.",
        )


def _beginning(text: str) -> str:
    return text[: max(1, len(text) // 3)]


def _text_examples(text: str, tokenizer: PreTrainedTokenizerBase, max_length: int, special: Set[int]) -> list[Encoded]:
    """Encode a text and its end token in pieces of max_length, so that a long text is used completely."""
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, places = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    if ids[-1:] != [tokenizer.eos_token_id]:
        ids, places = [*ids, tokenizer.eos_token_id], [*places, (0, 0)]
    made = []
    for start in range(0, len(ids), max_length):
        piece, spans = ids[start : start + max_length], places[start : start + max_length]
        trained = [True] * len(piece)
        if len(piece) > 1:
            made.append(Encoded(piece, trained, len(piece), trained_characters(piece, trained, spans, special)))
    return made or [Encoded([], [], len(ids), 0)]
