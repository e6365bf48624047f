"""YAML that people write for us, without what YAML forgives: two entries of one name."""

from __future__ import annotations

import re
from typing import Any

import yaml

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class YamlError(ValueError):
    """A document cannot be read; its text shows nothing of the document but a name that occurs twice."""


def read(text: str) -> Any:
    """What a document holds.

    Raises:
        YamlError: it is not YAML, or a name occurs twice in a mapping.
    """
    try:
        return yaml.load(text, _NoDuplicates)  # noqa: S506  # it is a safe loader
    except yaml.MarkedYAMLError as error:
        raise YamlError(_not_yaml(error)) from None  # its own text shows a piece of the file
    except yaml.YAMLError:
        raise YamlError("it is not YAML") from None
    except Exception:  # PyYAML's constructors raise anything: ValueError for 2024-99-99, KeyError for `!!bool x`, …
        raise YamlError("a value in it is not what YAML takes it for; put keys in quotes") from None


def _not_yaml(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, _DuplicateError):
        return str(error.problem)
    mark = error.problem_mark
    return f"it is not YAML (line {mark.line + 1}, column {mark.column + 1})" if mark else "it is not YAML"


class _DuplicateError(yaml.MarkedYAMLError):
    pass


class _NoDuplicates(yaml.SafeLoader):
    """YAML lets the last of two entries of one name win, unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [child.value for child, _ in node.value if isinstance(child, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1:
                line = node.start_mark.line + 1
                shown = name if _NAME.fullmatch(name) else "a name"
                raise _DuplicateError(problem=f"{shown} occurs twice in the mapping that begins at line {line}")
        return super().construct_mapping(node, deep)
