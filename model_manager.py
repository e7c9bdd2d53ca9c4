"""A task's tokenizer and model: found, loaded, checked, and saved so that `from_pretrained` reads them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exceptions import ModelError, ResourceError, with_particle
from settings import AdapterSettings, Settings
from storage import discard, give_usual_mode, writing
from tasks.base import Task

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS = ("model.safetensors", "model-", "adapter_")
_QUICK_START = "인터넷 없이 해 보려면: python finetuning_app.py --config recipes/quickstart.yaml"


class ModelManager:
    """Loads and saves the model of one run. `name` is a Hub id or a local folder."""

    def __init__(self, settings: Settings, task: Task) -> None:
        self.settings, self.task = settings, task
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
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self.name, **self._from)
        except Exception as error:
            raise self._explain(error, "tokenizer") from error
        if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:
            tokenizer.pad_token = tokenizer.eos_token  # padding is told by position, so any id serves
        if getattr(self.load_config(), "type_vocab_size", 2) < 2:
            _without_segments(tokenizer)
        self.task.fit_tokenizer(tokenizer)
        return tokenizer

    def load_model(self, label_names: Sequence[str]) -> PreTrainedModel:
        """The task's model in float32 to be trained: its head made for these labels, an adapter where asked for."""
        options = self.task.config_options(label_names)
        if options:
            options["ignore_mismatched_sizes"] = True  # a head of another number of labels is made anew
        model, new = self._from_pretrained(self.name, options)
        choose_trained(model, self.settings.model.adapter, new)
        return model

    def load_saved(self) -> PreTrainedModel:
        """A model that was fine-tuned before, in float32; one that was saved as an adapter is merged into its base."""
        if not self.is_adapter():
            model, missing = self._from_pretrained(self.name, {})
            self._check_trained(model.config, missing)
            return model
        from peft import PeftModel

        described = json.loads((Path(self.name) / _ADAPTER_CONFIG).read_text(encoding="utf-8"))
        base, _ = self._from_pretrained(described["base_model_name_or_path"], {"config": self.load_config()})
        try:
            merged: PreTrainedModel = PeftModel.from_pretrained(base, self.name).merge_and_unload()
        except Exception as error:
            raise self._explain(error, "어댑터") from error
        self._check_trained(merged.config, set())
        return merged

    def _check_trained(self, config: PreTrainedConfig, missing: Set[str]) -> None:
        """ModelError where a model was not trained for the task: it lacks weights, or is of another kind."""
        kind = self.task.config_options(self.label_names()).get("problem_type")
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

    def _from_pretrained(self, name: str, options: Mapping[str, Any]) -> tuple[PreTrainedModel, set[str]]:
        """The task's model in float32, and the names of its weights that the folder or repository does not have."""
        import torch
        import transformers

        auto_class = getattr(transformers, self.task.auto_class)
        try:
            model, found = auto_class.from_pretrained(
                name, dtype=torch.float32, output_loading_info=True, **options, **self._from
            )
        except Exception as error:
            raise self._explain(error, "모델") from error
        return model, {*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])}

    def load_config(self) -> PreTrainedConfig:
        """The model's config alone, without weights."""
        from transformers import AutoConfig

        self._check_folder()
        try:
            config: PreTrainedConfig = AutoConfig.from_pretrained(self.name, **self._from)
        except Exception as error:
            raise self._explain(error, "config.json") from error
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
        if not self.task.has_labels:
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
            model.save_pretrained(partial, state_dict=_cast(model, self.settings.model.save_dtype))
            model.config.save_pretrained(partial)  # an adapter is saved without its base's, which has the labels
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
        """ModelError where the name means a folder that is not there, or one without a model."""
        path = Path(self.name).expanduser()
        if path.is_dir():
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

    def _explain(self, error: Exception, part: str) -> ModelError | ResourceError:
        """The reason a model could not be loaded, told apart: login, spelling, connection, disk, or broken files."""
        names = {type(link).__name__ for link in _causes(error)}
        where = f"model.name: {self.name}"
        if any(isinstance(link, OSError) and link.errno == 28 for link in _causes(error)):
            return ResourceError("모델을 내려받다가 디스크가 가득 찼습니다.", where=str(self.settings.model.cache_dir))
        if "GatedRepoError" in names:
            return ModelError(
                "로그인과 사용 승인이 필요한 모델입니다.",
                where=where,
                remedy="모델 페이지에서 사용 승인을 받은 뒤 `hf auth login`으로 로그인하거나 HF_TOKEN을 설정하세요.",
            )
        if names & {"RepositoryNotFoundError", "HFValidationError", "RevisionNotFoundError"}:
            return ModelError(
                f"Hugging Face Hub에 그런 모델이 없습니다: {self.name}",
                where=where,
                remedy="철자(조직/이름)와 model.revision을 확인하세요. "
                f"비공개 모델이면 `hf auth login`이 필요합니다. {_QUICK_START}",
            )
        if names & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError"}:
            return ModelError(
                f"Hugging Face Hub에 연결할 수 없고, 내려받아 둔 {with_particle(part, '이/가')} 없습니다.",
                where=where,
                remedy=f"인터넷 연결을 확인하거나, model.name에 내려받은 모델 폴더의 경로를 쓰세요. {_QUICK_START}",
            )
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "trust_remote_code" in str(error):
            return ModelError(
                "이 모델은 저장소에 든 파이썬 코드를 실행해야 읽을 수 있습니다. 실행하지 않았습니다.",
                where=where,
                remedy="코드를 살펴보고 믿을 수 있으면 model.trust_remote_code를 true로 하세요.",
            )
        return ModelError(
            f"{with_particle(part, '을/를')} 읽지 못했습니다: {reason}",
            where=where,
            remedy=f"{self.task.name} 태스크에 맞는 모델인지, 파일이 모두 온전한지 확인하세요.",
        )


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


# --- which weights are trained ---


def choose_trained(model: PreTrainedModel, adapter: AdapterSettings, new: Set[str]) -> None:
    """Leaves those weights to be trained that `adapter.method` says; new weights and heads are trained under each.

    lora, dora: low-rank additions to linear layers (Hu et al. 2021, Liu et al. 2024), set in place through peft;
    freeze: the last `layers` blocks of each stack. new: names of the weights that were not loaded.
    """
    if adapter.method == "none":
        return
    heads = _heads(model, new)
    if adapter.method == "freeze":
        _freeze(model, adapter.layers, heads)
        return
    from peft import LoraConfig

    targets = linear_layers(model) if adapter.target_modules == "auto" else adapter.target_modules
    try:
        model.add_adapter(
            LoraConfig(
                r=adapter.r, lora_alpha=adapter.alpha, lora_dropout=adapter.dropout, target_modules=targets,
                modules_to_save=heads or None, use_dora=adapter.method == "dora",
            )
        )  # fmt: skip
    except ValueError as error:
        raise ModelError(
            f"어댑터를 붙일 층을 찾지 못했습니다: {str(error).splitlines()[0]}",
            where=f"model.adapter.target_modules: {adapter.target_modules}",
            remedy="auto로 두거나, 이 모델에 있는 linear 층의 이름을 쓰세요. 예: [q_proj, v_proj]",
        ) from error


def linear_layers(model: PreTrainedModel) -> list[str]:
    """The linear layers of the model's blocks, named from within a block; ModelError where there are none."""
    import torch
    from transformers.pytorch_utils import Conv1D

    names = {
        name
        for stack in _stacks(model).values()
        for block in stack
        for name, module in block.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    }
    if not names:
        raise ModelError(
            "이 모델에서 되풀이되는 층(block)을 찾지 못했습니다.",
            where="model.adapter.target_modules: auto",
            remedy="어댑터를 붙일 linear 층의 이름을 직접 쓰세요. 예: [q_proj, v_proj]",
        )
    return sorted(names)


def _stacks(model: PreTrainedModel) -> dict[str, torch.nn.ModuleList]:
    """The model's stacks of blocks by name: lists of modules of one class that are within no other such list."""
    import torch

    found: dict[str, torch.nn.ModuleList] = {}
    for name, module in model.named_modules():
        is_stack = isinstance(module, torch.nn.ModuleList) and len({type(block) for block in module}) == 1
        if is_stack and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found


def _heads(model: PreTrainedModel, new: Set[str]) -> list[str]:
    """Modules that are trained whole: those outside the blocks and the vocabulary, and those with new weights."""
    others = {model.get_output_embeddings(), model.get_input_embeddings(), *_stacks(model).values()}
    heads = [
        name
        for name, module in model.named_children()
        if others.isdisjoint(module.modules()) and any(True for _ in module.parameters())
    ]
    owners = sorted({key.rpartition(".")[0] for key in new} - {""})
    return heads + [owner for owner in owners if not any(f"{owner}.".startswith(f"{head}.") for head in heads)]


def _freeze(model: PreTrainedModel, layers: int, heads: Sequence[str]) -> None:
    model.requires_grad_(False)
    for stack in _stacks(model).values():
        for block in stack[-layers:]:
            block.requires_grad_(True)
    for name in heads:
        model.get_submodule(name).requires_grad_(True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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


def _note_dtype(config_path: Path, dtype: str) -> None:
    config = json.loads(config_path.read_text(encoding="utf-8"))
    config["dtype"] = dtype
    config_path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
