"""What is wrong with a configuration, in the words of the file: where, what is allowed there, and what stands there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings

from swarmkeel.printable import printable

WHOLE_FILE: Final = "(whole file)"
_ENV_DELIMITER: Final = "__"
_COMPLETE: Final = "complete"
_SAY_IT_ALL: Final = ("missing", _COMPLETE)
"""Errors whose text needs no value beside it."""

_WHOLE_NUMBER: Final = "must be a whole number"
_NUMBER: Final = "must be a number"
_TRUTH: Final = "must be true or false"
_MAPPING: Final = "must be a mapping"
_ALLOWED: Final = {
    "bool_parsing": _TRUTH,
    "bool_type": _TRUTH,
    "dict_type": _MAPPING,
    "finite_number": "must be a finite number",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "int_from_float": _WHOLE_NUMBER,
    "int_parsing": _WHOLE_NUMBER,
    "int_type": _WHOLE_NUMBER,
    "literal_error": "must be {expected}",
    "missing": "missing",
    "model_type": _MAPPING,
    "path_type": "must be a path",
    "string_too_short": "must not be empty",
    "string_type": "must be text, in quotes if it looks like anything else",
    "tuple_type": "must be a list, in an environment variable as JSON",
}
_OUT_OF_RANGE: Final = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


def complete_error(what: str, where: str | None = None) -> PydanticCustomError:
    """Make a validator's error that says all there is to say, such as which two values do not go together.

    Args:
        what: What is wrong; the value at hand is not put behind it.
        where: The key, where the validator that raises this is not that key's own.
    """
    return PydanticCustomError(_COMPLETE, "{what}", {"what": what, "where": where})


def describe_error(error: ErrorDetails, root: type[BaseSettings]) -> tuple[str, str]:
    """Say where an error is, and what is allowed there, what stands there, and where that came from."""
    context: dict[str, Any] = error.get("ctx", {})
    location = error["loc"]
    kind = error["type"]
    where = context.get("where") or ".".join(str(part) for part in location) or WHOLE_FILE
    if kind == "extra_forbidden":
        what = f"unknown key; there are {known_keys(_section(location, root))}"
    elif kind in _OUT_OF_RANGE:
        what = f"must be {_range_at(location, context, root)}"
    elif kind in _ALLOWED:
        what = _ALLOWED[kind].format(**context)
    else:
        what = str(error["msg"]).removeprefix("Value error, ")
    if kind not in (*_SAY_IT_ALL, "extra_forbidden"):
        what += f", not {text_of(error['input'])}"
    variable = _variable_behind(location, root)
    return printable(where), what if variable is None else f"{what} (environment variable {printable(variable)})"


def known_keys(model: type[BaseModel]) -> str:
    """Name the keys of a section, or the sections of the whole."""
    return ", ".join(model.model_fields)


def text_of(value: object) -> str:
    """Write a value about as it stood in the file, briefly."""
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple | set):
        return "a list"
    return printable(json.dumps(value, ensure_ascii=False, default=str), 60)


def unknown_variables(root: type[BaseSettings]) -> list[tuple[str, str]]:
    """Find misspelt overrides.

    Names without a double underscore are passed over: orchestrators make some up, such as SWARMKEEL_PORT.
    """
    prefix = _prefix(root)
    findings = []
    for name in sorted(os.environ):
        section, delimiter, _ = name[len(prefix) :].partition(_ENV_DELIMITER)
        if name.upper().startswith(prefix) and delimiter and section.lower() not in root.model_fields:
            findings.append(
                (printable(name), f"this environment variable names no section; there are {known_keys(root)}")
            )
    return findings


def _prefix(root: type[BaseSettings]) -> str:
    return str(root.model_config["env_prefix"]).upper()


def _section(location: tuple[int | str, ...], root: type[BaseSettings]) -> type[BaseModel]:
    """Find the section that a location lies in; the whole for a section's own name."""
    field = root.model_fields.get(str(location[0])) if len(location) > 1 else None
    section = field.annotation if field else root
    return section if isinstance(section, type) and issubclass(section, BaseModel) else root


def _range_at(location: tuple[int | str, ...], broken: Mapping[str, Any], root: type[BaseSettings]) -> str:
    """Say which numbers are allowed somewhere, given the bound that a value broke."""
    bounds = dict(broken)
    field = _section(location, root).model_fields.get(str(location[-1]))
    for constraint in field.metadata if field else ():
        bounds |= {name: getattr(constraint, name) for name in ("gt", "ge", "le") if hasattr(constraint, name)}
    if "ge" in bounds and "le" in bounds:
        return f"from {bounds['ge']} to {bounds['le']}"
    if "gt" in bounds:
        return f"more than {bounds['gt']}"
    return f"at least {bounds['ge']}" if "ge" in bounds else f"at most {bounds['le']}"


def _variable_behind(location: tuple[int | str, ...], root: type[BaseSettings]) -> str | None:
    """Find the environment variable that a value comes from, if it does."""
    names = {name.upper(): name for name in os.environ}
    parts = [str(part).upper() for part in location[:2]]
    for count in range(len(parts), 0, -1):
        name = names.get(_prefix(root) + _ENV_DELIMITER.join(parts[:count]))
        if name is not None:
            return name
    return None
