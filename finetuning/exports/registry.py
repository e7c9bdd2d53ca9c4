"""All export formats by name. A new format is one file beside this one and a row here."""

from __future__ import annotations

from collections.abc import Mapping

from finetuning.exports.base import ExportFormat
from finetuning.exports.merged import MERGED

FORMATS: Mapping[str, ExportFormat] = {chosen.name: chosen for chosen in (MERGED,)}
DEFAULT = MERGED
