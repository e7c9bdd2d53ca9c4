"""Reading a model's config, tokenizer and weights through transformers, from the Hub, a folder or a GGUF file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from exceptions import FinetuningError, ModelError
from finetuning.config.schema import Settings
from finetuning.files import may_be_hub_id, similar_name
from finetuning.models import gguf_reader
from finetuning.models.agreement import POSITIONS_AFTER_PADDING, fit_padding_token, steady_attention
from finetuning.models.dtypes import base_dtype
from finetuning.models.errors import explain
from finetuning.models.folder_check import check_folder, check_layers, check_length, check_pieces
from finetuning.models.library import auto_class_of, import_models
from finetuning.models.quantization import check_not_quantised_yet, keep_weights_as_loaded, quantization_config
from finetuning.models.weights import check_finite, check_loaded
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

_GENERATING = {"AutoModelForCausalLM", "AutoModelForSeq2SeqLM"}


class LoadedModel(NamedTuple):
    """A model, and the names of its weights that were not in its files and so are newly initialised."""

    model: PreTrainedModel
    missing: set[str]


@dataclass(frozen=True)
class ModelLoader:
    """Loads the parts of any model for one task. Each `name` is a Hub id, a local folder or a GGUF file.

    Attributes:
        settings: The settings in force.
        task: The task whose auto class the model is loaded with.
    """

    settings: Settings
    task: Task

    def config(self, name: str) -> PreTrainedConfig:
        """Load a model's config, without its weights."""
        import_models()
        from transformers import AutoConfig

        with self.explaining("config.json", name):
            config: PreTrainedConfig = AutoConfig.from_pretrained(**self._location(name))
            check_layers(config, name)
        return config

    def tokenizer(self, name: str) -> PreTrainedTokenizerBase:
        """Load a model's tokenizer, with a padding token where it has none of its own."""
        from transformers import AutoTokenizer

        with self.explaining("tokenizer", name):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(**self._location(name))
            check_pieces(tokenizer, name)
        fit_padding_token(tokenizer, name)
        return tokenizer

    def weights(self, name: str, dtype: str, options: Mapping[str, Any]) -> LoadedModel:
        """Load the task's model in full precision.

        Args:
            name: The model.
            dtype: torch's name of the weights' dtype.
            options: Further arguments of `from_pretrained`.

        Returns:
            The model, and which of its weights are new.

        Raises:
            ModelError: The model cannot be read, its files lack weights outside the head, or have NaN.
        """
        import torch

        auto_class, location = auto_class_of(self.task.auto_class), self._location(name)
        if gguf_reader.is_gguf(name):
            options = {**options, **gguf_reader.dequantizing_options(location)}
        elif "config" in options:
            options["config"].update(steady_attention(options["config"]))
        else:
            options = {**options, **steady_attention(self.config(name))}
        with self.explaining("모델", name):
            model, found = auto_class.from_pretrained(
                **location, dtype=getattr(torch, dtype), output_loading_info=True,
                ignore_mismatched_sizes=True, **options,
            )  # fmt: skip
        if gguf_reader.is_gguf(name):
            gguf_reader.detach_from_format(model, name)
        missing = {*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])}
        check_loaded(model, missing, found["unexpected_keys"], name, self.task.auto_class in _GENERATING)
        check_finite(model, missing, name)
        # of a bare model only the pooler may be missing, which no task reads
        return LoadedModel(model, set() if self.task.auto_class == "AutoModel" else missing)

    def base(self, name: str, options: Mapping[str, Any]) -> LoadedModel:
        """Load the task's model as a base, quantised if `model.quantization` is set.

        Args:
            name: The model.
            options: Further arguments of `from_pretrained`.

        Returns:
            The model, and which of its weights are new.
        """
        dtype = base_dtype(self.settings)
        if self.settings.model.quantization is None:
            return self.weights(name, dtype, options)
        config = options.get("config") or self.config(name)
        check_not_quantised_yet(config, name)
        quantization = quantization_config(self.settings, self.outline(config, name))
        loaded = self.weights(name, dtype, {**options, "quantization_config": quantization})
        keep_weights_as_loaded(loaded.model)
        return loaded

    def outline(self, config: PreTrainedConfig, name: str) -> PreTrainedModel:
        """Build the task's model as a base on the meta device: shapes and dtypes, without weights.

        Args:
            config: The model's config.
            name: The model, for error messages.

        Returns:
            The model. No weight counts as missing, as its files are not looked at.
        """
        import torch

        auto_class, dtype = auto_class_of(self.task.auto_class), getattr(torch, base_dtype(self.settings))
        config.update(steady_attention(config))
        with self.explaining("모델", name), torch.device("meta"):
            model: PreTrainedModel = auto_class.from_config(
                config, dtype=dtype, trust_remote_code=self.settings.model.trust_remote_code
            )
        return model

    def _location(self, name: str) -> dict[str, Any]:
        """Return the arguments of `from_pretrained` that say where a model is."""
        where = gguf_reader.location(name) if gguf_reader.is_gguf(name) else {"pretrained_model_name_or_path": name}
        model = self.settings.model
        return {
            **where,
            "revision": model.revision or "main",
            "cache_dir": model.cache_dir,
            "trust_remote_code": model.trust_remote_code,
        }

    @contextmanager
    def explaining(self, part: str, name: str) -> Iterator[None]:
        """Re-raise any error inside the block as one with a remedy."""
        try:
            yield
        except FinetuningError:
            raise
        except Exception as error:
            raise explain(error, part, name, self.settings, self.task.name) from error


def check_name(name: str) -> str:
    """Check that a model's name can be loaded from, as far as this is known without a network.

    Args:
        name: A Hub id, or the path of a folder or a GGUF file.

    Returns:
        The name, with `~` replaced in a folder's path.

    Raises:
        ModelError: The name is a path to nothing, or to a folder without a config.json.
    """
    path = Path(name).expanduser()
    if gguf_reader.is_gguf(name):
        gguf_reader.location(name)
    elif path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                "폴더에 config.json이 없어 모델로 읽을 수 없습니다.",
                where=str(path),
                remedy="모델이 저장된 폴더(config.json과 model.safetensors가 있는 곳)를 지정하세요.",
            )
        check_folder(path)
        return str(path)
    elif os.path.lexists(path):
        raise ModelError(
            f"모델 폴더가 아니라 {'가리키는 곳이 없는 링크' if path.is_symlink() else '파일'}입니다: {name}",
            where="model.name",
            remedy="모델이 저장된 폴더(config.json과 model.safetensors가 있는 곳)를 지정하세요.",
        )
    elif not may_be_hub_id(name):
        raise ModelError(
            f"모델 폴더가 없습니다: {name}",
            where="model.name",
            remedy=f"{similar_name(path)}경로의 철자를 확인하세요. 지금 폴더는 {Path.cwd()}입니다. "
            "아직 학습하지 않았다면 먼저 학습을 실행하세요.",
        )
    return name


def usable_length(wanted: int, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Limit `data.max_length` to the tokens that the model has positions for, with a warning where it is less.

    Args:
        wanted: `data.max_length`, in tokens.
        config: The model's config.
        tokenizer: The model's tokenizer, which may have a limit of its own.

    Returns:
        The tokens of the longest example.

    Raises:
        ModelError: The model takes too few for any text.
    """
    allowed = longest_input(wanted, config, tokenizer)
    check_length(allowed, str(config.name_or_path))
    if wanted > allowed:
        is_default = wanted == Settings().data.max_length  # nobody asked for it, so nobody is warned
        _log.log(
            logging.DEBUG if is_default else logging.WARNING,
            "data.max_length는 %s이지만 이 모델의 최대 길이는 %s입니다. %s 토큰까지만 사용합니다.",
            f"{wanted:,}", f"{allowed:,}", f"{allowed:,}",
        )  # fmt: skip
    return int(min(wanted, allowed))


def longest_input(otherwise: int, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the tokens that a model has positions for; `otherwise` where neither it nor its tokenizer has a limit."""
    allowed = getattr(config.get_text_config(), "max_position_embeddings", None) or otherwise
    if config.model_type in POSITIONS_AFTER_PADDING:
        allowed -= (config.pad_token_id or 0) + 1
    return int(min(allowed, tokenizer.model_max_length))
