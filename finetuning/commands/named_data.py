"""The data that a saved model is evaluated on: the user names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import SettingsError
from finetuning.files import command_of_this_program

if TYPE_CHECKING:
    from finetuning.config.schema import DataSettings


def check_data_named(folder: Path, trained_on: str | None, users: DataSettings, words: Sequence[str]) -> None:
    """Check that the user names the data of `evaluate`: a model folder may come from anybody, and names none.

    Args:
        folder: The model's folder.
        trained_on: The data that its settings.yaml names.
        users: The user's own settings of the data.
        words: The words of the command line.

    Raises:
        SettingsError: They differ. It shows the command that evaluates on the folder's.
    """
    if trained_on is None or trained_on == users.shown_name() or users.split_files() or users.mix:
        return
    is_path = bool(Path(trained_on).suffix) or trained_on.startswith((".", "/", "~"))
    if is_path and not Path(trained_on).expanduser().exists():
        remedy = f"이 모델을 학습한 데이터는 {trained_on}인데, 지금 폴더({Path.cwd()})에서는 찾을 수 없습니다."
    else:
        named = any(word.partition("=")[0] == "--split" for word in words)
        # all rows of a single file are scored, unless it is divided as in training
        split = ["--split", "validation"] if Path(trained_on).suffix and not named else []
        command = command_of_this_program(*words, "--dataset", trained_on, *split)
        remedy = f"이 모델을 학습할 때의 데이터로 평가하려면: {command}"
    raise SettingsError(
        "평가할 데이터를 --dataset으로 지정하세요. 모델 폴더는 남이 만든 것일 수 있으므로, 거기 적힌 데이터를 알아서 "
        "읽지는 않습니다.",
        where=f"{folder / 'settings.yaml'}, data.dataset_name",
        remedy=remedy,
    )
