"""Writing a model and its tokenizer so that `from_pretrained` reads them, each file whole or not at all."""

from __future__ import annotations

import copy
import json
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from exceptions import ModelError, first_line_of
from finetuning.files import discard, give_usual_mode, move, sync_file, sync_folder, writing
from finetuning.korean.particles import with_particle
from finetuning.models.adapter_files import ADAPTER_WEIGHTS, BASE_HASH, write_index
from finetuning.models.adapters import add_vocabulary
from finetuning.models.older_config import with_older_names
from finetuning.models.pissa import save_as_lora

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from finetuning.device.sharding import Gathering

_log = logging.getLogger(__name__)

_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_OWN_CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}  # transformers 5's name of a class, and the older one
_WEIGHTS = re.compile(
    r"(adapter_)?model(-\d{5}-of-\d{5})?\.safetensors|(adapter_)?model\.safetensors\.index\.json|pytorch_model\.bin\.index\.json|adapter_config\.json"
)


def save_pretrained(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output_dir: Path, dtype: str | None,
    base: Mapping[str, str] = MappingProxyType({}), base_hash: str | None = None,
    beside: Mapping[str, Any] = MappingProxyType({}), weights: Gathering | None = None,
) -> None:  # fmt: skip
    """Write model and tokenizer into output_dir, and remove weights of another kind from it.

    Everything is written to a folder inside output_dir first, and then moved file by file. A disk that cannot
    be written raises ResourceError.

    Args:
        model: The model. Of one with an adapter only the adapter is written.
        tokenizer: Its tokenizer.
        output_dir: The folder. Other files in it stay.
        dtype: torch's name of the dtype to write weights in; None keeps the model's own.
        base: Weight of an adapter's base → path of its file, as far as known.
        base_hash: Hash of that base, which config.json keeps; None where unknown.
        beside: JSON values of further files by their path below the folder.
        weights: The weights, where the processes divide the model; None for the model's own.
    """
    partial = output_dir / ".model.partial"
    discard(partial)
    with writing("모델을 저장하지 못했습니다", output_dir, partial=partial):
        _write_weights(model, partial, dtype, weights)
        if (partial / ADAPTER_WEIGHTS).is_file():
            write_index(base, partial)
            dtype = dtype or "float32"  # that of the adapter: others load the base in it, which may be in bfloat16 here
        _write_config(model, partial, dtype, base_hash)
        _write_tokenizer(tokenizer, partial)
        for name, value in beside.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        files = [path.relative_to(partial) for path in sorted(partial.rglob("*")) if path.is_file()]
        give_usual_mode(partial / file for file in files)
        for file in files:  # all of it is on the disk before any of it takes the place of the model before
            sync_file(partial / file)
        for file in files:
            (output_dir / file).parent.mkdir(parents=True, exist_ok=True)
            move(partial / file, output_dir / file)
        for path in output_dir.iterdir():  # whole weights beside an adapter would be loaded together
            if _WEIGHTS.fullmatch(path.name) and path.is_file() and Path(path.name) not in files:
                path.unlink()
        sync_folder(output_dir)
    discard(partial)


def mend_generation_config(model: PreTrainedModel) -> None:
    """Make a model's generation config one that can be saved, in place.

    Vicuna and other derivatives of Llama 2 have a temperature without `do_sample`, which transformers reads and does
    not write. Such a model is meant to sample.
    """
    config = getattr(model, "generation_config", None)
    if config is None or _is_valid(config):
        return
    sampling = copy.deepcopy(config)
    sampling.do_sample = True
    if _is_valid(sampling):
        config.do_sample = True
        _log.info("모델의 generation_config.json에 temperature나 top_p만 있어 do_sample을 true로 고쳐 저장합니다.")
    else:
        plain = type(config)(**{name: getattr(config, name, None) for name in _TOKENS})
        model.generation_config = plain
        _log.warning("모델의 generation_config.json이 저장할 수 없는 값이어서 특수 토큰만 남깁니다.")


def _is_valid(config: GenerationConfig) -> bool:
    try:
        config.validate(strict=True)
    except ValueError:
        return False
    return True


def check_savable(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Try to write everything but the weights, so that a run does not end at its first save.

    Args:
        model: The model to be trained.
        tokenizer: Its tokenizer.

    Raises:
        ModelError: Config, generation config or tokenizer cannot be written.
    """
    try:
        temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    except OSError:  # no disk for temporary files can be written; that of the run need not be among them
        return
    with temporary as name:
        folder = Path(name)
        with _trying("config.json", model):
            plain_config(model).save_pretrained(folder)
        if model.can_generate() and model.generation_config is not None:
            with _trying("generation_config.json", model):
                model.generation_config.save_pretrained(folder)
        with _trying("tokenizer", model):
            _write_tokenizer(tokenizer, folder)


@contextmanager
def _trying(part: str, model: PreTrainedModel) -> Iterator[None]:
    try:
        yield
    except OSError:
        return  # this disk is not that of the run, whose own first write says more
    except Exception as error:
        reason = first_line_of(error)
        raise ModelError(
            f"이 모델의 {with_particle(part, '은/는')} 저장할 수 없어 학습을 시작하지 않았습니다: {reason}",
            where=f"model.name: {model.config.name_or_path}",
            remedy=f"모델 폴더를 복사하고 {with_particle(part, '을/를')} 고쳐서 model.name에 쓰세요.",
        ) from error


def plain_config(model: PreTrainedModel) -> PreTrainedConfig:
    """Return a copy of the model's config without its quantisation, which each run chooses for itself."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def _write_weights(model: PreTrainedModel, folder: Path, dtype: str | None, gathering: Gathering | None) -> None:
    if gathering is not None and _write_one_by_one(model, folder, dtype, gathering):
        return
    weights = None if gathering is None else gathering.in_memory()
    if dtype is not None:
        weights = _cast(model.state_dict() if weights is None else weights, dtype)
    with warnings.catch_warnings(), _without_quantizer(model):
        warnings.filterwarnings("ignore", module="peft")  # it reports which embeddings it saves
        model.save_pretrained(folder, state_dict=weights)
    if (folder / ADAPTER_WEIGHTS).is_file():
        add_vocabulary(folder / ADAPTER_WEIGHTS, model, weights or model.state_dict())
        save_as_lora(folder, model)


@contextmanager
def _without_quantizer(model: PreTrainedModel) -> Iterator[None]:
    """Take the quantiser from a model in the block: with one, `save_pretrained` drops the weights that it is given."""
    before = getattr(model, "hf_quantizer", None)
    vars(model)["hf_quantizer"] = None
    try:
        yield
    finally:
        vars(model)["hf_quantizer"] = before


def _write_one_by_one(model: PreTrainedModel, folder: Path, dtype: str | None, gathering: Gathering) -> bool:
    """Write a divided model's weights as they are gathered; return False where they must be in memory together."""
    from finetuning.models.streamed import cast, saved_one_by_one, write_one_by_one

    if getattr(model, "_hf_peft_config_loaded", False):  # little, in peft's own format
        return False
    saved = saved_one_by_one(model, {name: cast(one, dtype) for name, one in gathering.outline.items()})
    if saved is None:
        return False
    model.save_pretrained(folder, state_dict={})  # all but the weights
    write_one_by_one(model, saved, gathering, folder, dtype)
    return True


def _write_config(model: PreTrainedModel, folder: Path, dtype: str | None, base_hash: str | None) -> None:
    """Write config.json, for adapters as well: it holds the labels."""
    plain_config(model).save_pretrained(folder)
    path = folder / "config.json"
    config = with_older_names(json.loads(path.read_text(encoding="utf-8")))
    if dtype is not None:
        config["dtype"] = dtype
    config.pop(BASE_HASH, None)  # of the adapter that the model was merged with or began with
    if base_hash is not None and (folder / ADAPTER_WEIGHTS).is_file():
        config[BASE_HASH] = base_hash
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    if isinstance(tokenizer, PreTrainedTokenizerFast):
        tokenizer.backend_tokenizer.no_truncation()  # it would save the length that this run cut texts at
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(_for_older(described), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _for_older(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return tokenizer_config.json by the names that transformers 4 reads, which 5 reads as well."""
    older = dict(described)
    if older.get("tokenizer_class") in _OWN_CLASSES:
        older["tokenizer_class"] = _OWN_CLASSES[older["tokenizer_class"]]
    if isinstance(older.get("extra_special_tokens"), list):  # 4 expects names of tokens there
        older["additional_special_tokens"] = older.pop("extra_special_tokens")
    return older


def _cast(weights: Mapping[str, torch.Tensor], dtype: str) -> dict[str, torch.Tensor]:
    """Return the weights with floating-point ones in `dtype`. Tied weights stay one tensor and are written once."""
    from finetuning.models.streamed import cast

    made: dict[tuple[int, torch.Size], torch.Tensor] = {}
    return {
        name: made.setdefault((tensor.data_ptr(), tensor.shape), cast(tensor, dtype))
        for name, tensor in weights.items()
    }
