from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from swarmkeel.daemon.logs import configure_logging


def logged(style: str, level: str = "info") -> tuple[io.StringIO, structlog.stdlib.BoundLogger]:
    stream = io.StringIO()
    configure_logging(level, style, stream)
    return stream, structlog.get_logger("swarmkeel.test")


def test_every_event_is_one_line_of_json_with_its_check_id() -> None:
    stream, log = logged("auto")
    with structlog.contextvars.bound_contextvars(check_id="c1"):
        log.info("check", verdict="balanced", bottleneck_rps=1.5)
        logging.getLogger("a.library").warning("from %s", "elsewhere")
    ours, theirs = (json.loads(line) for line in stream.getvalue().splitlines())
    assert ours["event"] == "check"
    assert (ours["verdict"], ours["bottleneck_rps"], ours["check_id"], ours["level"]) == ("balanced", 1.5, "c1", "info")
    assert (theirs["event"], theirs["check_id"], theirs["logger"]) == ("from elsewhere", "c1", "a.library")


@pytest.mark.parametrize("style", ["json", "console"])
def test_hostile_text_stays_one_short_line(style: str) -> None:
    stream, log = logged(style)
    log.warning("seen", name="\x1b[31mred\nfake line", long="x" * 10_000)
    assert stream.getvalue().count("\n") == 1
    assert "\x1b[31m" not in stream.getvalue()
    assert len(stream.getvalue()) < 2000


def test_events_below_the_level_are_left_out_and_a_second_call_changes_it() -> None:
    stream, log = logged("json", "warning")
    log.info("quiet")
    assert stream.getvalue() == ""
    configure_logging("debug", "json", stream)
    log.debug("loud")
    assert json.loads(stream.getvalue())["event"] == "loud"
