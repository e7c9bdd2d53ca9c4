"""Makes the blank encoder of examples/: a WordPiece vocabulary from texts, and a small BERT with random weights.

usage: python examples/make_encoder.py TEXTS OUT_DIR      (TEXTS: the published ratings_train.txt of NSMC)

The next step trains it: python finetuning_app.py --config recipes/pretrain-encoder.yaml --dataset TEXTS
"""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

VOCABULARY_SIZE = 12_000
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def texts_of(path: Path) -> Iterator[str]:
    """Yield the review column of the published NSMC file, in NFC."""
    with path.open(encoding="utf-8") as file:
        next(file)
        for line in file:
            yield unicodedata.normalize("NFC", line.rstrip("\n").split("\t")[1])


def train_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Train a lower-case WordPiece tokenizer. It strips no accents, which would take Hangul syllables apart."""
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    pieces.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY_SIZE, special_tokens=SPECIAL_TOKENS, min_frequency=3, limit_alphabet=2500
    )
    pieces.train_from_iterator(texts_of(path), trainer)
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
    """Build a BERT of about 4.2 million parameters: 4 layers of 192 units, positions for 256 tokens."""
    torch.manual_seed(0)
    return BertForMaskedLM(
        BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=192,
            num_hidden_layers=4,
            num_attention_heads=6,
            intermediate_size=768,
            max_position_embeddings=256,
            pad_token_id=0,
            hidden_dropout_prob=0.0,  # four passes over the texts leave nothing to regularise
            attention_probs_dropout_prob=0.0,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("out_dir", type=Path)
    arguments = parser.parse_args()
    tokenizer = train_tokenizer(arguments.texts)
    model = blank_model(len(tokenizer))
    model.save_pretrained(arguments.out_dir)
    tokenizer.save_pretrained(arguments.out_dir)
    print(f"{arguments.out_dir}: {sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer):,} tokens")


if __name__ == "__main__":
    main()
