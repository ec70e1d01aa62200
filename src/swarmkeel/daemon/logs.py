"""The log: structlog events on standard error, one line each, hostile text escaped."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from swarmkeel.printable import printable

LONGEST_VALUE: Final = 500
"""Longer texts are cut: a log line must stay a line."""


def _tame(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make hostile text (terminal sequences, line breaks) harmless and cut what is too long."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = printable(value, LONGEST_VALUE)
    return event


def configure_logging(level: str, style: str, stream: TextIO | None = None) -> None:
    """Set the process's log up; may be called again after the configuration has changed.

    Records of libraries that use Python's own logging are rendered the same way.

    Args:
        level: debug, info, warning or error.
        style: json, console, or auto: console on a terminal, json elsewhere.
        stream: Where to write; standard error by default.
    """
    stream = stream or sys.stderr
    to_console = style == "console" or (style == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.format_exc_info,
        _tame,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty()) if to_console else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    for former in root.handlers[:]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for chatty in ("aiohttp.access", "asyncio", "hivemind"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *[processor for processor in shared if not isinstance(processor, structlog.stdlib.ExtraAdder)],
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
