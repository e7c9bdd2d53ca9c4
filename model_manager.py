"""A task's tokenizer and model: found, loaded, checked, and saved so that `from_pretrained` reads them."""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exceptions import FinetuningError, ModelError, SettingsError
from finetuning.config.schema import Settings
from finetuning.files import discard, give_usual_mode, writing
from finetuning.models import gguf_reader as gguf_files
from finetuning.models.adapters import add_vocabulary, choose_trained
from finetuning.models.errors import explain
from finetuning.models.quantization import (
    check_not_quantised_yet,
    give_trained_dtype,
    keep_weights_as_loaded,
    quantization_config,
)
from finetuning.models.vocabulary import Extension, give_rows, resize, train_vocabulary
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_WEIGHTS = ("model.safetensors", "model-", "adapter_")


class ModelManager:
    """Loads and saves the model of one run. `name` is a Hub id, a local folder or a GGUF file.

    extension: what a model to be trained has to be given for pieces that are new to its tokenizer.
    """

    def __init__(self, settings: Settings, task: Task, extension: Extension | None = None) -> None:
        self.settings, self.task, self.extension = settings, task, extension
        model = settings.model
        self.name = model.name
        self._from = {
            "revision": model.revision or "main",
            "cache_dir": model.cache_dir,
            "trust_remote_code": model.trust_remote_code,
        }

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's own tokenizer; ModelError where it cannot be had."""
        from transformers import AutoTokenizer

        self._check_folder()
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(**self._place_of(self.name))
        except Exception as error:
            raise self._explain(error, "tokenizer") from error
        if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:
            tokenizer.pad_token = tokenizer.eos_token  # padding is told by position, so any id serves
        if getattr(self.load_config(), "type_vocab_size", 2) < 2:
            _without_segments(tokenizer)
        self.task.encodes.fit_tokenizer(tokenizer)
        return tokenizer

    def load_model(self, label_names: Sequence[str]) -> PreTrainedModel:
        """The task's model in `model.dtype` to be trained: its head made for these labels, with its adapter."""
        import torch

        options = self.task.scores.config_options(label_names)
        if options:
            options["ignore_mismatched_sizes"] = True  # a head of another number of labels is made anew
        model, new = self._load_base(self.name, options)
        if self.extension is not None:
            give_rows(model, self.extension)
        choose_trained(model, self.settings.model.adapter, new)
        if self.extension is not None:
            train_vocabulary(model)
        if self.settings.model.quantization is not None:
            give_trained_dtype(model, getattr(torch, self.settings.model.dtype))
        return model

    def outline(self, label_names: Sequence[str]) -> PreTrainedModel:
        """The model that load_model would load, on the meta device: its shapes and what is trained, without weights.

        Which weights the folder or repository lacks is not known here, so heads within the base count as loaded.
        """
        import torch
        import transformers

        config, options = self.load_config(), self.task.scores.config_options(label_names)
        config.update(options)
        auto_class = getattr(transformers, self.task.auto_class)
        trusts, dtype = self._from["trust_remote_code"], getattr(torch, self.settings.model.dtype)
        try:
            with torch.device("meta"):
                model: PreTrainedModel = auto_class.from_config(config, dtype=dtype, trust_remote_code=trusts)
                if self.extension is not None:
                    resize(model, self.extension.rows)
                choose_trained(model, self.settings.model.adapter, set())
                if self.extension is not None:
                    train_vocabulary(model)
        except FinetuningError:
            raise
        except Exception as error:
            raise self._explain(error, "모델") from error
        return model

    def load_saved(self) -> PreTrainedModel:
        """A model that was fine-tuned before, in `model.dtype`.

        An adapter is merged into its base; under `model.quantization` it stays beside the base that it was trained
        on: what is rounded there is what it learned to make up for, and the whole base may not fit.
        """
        import torch

        dtype = self.settings.model.dtype
        if not self.is_adapter():
            if self.settings.model.quantization is not None:
                raise SettingsError(
                    "어댑터가 아니라 온전한 모델이어서 양자화하지 않습니다.",
                    where=f"model.quantization: {self.settings.model.quantization}, 모델: {self.name}",
                    remedy="model.quantization을 null로 두세요.",
                )
            model, missing = self._from_pretrained(self.name, {}, dtype)
            self._check_trained(model.config, missing)
            return model
        if self.settings.model.quantization is None:
            merged = self.load_merged()
            merged.to(getattr(torch, dtype))
            return merged
        config, rows = self._config_of_base()
        base, _ = self._load_base(self._base_name(), {"config": config})
        resize(base, rows)
        adapted: PreTrainedModel = self._with_adapter(base).get_base_model()
        self._check_trained(adapted.config, set())
        return adapted

    def load_merged(self) -> PreTrainedModel:
        """An adapter merged in float32 into its base in full precision, also where it was trained on a quantised one.

        Merging into quantised weights would round them a second time (Dettmers et al. 2023 merge into full precision).
        """
        config, rows = self._config_of_base()
        base, _ = self._from_pretrained(self._base_name(), {"config": config}, "float32")
        resize(base, rows)
        merged: PreTrainedModel = self._with_adapter(base).merge_and_unload()
        self._check_trained(merged.config, set())
        return merged

    def _base_name(self) -> str:
        """The model that the adapter was trained on."""
        described = json.loads((Path(self.name) / _ADAPTER_CONFIG).read_text(encoding="utf-8"))
        return str(described["base_model_name_or_path"])

    def _config_of_base(self) -> tuple[PreTrainedConfig, int]:
        """The adapter's config with as many tokens as its base has weights for, and how many the adapter has."""
        config = self.load_config()
        tokens = config.get_text_config()
        rows = int(tokens.vocab_size)
        tokens.vocab_size = self._config_at(self._base_name()).get_text_config().vocab_size
        return config, rows

    def _with_adapter(self, base: PreTrainedModel) -> Any:
        from peft import PeftModel

        try:
            return PeftModel.from_pretrained(base, self.name)
        except Exception as error:
            raise self._explain(error, "어댑터") from error

    def _load_base(self, name: str, options: Mapping[str, Any]) -> tuple[PreTrainedModel, set[str]]:
        """As `_from_pretrained` has it, quantised where `model.quantization` asks for that."""
        dtype = self.settings.model.dtype
        if self.settings.model.quantization is None:
            return self._from_pretrained(name, options, dtype)
        how = quantization_config(self.settings, self._without_weights(name, options))
        model, new = self._from_pretrained(name, {**options, "quantization_config": how}, dtype)
        keep_weights_as_loaded(model)
        return model, new

    def _without_weights(self, name: str, options: Mapping[str, Any]) -> PreTrainedModel:
        """The task's model on the meta device."""
        import torch
        import transformers

        trusted = {"trust_remote_code": self.settings.model.trust_remote_code}
        config = options.get("config") or self.load_config()
        check_not_quantised_yet(config, name)
        with torch.device("meta"):
            model: PreTrainedModel = getattr(transformers, self.task.auto_class).from_config(config, **trusted)
        return model

    def _check_trained(self, config: PreTrainedConfig, missing: Set[str]) -> None:
        """ModelError where a model was not trained for the task: it lacks weights, or is of another kind."""
        kind = self.task.scores.config_options(self.label_names()).get("problem_type")
        if not missing and config.problem_type in (None, kind):
            return
        what = f"없는 가중치: {', '.join(sorted(missing)[:3])}" if missing else f"이 모델의 종류: {config.problem_type}"
        raise ModelError(
            f"{self.task.name} 태스크로 학습한 모델이 아닙니다.",
            where=f"{self.name} ({what})",
            remedy="먼저 이 태스크로 학습하거나, 모델을 학습한 태스크를 --task로 지정하세요.",
        )

    def is_adapter(self) -> bool:
        """Whether what is to be loaded was saved as an adapter, without its base's weights."""
        return (Path(self.name) / _ADAPTER_CONFIG).is_file()

    def _from_pretrained(self, name: str, options: Mapping[str, Any], dtype: str) -> tuple[PreTrainedModel, set[str]]:
        """The task's model in a dtype, and the names of its weights that the folder or repository does not have."""
        import torch
        import transformers

        auto_class, place = getattr(transformers, self.task.auto_class), self._place_of(name)
        if gguf_files.is_gguf(name):
            options = {**options, **gguf_files.weights_unpacked(place)}
        try:
            model, found = auto_class.from_pretrained(
                **place, dtype=getattr(torch, dtype), output_loading_info=True, **options
            )
        except Exception as error:
            raise self._explain(error, "모델", name) from error
        if gguf_files.is_gguf(name):
            gguf_files.make_plain(model, name)
        return model, {*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])}

    def _place_of(self, name: str) -> dict[str, Any]:
        """What `from_pretrained` is told of where a model is."""
        is_file = gguf_files.is_gguf(name)
        return {**(gguf_files.place_of(name) if is_file else {"pretrained_model_name_or_path": name}), **self._from}

    def load_config(self) -> PreTrainedConfig:
        """The model's config alone, without weights."""
        self._check_folder()
        return self._config_at(self.name)

    def _config_at(self, name: str) -> PreTrainedConfig:
        from transformers import AutoConfig

        try:
            config: PreTrainedConfig = AutoConfig.from_pretrained(**self._place_of(name))
        except Exception as error:
            raise self._explain(error, "config.json", name) from error
        return config

    def usable_length(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """`data.max_length`, or what the model has positions for where that is less; says so when it is."""
        wanted, config = self.settings.data.max_length, self.load_config()
        allowed = getattr(config, "max_position_embeddings", None) or wanted
        if config.model_type in _POSITIONS_AFTER_PADDING:
            allowed -= (config.pad_token_id or 0) + 1
        allowed = min(allowed, tokenizer.model_max_length)
        if wanted > allowed:
            _log.warning(
                "data.max_length는 %s이지만 이 모델의 최대 길이는 %s입니다. %s 토큰까지만 사용합니다.",
                f"{wanted:,}", f"{allowed:,}", f"{allowed:,}",
            )  # fmt: skip
        return int(min(wanted, allowed))

    def label_names(self) -> tuple[str, ...]:
        """The labels of a model that was fine-tuned before, in the order of their ids; empty for a task without."""
        if not self.task.reads.has_labels:
            return ()
        names = self.load_config().id2label or {}
        return tuple(str(names[position]) for position in sorted(names))  # type: ignore[index]

    def save(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output_dir: Path) -> None:
        """Writes model and tokenizer into output_dir, each file whole or not at all."""
        from transformers import PreTrainedTokenizerFast

        partial = output_dir / ".model.partial"
        discard(partial)
        remedy = "디스크의 남은 공간과 쓰기 권한을 확인한 뒤 --resume으로 이어서 학습하세요."
        with writing("모델을 저장하지 못했습니다", output_dir, remedy, partial):
            weights = _cast(model, self.settings.model.save_dtype)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="peft")  # it tells which embeddings it saves, if any
                model.save_pretrained(partial, state_dict=weights)
            if (partial / _ADAPTER_WEIGHTS).is_file():
                add_vocabulary(partial / _ADAPTER_WEIGHTS, model, weights or model.state_dict())
            _plain_config(model).save_pretrained(partial)  # an adapter is saved without its base's, with the labels
            if isinstance(tokenizer, PreTrainedTokenizerFast):
                tokenizer.backend_tokenizer.no_truncation()  # it would write down the length this run cut texts at
            tokenizer.save_pretrained(partial)
            if self.settings.model.save_dtype is not None:
                _note_dtype(partial / "config.json", self.settings.model.save_dtype)
            files = [path.relative_to(partial) for path in sorted(partial.rglob("*")) if path.is_file()]
            give_usual_mode(partial / file for file in files)
            for file in files:
                (output_dir / file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(partial / file, output_dir / file)
            for path in output_dir.iterdir():  # an adapter beside whole weights, say, would be loaded into them
                if path.name.startswith(_WEIGHTS) and Path(path.name) not in files:
                    path.unlink()
        discard(partial)

    def _check_folder(self) -> None:
        """ModelError where the name means a file or folder that is not there, or one without a model."""
        path = Path(self.name).expanduser()
        if gguf_files.is_gguf(self.name):
            gguf_files.place_of(self.name)
        elif path.is_dir():
            self.name = str(path)
            if not (path / "config.json").is_file():
                raise ModelError(
                    "폴더에 config.json이 없어 모델로 읽을 수 없습니다.",
                    where=str(path),
                    remedy="모델이 저장된 폴더(config.json과 model.safetensors가 있는 곳)를 지정하세요.",
                )
        elif self.name.startswith((".", "/", "~")) or self.name.count("/") > 1 or "\\" in self.name:
            raise ModelError(
                f"모델 폴더가 없습니다: {self.name}",
                where="model.name",
                remedy=f"경로의 철자를 확인하세요. 지금 폴더는 {Path.cwd()}입니다. "
                "아직 학습하지 않았다면 먼저 학습을 실행하세요.",
            )

    def _explain(self, error: Exception, part: str, name: str | None = None) -> FinetuningError:
        return explain(error, part, name or self.name, self.settings, self.task.name)


# RoBERTa's family counts positions from its padding id plus one, so that many of the table are not for text.
_POSITIONS_AFTER_PADDING = {
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "longformer",
    "mpnet",
    "data2vec-text",
}


def _without_segments(tokenizer: PreTrainedTokenizerBase) -> None:
    """Leaves out token_type_ids: klue/roberta has a BERT tokenizer, and no embedding for a pair's second segment."""
    names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names


def _cast(model: PreTrainedModel, dtype: str | None) -> dict[str, torch.Tensor] | None:
    """The weights in the dtype to save them in; None lets the model save its own."""
    import torch

    if dtype is None:
        return None
    target = getattr(torch, dtype)
    cast: dict[tuple[int, torch.Size], torch.Tensor] = {}  # tied weights stay one tensor, and are written once
    return {
        name: cast.setdefault((tensor.data_ptr(), tensor.shape), tensor.to(target))
        if tensor.is_floating_point()
        else tensor
        for name, tensor in model.state_dict().items()
    }


def _plain_config(model: PreTrainedModel) -> PreTrainedConfig:
    """The model's config without how its weights were quantised when they were read: that is the run's to choose."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def _note_dtype(config_path: Path, dtype: str) -> None:
    config = json.loads(config_path.read_text(encoding="utf-8"))
    config["dtype"] = dtype
    config_path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
