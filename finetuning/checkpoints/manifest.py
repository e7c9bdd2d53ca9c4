"""What a checkpoint's folder holds besides tensors: the state, and the manifest of all files with sizes and hashes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from exceptions import ModelError
from finetuning.files import sync_file, sync_folder
from finetuning.types import Checkpoint, Progress

if TYPE_CHECKING:
    import torch

_FORMAT = 3  # 3: the fingerprint has one entry per setting, and its hashes of rows are made anew
TENSORS, STATE = ("model.safetensors", "optimizer.safetensors"), "state.json"
_SHARD = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")  # torch's names
_ALIASES = "tensor_aliases"
_OTHER = "더 이전 체크포인트를 쓰려면 --checkpoint_path 없이 --resume만 쓰세요."
_IS_MISSING, _IS_OTHER = "missing", "other"  # how a file is not as it was written


@dataclass(frozen=True)
class Present:
    """What a folder has of a checkpoint.

    Attributes:
        save: A hash of the manifest: of one save it is the same on all disks.
        nodes: The machine that wrote each file, as messages name it; empty where all machines shared a disk.
        files: The files that the checkpoint consists of.
        broken: Those of them that are missing here or differ from what was written, and which of both.
    """

    save: str
    nodes: Mapping[str, str]
    files: tuple[str, ...]
    broken: Mapping[str, str]


def state_text(checkpoint: Checkpoint, aliases: Mapping[str, str]) -> str:
    """Return what a checkpoint holds besides tensors, as JSON.

    Args:
        checkpoint: The checkpoint.
        aliases: Names of tensors that share another's memory, and that tensor's name.

    Returns:
        The text, from which `read_state`, `with_tensors` and `without_tensors` make the checkpoint again.
    """
    state = {
        "progress": asdict(checkpoint.progress),
        "fingerprint": checkpoint.fingerprint,
        "state": checkpoint.state,
        _ALIASES: dict(aliases),
    }
    return json.dumps(state, ensure_ascii=False)


def write_state(
    folder: Path, state: str, facts: Mapping[str, dict[str, Any]], nodes: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write what a checkpoint holds besides tensors, and the manifest of all its files.

    Args:
        folder: The folder, in which the tensors are already.
        state: Result of `state_text`.
        facts: Result of `facts_of` for the files of tensors, those on other disks as well.
        nodes: The machine that wrote each of these files, where not all lie on one disk.

    Raises:
        OSError: The disk cannot be written.
    """
    (folder / STATE).write_text(state, encoding="utf-8")
    made: dict[str, Any] = {"format": _FORMAT, "files": {**facts, **facts_of(folder, [STATE])}}
    manifest = folder / "manifest.json"
    text = json.dumps({**made, "nodes": dict(nodes)} if nodes else made, indent=2, ensure_ascii=False)
    manifest.write_text(text, encoding="utf-8")
    sync_file(manifest)
    sync_folder(folder)


def read_state(folder: Path) -> dict[str, Any]:
    """Read what `write_state` wrote."""
    state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return state


def without_tensors(state: Mapping[str, Any], shards: Path) -> Checkpoint:
    """Return the checkpoint of a state whose tensors lie as shards in a folder."""
    return Checkpoint({}, {}, *_rest(state), shards=shards)


def with_tensors(
    state: Mapping[str, Any], model: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor]
) -> Checkpoint:
    """Return the checkpoint of a state and the tensors of its two files."""
    aliases = {alias: model[name] for alias, name in state[_ALIASES].items()}
    return Checkpoint({**model, **aliases}, optimizer, *_rest(state))


def _rest(state: Mapping[str, Any]) -> tuple[dict[str, Any], Progress, dict[str, Any]]:
    return state["state"], Progress(**state["progress"]), state["fingerprint"]


def facts_of(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Flush files to the disk and return size and hash of each, for the manifest; those that are not there are not."""
    facts = {}
    for path in (folder / name for name in names):
        if path.is_file():
            sync_file(path)
            facts[path.name] = {"bytes": path.stat().st_size, "sha256": _hash(path)}
    return facts


def shards_in(folder: Path, process: int) -> list[Path]:
    """Return the files that a process has written into a checkpoint of several, which torch names."""
    return sorted(folder.glob(f"shard-{process + 1:05d}-model-*.safetensors"))


def present_in(folder: Path) -> Present:
    """Look what of a checkpoint is in a folder, and whether it is as it was written.

    Args:
        folder: The checkpoint.

    Returns:
        What is there.

    Raises:
        ModelError: It has no manifest, or one that is damaged or of another version.
    """
    try:
        text = (folder / "manifest.json").read_bytes()
        manifest = json.loads(text)
        version, facts, nodes = manifest["format"], manifest["files"], dict(manifest.get("nodes", {}))
        shards = [name for name in facts if _SHARD.fullmatch(name)]
        expected = {name: (facts[name]["bytes"], facts[name]["sha256"]) for name in (STATE, *(shards or TENSORS))}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ModelError("체크포인트의 manifest.json이 없거나 깨졌습니다.", where=str(folder), remedy=_OTHER) from None
    if version != _FORMAT:
        raise ModelError(
            f"체크포인트의 형식({version})이 이 버전의 형식({_FORMAT})과 달라 이어서 학습할 수 없습니다.",
            where=str(folder),
            remedy="체크포인트를 만든 버전으로 이어서 학습하세요. 지금까지 학습한 모델에서 시작하려면 새 학습의 "
            "--model_name에 이 output_dir를 쓰세요.",
        )
    found = {name: _broken(folder / name, *fact) for name, fact in expected.items()}
    broken = {name: how for name, how in found.items() if how is not None}
    return Present(_save_of(text), nodes, tuple(expected), broken)


def save_in(folder: Path) -> str | None:
    """Return which save a folder is of, as `Present` has it, without reading its files; None without a manifest."""
    try:
        return _save_of((folder / "manifest.json").read_bytes())
    except OSError:
        return None


def _save_of(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()


def file_broken(folder: Path, present: Present, name: str) -> ModelError:
    """Return the error for a file of a checkpoint that is nowhere as it was written; it names who wrote it."""
    writer = present.nodes.get(name)
    what = name if writer is None else f"{writer} 몫인 {name}"
    remedy = _OTHER if writer is None else f"그 노드의 {folder} 폴더가 있는지 확인하세요. {_OTHER}"
    how = present.broken.get(name, _IS_MISSING)
    said = f"체크포인트에 {what} 파일이 없습니다." if how == _IS_MISSING else f"체크포인트의 {what} 파일이 깨졌습니다."
    return ModelError(said, where=str(folder), remedy=remedy)


def _broken(path: Path, size: int, digest: str) -> str | None:
    if not path.is_file():
        return _IS_MISSING
    return None if path.stat().st_size == size and _hash(path) == digest else _IS_OTHER


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
