"""YAML as a configuration is written in it: plain values only, and no key twice in one mapping."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class DuplicateKey:
    """A key that stands twice in one mapping; YAML itself would silently keep the last.

    Attributes:
        key: The key as written.
        line: Line of the repetition, counted from 1.
        first_line: Line where it stands first.
    """

    key: str
    line: int
    first_line: int


class NotYaml(ValueError):  # noqa: N818 - says what the text is, as `NotADirectoryError` does
    """A text is no YAML document.

    Attributes:
        where: The place, as `line 3, column 7`, or `(whole file)`.
        what: What is wrong there.
    """

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what


class _Loader(yaml.SafeLoader):
    """The safe loader, without dates (text that looks like one stays text), which notes repeated keys."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self.duplicates: list[DuplicateKey] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        first_lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if (key.tag, key.value) in first_lines:
                    self.duplicates.append(DuplicateKey(key.value, line, first_lines[key.tag, key.value]))
                else:
                    first_lines[key.tag, key.value] = line
        return super().construct_mapping(node, deep)


def parse_yaml(text: bytes) -> tuple[object, tuple[DuplicateKey, ...]]:
    """Read one YAML document.

    Args:
        text: UTF-8, or UTF-16 with a byte order mark.

    Returns:
        Its value, None for an empty document, and every key that stands twice.

    Raises:
        NotYaml: For anything else, whatever the bytes are.
    """
    try:
        loader = _Loader(text)
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "(whole file)"
        raise NotYaml(where, error.problem or error.context or "not YAML") from error
    except yaml.reader.ReaderError as error:
        raise NotYaml("(whole file)", f"it is no text: {error.reason} at position {error.position}") from error
    except RecursionError as error:
        raise NotYaml("(whole file)", "it is nested too deeply") from error
    except Exception as error:  # PyYAML lets KeyError, AttributeError and more escape for values such as `!!bool x`
        raise NotYaml("(whole file)", f"a value does not fit its tag ({type(error).__name__})") from error
    return value, tuple(loader.duplicates)
