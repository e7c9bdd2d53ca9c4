"""ModelManager: a task's tokenizer and model: load, adapt, save."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import SettingsError
from finetuning.config.schema import Settings
from finetuning.models.adapter_files import base_weights, describe, hash_base
from finetuning.models.adapters import METHODS, choose_trained
from finetuning.models.agreement import (
    TokenRows,
    check_supported,
    fit_end,
    fit_segments,
    fit_special_ids,
    tell_differences,
)
from finetuning.models.dtypes import base_dtype, cast_trained
from finetuning.models.loading import ModelLoader, check_name, longest_input, usable_length
from finetuning.models.mixed import Share
from finetuning.models.saved import SavedAdapter, check_trained, is_adapter, label_names
from finetuning.models.saving import check_savable, mend_generation_config, save_pretrained
from finetuning.models.vocabulary import Extension, cover, embedding_rows, initialise_rows, resize, train_vocabulary
from finetuning.models.weights import tell_new_head
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from finetuning.device.sharding import Gathering

_ANY = TokenRows(0, 0)


class ModelManager:
    """Loads and saves the model of one run.

    `name` is what is loaded: a Hub id, a local folder or a GGUF file. It is `model.name` at first; commands point it at
    the folder of a model that was fine-tuned.

    Args:
        settings: The settings in force.
        task: The task that the model is for.
        extension: The pieces that were added to the tokenizer of a model to be trained.
    """

    def __init__(self, settings: Settings, task: Task, extension: Extension | None = None) -> None:
        self.settings, self.task, self.extension = settings, task, extension
        self.name = settings.model.name
        self._loader = ModelLoader(settings, task)
        self.shares: Sequence[Share] = ()  # of adapters that are merged with the one that is named, first
        self._base_hash: str | None = None  # of the base that an adapter is trained on

    # --- before the weights ---

    def load_config(self) -> PreTrainedConfig:
        """Load the model's config, without its weights."""
        self.name = check_name(self.name)
        return self._loader.config(self.name)

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer of a model to train, fitted to the model and the task."""
        if self.is_adapter():
            self._saved_adapter().tell()
        tokenizer = self._read_tokenizer()
        self.task.encodes.fit_tokenizer(tokenizer)
        return tokenizer

    def load_trained_tokenizer(self, template: str | None = None) -> PreTrainedTokenizerBase:
        """Load the tokenizer of a model that was trained, or of a run that goes on: its chat template stays.

        Args:
            template: The chat template that a resumed run began with; None for what is saved with the model.

        Returns:
            The tokenizer, fitted to the model and the task.
        """
        tokenizer = self._read_tokenizer()
        if template is not None:
            tokenizer.chat_template = template
        self.task.encodes.fit_saved_tokenizer(tokenizer)
        return tokenizer

    def _read_tokenizer(self) -> PreTrainedTokenizerBase:
        self.name = check_name(self.name)
        config = self.load_config()
        check_supported(config, self.name)
        tokenizer = self._loader.tokenizer(self.name)
        tell_differences(tokenizer, config)
        fit_segments(tokenizer, config)
        if self.task.auto_class == "AutoModelForSequenceClassification":
            fit_end(tokenizer, config, self.name)
        return tokenizer

    def usable_length(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return `data.max_length`, or the model's longest input in tokens if that is less, with a warning."""
        return usable_length(self.settings.data.max_length, self.load_config(), tokenizer)

    # --- a model to train ---

    def load_model(self, label_names: Sequence[str], rows: TokenRows = _ANY) -> PreTrainedModel:
        """Load the model to train, with a head for these labels and its adapter (dtypes: see models/dtypes.py).

        A saved adapter is trained on: its base is loaded, and its weights.

        Args:
            label_names: Label names in the order of their ids.
            rows: The rows that the tokenizer needs; an embedding of fewer is enlarged.

        Returns:
            The model.
        """
        options, saved = self.task.scores.config_options(label_names), self._saved_adapter()
        model, missing = saved.base_to_train(options) if self.is_adapter() else self._loader.base(self.name, options)
        mend_generation_config(model)
        has_new = self._has_new(model, rows)
        if self.extension is not None:
            initialise_rows(model, self.extension)
        else:
            cover(model, rows.all)
        self._choose_trained(model, missing, has_new)
        if self.is_adapter():
            missing = saved.load_into(model, missing)
        tell_new_head(missing)
        if METHODS[self.settings.model.adapter.method].adds_weights:
            base = saved.base_name if self.is_adapter() else self.name
            self._base_hash = hash_base(base, self.settings.model)
        return model

    def outline(self, label_names: Sequence[str], rows: TokenRows = _ANY) -> PreTrainedModel:
        """Build the model that load_model would load on the meta device: its shapes and what is trained.

        Weights that its files lack are not known here, so heads inside the base count as loaded.
        """
        import torch

        config = self._saved_adapter().base_config() if self.is_adapter() else self.load_config()
        config.update(self.task.scores.config_options(label_names))
        model = self._loader.outline(config, self.name)
        with self._loader.explaining("모델", self.name), torch.device("meta"):
            has_new = self._has_new(model, rows)
            resize(model, rows.all if self.extension is None else self.extension.rows)
            self._choose_trained(model, set(), has_new)
        return model

    def _has_new(self, model: PreTrainedModel, rows: TokenRows) -> bool:
        """Return whether texts may have tokens that the model has no row for, so that rows must be learned."""
        return self.extension is not None or embedding_rows(model) < rows.read

    def _choose_trained(self, model: PreTrainedModel, missing: Set[str], has_new_rows: bool) -> None:
        saved = self._saved_adapter().config() if self.is_adapter() else None
        choose_trained(model, self.settings.model.adapter, missing, saved)
        describe(model, self.task.auto_class, self.settings.model.revision)
        if has_new_rows:
            train_vocabulary(model)
        cast_trained(model, self.settings)

    # --- a model that was fine-tuned ---

    def is_adapter(self) -> bool:
        """Return whether `name` is a folder with an adapter, without the weights of its base."""
        return is_adapter(self.name)

    def _saved_adapter(self) -> SavedAdapter:
        return SavedAdapter(self._loader, self.name)

    def label_names(self) -> tuple[str, ...]:
        """Return the labels of a model that was fine-tuned, by id; empty for a task without labels."""
        return label_names(self.load_config()) if self.task.reads.has_labels else ()

    def load_saved(self) -> PreTrainedModel:
        """Load a model that was fine-tuned, in the dtype of the base that it was trained on, with its adapter merged.

        Under `model.quantization` an adapter stays beside its base: it has learned to make up for the rounding of the
        quantised weights, and the whole base may not fit into memory.
        """
        import torch

        if self.is_adapter() and self.settings.model.quantization is None:
            merged = self.load_merged()
            merged.to(getattr(torch, base_dtype(self.settings)))
            return merged
        if self.is_adapter():
            model, missing = self._saved_adapter().beside_base(), set[str]()
        else:
            self._refuse_quantization()
            model, missing = self._loader.weights(self.name, self.settings.model.dtype, {})
        check_trained(self.task, model.config, missing, self.name)
        return model

    def load_base(self) -> PreTrainedModel:
        """Load the model that training begins with as it is, quantised as in training, to compare with."""
        return self._loader.base(self.name, {}).model

    def load_merged(self) -> PreTrainedModel:
        """Load an adapter, or several by their shares, merged into the base, in float32."""
        merged = self._saved_adapter().merged(self.shares)
        check_trained(self.task, merged.config, set(), self.name)
        mend_generation_config(merged)
        return merged

    def load_whole(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """Load a model that was fine-tuned in float32, an adapter merged, to be used by others without its settings.

        Args:
            tokenizer: Its tokenizer.

        Returns:
            The model, which stops where it was trained to.
        """
        if self.is_adapter():
            whole = self.load_merged()
        else:
            whole, missing = self._loader.weights(self.name, "float32", {})
            check_trained(self.task, whole.config, missing, self.name)
            mend_generation_config(whole)
        fit_special_ids(whole, tokenizer)
        self.task.scores.fit_model(whole, tokenizer)
        return whole

    def _refuse_quantization(self) -> None:
        if self.settings.model.quantization is not None:
            raise SettingsError(
                "어댑터가 아니라 전체 모델이므로 양자화하지 않습니다.",
                where=f"model.quantization: {self.settings.model.quantization}, 모델: {self.name}",
                remedy="model.quantization을 null로 두세요.",
            )

    # --- saving ---

    def check_savable(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Try everything that `save` writes but the weights; raise ModelError if it cannot be written."""
        check_savable(model, tokenizer)

    def save(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output_dir: Path,
        weights: Gathering | None = None,
    ) -> None:  # fmt: skip
        """Write model and tokenizer into output_dir in `model.save_dtype`; see `models.saving.save_pretrained`."""
        base, length = base_weights(model, self.settings.model), self.settings.data.max_length
        beside = self.task.beside_model(model, min(length, longest_input(length, model.config, tokenizer)))
        dtype = self.settings.model.save_dtype
        save_pretrained(model, tokenizer, output_dir, dtype, base, self._base_hash, beside, weights)
