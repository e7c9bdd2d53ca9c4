"""Checkpoints: saved whole or not at all, verified when loaded, rotated only after the new one is whole."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from exceptions import ModelError, ResourceError
from finetuning.files import discard, discard_leftovers, disk_reason, give_usual_mode, writing

_log = logging.getLogger(__name__)
_FORMAT = 3  # 3: the fingerprint has one entry per setting, and its hashes of rows are made anew
_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
_ALIASES = "tensor_aliases"


@dataclass(frozen=True)
class Progress:
    """Where a run is: the next window of an epoch (both from 0), and how many optimizer steps were taken."""

    epoch: int
    window: int
    step: int


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on as if it had never stopped. Nothing in it is ever unpickled.

    model: tensors by name; optimizer: tensors by `<what>/<parameter name>`; state: JSON values;
    fingerprint: JSON facts that the resumed run must share.
    """

    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    state: dict[str, Any]
    progress: Progress
    fingerprint: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one output_dir, and `checkpoint-latest` beside it."""

    def __init__(self, output_dir: Path, keep: int) -> None:
        self.folder, self.keep = output_dir / "checkpoints", keep
        self._told_latest = False
        self.latest = output_dir.resolve().parent / "checkpoint-latest"  # of the folder `.`, too

    def save(self, checkpoint: Checkpoint) -> Path:
        """Writes a checkpoint beside the others, makes it theirs by one rename, then drops the oldest.

        Raises ResourceError where the disk is full or cannot be written; what was saved before is untouched.
        """
        target = self.folder / _name(checkpoint.progress.step)
        partial = self.folder / f".{target.name}.partial-{os.getpid()}"
        remedy = (
            "디스크의 남은 공간과 쓰기 권한을 확인한 뒤 --resume으로 이어서 학습하세요. "
            "이전 체크포인트는 그대로 있습니다."
        )
        with writing("체크포인트를 저장하지 못했습니다", target, remedy, partial):
            self._make_folder()
            discard_leftovers(self.folder.glob(".step-*"))
            discard_leftovers(self.latest.parent.glob(f".{self.latest.name}.partial-*"))
            self._check_space(checkpoint)
            partial.mkdir()
            _write(partial, checkpoint)
            _replace_folder(partial, target)
            _sync_folder(self.folder)
        try:
            self._point_latest_to(target)
        except OSError as error:  # the checkpoint itself is saved
            if not self._told_latest:
                _log.warning(
                    "%s 링크를 만들지 못했습니다: %s --resume은 그대로 쓸 수 있습니다.", self.latest, disk_reason(error)
                )
            self._told_latest = True
        for left_behind in self.later_than(checkpoint.progress.step):
            shutil.rmtree(left_behind, ignore_errors=True)
        for old in self._folders()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def later_than(self, step: int) -> list[Path]:
        """Checkpoints of later steps: the next save drops them, for its run went on from before they were made."""
        return [path for path in self._folders() if path.name > _name(step)]

    def newest(self) -> Path | None:
        """The newest whole checkpoint; broken ones are named in the log and passed over."""
        for folder in reversed(self._folders()):
            try:
                _verify(folder)
            except ModelError as error:
                _log.warning("%s 이전 체크포인트를 찾습니다. (%s)", error.what, error.where)
                continue
            return folder
        return None

    def load(self, path: Path) -> Checkpoint:
        """The checkpoint at a folder, a link or a pointer file, verified; ModelError where it is not whole."""
        folder = _follow(path)
        _verify(folder)
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        model = load_file(folder / "model.safetensors")
        for alias, name in state.pop(_ALIASES).items():
            model[alias] = model[name]
        optimizer = load_file(folder / "optimizer.safetensors")
        return Checkpoint(model, optimizer, state["state"], Progress(**state["progress"]), state["fingerprint"])

    def _make_folder(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            _sync_folder(self.folder.parent)

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())

    def _check_space(self, checkpoint: Checkpoint) -> None:
        needed = int(1.05 * size_in_bytes(checkpoint)) + 2**20
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise ResourceError(
                "디스크가 모자라 체크포인트를 저장하지 않았습니다. "
                f"필요 {needed / 2**20:,.0f} MiB, 남음 {free / 2**20:,.0f} MiB",
                where=str(self.folder),
                remedy="공간을 비우거나 training.save_total_limit를 줄인 뒤 --resume으로 이어서 학습하세요.",
            )

    def _point_latest_to(self, target: Path) -> None:
        """Moves checkpoint-latest in one rename: a link, or a file that holds the path where links fail."""
        if self.latest.is_dir() and not self.latest.is_symlink():
            _log.warning("%s 폴더가 이미 있어 최신 체크포인트의 링크를 만들지 않습니다.", self.latest)
            return
        relative = os.path.relpath(target, self.latest.parent)
        partial = self.latest.with_name(f".{self.latest.name}.partial-{os.getpid()}")
        partial.unlink(missing_ok=True)
        try:
            try:
                partial.symlink_to(relative, target_is_directory=True)
            except OSError:  # Windows without the right to, FAT, some network drives
                partial.write_text(relative + "\n", encoding="utf-8")
            os.replace(partial, self.latest)
            _sync_folder(self.latest.parent)
        finally:
            discard(partial)


def run_of(path: Path) -> Path:
    """The output_dir of the run that a checkpoint's folder, a link or a pointer file to it, is of."""
    return _follow(path).parent.parent


# --- a run's state as tensors ---


def trained_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The trained weights and the buffers; what is not trained, quantised or not, is where the model came from."""
    kept = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    kept |= {name for name, _ in model.named_buffers(remove_duplicate=False)}
    return {name: tensor for name, tensor in model.state_dict().items() if name in kept}


def restore_model(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Puts back what trained_tensors took out; ModelError where these are not the same weights."""
    expected = trained_tensors(model).keys()
    if expected != tensors.keys():
        different = sorted(expected ^ tensors.keys())
        raise ModelError(
            f"체크포인트의 가중치가 이 모델의 것이 아닙니다: {', '.join(different[:3])} 등 {len(different):,}개",
            remedy="처음 학습할 때의 모델과 어댑터 설정으로 이어서 학습하세요.",
        )
    model.load_state_dict(tensors, strict=False)


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: Mapping[torch.nn.Parameter, str]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The optimizer's state as tensors by `<what>/<parameter name>`, and its numbers as JSON values."""
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    for parameter, name in names.items():
        for what, value in optimizer.state.get(parameter, {}).items():
            (tensors if isinstance(value, torch.Tensor) else numbers)[f"{what}/{name}"] = value
    return tensors, numbers


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    names: Mapping[torch.nn.Parameter, str],
    tensors: Mapping[str, torch.Tensor],
    numbers: Mapping[str, Any],
) -> None:
    """Puts back what optimizer_tensors took out, each tensor where the optimizer keeps it."""
    parameters = {name: parameter for parameter, name in names.items()}
    optimizer.state.clear()
    for key, value in {**tensors, **numbers}.items():
        what, _, name = key.partition("/")
        parameter = parameters[name]
        if isinstance(value, torch.Tensor):
            is_fused = optimizer.defaults.get("fused")
            value = value.clone() if what == "step" and not is_fused else value.to(parameter.device, copy=True)
        optimizer.state[parameter][what] = value


def size_in_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of a checkpoint's tensors, those that share their memory counted once."""
    places = {_place(t): t for t in (*checkpoint.model.values(), *checkpoint.optimizer.values())}
    return sum(tensor.numel() * tensor.element_size() for tensor in places.values())


def copied(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint in the machine's own memory, for training to go on with the tensors that it was made of.

    Tensors that share their memory (tied weights) share it in the copy.
    """
    copies: dict[tuple[Any, ...], torch.Tensor] = {}

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        place = _place(tensor)
        if place not in copies:
            copies[place] = tensor.detach().to("cpu", copy=True)
        return copies[place]

    model = {name: copy(tensor) for name, tensor in checkpoint.model.items()}
    optimizer = {name: copy(tensor) for name, tensor in checkpoint.optimizer.items()}
    return replace(checkpoint, model=model, optimizer=optimizer)


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What tells a tensor from others: where its memory is and how it is read. An empty one is only itself."""
    return (tensor.data_ptr() or id(tensor), tensor.device, tensor.shape, tensor.stride(), tensor.dtype)


# --- one checkpoint's files ---


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    model, aliases = _without_aliases(checkpoint.model)
    state = {
        "progress": asdict(checkpoint.progress),
        "fingerprint": checkpoint.fingerprint,
        "state": checkpoint.state,
        _ALIASES: aliases,
    }
    save_file(model, folder / "model.safetensors")
    save_file(
        {name: tensor.contiguous() for name, tensor in checkpoint.optimizer.items()}, folder / "optimizer.safetensors"
    )
    give_usual_mode(folder.glob("*.safetensors"))
    (folder / "state.json").write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
    facts = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": _sync_and_hash(folder / name)} for name in _FILES
    }
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"format": _FORMAT, "files": facts}, indent=2), encoding="utf-8")
    _sync_and_hash(manifest)
    _sync_folder(folder)


def _without_aliases(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors without those that share another's storage (tied weights), and which name each of these stands for."""
    kept: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        place = _place(tensor)
        if place in first:
            aliases[name] = first[place]
        else:
            first[place] = name
            kept[name] = tensor.contiguous()
    return kept, aliases


def _verify(folder: Path) -> None:
    """ModelError where a file of a checkpoint is missing or is not what was written."""
    remedy = "더 이전 체크포인트를 쓰려면 --checkpoint_path 없이 --resume만 쓰세요."
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        version, facts = manifest["format"], {name: manifest["files"][name] for name in _FILES}
        expected = {name: (fact["bytes"], fact["sha256"]) for name, fact in facts.items()}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ModelError("체크포인트의 manifest.json이 없거나 깨졌습니다.", where=str(folder), remedy=remedy) from None
    if version != _FORMAT:
        raise ModelError(f"모르는 형식({version})의 체크포인트입니다.", where=str(folder), remedy=remedy)
    for name, (size, digest) in expected.items():
        path = folder / name
        if not path.is_file():
            raise ModelError(f"체크포인트에 {name} 파일이 없습니다.", where=str(folder), remedy=remedy)
        if path.stat().st_size != size or _hash(path) != digest:
            raise ModelError(f"체크포인트의 {name} 파일이 깨졌습니다.", where=str(folder), remedy=remedy)


def _follow(path: Path) -> Path:
    """The folder that a path means: itself, a link's target, or what a pointer file names."""
    path = path.expanduser()
    if path.is_file():
        path = path.parent / path.read_text(encoding="utf-8", errors="replace").strip()[:4096]
    if not path.is_dir():
        raise ModelError(
            f"체크포인트가 없습니다: {path}",
            where="--checkpoint_path",
            remedy="체크포인트는 <output_dir>/checkpoints 아래에 있습니다. --resume만 쓰면 최신 것을 찾습니다.",
        )
    return path.resolve()


def _replace_folder(partial: Path, target: Path) -> None:
    """Renames partial to target; one that is there already (the same step again) is moved aside first."""
    aside = partial.with_name(f".{target.name}.replaced-{os.getpid()}")
    if target.exists():
        target.rename(aside)
    partial.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def _sync_and_hash(path: Path) -> str:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Makes renames and new files in a folder last; Windows has no such call and needs none."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:  # as some network and cloud drives have it
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)
