"""All export formats by name. A new format is one file beside this one and a row here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from exceptions import SettingsError
from finetuning.exports.base import ExportFormat
from finetuning.exports.gguf import GGUF, GGUF_Q8
from finetuning.exports.merged import MERGED
from finetuning.exports.onnx import ONNX, ONNX_INT8

FORMATS: Mapping[str, ExportFormat] = {chosen.name: chosen for chosen in (MERGED, GGUF, GGUF_Q8, ONNX, ONNX_INT8)}
DEFAULT = MERGED


def find_format(name: str | None) -> ExportFormat:
    """Return a format by its name.

    Args:
        name: The name, in any case; None for the default.

    Returns:
        The format.

    Raises:
        SettingsError: There is none of that name.
    """
    if name is None:
        return DEFAULT
    known = name.strip().lower().replace("_", "-").replace("q8-0", "q8_0")
    if known in FORMATS:
        return FORMATS[known]
    near = difflib.get_close_matches(known, FORMATS, n=1)
    guess = f"혹시 {near[0]}입니까? " if near else ""
    raise SettingsError(
        f"'{name}' 형식은 없습니다.", where="--format", remedy=f"{guess}쓸 수 있는 형식: {', '.join(FORMATS)}"
    )
