"""The program's recipes by name: settings files, and lists of recipes that are trained one after the other."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exceptions import SettingsError

FOLDER = Path(__file__).resolve().parents[2] / "recipes"


@dataclass(frozen=True)
class Listed:
    """One recipe of a list.

    Attributes:
        name: Its name.
        folder: Its data's folder below the one that `--dataset` names.
        config: Its data's configuration of the list's dataset on the Hub.
        published: Published scores by metric, in this program's units.
        own_model: Whether it keeps its own model where `--model_name` names another, which could not do its task.
    """

    name: str
    folder: str
    config: str
    published: Mapping[str, float]
    own_model: bool = False


@dataclass(frozen=True)
class RecipeList:
    """Recipes that are trained one after the other, beside published scores.

    Attributes:
        name: The list's name.
        source: Where the scores stand.
        hub: The dataset of the Hub that has the data of all.
        recipes: The recipes in their order.
    """

    name: str
    source: str
    hub: str
    recipes: tuple[Listed, ...]


def settings_files() -> tuple[Path, ...]:
    """Return the recipes that are settings files, by name."""
    return tuple(path for path in sorted(FOLDER.glob("*.yaml")) if recipe_list(path) is None)


def recipe_path(name: str) -> Path:
    """Return the file of a recipe.

    Args:
        name: Its name, with or without `.yaml`.

    Returns:
        The file.

    Raises:
        SettingsError: There is no such recipe. The message lists all, the likely one first.
    """
    found = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
    wanted = name.removesuffix(".yaml")
    if wanted in found:
        return found[wanted]
    near = difflib.get_close_matches(wanted, found, n=1)
    guess = f"혹시 {near[0]}입니까? " if near else ""
    own = " 내 설정 파일은 --config로 지정하세요." if Path(name).suffix or "/" in name else ""
    raise SettingsError(
        f"'{name}' 레시피가 없습니다.",
        where="--recipe",
        remedy=f"{guess}쓸 수 있는 레시피: {', '.join(found)}.{own}",
    )


def recipe_list(path: Path) -> RecipeList | None:
    """Return the list in a recipe's file, None where it is a settings file."""
    import yaml

    text = path.read_text(encoding="utf-8")
    if "\nrecipes:" not in text:
        return None
    found = yaml.safe_load(text)
    recipes = tuple(Listed(name, **own) for name, own in found["recipes"].items())
    return RecipeList(path.stem, found["source"], found["hub"], recipes)
