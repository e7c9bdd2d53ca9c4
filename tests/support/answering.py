"""Questions about a small context, and a tokenizer that knows every syllable."""

from __future__ import annotations

from typing import Any

from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task

CONTEXT = "한글은 세종대왕이 1443년에 만들었다. 처음 이름은 《훈민정음》이었다."


def task_of(**options: Any) -> Any:
    return find_task(Settings.model_validate({"model": {"task": "질의응답"}, "question_answering": options}))


def row_of(question: str, context: str, *answers: str) -> dict[str, Any]:
    return {
        "question": question,
        "context": context,
        "answers": [{"text": answer, "answer_start": context.index(answer)} for answer in answers],
    }


def character_tokenizer() -> Any:
    """A character tokenizer with segments, its pieces those of Unicode's Hangul block and ASCII."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in (*range(33, 127), *range(0xAC00, 0xD7A4))] + list("《》‘’")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
    backend = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
