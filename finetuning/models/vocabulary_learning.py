"""Learning Korean pieces for a byte-level BPE tokenizer: BPE continues over the training texts from its own merges.

Pairs are merged only if their piece contains bytes that only Hangul has.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from exceptions import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Pair = tuple[str, str]

MOST_CHARACTERS = 20_000_000  # more text takes minutes and adds rare words
_LEAST_COUNT = 2  # a word or pair that occurs less often is no evidence
_UNICODE_BLOCKS = ((0x1100, 0x1200), (0x3140, 0x3180), (0xAC00, 0xD7C0))  # jamo, compatibility jamo, syllables
_SAME_LEAD = 64  # characters in a row whose UTF-8 differs in the last of three bytes alone


@dataclass(frozen=True)
class Learned:
    """Merges that were learned from texts.

    Attributes:
        merges: Pairs of pieces, in the order that they are applied in.
        texts: The number of texts that were read.
        characters: The number of characters in them.
    """

    merges: tuple[Pair, ...]
    texts: int
    characters: int

    def to_json(self) -> str:
        """Return the merges as one line of JSON."""
        return json.dumps(
            {"texts": self.texts, "characters": self.characters, "merges": self.merges}, ensure_ascii=False
        )

    @classmethod
    def from_json(cls, text: str) -> Learned:
        """Read what to_json wrote; ValueError, KeyError or TypeError if it is something else."""
        value = json.loads(text)
        return cls(tuple((left, right) for left, right in value["merges"]), value["texts"], value["characters"])


def learn(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, wanted: int) -> Learned:
    """Learn merges from the first MOST_CHARACTERS characters of the texts.

    Args:
        texts: The texts. Their order matters only where there are more characters than that.
        tokenizer: A byte-level BPE tokenizer, left as it is.
        wanted: The number of new pieces; fewer are learned from texts that have fewer.

    Returns:
        The merges.

    Raises:
        DataError: No Hangul occurs twice in the texts.
    """
    backend = tokenizer.backend_tokenizer
    words, read, characters = Counter[str](), 0, 0
    hangul = _hangul_leads()
    for text in texts:
        read, characters = read + 1, characters + len(text)
        normal = backend.normalizer.normalize_str(text) if backend.normalizer is not None else text
        words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal) if _has_hangul(word, hangul))
        if characters >= MOST_CHARACTERS:
            break
    repeated = {word: count for word, count in words.items() if count >= _LEAST_COUNT}
    merges = _merges(repeated, backend.model, set(tokenizer.get_vocab()), wanted, hangul)
    if not merges:
        raise DataError(
            "어휘에 추가할 한국어 서브워드를 찾지 못했습니다. 학습 데이터에 두 번 이상 나오는 한글 어절이 없습니다.",
            where=f"model.extend_vocabulary: {wanted:,}, 텍스트 {read:,}개",
            remedy=remedy("한국어 텍스트를 더 넣으세요."),
        )
    return Learned(tuple(merges), read, characters)


def remedy(alternative: str) -> str:
    """Return what to do where a vocabulary cannot be extended: not to, or the alternative, a Korean sentence."""
    return f"model.extend_vocabulary를 null로 두거나, {alternative}"


def _hangul_leads() -> frozenset[str]:
    """Return the pairs of leading bytes that only Hangul has, as byte-level tokenizers spell them."""
    from tokenizers import pre_tokenizers

    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    characters = [chr(code) for block in _UNICODE_BLOCKS for code in range(*block, _SAME_LEAD)]
    return frozenset(spell.pre_tokenize_str(character)[0][0][:2] for character in characters)


def _has_hangul(piece: str, hangul: frozenset[str]) -> bool:
    return any(piece[start : start + 2] in hangul for start in range(len(piece) - 1))


def _merges(
    words: Mapping[str, int], model: Any, vocabulary: set[str], wanted: int, hangul: frozenset[str]
) -> list[Pair]:
    """Continue byte pair encoding (Sennrich et al. 2016) after the tokenizer's own merges.

    The most frequent pair whose piece has Hangul in it is merged first; of equally frequent pairs, the first by name.
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
        if counts[pair] < _LEAST_COUNT:
            continue
        if counts[pair] != -frequency:  # another merge used some of them: put the pair back by its count now
            heapq.heappush(heap, (-counts[pair], pair))
            continue
        piece = pair[0] + pair[1]
        merges.append(pair)
        made += piece not in vocabulary  # a known piece gets another way to be made, and no new id
        vocabulary.add(piece)
        changed = set[Pair]()
        for number in places.pop(pair):
            count(number, -1)
            spelled[number] = _merged(spelled[number], pair)
            count(number, 1)
            changed.update(near for near in pairwise(spelled[number]) if piece in near)
        for near in changed:
            heapq.heappush(heap, (-counts[near], near))  # contains the piece, and so Hangul
    return merges


def _merged(symbols: Sequence[str], pair: Pair) -> list[str]:
    """Return a word's symbols with each occurrence of the pair made one symbol."""
    made, position = list[str](), 0
    while position < len(symbols):
        if tuple(symbols[position : position + 2]) == pair:
            made.append(pair[0] + pair[1])
            position += 2
        else:
            made.append(symbols[position])
            position += 1
    return made
