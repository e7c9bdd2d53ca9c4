"""config.json for older programs: they find rotary positions where they look, and transformers 5 reads the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetuning.models.older_config import with_older_names

LLAMA3 = {
    "rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}  # fmt: skip


def configs() -> dict[str, Any]:
    from transformers import BertConfig, Gemma3Config, Gemma3TextConfig, GPTNeoXConfig, LlamaConfig, ModernBertConfig

    partial = {"rope_theta": 20000.0, "rope_type": "default", "partial_rotary_factor": 0.5}
    return {
        "scaled": LlamaConfig(rope_parameters=LLAMA3),
        "plain": LlamaConfig(rope_parameters={"rope_theta": 12345.0, "rope_type": "default"}),
        "local": Gemma3TextConfig(),
        "nested": Gemma3Config(),
        "partial": GPTNeoXConfig(rope_parameters=partial),
        "modernbert": ModernBertConfig(),
        "none": BertConfig(),
    }


@pytest.mark.parametrize("name", ["scaled", "plain", "local", "nested", "partial", "modernbert", "none"])
def test_transformers_5_reads_the_same_positions(name: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    config = configs()[name]
    config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    plain = json.loads(path.read_text(encoding="utf-8"))
    older = with_older_names(plain)
    assert plain.items() <= {**older, **{key: plain[key] for key in plain if key.endswith("_config")}}.items()
    path.write_text(json.dumps(older), encoding="utf-8")
    read = AutoConfig.from_pretrained(tmp_path)
    assert read.get_text_config().to_dict().get("rope_parameters") == config.get_text_config().to_dict().get(
        "rope_parameters"
    )


def test_older_programs_find_the_positions_by_their_names() -> None:
    made = {name: with_older_names(config.to_dict()) for name, config in configs().items()}
    assert made["scaled"]["rope_theta"] == 500000.0
    assert (
        made["scaled"]["rope_scaling"]["rope_type"] == "llama3" and "rope_theta" not in made["scaled"]["rope_scaling"]
    )
    assert made["plain"]["rope_theta"] == 12345.0 and "rope_scaling" not in made["plain"]
    assert made["local"]["rope_local_base_freq"] == 10000.0
    assert made["nested"]["text_config"]["rope_theta"] == 1000000.0
    assert (made["partial"]["rotary_emb_base"], made["partial"]["rotary_pct"]) == (20000.0, 0.5)
    assert made["modernbert"]["global_rope_theta"] == 160000.0
    assert made["none"] == configs()["none"].to_dict()
