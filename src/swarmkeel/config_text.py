"""The configuration written down for people: every key with its meaning, as the models themselves tell it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from inspect import cleandoc
from typing import Final

import yaml
from pydantic import BaseModel

from swarmkeel.config import Config

_LINE_LENGTH: Final = 100


def render_config(sections: Mapping[str, BaseModel], *, heading: str, every_key: bool = False) -> str:
    """Write a configuration file.

    Args:
        sections: The sections that are not as by default, by their names in `Config`.
        heading: What stands at the top, as a comment.
        every_key: With False, keys that were left out when a section was made are written as comments, so that they
            follow the defaults of later versions.

    Returns:
        YAML that gives the same sections again.
    """
    lines = [*_comment(heading)]
    for name, field in Config.model_fields.items():
        section = sections.get(name, field.default)
        chosen = section.model_fields_set
        lines += ["", *_comment(cleandoc(type(section).__doc__ or "")), f"{name}:"]
        for key, value in section.model_dump(mode="json").items():
            known = type(section).model_fields[key]
            text = f"{known.description or ''}{' Required.' if known.is_required() else ''}"
            mark = "" if every_key or key in chosen or known.is_required() else "#"
            lines += (f"  {line}" for line in _comment(" ".join(text.split())))
            lines += (f"  {mark}{line}" for line in _entry(key, value))
    return "\n".join(lines) + "\n"


def _comment(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield "#"
        yield from textwrap.wrap(
            paragraph, _LINE_LENGTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )


def _entry(key: str, value: object) -> list[str]:
    if value is None:
        return [f"{key}:"]
    return yaml.safe_dump({key: value}, width=float("inf"), sort_keys=False).splitlines()
