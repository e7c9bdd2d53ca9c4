"""Several adapters of one base, each with a weight, as one model."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exceptions import SettingsError
from finetuning.korean.particles import with_particle
from finetuning.models.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, base_of

_EXAMPLE = "예: --adapters ./models/a=0.7 ./models/b=0.3"


@dataclass(frozen=True)
class Share:
    """An adapter's share of a model.

    Attributes:
        folder: The adapter's folder.
        weight: Factor of the change that it makes to its base's weights.
    """

    folder: str
    weight: float

    @classmethod
    def of(cls, text: str) -> Share:
        """Read `folder=weight`; raise SettingsError for another form."""
        folder, _, weight = text.rpartition("=")
        try:
            share = cls(str(Path(folder).expanduser()), float(weight))
        except ValueError:
            share = cls(folder, math.nan)
        if not folder or not math.isfinite(share.weight):
            raise SettingsError(
                f"어댑터 폴더와 가중치를 =로 이어 써야 합니다: {text}", where="--adapters", remedy=_EXAMPLE
            )
        return share


def check_shares(shares: Sequence[Share]) -> None:
    """Check that adapters can be added up.

    Args:
        shares: The adapters.

    Raises:
        SettingsError: There is one alone, or one is no LoRA, has another base than the first, or has weights that
            replace those of its base.
    """
    if len(shares) < 2:
        raise SettingsError("합칠 어댑터를 두 개 이상 지정해야 합니다.", where="--adapters", remedy=_EXAMPLE)
    for share in shares:
        if not (Path(share.folder) / ADAPTER_CONFIG).is_file():
            raise SettingsError(
                "어댑터 폴더가 아닙니다.",
                where=f"--adapters: {share.folder}",
                remedy=f"{with_particle(ADAPTER_CONFIG, '이/가')} 있는 폴더를 지정하세요.",
            )
        reason = _cannot_be_added(Path(share.folder))
        if reason:
            raise SettingsError(
                reason, where=f"--adapters: {share.folder}", remedy="이 어댑터를 빼고, LoRA 어댑터끼리 합치세요."
            )
    bases = [_known_as(base_of(Path(share.folder))) for share in shares]
    for share, base in zip(shares, bases, strict=True):
        if base != bases[0]:
            raise SettingsError(
                "베이스 모델이 다른 어댑터는 합칠 수 없습니다.",
                where=f"--adapters: {shares[0].folder} (베이스 모델 {bases[0]}), {share.folder} (베이스 모델 {base})",
                remedy="베이스 모델이 같은 어댑터만 지정하세요.",
            )


def add_weighted(model: Any, shares: Sequence[Share]) -> Any:
    """Merge adapters into their base: its weights, and of each adapter's change its weight's part.

    peft writes them behind one another as one adapter, which is exact.

    Args:
        model: The base with the first adapter, as a PeftModel.
        shares: All adapters, that one first.

    Returns:
        The merged model.
    """
    names = ["default", *(f"share_{number}" for number in range(1, len(shares)))]
    for name, share in zip(names[1:], shares[1:], strict=True):
        model.load_adapter(share.folder, adapter_name=name)
    for name in names:  # their scales are in force; that of the sum is 1, which rsLoRA's rule would change
        model.peft_config[name].use_rslora = False
    model.add_weighted_adapter(names, [share.weight for share in shares], "sum", combination_type="cat")
    model.set_adapter("sum")
    return model.merge_and_unload(adapter_names=["sum"])


def _cannot_be_added(folder: Path) -> str | None:
    """Return in Korean why an adapter cannot be added to others; None where it can."""
    from safetensors import SafetensorError, safe_open

    base_of(folder)  # raises for a file that cannot be read
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA" or config.get("use_dora"):
        return "LoRA 어댑터만 더해서 합칠 수 있습니다. DoRA는 가중치의 크기를 따로 바꿉니다."
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as opened:
            whole = [name for name in opened.keys() if "lora_" not in name]  # noqa: SIM118 a file is no mapping
    except (OSError, SafetensorError):
        return "어댑터의 가중치 파일을 읽을 수 없습니다."
    if whole:
        return f"head나 임베딩까지 학습한 어댑터는 더해서 합칠 수 없습니다: {whole[0]}"
    return None


def _known_as(base: str) -> str:
    path = Path(base).expanduser()
    return str(path.resolve()) if path.exists() else base
