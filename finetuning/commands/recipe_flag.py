"""The flag --recipe: a settings file of the program, or a list of recipes for `sweep`."""

from __future__ import annotations

import argparse
from pathlib import Path

from exceptions import SettingsError
from finetuning.config.recipes import RecipeList, recipe_list, recipe_path


def settings_of_recipe(arguments: argparse.Namespace) -> tuple[Path | None, RecipeList | None]:
    """Return what --recipe names.

    Args:
        arguments: The command line.

    Returns:
        The settings file, or the list of recipes.

    Raises:
        SettingsError: There is no such recipe, --config names another file, or a list is not for this command.
    """
    if arguments.config is not None:
        raise SettingsError(
            "--recipe와 --config는 함께 쓸 수 없습니다. 둘 다 설정 파일을 지정합니다.",
            where="명령줄",
            remedy="하나만 쓰고, 바꿀 값은 --learning_rate나 --set 같은 플래그로 쓰세요.",
        )
    path = recipe_path(arguments.recipe)
    listed = recipe_list(path)
    if listed is not None and arguments.command != "sweep":
        raise SettingsError(
            f"'{listed.name}'에는 레시피 여럿이 들어 있습니다.",
            where="--recipe",
            remedy=f"모두 차례로 학습하려면 python finetuning_app.py sweep --recipe {listed.name}, 하나만 학습하려면 "
            f"그 이름을 쓰세요: {', '.join(one.name for one in listed.recipes)}",
        )
    return (None if listed else path), listed
