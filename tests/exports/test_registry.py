"""Export formats: each is found by its name, and writes only what it can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exceptions import SettingsError
from finetuning.exports.registry import DEFAULT, FORMATS


class WholeModel:
    """A fine-tuned model that is no adapter."""

    name = "models/whole"

    def is_adapter(self) -> bool:
        return False


def test_formats_are_named_in_the_registry() -> None:
    assert DEFAULT in FORMATS.values()
    assert all(name == chosen.name and chosen.done for name, chosen in FORMATS.items())


def test_a_whole_model_has_nothing_to_merge(tmp_path: Path) -> None:
    model: Any = WholeModel()
    with pytest.raises(SettingsError, match="합칠 것이 없습니다") as error:
        FORMATS["merged"].write(model, tmp_path)
    assert error.value.where == "models/whole"
    assert not list(tmp_path.iterdir())
