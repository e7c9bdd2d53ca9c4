"""Metadata of each setting: descriptions, flag, resume rule, cache rule.

A field of a section declares these with `setting(...)`. The reference files, the run's fingerprint and the keys of the
data cache are made from them, so a new section or field takes part in all of these without further code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

ResumeRule = Literal["same", "from_now_on", "free", "measured"]
"""Whether a resumed run may change a setting.

same: it must equal the checkpoint's. from_now_on: it may change with --allow_changed, since it affects only future
steps. free: it may change, since no step depends on it. measured: it may change as long as the values
that result from it (the rows, the tokens, the window size, the model's size) equal the checkpoint's.
"""

CacheRule = Literal["rows", "examples", "none"]
"""Which part of the data cache depends on a setting.

rows: the cleaned rows, and with them the examples. examples: the tokenised examples. none: neither, or the cache key
holds the values that result from it (the source's content, the columns found, the tokenizer).
"""


@dataclass(frozen=True)
class Setting:
    """Metadata of one setting, stored in the field's `json_schema_extra`.

    Attributes:
        korean: Description in one short sentence, for config.yaml, --help, docs/settings.md and the editor schema.
        english: The same in English, for docs/settings.en.md.
        more_korean: Further sentences for docs/settings.md and the editor schema.
        more_english: Further sentences for docs/settings.en.md.
        flag: Command line flag that sets it.
        resume: Whether a resumed run may change it; None takes the section's rule.
        cache: Part of the data cache that depends on it; None takes the section's rule.
        user_only: Whether only the user may give it, by a flag or a settings file of their own. A model folder's
            settings.yaml may come from anybody: its value is not read.
    """

    korean: str = ""
    english: str = ""
    more_korean: str = ""
    more_english: str = ""
    flag: str | None = None
    resume: ResumeRule | None = None
    cache: CacheRule | None = None
    user_only: bool = False

    def __call__(self, schema: dict[str, Any]) -> None:
        """Write the description into the field's JSON schema, as pydantic calls a `json_schema_extra`."""
        if self.korean:
            schema["description"] = self.in_full("korean")

    def in_full(self, language: Literal["korean", "english"]) -> str:
        """Return the description with its further sentences, without a final full stop."""
        parts = (self.korean, self.more_korean) if language == "korean" else (self.english, self.more_english)
        return ". ".join(filter(None, parts))


def setting(
    default: object,
    korean: str,
    english: str,
    *,
    more: tuple[str, str] = ("", ""),
    flag: str | None = None,
    resume: ResumeRule | None = None,
    cache: CacheRule | None = None,
    user_only: bool = False,
) -> Any:
    """Declare a field of a section.

    Args:
        default: The default value.
        korean: Description in Korean, one short sentence.
        english: Description in English.
        more: Further sentences in Korean and in English, for docs/settings.md.
        flag: Command line flag, with its dashes.
        resume: Whether a resumed run may change it; None takes the section's rule.
        cache: Part of the data cache that depends on it; None takes the section's rule.
        user_only: Whether a model folder's settings.yaml must not give the setting; see `Setting`.

    Returns:
        The pydantic field.
    """
    extra = Setting(korean, english, *more, flag=flag, resume=resume, cache=cache, user_only=user_only)
    return Field(default, json_schema_extra=extra)


class Section(BaseModel):
    """Base of all sections: frozen, without unknown keys.

    By default a section is part of the fingerprint, and both rows and examples depend on it. That is safe
    for a new section: at worst, data is prepared once more than needed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resume_rule: ClassVar[ResumeRule] = "same"
    cache_rule: ClassVar[CacheRule] = "rows"


@dataclass(frozen=True)
class SettingField:
    """One setting with its rules resolved; key: dotted, such as `model.adapter.r`."""

    key: str
    default: Any
    setting: Setting
    resume: ResumeRule
    cache: CacheRule


@cache
def fields_of(section: type[Section]) -> tuple[SettingField, ...]:
    """List every setting below a section, in the order of declaration, with keys relative to the section."""
    found: list[SettingField] = []
    for name, field in section.model_fields.items():
        below = subsection(field)
        if below is not None:
            found += (
                SettingField(f"{name}.{inner.key}", inner.default, inner.setting, inner.resume, inner.cache)
                for inner in fields_of(below)
            )
            continue
        facts = setting_of(field)
        resume, cache = facts.resume or section.resume_rule, facts.cache or section.cache_rule
        found.append(SettingField(name, field.get_default(), facts, resume, cache))
    return tuple(found)


def subsection(field: FieldInfo) -> type[Section] | None:
    """Return the section class of a field, or None if the field holds a value."""
    held: object = field.annotation
    return held if isinstance(held, type) and issubclass(held, Section) else None


def setting_of(field: FieldInfo) -> Setting:
    """Return the metadata of a field; empty if it was declared without `setting`."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, Setting) else Setting()


def value_at(settings: Section, key: str) -> Any:
    """Return the value of a setting by its dotted key."""
    return attrgetter(key)(settings)
