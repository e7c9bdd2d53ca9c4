"""Settings: defaults, precedence, and messages that say what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from config_manager import ConfigManager
from exceptions import SettingsError
from finetuning.config.overrides import Override, parse_assignment
from finetuning.config.schema import Settings, all_keys
from tests.support.paths import ROOT


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def from_text(text: str, **overrides: Any) -> Settings:
        path = tmp_path / "my.yaml"
        path.write_text(text, encoding="utf-8")
        given = {key.replace("__", "."): Override(value, "--flag") for key, value in overrides.items()}
        return ConfigManager.load(path, given)

    return from_text


def refused(load: Any, text: str, **overrides: Any) -> str:
    with pytest.raises(SettingsError) as error:
        load(text, **overrides)
    assert error.value.exit_code == 2
    return str(error.value)


def keys_in(sections: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in sections.items():
        is_section = isinstance(value, dict) and bool(value)  # an empty one is the value of a mapping
        found += keys_in(value, f"{prefix}{name}.") if is_section else [prefix + name]
    return found


def test_config_yaml_has_every_key_at_its_default_with_a_comment() -> None:
    path = ROOT / "config.yaml"
    assert ConfigManager.load(path, {}) == Settings()
    text = path.read_text(encoding="utf-8")
    written = yaml.safe_load(text)
    assert sorted(keys_in(written)) == sorted(all_keys())
    assert all("#" in line for line in text.splitlines() if line.startswith("  "))


def test_flags_win_over_the_file_and_the_file_over_defaults(load: Any) -> None:
    settings = load("training: {epochs: 5, seed: 7}", training__epochs="9")
    assert (settings.training.epochs, settings.training.seed, settings.data.batch_size) == (9, 7, 16)


@pytest.mark.parametrize("written", ["2e-5", "'2e-5'", "0.00002", "2.0e-5"])
def test_a_number_in_any_spelling_is_a_number(load: Any, written: str) -> None:
    assert load(f"training: {{learning_rate: {written}}}").training.learning_rate == 2e-5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training: {learning_rat: 1}", ["training.learning_rat", "training.learning_rate입니까"]),
        ("training: {batch_size: 8}", ["training.batch_size", "data.batch_size"]),
        ("trainin: {epochs: 1}", ["trainin", "training"]),
        ("learning_rate: 1e-5", ["learning_rate", "training.learning_rate"]),
        ("model: {adapter: {rank: 8}}", ["model.adapter.rank", "model.adapter."]),
        ("model: {adapter: {r: 0}}", ["model.adapter.r", "1 이상", "예: r: 16"]),
        ("model: {adapter: lora}", ["model.adapter"]),
        ("training: {epochs: three}", ["training.epochs", "'three'", "숫자"]),
        ("training: {epochs: 1.5}", ["training.epochs", "정수"]),
        ("training: {epochs: true}", ["training.epochs", "숫자"]),
        ("training: {epochs: 0}", ["training.epochs", "1 이상"]),
        ("training: {learning_rate: 0}", ["0보다 커야", "예: learning_rate: 2e-5"]),
        ("training: {learning_rate: .nan}", ["유한한"]),
        ("memory: {max_gpu_memory_usage: 1.5}", ["memory.max_gpu_memory_usage", "1 이하"]),
        ("memory: {mixed_precision: 1}", ["true 또는 false"]),
        ("training: {lr_scheduler: exponential}", ["linear", "cosine", "constant"]),
        ("model: {name: 3}", ["model.name", "문자열"]),
        ("model: {name: on}", ["따옴표"]),
        ("model: {name: ''}", ["비워"]),
        ("logging: {format: '%(nothing)s'}", ["logging.format"]),
        ("logging: {level: LOUD}", ["logging.level", "DEBUG"]),
        ("model: bert", ["model", "키: 값"]),
        ("- a\n- b", ["섹션"]),
        ("training:\n  epochs: 1\n  epochs: 2\n", ["두 번", "3번째 줄"]),
        ("training:\n  epochs: [1\n", ["번째 줄", "번째 칸"]),
    ],
)
def test_a_wrong_file_is_refused_with_what_to_write(load: Any, text: str, said: list[str]) -> None:
    message = refused(load, text)
    assert "my.yaml" in message
    for words in said:
        assert words in message


def test_all_wrong_keys_are_reported_at_once(load: Any) -> None:
    message = refused(load, "training: {epochs: 0, seeds: 1}\ndata: {batch_size: x}")
    for words in ("training.epochs", "training.seeds", "data.batch_size"):
        assert words in message


def test_a_wrong_flag_is_named_as_the_flag(load: Any) -> None:
    assert "예: --flag 3" in refused(load, "", training__epochs="many")


@pytest.mark.parametrize("text", ["training.epochs", "epochs=3", "training.epoch=3"])
def test_a_malformed_assignment_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"--set|설정이 없습니다"):
        parse_assignment(text)


def test_an_assignment_is_read_as_yaml() -> None:
    assert parse_assignment("training.save_steps=null") == ("training.save_steps", None)
    assert parse_assignment("memory.mixed_precision=false") == ("memory.mixed_precision", False)


def test_an_assignment_of_a_yaml_mark_is_a_string() -> None:
    assert parse_assignment("data.label_separator=|") == ("data.label_separator", "|")
    assert parse_assignment("data.label_separator='; '") == ("data.label_separator", "; ")


def test_reasons_for_an_unreadable_file_are_distinguished(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "no.yaml", "없습니다"), (tmp_path, "폴더")):
        with pytest.raises(SettingsError, match=words):
            ConfigManager.load(path, {})
    (tmp_path / "cp949.yaml").write_bytes("model: {name: 한글}".encode("cp949"))
    with pytest.raises(SettingsError, match="UTF-8"):
        ConfigManager.load(tmp_path / "cp949.yaml", {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model:\n\tname: a\n", "들여쓰기에 탭"),
        ("data:\n  text_column: 리뷰: 내용\n", "콜론"),
        ("data:\n  label_map: {가: 나\n", "닫는 괄호"),
        ('data:\n  text_column: "리뷰\n', "닫는 따옴표"),
        ('data:\n  sources: "C:\\리뷰"\n', "역슬래시"),
        ("model:\n  name: a\n  adapter\n", "윗줄에 콜론(:)이 없습니다"),
        ("data:\n  sources: [가, 나]]\n", "닫는 괄호가 더 있거나"),
        (" data:\n  seed: 1\nmodel:\n  name: a\n", "첫 줄과 맞지 않습니다"),
    ],
)
def test_usual_mistakes_in_yaml_are_named_in_korean(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as error:
        ConfigManager.load(tmp_path / "my.yaml", {})
    assert said in error.value.what and "번째 줄" in str(error.value)


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("model:\n  name: 'it's'\n", "두 번('')"),
        ("model: {name: 'it's'}\n", "두 번('')"),
        ('model:\n  name: "a"b"\n', '\\"로'),
        ("model:\n  name: 'a' b\n", "덧붙인 글자"),
    ],
)
def test_a_mark_within_a_value_in_the_same_marks_is_told_how_to_be_written(
    tmp_path: Path, text: str, mark: str
) -> None:
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match="따옴표로 감싼 값 뒤에 다른 글자가 있습니다") as error:
        ConfigManager.load(tmp_path / "a.yaml", {})
    assert mark in error.value.remedy and "들여쓰기" not in str(error.value)


def test_a_byte_order_mark_and_empty_sections_are_fine(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_text("training:\nmodel:\n", encoding="utf-8-sig")
    assert ConfigManager.load(tmp_path / "bom.yaml", {}) == Settings()


@given(st.floats(1e-12, 1.0), st.integers(0, 2**32 - 1), st.text("가나다abc:# '\"", min_size=1))
def test_settings_come_back_from_their_yaml(tmp_path_factory: Any, rate: float, seed: int, name: str) -> None:
    settings = Settings.model_validate({"training": {"learning_rate": rate, "seed": seed}, "model": {"name": name}})
    path = tmp_path_factory.mktemp("settings") / "settings.yaml"
    ConfigManager.save(settings, path)
    assert ConfigManager.load(path, {}) == settings


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SECTIONS = st.sampled_from([*Settings.model_fields, "other"])
KEYS = st.sampled_from([key.partition(".")[2] for key in all_keys()]) | st.text(max_size=8)


@given(st.dictionaries(SECTIONS, st.dictionaries(KEYS, ANYTHING, max_size=3) | ANYTHING, max_size=3) | ANYTHING)
def test_any_yaml_is_read_or_refused(tmp_path_factory: Any, content: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    try:
        assert isinstance(ConfigManager.load(path, {}), Settings)
    except SettingsError as error:
        assert str(error)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(content)
    try:
        assert isinstance(ConfigManager.load(path, {}), Settings)
    except SettingsError as error:
        assert str(error)
