"""The format `merged`: an adapter merged into its base, as a whole model that `from_pretrained` reads."""

from __future__ import annotations

from pathlib import Path

from exceptions import SettingsError
from finetuning.exports.base import ExportFormat, FineTunedModel


def write_merged(model: FineTunedModel, folder: Path) -> None:
    """Merge an adapter into its base in float32, and write model and tokenizer.

    Args:
        model: The model that was fine-tuned.
        folder: The folder to write to.

    Raises:
        SettingsError: The model is whole already.
    """
    if not model.is_adapter():
        raise SettingsError(
            "어댑터가 아니라 전체 모델이므로 합칠 것이 없습니다.",
            where=model.name,
            remedy="이 폴더를 그대로 쓰세요.",
        )
    tokenizer = model.load_trained_tokenizer()
    model.save(model.load_merged(), tokenizer, folder)


MERGED = ExportFormat("merged", write_merged, "어댑터를 베이스 모델에 합쳐 저장했습니다")
