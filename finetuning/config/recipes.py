"""The program's recipes by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from exceptions import SettingsError

_FOLDER = Path(__file__).resolve().parents[2] / "recipes"


def recipe_path(name: str) -> Path:
    """Return the settings file of a recipe.

    Args:
        name: Its name, with or without `.yaml`.

    Returns:
        The file.

    Raises:
        SettingsError: There is no such recipe. The message lists all, the likely one first.
    """
    found = {path.stem: path for path in sorted(_FOLDER.glob("*.yaml"))}
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
