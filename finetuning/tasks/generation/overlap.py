"""BLEU and ROUGE-L of generated texts, by character and, with kiwipiepy, by morpheme."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Morphemes = Callable[[str], list[str]]


def load_morphemes() -> Morphemes | None:
    """Return a function from a text to the forms of its morphemes (Kiwi's default model), None without kiwipiepy."""
    try:
        from kiwipiepy import Kiwi
    except ImportError:
        return None
    kiwi = Kiwi(num_workers=1)

    def morphemes(text: str) -> list[str]:
        return ["".join(token.form.split()) for token in kiwi.tokenize(text)]

    return morphemes


def overlap(made: Sequence[str], truths: Sequence[str], morphemes: Morphemes | None) -> dict[str, float]:
    """Compare generated texts with the expected ones.

    Args:
        made: Generated texts.
        truths: The expected text of each.
        morphemes: Function from a text to its morphemes, if there is one.

    Returns:
        `bleu_char` (0 to 100, sacrebleu's over all texts) and `rouge_l` (0 to 1, mean over the texts, white space not
        counted), and `bleu_morpheme` and `rouge_l_morpheme` if morphemes are given.
    """
    from sacrebleu.metrics import BLEU

    found = {
        "bleu_char": float(BLEU(tokenize="char").corpus_score(made, [truths]).score),
        "rouge_l": _mean_rouge_l([_characters(text) for text in made], [_characters(text) for text in truths]),
    }
    if morphemes is not None:
        parts, right = [morphemes(text) for text in made], [morphemes(text) for text in truths]
        joined, wanted = [" ".join(part) for part in parts], [" ".join(part) for part in right]
        by_morpheme = BLEU(tokenize="none", force=True)  # silences the advice not to pass tokenized texts
        found["bleu_morpheme"] = float(by_morpheme.corpus_score(joined, [wanted]).score)
        found["rouge_l_morpheme"] = _mean_rouge_l(parts, right)
    return found


def rouge_l(made: Sequence[str], truth: Sequence[str]) -> float:
    """Return the F1 of the longest common subsequence of two lists of characters or morphemes (Lin 2004)."""
    if not made or not truth:
        return float(len(made) == len(truth))
    row = np.zeros(len(truth) + 1, dtype=np.int64)
    wanted = np.array(truth, dtype=object)
    for unit in made:
        grown = np.maximum(row[1:], row[:-1] + (wanted == unit))
        row[1:] = np.maximum.accumulate(grown)
    return 2 * int(row[-1]) / (len(made) + len(truth))


def _characters(text: str) -> list[str]:
    return list("".join(text.split()))


def _mean_rouge_l(made: Sequence[Sequence[str]], truths: Sequence[Sequence[str]]) -> float:
    return float(np.mean([rouge_l(one, truth) for one, truth in zip(made, truths, strict=True)]))
