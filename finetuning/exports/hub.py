"""Sending an export to the Hub: what would be sent, what stops it, and the sending."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from exceptions import FinetuningError, ResourceError, SettingsError, first_line_of
from finetuning.exports.folder import size_text
from finetuning.files import typed


def check_may_push(repository: str) -> None:
    """Check all that can be known before a model is written.

    Args:
        repository: Where to send it: `name`, or `owner/name`.

    Raises:
        SettingsError: The name cannot be one of the Hub, the Hub is switched off, or nobody is logged in.
    """
    check_name(repository)
    from huggingface_hub import get_token
    from huggingface_hub.constants import HF_HUB_OFFLINE

    where = f"--push {repository}"
    if HF_HUB_OFFLINE:
        raise SettingsError(
            "Hub를 쓰지 않도록 되어 있어 올릴 수 없습니다(HF_HUB_OFFLINE=1).",
            where=where,
            remedy="환경 변수 HF_HUB_OFFLINE을 지우고 다시 실행하세요. 무엇을 올릴지만 보려면 --dry_run을 함께 쓰세요.",
        )
    if get_token() is None:
        raise SettingsError(
            "Hugging Face Hub에 로그인하지 않아 올릴 수 없습니다.",
            where=where,
            remedy="`hf auth login`으로 로그인하거나 환경 변수 HF_TOKEN에 쓰기 권한이 있는 토큰을 넣으세요. "
            "무엇을 올릴지만 보려면 --dry_run을 함께 쓰세요.",
        )


def check_name(repository: str) -> None:
    """Raise SettingsError for a name that no repository of the Hub can have."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise SettingsError(
            f"Hub 저장소의 이름으로 쓸 수 없습니다: {repository}",
            where="--push",
            remedy="`이름` 또는 `사용자/이름`으로 쓰세요. 영문자, 숫자, '-', '_', '.'만 쓸 수 있습니다.",
        ) from error


def shown_push(repository: str, sizes: Mapping[str, int], card: str) -> list[str]:
    """Return what a push would send, as Korean lines: the files, and the model card.

    Args:
        repository: Where it would go.
        sizes: Names of the files → bytes.
        card: The text of README.md.

    Returns:
        The lines.
    """
    total = sum(sizes.values())
    lines = [f"올리지는 않았습니다(--dry_run). {repository} 저장소에 올릴 파일 {len(sizes)}개, {size_text(total)}:"]
    lines += [f"  {name} ({size_text(size)})" for name, size in sizes.items()]
    return [*lines, "모델 카드(README.md):", *(f"  {line}" for line in card.rstrip().splitlines())]


def push(repository: str, folder: Path, files: Mapping[str, int]) -> str:
    """Send the files of an export to a private repository, which is made where there is none.

    Args:
        repository: Where to send it.
        folder: The folder of the export.
        files: Names of the files.

    Returns:
        The address of the repository.

    Raises:
        FinetuningError: The Hub refused it or cannot be reached. The folder stays.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        made = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, allow_patterns=list(files))
    except Exception as error:
        raise _explained(error, repository, folder) from error
    return str(made)


def _explained(error: Exception, repository: str, folder: Path) -> FinetuningError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    again = f"내보낸 모델은 {folder} 폴더에 있습니다. 나중에 올리려면: {typed('hf', 'upload', repository, folder)}"
    if status in (401, 403):
        return SettingsError(
            f"Hub가 올리기를 허락하지 않았습니다: {first_line_of(error)}",
            where=f"--push {repository}",
            remedy=f"토큰에 쓰기 권한이 있는지, 저장소의 주인이 맞는지 확인하세요. {again}",
        )
    return ResourceError(f"Hub에 올리지 못했습니다: {first_line_of(error)}", where=f"--push {repository}", remedy=again)
