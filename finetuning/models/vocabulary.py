"""Korean pieces for a byte-level BPE tokenizer: its own merges go on over the training texts, after those it has.

What has no Hangul is cut as before: every new piece has bytes in it that only Hangul is written with, and a new merge
comes after all of the tokenizer's own. A new piece's embedding starts as the mean of the embeddings of the pieces that
it replaces.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from exceptions import DataError, ModelError, SettingsError
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Pair = tuple[str, str]

MOST_CHARACTERS = 20_000_000  # of the texts that pieces are learned from: more of them add rare words and minutes
_RARE = 2  # a word or a pair that occurs less often teaches nothing
_UNICODE_BLOCKS = ((0x1100, 0x1200), (0x3140, 0x3180), (0xAC00, 0xD7C0))  # jamo, compatibility jamo, syllables
_SAME_LEAD = 64  # characters in a row whose UTF-8 differs in the last of three bytes alone
_REMEDY = "model.extend_vocabulary를 null로 두거나, {instead}"


@dataclass(frozen=True)
class Learned:
    """Merges in the order they are to be applied, and the texts and characters that they were learned from."""

    merges: tuple[Pair, ...]
    texts: int
    characters: int

    def to_json(self) -> str:
        return json.dumps(
            {"texts": self.texts, "characters": self.characters, "merges": self.merges}, ensure_ascii=False
        )

    @classmethod
    def from_json(cls, text: str) -> Learned:
        value = json.loads(text)
        return cls(tuple((left, right) for left, right in value["merges"]), value["texts"], value["characters"])


@dataclass(frozen=True)
class Extension:
    """New pieces as a model needs to know them: their ids from `first_id` on, and the old ids that each replaces."""

    first_id: int
    replaced: tuple[tuple[int, ...], ...]

    @property
    def rows(self) -> int:
        """How many rows an embedding needs."""
        return self.first_id + len(self.replaced)


# --- what can be extended ---


def check_task(task: Task) -> None:
    """SettingsError where the task's models have no vocabulary that they generate from, token by token."""
    if task.settings.model.extend_vocabulary is None or task.auto_class == "AutoModelForCausalLM":
        return
    raise SettingsError(
        f"{task.name} 태스크에서는 어휘를 넓힐 수 없습니다. 언어 모델(text-generation)에서만 됩니다.",
        where=f"model.extend_vocabulary: {task.settings.model.extend_vocabulary}, model.task: {task.name}",
        remedy=_REMEDY.format(instead="한국어로 사전학습한 모델(예: klue/roberta-base)을 고르세요."),
    )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """ModelError where a tokenizer is not a byte-level BPE: another's pieces are not made by merges of bytes."""
    found = "slow tokenizer"
    if tokenizer.is_fast:
        backend = _described(tokenizer.backend_tokenizer)
        if _is_byte_level(backend):
            return
        found = str(backend["model"]["type"])
        found += " (byte-level이 아님)" if found == "BPE" else ""
    raise ModelError(
        f"이 모델의 tokenizer는 어휘를 넓힐 수 없습니다. byte-level BPE만 됩니다. 이 tokenizer의 종류: {found}",
        where=f"model.extend_vocabulary, model.name: {tokenizer.name_or_path}",
        remedy=_REMEDY.format(
            instead="byte-level BPE인 모델(예: Qwen, Llama 3, SmolLM)이나 한국어로 사전학습한 모델을 고르세요."
        ),
    )


def _is_byte_level(backend: Mapping[str, Any]) -> bool:
    steps = backend["pre_tokenizer"] or {}
    kinds = {step["type"] for step in steps.get("pretokenizers", [steps]) if step}
    return backend["model"]["type"] == "BPE" and "ByteLevel" in kinds


def _described(backend: Tokenizer) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(backend.to_str())
    return described


# --- learning ---


def learn(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, wanted: int) -> Learned:
    """Merges that make `wanted` new pieces, or as many as there are, out of the first MOST_CHARACTERS of the texts.

    DataError where the texts have no Hangul that occurs twice.
    """
    backend = tokenizer.backend_tokenizer
    words, read, characters = Counter[str](), 0, 0
    hangul = _hangul_bytes()
    for text in texts:
        read, characters = read + 1, characters + len(text)
        normal = backend.normalizer.normalize_str(text) if backend.normalizer is not None else text
        words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal) if _has_hangul(word, hangul))
        if characters >= MOST_CHARACTERS:
            break
    repeated = {word: count for word, count in words.items() if count >= _RARE}
    merges = _merges(repeated, backend.model, set(tokenizer.get_vocab()), wanted, hangul)
    if not merges:
        raise DataError(
            "어휘에 더할 한국어 조각을 찾지 못했습니다. 학습 데이터에 두 번 이상 나오는 한글 어절이 없습니다.",
            where=f"model.extend_vocabulary: {wanted:,}, 텍스트 {read:,}개",
            remedy=_REMEDY.format(instead="한국어 텍스트를 더 넣으세요."),
        )
    return Learned(tuple(merges), read, characters)


def _hangul_bytes() -> frozenset[str]:
    """First two bytes of characters that are Hangul whatever the third is, as byte-level tokenizers spell them."""
    from tokenizers import pre_tokenizers

    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    characters = [chr(code) for block in _UNICODE_BLOCKS for code in range(*block, _SAME_LEAD)]
    return frozenset(spell.pre_tokenize_str(character)[0][0][:2] for character in characters)


def _has_hangul(piece: str, hangul: frozenset[str]) -> bool:
    return any(piece[start : start + 2] in hangul for start in range(len(piece) - 1))


def _merges(
    words: Mapping[str, int], model: Any, vocabulary: set[str], wanted: int, hangul: frozenset[str]
) -> list[Pair]:
    """Byte pair encoding (Sennrich et al. 2016) from where the tokenizer's own merges end.

    The most frequent pair whose piece has Hangul in it is merged first, of equally frequent ones the first by name.
    """
    spelled = [[token.value for token in model.tokenize(word)] for word in words]
    weights = list(words.values())
    counts, places = Counter[Pair](), defaultdict[Pair, set[int]](set)

    def count(number: int, sign: int) -> None:
        for pair in pairwise(spelled[number]):
            counts[pair] += sign * weights[number]
            places[pair].add(number)

    for number in range(len(spelled)):
        count(number, 1)
    heap = [(-frequency, pair) for pair, frequency in counts.items() if _has_hangul(pair[0] + pair[1], hangul)]
    heapq.heapify(heap)
    merges, made = list[Pair](), 0
    while heap and made < wanted:
        frequency, pair = heapq.heappop(heap)
        if counts[pair] < _RARE:
            continue
        if counts[pair] != -frequency:  # other merges took some of them
            heapq.heappush(heap, (-counts[pair], pair))
            continue
        piece = pair[0] + pair[1]
        merges.append(pair)
        made += piece not in vocabulary  # else the tokenizer has it by another way
        vocabulary.add(piece)
        changed = set[Pair]()
        for number in places.pop(pair):
            count(number, -1)
            spelled[number] = _merged(spelled[number], pair)
            count(number, 1)
            changed.update(near for near in pairwise(spelled[number]) if piece in near)
        for near in changed:
            heapq.heappush(heap, (-counts[near], near))  # it has the piece, and so its Hangul
    return merges


def _merged(symbols: Sequence[str], pair: Pair) -> list[str]:
    made, position = list[str](), 0
    while position < len(symbols):
        if tuple(symbols[position : position + 2]) == pair:
            made.append(pair[0] + pair[1])
            position += 2
        else:
            made.append(symbols[position])
            position += 1
    return made


# --- the tokenizer and the model ---


def extend_tokenizer(tokenizer: PreTrainedTokenizerBase, merges: Sequence[Pair]) -> Extension:
    """Appends the merges to the tokenizer's own, in place; new pieces get ids after all that there are."""
    from tokenizers import Tokenizer

    backend = tokenizer.backend_tokenizer
    described, known = _described(backend), tokenizer.get_vocab()
    first_id = max(known.values()) + 1
    pieces = [piece for piece in dict.fromkeys(left + right for left, right in merges) if piece not in known]
    replaced = tuple(tuple(token.id for token in backend.model.tokenize(piece)) for piece in pieces)
    model = described["model"]
    # Added tokens are among the old: their ids would be holes in the vocabulary, of which tokenizers warns.
    model["vocab"] = known | {piece: first_id + number for number, piece in enumerate(pieces)}
    model["merges"] = [*model["merges"], *(list(pair) for pair in merges)]
    backend.model = Tokenizer.from_str(json.dumps(described)).model
    return Extension(first_id, replaced)


def resize(model: PreTrainedModel, rows: int) -> None:
    """Gives the embedding and the head at least so many rows; what is tied stays tied."""
    embedding: Any = model.get_input_embeddings()
    if len(embedding.weight) < rows:
        model.resize_token_embeddings(rows, mean_resizing=False)


def give_rows(model: PreTrainedModel, extension: Extension) -> None:
    """Gives a model rows for the new pieces, each the mean of the rows of those that it replaces."""
    import torch

    resize(model, extension.rows)
    with torch.no_grad():
        for parameter in vocabulary_parameters(model).values():
            means = [parameter[list(ids)].float().mean(0) for ids in extension.replaced]
            parameter[extension.first_id : extension.rows] = torch.stack(means).to(parameter.dtype)


def vocabulary_parameters(model: PreTrainedModel) -> dict[str, Any]:
    """The parameters with a row for each token, by name: the embedding and, where it is not tied, the head."""
    modules = [model.get_input_embeddings(), model.get_output_embeddings()]
    own = {id(parameter) for module in modules if module is not None for parameter in module.parameters()}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in own}


def train_vocabulary(model: PreTrainedModel) -> None:
    """Leaves embedding and head to be trained, whatever else of the model is."""
    for parameter in vocabulary_parameters(model).values():
        parameter.requires_grad_(True)
