"""The reference of the configuration, and the example of one, from its pydantic models."""

from __future__ import annotations

import types
import typing
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from swarmkeel.config import Config, JournalSection, ServerSection, SwarmSection
from swarmkeel.config_text import render_config
from swarmkeel.durations import Duration, PositiveDuration, format_duration

_EXAMPLE: Final = {
    "swarm": SwarmSection(
        dht_prefix="llama-70b",
        total_blocks=80,
        initial_peers=("/ip4/192.0.2.10/tcp/31337/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",),
    ),
    "server": ServerSection(socket=Path("/run/swarmkeel/server.sock")),
    "journal": JournalSection(path=Path("/var/lib/swarmkeel/journal.sqlite3")),
}

_HEADING: Final = (
    "Configuration of one Swarmkeel, the sidecar of one GPU server. Every key is here with its default; those that are "
    "required carry an example and have to be set. Check yours with: swarmkeel check-config FILE\n\n"
    "Durations are numbers of seconds or text like 90s, 15m, 2h, 1d. Any key can be overridden in the environment: "
    "SWARMKEEL_BALANCE__DRY_RUN=true overrides balance.dry_run; lists are written as JSON."
)

_INTRODUCTION: Final = """\
# Configuration

One YAML file a sidecar. `swarmkeel init` writes one for a server that runs; `config.example.yaml` has every key with its
default; `swarmkeel check-config FILE` names every mistake in a file, with its place, and `--print` shows what is in force.

- Durations are numbers of seconds, or text like `90s`, `15m`, `2h`, `1d`, `1h30m`.
- A key that is not known is a mistake, so that none is misspelt in silence. Empty sections may be left out.
- Any key can be overridden in the environment, where lists are written as JSON:
  `SWARMKEEL_BALANCE__DRY_RUN=true` overrides `balance.dry_run`.
- `kill -HUP` reads the file again. A bad file changes nothing, is logged, and shows in
  `swarmkeel_config_last_reload_successful`. What needs a restart of the sidecar, the log says.

This page is made from the code by `make docs-generate`.
"""

_NAMES: Final[dict[object, str]] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    Duration: "duration",
    PositiveDuration: "duration",
}


def example_config() -> str:
    """Write config.example.yaml: every key with its default."""
    return render_config(_EXAMPLE, heading=_HEADING, every_key=True)


def configuration_page() -> str:
    """Write the page: one table a section."""
    parts = [_INTRODUCTION]
    for name, field in Config.model_fields.items():
        section = field.annotation
        assert isinstance(section, type), name  # noqa: S101 - every section is a model
        assert issubclass(section, BaseModel), name  # noqa: S101 - as above
        parts.append(f"\n## {name}\n\n{cleandoc(section.__doc__ or '')}\n")
        parts.append("| key | type | default | allowed | meaning |\n|---|---|---|---|---|")
        hints = typing.get_type_hints(section, include_extras=True)
        parts += (_row(name, key, known, hints[key], section) for key, known in section.model_fields.items())
    return "\n".join(parts) + "\n"


def _row(name: str, key: str, field: FieldInfo, hint: Any, section: type[BaseModel]) -> str:  # noqa: ANN401 - any type
    description = " ".join((field.description or "").split())
    kind, limits = _type_of(hint), _limits_of(hint)
    cells = (f"`{name}.{key}`", kind, _default_of(field, section, key), limits or "any", description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type_of(hint: Any) -> str:  # noqa: ANN401 - any type
    if hint in _NAMES:
        return _NAMES[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if _is_duration(hint):
        return "duration"
    if origin is Annotated:
        return _type_of(arguments[0])
    if origin is Literal:
        return "word"
    if origin is tuple:
        return f"list of {_type_of(arguments[0])}s"
    if origin in (typing.Union, types.UnionType):
        return " or ".join("empty" if part is type(None) else _type_of(part) for part in arguments)
    raise TypeError(f"no name is known for {hint}")


def _is_duration(hint: Any) -> bool:  # noqa: ANN401 - any type
    """Tell a number of seconds from other numbers: a duration reads text."""
    mark = typing.get_args(Duration)[1]
    return typing.get_origin(hint) is Annotated and any(part is mark for part in typing.get_args(hint))


def _limits_of(hint: Any) -> str:  # noqa: ANN401 - any type
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in arguments)
    if origin in (typing.Union, types.UnionType):
        return ", ".join(filter(None, map(_limits_of, arguments)))
    if origin is tuple:
        return _limits_of(arguments[0]).replace("from", "each from").replace("at least", "each at least")
    if origin is not Annotated:
        return ""
    bounds: dict[str, Any] = {}
    for mark in arguments[1:]:
        for part in getattr(mark, "metadata", [mark]):
            bounds |= {bound: getattr(part, bound) for bound in ("gt", "ge", "le") if hasattr(part, bound)}
    write = format_duration if _is_duration(hint) else str
    if "gt" in bounds:
        bounds.pop("ge", None)
    texts = [
        f"{word} {write(bounds[bound])}"
        for bound, word in (("gt", "more than"), ("ge", "at least"), ("le", "at most"))
        if bound in bounds
    ]
    return ", ".join(texts) or _limits_of(arguments[0])


def _default_of(field: FieldInfo, section: type[BaseModel], key: str) -> str:
    if field.is_required():
        return "**required**"
    if field.default is None:
        return "empty"
    made = section.model_construct(**{key: field.default})
    value = made.model_dump(mode="json", include={key})[key]
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"
