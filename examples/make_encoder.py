"""Makes the blank encoder of examples/: a WordPiece vocabulary from texts, and a small BERT with random weights.

usage: python examples/make_encoder.py NSMC TEXTS OUT_DIR

NSMC is a clone of https://github.com/e9t/nsmc: its folder `raw` has all 712,000 reviews, CC0. TEXTS is written: one
review a line, without those of ratings_test.txt. The next step trains: examples/pretrain_encoder.py.
"""

from __future__ import annotations

import argparse
import json
import random
import unicodedata
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

VOCABULARY_SIZE = 10_000
ALPHABET = 1_800  # characters; one text in a thousand has another
SHORTEST = 4  # characters of a text
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def texts_of(nsmc: Path) -> list[str]:
    """Return the distinct reviews in NFC and in random order, without those of the test file, by number and by text."""
    rows = (nsmc / "ratings_test.txt").read_text(encoding="utf-8").split("\n")[1:]
    test = [row.split("\t") for row in rows if row]
    numbers, seen = {row[0] for row in test}, {plain(row[1]) for row in test}
    found: dict[str, str] = {}
    for file in sorted((nsmc / "raw").glob("*.json")):
        for review in json.loads(file.read_text(encoding="utf-8")):
            text = plain(review["review"])
            if review["review_id"] not in numbers and text not in seen and len(text) >= SHORTEST:
                found[review["review_id"]] = text
    texts = list(dict.fromkeys(found.values()))
    random.Random(0).shuffle(texts)
    return texts


def plain(text: str) -> str:
    """Return a text in NFC with single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a lower-case WordPiece tokenizer. It strips no accents, which would take Hangul syllables apart."""
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    pieces.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY_SIZE, special_tokens=SPECIAL_TOKENS, min_frequency=3, limit_alphabet=ALPHABET
    )
    pieces.train_from_iterator(texts, trainer)
    cls_id, sep_id = pieces.token_to_id("[CLS]"), pieces.token_to_id("[SEP]")
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls_id), ("[SEP]", sep_id)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        model_max_length=256,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def blank_model(vocabulary_size: int) -> BertForMaskedLM:
    """Build a BERT of about 5.9 million parameters: 4 layers of 256 units, positions for 256 tokens."""
    torch.manual_seed(0)
    return BertForMaskedLM(
        BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=256,
            num_hidden_layers=4,
            num_attention_heads=8,
            intermediate_size=1024,
            max_position_embeddings=256,
            pad_token_id=0,
            hidden_dropout_prob=0.0,  # no text is seen often enough to be learned by heart
            attention_probs_dropout_prob=0.0,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nsmc", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("out_dir", type=Path)
    arguments = parser.parse_args()
    texts = texts_of(arguments.nsmc)
    arguments.texts.parent.mkdir(parents=True, exist_ok=True)
    arguments.texts.write_text("\n".join(texts) + "\n", encoding="utf-8")
    tokenizer = train_tokenizer(texts)
    model = blank_model(len(tokenizer))
    model.save_pretrained(arguments.out_dir)
    tokenizer.save_pretrained(arguments.out_dir)
    size = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{arguments.texts}: {len(texts):,} texts. {arguments.out_dir}: {size:,} parameters, {len(tokenizer):,} tokens"
    )


if __name__ == "__main__":
    main()
