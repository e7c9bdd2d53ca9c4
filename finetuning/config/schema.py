"""The settings of a run: one typed, frozen model per section of config.yaml.

The sections stand in `finetuning/config/sections/`. `python -m finetuning.config.reference` rewrites config.yaml, the
the tables of docs/settings.md, the flag table and schema.json after a change.
"""

from __future__ import annotations

from typing import Any, Literal

import yaml

from finetuning.config.metadata import Section, fields_of, setting, value_at
from finetuning.config.sections.data import DataSettings
from finetuning.config.sections.distributed import DistributedSettings
from finetuning.config.sections.model import AdapterSettings, ModelSettings
from finetuning.config.sections.reporting import ExpectationSettings, LoggingSettings
from finetuning.config.sections.tasks import (
    EmbeddingSettings,
    FillMaskSettings,
    GenerationSettings,
    PreferenceSettings,
    QuestionAnsweringSettings,
    RerankerSettings,
    Text2TextSettings,
    TextClassificationSettings,
    TextGenerationSettings,
)
from finetuning.config.sections.training import MemorySettings, TrainingSettings

__all__ = [
    "AdapterSettings",
    "DataSettings",
    "DistributedSettings",
    "EmbeddingSettings",
    "ExpectationSettings",
    "FillMaskSettings",
    "GenerationSettings",
    "LoggingSettings",
    "MemorySettings",
    "ModelSettings",
    "PreferenceSettings",
    "QuestionAnsweringSettings",
    "RerankerSettings",
    "Settings",
    "Text2TextSettings",
    "TextClassificationSettings",
    "TextGenerationSettings",
    "TrainingSettings",
    "all_keys",
    "cache_dependencies",
]


class Settings(Section):
    """All settings of a run, checked and frozen."""

    model: ModelSettings = setting(ModelSettings(), "모델과 태스크", "model and task")
    data: DataSettings = setting(DataSettings(), "데이터", "data")
    training: TrainingSettings = setting(TrainingSettings(), "학습", "training")
    memory: MemorySettings = setting(MemorySettings(), "메모리", "memory")
    distributed: DistributedSettings = setting(DistributedSettings(), "여러 프로세스", "several processes")
    fill_mask: FillMaskSettings = setting(FillMaskSettings(), "fill-mask 태스크", "fill-mask task")
    text_classification: TextClassificationSettings = setting(
        TextClassificationSettings(), "텍스트 분류와 회귀", "text classification and regression"
    )
    question_answering: QuestionAnsweringSettings = setting(
        QuestionAnsweringSettings(), "질의응답 태스크", "question-answering task"
    )
    text_generation: TextGenerationSettings = setting(TextGenerationSettings(), "언어 모델", "language models")
    preference: PreferenceSettings = setting(PreferenceSettings(), "선호 학습", "training on preferences")
    embedding: EmbeddingSettings = setting(EmbeddingSettings(), "임베딩", "embeddings")
    reranker: RerankerSettings = setting(RerankerSettings(), "리랭커", "rerankers")
    text2text: Text2TextSettings = setting(
        Text2TextSettings(), "번역, 요약 같은 태스크", "translation, summaries and the like"
    )
    generation: GenerationSettings = setting(GenerationSettings(), "텍스트를 생성하는 방법", "how texts are generated")
    expectation: ExpectationSettings = setting(
        ExpectationSettings(),
        "공개된 점수. 학습이 끝나면 재현했는지 확인합니다. 레시피에 있습니다",
        "published score of a recipe; the end of the run says whether it was reproduced",
    )
    logging: LoggingSettings = setting(LoggingSettings(), "로그", "log")

    def to_yaml(self) -> str:
        """Write the complete settings as YAML that reads back as the same settings."""
        return yaml.safe_dump(self.model_dump(), allow_unicode=True, sort_keys=False)


def all_keys() -> list[str]:
    """List every setting as `section.key`, in the order of config.yaml."""
    return [field.key for field in fields_of(Settings)]


def cache_dependencies(settings: Settings, stage: Literal["rows", "examples"]) -> dict[str, Any]:
    """Return the settings that a stage of the data cache depends on.

    Args:
        settings: The settings in force; a subclass with further sections works too.
        stage: `rows` for the cleaned rows, `examples` for the tokenised examples, which depend on the rows' as well.

    Returns:
        JSON values by dotted key. The same values mean that cached data can be used again.
    """
    stages = ("rows",) if stage == "rows" else ("rows", "examples")
    return {field.key: value_at(settings, field.key) for field in fields_of(type(settings)) if field.cache in stages}
