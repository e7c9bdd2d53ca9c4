"""Why a model could not be loaded, in terms of what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from exceptions import FinetuningError, ModelError, ResourceError, first_line_of
from finetuning.config.ladder import remedies
from finetuning.config.messages import WITHOUT_INTERNET
from finetuning.config.schema import Settings
from finetuning.device.oom import is_out_of_memory, out_of_memory
from finetuning.files import full_or_read_only
from finetuning.korean.particles import with_particle
from finetuning.models import gguf_reader


def explain(error: Exception, part: str, name: str, settings: Settings, task: str) -> FinetuningError:
    """Return why a model could not be loaded: memory, login, spelling, connection, disk, or broken files.

    Args:
        error: What loading raised.
        part: The part that was being read, in Korean.
        name: The model's name.
        settings: The settings in force, which the advice depends on.
        task: The task's name.

    Returns:
        The error to raise in its place.
    """
    where = f"model.name: {name}"
    if any(is_out_of_memory(link) for link in _causes(error)):
        return out_of_memory(
            f"{with_particle(part, '이/가')} 메모리에 들어가지 않습니다.", where, remedies(settings, "load")
        )
    if gguf_reader.is_gguf(name):
        return gguf_reader.explain(error, name)
    return (
        _of_the_download(error, part, name, settings)
        or _of_the_files(error, where, task)
        or ModelError(
            f"{with_particle(part, '을/를')} 읽지 못했습니다: {first_line_of(error)}",
            where=where,
            remedy=f"{task} 태스크에 맞는 모델인지, 파일이 모두 손상되지 않았는지 확인하세요.",
        )
    )


def _of_the_download(error: Exception, part: str, name: str, settings: Settings) -> FinetuningError | None:
    """Explain a model that could not be had from the Hub: disk, login, spelling or connection."""
    where, names = f"model.name: {name}", {type(link).__name__ for link in _causes(error)}
    if (disk := full_or_read_only(error)) is not None:
        return ResourceError(
            f"모델을 내려받을 수 없습니다: {disk}",
            where=f"model.cache_dir: {settings.model.cache_dir}",
            remedy="남은 공간을 확인하거나 --cache_dir로 다른 폴더를 고르세요.",
        )
    if "GatedRepoError" in names:
        return ModelError(
            "로그인과 사용 승인이 필요한 모델입니다.",
            where=where,
            remedy="모델 페이지에서 사용 승인을 받은 뒤 `hf auth login`으로 로그인하거나 HF_TOKEN을 설정하세요.",
        )
    if names & {"RepositoryNotFoundError", "HFValidationError", "RevisionNotFoundError"}:
        return ModelError(
            f"Hugging Face Hub에 그런 모델이 없습니다: {name}",
            where=where,
            remedy="철자(조직/이름)와 model.revision을 확인하세요. "
            f"비공개 모델이면 `hf auth login`이 필요합니다. {WITHOUT_INTERNET}",
        )
    if names & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError"}:
        return ModelError(
            f"Hugging Face Hub에 연결할 수 없고, 내려받아 둔 {with_particle(part, '이/가')} 없습니다.",
            where=where,
            remedy=f"인터넷 연결을 확인하거나, model.name에 내려받은 모델 폴더의 경로를 쓰세요. {WITHOUT_INTERNET}",
        )
    return None


def _of_the_files(error: Exception, where: str, task: str) -> ModelError | None:
    """Explain files that were there and could not be used: pickled objects, another architecture, code of their own."""
    if "Weights only load failed" in str(error):
        return ModelError(
            "가중치 파일(.bin)에 tensor가 아닌 파이썬 객체가 들어 있어 읽지 않았습니다. 읽으면 그 안의 코드가 실행될 "
            "수 있습니다.",
            where=where,
            remedy="model.safetensors가 있는 모델을 쓰거나, 만든 사람에게 safetensors로 다시 저장해 달라고 하세요.",
        )
    if (found := re.search(r"Unrecognized configuration class <class '[\w.]*?(\w+)Config'>", str(error))) is not None:
        return ModelError(
            f"transformers에 {found[1]} 구조로 {task} 태스크를 하는 모델이 없습니다.",
            where=where,
            remedy="--task로 이 모델에 맞는 태스크를 고르거나, 다른 구조의 모델을 고르세요.",
        )
    if "trust_remote_code" in str(error):
        return ModelError(
            "이 모델은 저장소에 든 파이썬 코드를 실행해야 읽을 수 있습니다. 실행하지 않았습니다.",
            where=where,
            remedy="코드를 살펴보고 믿을 수 있으면 --set model.trust_remote_code=true를 붙이거나 "
            "--config 파일에 쓰세요. 모델 폴더의 settings.yaml에 적힌 값은 인정하지 않습니다.",
        )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause's cause and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
