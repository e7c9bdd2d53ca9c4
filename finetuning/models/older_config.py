"""config.json for older programs: rotary positions by the names of transformers 4, beside those of 5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Names:
    """What transformers 4 calls the values of `rope_parameters`, of a model type."""

    theta: str = "rope_theta"
    local_theta: str = "rope_local_base_freq"
    partial: str = "partial_rotary_factor"


_OF_TYPE = {
    "gpt_neox": _Names("rotary_emb_base", partial="rotary_pct"),
    "modernbert": _Names("global_rope_theta", "local_rope_theta"),
}
_KNOWN = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")  # kinds of scaling that transformers 4 knows
_NO_SCALING = ("rope_theta", "partial_rotary_factor")


def with_older_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json with rotary positions at the top as well; transformers 5 reads the same values from both.

    A program that does not know `rope_parameters` would compute with a default instead, without a word.

    Args:
        config: The content of config.json.

    Returns:
        The content, with the configs inside it (`text_config`) treated alike.
    """
    older = {
        name: with_older_names(part) if name.endswith("_config") and isinstance(part, dict) else part
        for name, part in config.items()
    }
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return older
    whole, local = _part(rope, "full_attention") or rope, _part(rope, "sliding_attention")
    if whole.get("rope_type", "default") not in _KNOWN:  # transformers 5 would read it from both, and miss a value
        return older
    names = _OF_TYPE.get(str(config.get("model_type")), _Names())
    found = {
        names.theta: whole.get("rope_theta"),
        names.local_theta: local.get("rope_theta"),
        names.partial: whole.get("partial_rotary_factor"),
    }
    if whole.get("rope_type", "default") != "default":
        found["rope_scaling"] = {name: value for name, value in whole.items() if name not in _NO_SCALING}
    return {**{name: value for name, value in found.items() if value is not None}, **older}


def _part(rope: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = rope.get(name)
    return part if isinstance(part, dict) else {}
