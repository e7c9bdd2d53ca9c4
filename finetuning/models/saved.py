"""Models that were fine-tuned before: whole ones, and adapters put back together with their base."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exceptions import ModelError
from finetuning.files import typed
from finetuning.models.adapter_files import ADAPTER_CONFIG, base_of
from finetuning.models.errors import explain
from finetuning.models.loading import ModelLoader
from finetuning.models.vocabulary import cover
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def is_adapter(folder: Path | str) -> bool:
    """Return whether a folder holds an adapter, without the weights of its base."""
    return (Path(folder) / ADAPTER_CONFIG).is_file()


def check_whole(name: str) -> None:
    """Raise ModelError for the folder of an adapter, which no training can begin with: it has no weights of a model."""
    if is_adapter(name):
        raise ModelError(
            "어댑터만 있는 폴더라 새 학습을 시작할 수 없습니다.",
            where=f"model.name: {name}",
            remedy=f"먼저 `python finetuning_app.py export --model_name {typed(name)}` 명령으로 베이스 모델에 "
            f"합치고, --model_name {typed(Path(name) / 'merged')} 플래그로 학습하세요.",
        )


def label_names(config: PreTrainedConfig) -> tuple[str, ...]:
    """Return the labels in a model's config, in the order of their ids."""
    names = config.id2label or {}
    return tuple(str(names[position]) for position in sorted(names))  # type: ignore[index]


def check_trained(task: Task, config: PreTrainedConfig, missing: Set[str], name: str) -> None:
    """Check that a model was trained for the task.

    Args:
        task: The task.
        config: The model's config.
        missing: Names of the weights that its files lack.
        name: The model, for the error message.

    Raises:
        ModelError: It lacks weights, or was trained for another kind of problem.
    """
    labels = label_names(config) if task.reads.has_labels else ()
    kind = task.scores.config_options(labels).get("problem_type")
    if not missing and config.problem_type in (None, kind):
        return
    what = f"없는 가중치: {', '.join(sorted(missing)[:3])}" if missing else f"이 모델의 종류: {config.problem_type}"
    raise ModelError(
        f"{task.name} 태스크로 학습한 모델이 아닙니다.",
        where=f"{name} ({what})",
        remedy="먼저 이 태스크로 학습하거나, 모델을 학습한 태스크를 --task로 지정하세요.",
    )


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter in a folder, and the base that its config names.

    Attributes:
        loader: Loads configs and weights.
        folder: The adapter's folder.
    """

    loader: ModelLoader
    folder: str

    def merged(self) -> PreTrainedModel:
        """Merge the adapter into its base in float32, even if it was trained on a quantised base.

        Merging into quantised weights would round them a second time; Dettmers et al. 2023 merge into full precision.
        """
        base, _ = self.loader.weights(base_of(Path(self.folder)), "float32", {"config": self._base_config()})
        model: PreTrainedModel = self._attached(base).merge_and_unload()
        return model

    def beside_base(self) -> PreTrainedModel:
        """Load the base as in training, and load the adapter on top without merging it."""
        base, _ = self.loader.base(base_of(Path(self.folder)), {"config": self._base_config()})
        model: PreTrainedModel = self._attached(base).get_base_model()
        return model

    def _base_config(self) -> PreTrainedConfig:
        """Return the adapter's config with the base's vocabulary size, and no padding id beyond it."""
        config = self.loader.config(self.folder)
        tokens = config.get_text_config()
        tokens.vocab_size = self.loader.config(base_of(Path(self.folder))).get_text_config().vocab_size
        for part in (config, tokens):
            if (getattr(part, "pad_token_id", None) or 0) >= tokens.vocab_size:
                part.pad_token_id = None
        return config

    def _attached(self, base: PreTrainedModel) -> Any:
        """Give the base as many token rows as the adapter has, and its padding id, and put the adapter on it."""
        from peft import PeftModel

        own = self.loader.config(self.folder)
        cover(base, int(own.get_text_config().vocab_size))
        base.config.pad_token_id = getattr(own, "pad_token_id", None)
        base.config.get_text_config().pad_token_id = getattr(own.get_text_config(), "pad_token_id", None)
        try:
            return PeftModel.from_pretrained(base, self.folder)
        except Exception as error:
            raise explain(error, "어댑터", self.folder, self.loader.settings, self.loader.task.name) from error
