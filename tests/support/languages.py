"""Tokenizers of multilingual text-to-text models, and models of random weights for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.architectures import SEQ2SEQ, made

_LETTERS = sorted(set("안녕하세요반갑습니다고맙질문답가나다라 0123456789abcdefghijklmnopqrstuvwxyzAI"))


def tokenizer_of(kind: str, **options: Any) -> Any:
    """A tokenizer of letters: mbart, mbart50 or nllb, with the language codes of its kind."""
    from transformers import MBart50Tokenizer, MBartTokenizer, NllbTokenizer
    from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES as MBART_CODES
    from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES as MBART50_CODES

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *(letter for letter in _LETTERS if letter != " ")]
    if kind == "nllb":
        return NllbTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, **options)
    scored = [(piece, -float(number)) for number, piece in enumerate(pieces)]
    codes = [(code, 0.0) for code in (MBART_CODES if kind == "mbart" else MBART50_CODES)]
    made_by = MBartTokenizer if kind == "mbart" else MBart50Tokenizer
    return made_by(vocab=[*scored, *codes, ("<mask>", 0.0)], **options)


def config_for(kind: str, tokenizer: Any, **options: Any) -> Any:
    """The config of a model for such a tokenizer. That of mbart has no start token, as those on the Hub."""
    name = "m2m_100" if kind == "nllb" else "mbart"
    start = {} if kind == "mbart" else {"decoder_start_token_id": 2}
    ids = {
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "vocab_size": 1 + max(tokenizer.get_vocab().values()),
    }
    return made(SEQ2SEQ[name], **{**ids, **start, **options})


def save_model(kind: str, folder: Path, **options: Any) -> Path:
    """Save such a model and its tokenizer."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    tokenizer = tokenizer_of(kind, **options)
    torch.manual_seed(0)
    AutoModelForSeq2SeqLM.from_config(config_for(kind, tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
