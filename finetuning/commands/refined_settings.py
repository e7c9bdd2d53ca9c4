"""Settings that the data refine, such as the shape of conversations: what a run began with, for one that resumes it.

settings.yaml in the folder of a run states what the data made of the settings. A run that resumes with this file reads
the data as the run did that it resumes, under what was asked for then: the rows are the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config_manager import ConfigManager
from finetuning.commands.run_folder import RECORD
from finetuning.config.metadata import fields_of, value_at
from finetuning.config.overrides import Override
from finetuning.config.schema import Settings

if TYPE_CHECKING:
    from finetuning.commands.session import Prepared, Session


def refined(asked: Settings, prepared: Prepared) -> dict[str, list[Any]]:
    """Return what was asked for, and what it became, of each setting that the data refined, by dotted name."""
    now = prepared.session.settings
    keys = (field.key for field in fields_of(Settings) if field.key not in prepared.preset)
    pairs = {key: [value_at(asked, key), value_at(now, key)] for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def as_asked(session: Session, folders: Iterable[Path]) -> Session:
    """Return the session under what was asked for when its run began, where the settings are what that became.

    Args:
        session: The session of a resumed run.
        folders: Folders of the run.

    Returns:
        The session; the same one where its settings state nothing that the data refined.
    """
    from finetuning.tasks.registry import find_task

    recorded = session.runtime.on_main(lambda: next((found for folder in folders if (found := _recorded(folder))), {}))
    changes = {key: asked for key, (asked, became) in recorded.items() if value_at(session.settings, key) == became}
    if not changes:
        return session
    settings = ConfigManager.changed(session.settings, {key: Override(one, RECORD) for key, one in changes.items()})
    return session.with_settings(settings, find_task(settings))


def _recorded(folder: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))["refined"]
        known = {
            field.key for field in fields_of(Settings) if not field.setting.user_only
        }  # a folder may come from anybody
        return {key: (asked, became) for key, (asked, became) in found.items() if key in known}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
