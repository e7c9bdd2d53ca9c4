"""Models that were fine-tuned before: whole ones, and adapters put back together with their base."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exceptions import ModelError
from finetuning.models.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, base_of, tell_changed_base
from finetuning.models.errors import explain
from finetuning.models.loading import LoadedModel, ModelLoader
from finetuning.models.mixed import Share, add_weighted
from finetuning.models.vocabulary import cover
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedConfig, PreTrainedModel

_log = logging.getLogger(__name__)
_PREFIX = "base_model.model."  # of names in an adapter's file


def is_adapter(folder: Path | str) -> bool:
    """Return whether a folder holds an adapter, without the weights of its base."""
    return (Path(folder) / ADAPTER_CONFIG).is_file()


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

    def merged(self, shares: Sequence[Share] = ()) -> PreTrainedModel:
        """Merge the adapter into its base in float32, even if it was trained on a quantised base.

        Merging into quantised weights would round them a second time; Dettmers et al. 2023 merge into full precision.

        Args:
            shares: This adapter's part and those of others that are merged with it; none for the whole of this one.

        Returns:
            The merged model.
        """
        base, _ = self.loader.weights(self.base_name, "float32", {"config": self.base_config()})
        attached = self._attached(base)
        model: PreTrainedModel = add_weighted(attached, shares) if shares else attached.merge_and_unload()
        return model

    def beside_base(self) -> PreTrainedModel:
        """Load the base as in training, and load the adapter on top without merging it."""
        base, _ = self.loader.base(self.base_name, {"config": self.base_config()})
        model: PreTrainedModel = self._attached(base).get_base_model()
        return model

    # --- training on ---

    def tell(self) -> None:
        """Log that this adapter is trained on, and its shape."""
        config = self.config()
        kind = "DoRA" if config.use_dora else "LoRA"
        _log.info(
            "저장된 어댑터를 이어서 학습합니다: %s (%s, r %s, alpha %g, 베이스 모델: %s)",
            self.folder, kind, config.r, config.lora_alpha, self.base_name,
        )  # fmt: skip

    def config(self) -> LoraConfig:
        """Return peft's config of the adapter."""
        from peft import LoraConfig

        with self.loader.explaining("어댑터", self.folder):
            config: LoraConfig = LoraConfig.from_pretrained(self.folder)
        return config

    def base_to_train(self, options: Mapping[str, Any]) -> LoadedModel:
        """Load the base that the adapter goes on, under the adapter's config.

        Args:
            options: Attributes of the config that the task sets, such as the labels.

        Returns:
            The base, and which of its weights are new.
        """
        config = self.base_config()
        config.update(dict(options))
        tell_changed_base(Path(self.folder), self.base_name, self.loader.settings.model)
        return self.loader.base(self.base_name, {"config": config})

    def load_into(self, model: PreTrainedModel, missing: Set[str]) -> set[str]:
        """Load the adapter's weights, and the heads and embeddings that were trained with it, into a model in place.

        Args:
            model: The base with an adapter of the same shape, in the dtype that it is trained in.
            missing: Names of the weights that the base's files lack.

        Returns:
            Names of the weights that are new nevertheless: those of a head of other labels.

        Raises:
            ModelError: The file lacks weights of the adapter, or has others.
        """
        from peft import set_peft_model_state_dict
        from peft.utils.other import ModulesToSaveWrapper
        from safetensors.torch import load_file

        with self.loader.explaining("어댑터", self.folder):
            weights = {
                key.removeprefix(_PREFIX): tensor
                for key, tensor in load_file(Path(self.folder) / ADAPTER_WEIGHTS).items()
            }
            heads = {
                f"{name}.{key}": tensor
                for name, module in model.named_modules()
                if isinstance(module, ModulesToSaveWrapper)
                for key, tensor in module.modules_to_save["default"].state_dict().items()
            }
            new = {key for key, own in heads.items() if key not in weights or weights[key].shape != own.shape}
            found: Any = set_peft_model_state_dict(model, {**weights, **{key: heads[key] for key in new}})
        lacking = [key for key in found.missing_keys if "lora_" in key]
        if lacking or found.unexpected_keys:
            raise ModelError(
                "어댑터의 가중치가 이 베이스 모델과 맞지 않습니다.",
                where=f"{self.folder} ({', '.join((lacking or found.unexpected_keys)[:3])})",
                remedy=f"{ADAPTER_CONFIG}의 베이스 모델이 어댑터를 학습한 모델인지 확인하세요.",
            )
        return new & ({*missing} | {key for key in new if key in weights})

    @property
    def base_name(self) -> str:
        """Name of the base, which it can be loaded by."""
        return base_of(Path(self.folder))

    def base_config(self) -> PreTrainedConfig:
        """Return the adapter's config with the base's vocabulary size, and no padding id beyond it."""
        config = self.loader.config(self.folder)
        tokens = config.get_text_config()
        tokens.vocab_size = self.loader.config(self.base_name).get_text_config().vocab_size
        for part in (config, tokens):
            if (getattr(part, "pad_token_id", None) or 0) >= tokens.vocab_size:
                part.pad_token_id = None
        return config

    def _attached(self, base: PreTrainedModel) -> Any:
        """Give the base as many token rows as the adapter has, and its padding id, and put the adapter on it."""
        from peft import PeftModel

        own = self.loader.config(self.folder)
        tell_changed_base(Path(self.folder), self.base_name, self.loader.settings.model)
        cover(base, int(own.get_text_config().vocab_size))
        base.config.pad_token_id = getattr(own, "pad_token_id", None)
        base.config.get_text_config().pad_token_id = getattr(own.get_text_config(), "pad_token_id", None)
        try:
            return PeftModel.from_pretrained(base, self.folder)
        except Exception as error:
            raise explain(error, "어댑터", self.folder, self.loader.settings, self.loader.task.name) from error
