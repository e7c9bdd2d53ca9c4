"""YAML as a person means it: a number is what it looks like, and no value of a key is dropped."""

from __future__ import annotations

import re
from typing import Any

import yaml

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)$")
_FLOAT = re.compile(
    r"(?:[-+]?[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


class RepeatedKeyError(yaml.constructor.ConstructorError):
    """A mapping has a key twice."""


class SettingsLoader(yaml.SafeLoader):
    """YAML 1.2's decimal numbers, and no key twice.

    YAML 1.1 reads `010` as 8, `1:30` as 90 and `2024-01-01` as a date. Here they are text, of which a setting that
    takes a number makes 10, and refuses the other two.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping; refuse a key that is there twice, since one of the two values would be lost silently."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen and isinstance(key_node, yaml.ScalarNode):
                raise RepeatedKeyError(None, None, f"'{key_node.value}' 키가 두 번 있습니다", key_node.start_mark)
            if isinstance(key_node, yaml.ScalarNode):
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


SettingsLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
SettingsLoader.add_implicit_resolver("tag:yaml.org,2002:int", _INTEGER, list("-+0123456789"))
SettingsLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def read_yaml(text: str) -> Any:
    """Read one YAML document.

    Args:
        text: The document.

    Returns:
        The value.

    Raises:
        yaml.YAMLError: It is no YAML, or has a key twice.
    """
    return yaml.load(text, Loader=SettingsLoader)
