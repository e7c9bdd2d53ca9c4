"""Metadata of settings: new sections count by default, and the cache depends on what rows and examples are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from data_manager import DataManager
from exceptions import SettingsError
from finetuning.checkpoints.fingerprint import check_same_run, fingerprint
from finetuning.config.metadata import Section, fields_of, setting
from finetuning.config.schema import Settings, cache_dependencies
from finetuning.tasks.registry import find_task
from tests.support.managers import make_manager


class ToySettings(Section):
    """A section that says nothing about resuming or the cache."""

    beta: float = 0.1
    label_smoothing: float = setting(0.0, "라벨 스무딩", "label smoothing", resume="free", cache="none")


class WiderSettings(Settings):
    """The settings with one more section."""

    toy: ToySettings = ToySettings()


def test_every_setting_has_a_description_in_both_languages() -> None:
    lacking = [f.key for f in fields_of(Settings) if not (f.setting.korean and f.setting.english)]
    assert lacking == []
    assert [f.key for f in fields_of(Settings) if "\n" in f.setting.korean + f.setting.english] == []


def test_no_two_settings_share_a_flag() -> None:
    flags = [field.setting.flag for field in fields_of(Settings) if field.setting.flag]
    assert len(flags) == len(set(flags)) == 19


def test_a_new_section_is_part_of_the_cache_and_a_field_may_say_otherwise() -> None:
    for stage in ("rows", "examples"):
        found = cache_dependencies(WiderSettings(), stage)
        assert found.items() > cache_dependencies(Settings(), stage).items()
        assert {key for key in found if key.startswith("toy")} == {"toy.beta"}


def test_a_new_section_is_part_of_the_fingerprint(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    settings = WiderSettings.model_validate(manager.settings.model_dump())
    found = fingerprint(
        settings, manager.model, manager.train_examples, {}, 64, manager.window_size, manager.runtime.precision
    )
    assert found["toy.beta"] == 0.1
    assert "toy.label_smoothing" not in found


def test_a_setting_newer_than_the_checkpoint_counts_as_its_default() -> None:
    current = {"fill_mask.whole_word": True, "training.epochs": 3}
    check_same_run({"training.epochs": 3}, current, allow_changed=False)
    with pytest.raises(SettingsError, match=r"fill_mask.whole_word: 체크포인트 True / 지금 False"):
        check_same_run({"training.epochs": 3}, {**current, "fill_mask.whole_word": False}, allow_changed=True)


# --- the cache of examples ---


def cached_examples(settings: Settings, tokenizer: Any, max_length: int = 32) -> set[str]:
    """Names of the example files in the cache after the training split was encoded under these settings."""
    task = find_task(settings)
    task.encodes.fit_tokenizer(tokenizer)
    data = DataManager(settings, task)
    splits = data.load_splits()
    data.encode(splits["train"], tokenizer, data.label_names(splits), max_length)
    return {path.name for path in data.cache.folder.glob("examples-*.arrow")}


@pytest.fixture
def base(tiny_model: Path, reviews: Path, tmp_path: Path) -> dict[str, dict[str, Any]]:
    data = {"dataset_name": str(reviews), "dataset_cache_dir": str(tmp_path / "cache")}
    return {"model": {"name": str(tiny_model)}, "data": data}


def under(base: dict[str, dict[str, Any]], **changes: Any) -> Settings:
    sections = {name: dict(values) for name, values in base.items()}
    for key, value in changes.items():
        section, name = key.split("__")
        sections.setdefault(section, {})[name] = value
    return Settings.model_validate(sections)


UNRELATED = {
    "expectation__band": 0.05, "logging__level": "DEBUG", "logging__log_steps": 3, "generation__num_beams": 4,
    "training__epochs": 9, "memory__mixed_precision": False, "model__dtype": "bfloat16", "fill_mask__whole_word": False,
}  # fmt: skip


def test_settings_that_do_not_affect_examples_keep_the_cache(base: dict[str, dict[str, Any]], tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    first = cached_examples(under(base), tokenizer)
    assert len(first) == 1
    for key, value in UNRELATED.items():
        assert cached_examples(under(base, **{key: value}), tokenizer) == first, key
    for number, change in enumerate(({"question_answering__doc_stride": 7}, {"data__normalize": []}), 2):
        assert len(cached_examples(under(base, **change), tokenizer)) == number, change
    assert len(cached_examples(under(base), tokenizer, max_length=16)) == 4


def test_another_chat_template_under_the_same_name_makes_other_examples(tiny_causal: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    template, source = tmp_path / "chat.jinja", tmp_path / "train.jsonl"
    rows = [{"prompt": f"질문 {number}", "response": f"답변 {number}"} for number in range(20)]
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    settings = Settings.model_validate(
        {
            "model": {"task": "text-generation"},
            "data": {"dataset_name": str(source), "dataset_cache_dir": str(tmp_path / "cache")},
            "text_generation": {"format": "chat", "chat_template": str(template)},
        }
    )
    found = []
    for separator in (": ", ": ", " = "):
        template.write_text(
            f"{{% for m in messages %}}{{{{ m['role'] + '{separator}' + m['content'] }}}}{{% endfor %}}"
            "{% if add_generation_prompt %}{{ 'assistant" + separator + "' }}{% endif %}"
        )
        found.append(cached_examples(settings, AutoTokenizer.from_pretrained(tiny_causal), max_length=64))
    assert found[0] == found[1] and len(found[0]) == 1
    assert found[2] > found[0]


def test_settings_of_examples_do_not_affect_the_rows(base: dict[str, dict[str, Any]]) -> None:
    def key(**changes: Any) -> str:
        settings = under(base, **changes)
        return DataManager(settings, find_task(settings)).load_splits()["train"].key

    assert key(question_answering__doc_stride=7) == key(expectation__band=0.5) == key()
    assert key(text_generation__system_prompt="친절하게 답하세요") != key()
    assert key(data__label_separator="|") != key()


def test_fields_of_is_relative_to_its_section() -> None:
    first = fields_of(ToySettings)[0]
    assert (first.key, first.default, first.resume, first.cache) == ("beta", 0.1, "same", "rows")
