"""README and docs/ in both languages: the same sections, only what the program has, and links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from config_manager import ConfigManager
from finetuning.config.overrides import Override
from finetuning.config.recipes import settings_files
from finetuning.config.schema import Settings, all_keys
from finetuning.tasks.registry import task_classes
from finetuning_app import build_parser
from tests.support.paths import ROOT

KOREAN = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if ".en." not in path.name)]
ENGLISH = [path.with_suffix(".en.md") for path in KOREAN]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in KOREAN + ENGLISH}
PAIRS = [(str(path.relative_to(ROOT)), str(path.with_suffix(".en.md").relative_to(ROOT))) for path in KOREAN]
ANOTHER_PROGRAMS = {
    "--nproc_per_node", "--num_processes", "--nnodes", "--max-restarts", "--rm", "--user", "--build-arg", "--gpus",
    "--version",
}  # fmt: skip
OF_THE_CARD = [
    "설치 방법", "프로젝트 구조", "사용 방법", "설정 파일 가이드", "커맨드라인 인자", "학습 과정", "문제 해결", "FAQ",
]  # fmt: skip
MOST_LINES = 250
in_each = pytest.mark.parametrize("name", TEXTS)
in_both = pytest.mark.parametrize("suffix", [".md", ".en.md"])


def table_rows(text: str) -> list[list[str]]:
    """The cells of every row of every table."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def code_in(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def headings_of(text: str) -> list[tuple[str, str]]:
    """Each heading: its number signs, and its words."""
    return re.findall(r"^(#+) (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)


def anchor(heading: str) -> str:
    """The name that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(("korean", "english"), PAIRS)
def test_both_languages_have_the_same_headings_keys_and_commands(korean: str, english: str) -> None:
    def shape(text: str) -> list[list[str]]:
        keys = [code for row in table_rows(text) for code in code_in(row[0]) if not code.startswith("-")]
        commands = re.findall(r"^(?:python|make|pip|git|docker|  --)[^#\n]*[^#\s]", text, re.M)
        return [[signs for signs, _ in headings_of(text)], keys, commands]

    ours, theirs = shape(TEXTS[korean]), shape(TEXTS[english])
    assert ours[:2] == theirs[:2]
    assert len(ours[2]) == len(theirs[2])


def test_every_document_is_in_both_languages() -> None:
    assert {path.name for path in (ROOT / "docs").glob("*.md")} == {
        path.name for path in KOREAN + ENGLISH if path.parent != ROOT
    }


@in_each
def test_links_lead_to_files_and_headings_that_are_there(name: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", TEXTS[name]):
        file, _, heading = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        if heading:
            text = path.read_text(encoding="utf-8")
            assert heading in {anchor(words) for _, words in headings_of(text)}, target


@in_each
def test_flags_and_files_in_the_documents_exist(name: str) -> None:
    text = TEXTS[name]
    flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))
    assert flags - ANOTHER_PROGRAMS <= set(build_parser()._option_string_actions)
    files = re.findall(r"\b(?:finetuning|recipes|examples|benchmarks|tests)/[a-z][\w/-]*(?:\.\w+)?", text, re.ASCII)
    assert [path for path in files if not (ROOT / path).exists()] == []


@in_both
def test_the_readme_is_short_and_shows_the_files_that_there_are(suffix: str) -> None:
    text = TEXTS[f"README{suffix}"]
    assert len(text.splitlines()) <= MOST_LINES
    tree = re.findall(r"^[├└]── (\S+) +#", text, re.M)
    assert len(tree) == 13
    assert [name for name in tree if not (ROOT / name).exists()] == []


def test_the_readme_has_the_sections_of_its_contents() -> None:
    text = TEXTS["README.md"]
    assert re.findall(r"^\d\. \[(.+?)\]\(#", text, re.M) == OF_THE_CARD
    assert [words for signs, words in headings_of(text) if signs == "##" and words in OF_THE_CARD] == OF_THE_CARD


@in_both
def test_every_task_has_a_row_and_every_recipe_is_in_one(suffix: str) -> None:
    rows = [row for row in table_rows(TEXTS[f"docs/tasks{suffix}"]) if row[0].strip("`") in task_classes()]
    assert sorted(row[0].strip("`") for row in rows) == sorted(task_classes())
    assert sorted(name for row in rows for name in code_in(row[3])) == sorted(path.stem for path in settings_files())


@in_both
def test_the_defaults_are_those_of_the_settings(suffix: str) -> None:
    text = TEXTS[f"docs/settings{suffix}"]
    parts = re.split(r"^## (model|data|training|memory|그 밖의 섹션|Other sections)$", text, flags=re.M)[1:]
    stated: dict[str, Override] = {}
    for section, content in zip(parts[::2], parts[1::2], strict=True):
        prefix = f"{section}." if section in Settings.model_fields else ""
        for keys, _, defaults in table_rows(content.split("\n#")[0])[2:]:
            for key, default in zip(code_in(keys), code_in(defaults), strict=True):
                stated[prefix + key] = Override(yaml.safe_load(default), "docs/settings.md")
    assert sorted(stated) == sorted(all_keys())
    assert ConfigManager.load(None, stated) == Settings()


def test_paths_and_commands_in_contributing_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:finetuning|recipes|benchmarks|tests|docs)/[\w/.-]*|[\w.-]+\.(?:md|txt|toml))`", text))
    assert len(paths) > 20
    assert [path for path in sorted(paths) if not (ROOT / path).exists() and "NAME" not in path] == []
    named = re.findall(r"`(\w+)`\s+(?:in|of)\s+`([\w/]+\.py)`", text)  # a name in a file
    assert len(named) >= 5
    assert [(name, path) for name, path in named if name not in (ROOT / path).read_text(encoding="utf-8")] == []


def test_the_image_gets_every_file_that_the_program_needs() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    assert set(copied) == kept
    assert [name for name in copied if not list(ROOT.glob(name))] == []
    needed = {"finetuning", "recipes", "examples", "config.yaml", "schema.json", "*.py", "requirements.txt"}
    assert needed <= set(copied)
    entry = next(line for line in lines if line.startswith("ENTRYPOINT"))
    assert Path(re.findall(r'"([^"]+\.py)"', entry)[0]) == Path("finetuning_app.py")
    arguments = [line.split()[1].partition("=")[0] for line in lines if line.startswith("ARG ")]
    assert arguments == ["PYTHON", "DEVICE"]
