"""The messages: what is written is read back, and what is read is checked."""

from __future__ import annotations

import json
import math
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.control.fields import parse_json, render_json
from swarmkeel.control.protocol import (
    PrefetchPhase,
    PrefetchRequest,
    PrefetchStatus,
    Problem,
    RestartPhase,
    RestartRequest,
    RestartStatus,
    ServerPhase,
    ServerStatus,
)
from swarmkeel.swarm.span import Span

# The status that the protocol's description shows.
DOCUMENTED_STATUS: dict[str, Any] = {
    "protocol": 1,
    "implementation": "petals/2.2.0.post1",
    "peer_id": "QmServer",
    "dht_prefix": "llama-70b",
    "total_blocks": 80,
    "num_blocks": 18,
    "throughput": 41.2,
    "state": "online",
    "span": {"start": 0, "end": 18},
    "pinned": False,
    "sessions": 3,
    "capabilities": ["prefetch", "drain"],
    "restart": {
        "id": "b0d4",
        "span": {"start": 0, "end": 18},
        "phase": "loading",
        "progress": 0.4,
        "error": None,
    },
}
RESTART: dict[str, Any] = {
    "id": "b0d4",
    "span": {"start": 62, "end": 80},
    "if_span": {"start": 0, "end": 18},
    "reason": "blocks 62:80 are thin",
    "drain_seconds": 30,
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([10**400, -1, 0, "online"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
names = st.text(min_size=1, max_size=40).filter(str.isprintable)
# Free text is made harmless when it is read, so only harmless text comes back as it was.
texts = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
rates = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
spans = st.tuples(st.integers(0, 500), st.integers(1, 500)).map(lambda pair: Span(pair[0], pair[0] + pair[1]))
restart_statuses = st.builds(
    RestartStatus,
    id=names,
    span=spans,
    phase=st.sampled_from(RestartPhase),
    progress=st.none() | st.floats(0, 1),
    error=st.none() | texts,
)
prefetch_statuses = st.builds(
    PrefetchStatus, id=names, span=spans, phase=st.sampled_from(PrefetchPhase), error=st.none() | texts
)
statuses = st.builds(
    ServerStatus,
    implementation=names,
    peer_id=st.none() | names,
    dht_prefix=names,
    total_blocks=st.integers(1000, 2000),
    num_blocks=st.integers(10, 20),
    throughput=rates,
    state=st.sampled_from(ServerPhase),
    span=st.none() | spans,
    pinned=st.booleans(),
    sessions=st.none() | st.integers(0, 10**6),
    capabilities=st.lists(names, max_size=5).map(tuple),
    restart=st.none() | restart_statuses,
    min_blocks=st.none() | st.integers(1, 10),
    max_blocks=st.none() | st.integers(20, 30),
    compute_rps=st.none() | rates,
    network_rps=st.none() | rates,
    prefetch=st.none() | prefetch_statuses,
)
restart_requests = st.one_of(
    st.builds(
        RestartRequest, id=names, span=spans, if_span=st.none() | spans, reason=texts, drain_seconds=st.floats(0, 1e9)
    ),
    st.builds(RestartRequest, id=names, span=spans, if_span=st.none(), reason=texts, conditional=st.just(value=False)),
)


class Message(Protocol):
    def to_json(self) -> dict[str, object]: ...

    @classmethod
    def from_json(cls, source: object) -> Message: ...


READERS: list[type[Message]] = [ServerStatus, RestartStatus, PrefetchStatus, RestartRequest, PrefetchRequest, Problem]


def over_the_wire(message: Message) -> Message:
    return type(message).from_json(parse_json(render_json(message.to_json())))


@given(
    st.one_of(
        statuses,
        restart_statuses,
        prefetch_statuses,
        restart_requests,
        st.builds(PrefetchRequest, id=names, span=spans),
        st.builds(
            Problem,
            status=st.sampled_from([400, 404, 409, 422, 500, 503]),
            detail=texts,
            title=texts.filter(bool),
            type=texts,
        ),
    )
)
def test_what_is_written_is_read_back(message: Message) -> None:
    assert over_the_wire(message) == message


def test_the_documented_status_is_read() -> None:
    status = ServerStatus.from_json(DOCUMENTED_STATUS)
    assert status == ServerStatus(
        implementation="petals/2.2.0.post1",
        peer_id="QmServer",
        dht_prefix="llama-70b",
        total_blocks=80,
        num_blocks=18,
        throughput=41.2,
        state=ServerPhase.ONLINE,
        span=Span(0, 18),
        sessions=3,
        capabilities=("prefetch", "drain"),
        restart=RestartStatus("b0d4", Span(0, 18), RestartPhase.LOADING, progress=0.4),
    )
    assert status.to_json() == DOCUMENTED_STATUS


def test_unknown_fields_are_ignored() -> None:
    nested = {**DOCUMENTED_STATUS["restart"], "new": {}}
    newer = {**DOCUMENTED_STATUS, "temperature": 70, "restart": nested, "span": {"start": 0, "end": 18, "new": 1}}
    assert ServerStatus.from_json(newer) == ServerStatus.from_json(DOCUMENTED_STATUS)
    assert RestartRequest.from_json({**RESTART, "new": []}) == RestartRequest.from_json(RESTART)


def test_what_a_status_may_leave_out() -> None:
    optional = {"peer_id", "span", "pinned", "sessions", "capabilities", "restart"}
    least = {name: value for name, value in DOCUMENTED_STATUS.items() if name not in optional}
    status = ServerStatus.from_json(least)
    assert (status.peer_id, status.span, status.pinned, status.sessions) == (None, None, False, None)
    assert (status.capabilities, status.restart) == ((), None)
    for name in least:
        with pytest.raises(ValueError, match=f"^status: {name} .*missing$"):
            ServerStatus.from_json({key: value for key, value in least.items() if key != name})


@pytest.mark.parametrize("reader", READERS)
@given(source=json_values)
def test_any_json_is_read_or_refused_in_one_line(reader: type[Message], source: object) -> None:
    check_read_or_refused(reader, source)


@pytest.mark.parametrize(("reader", "good"), [(ServerStatus, DOCUMENTED_STATUS), (RestartRequest, RESTART)])
@given(data=st.data(), value=json_values)
def test_any_value_of_any_field_is_read_or_refused_in_one_line(
    reader: type[Message], good: dict[str, Any], data: st.DataObject, value: object
) -> None:
    name = data.draw(st.sampled_from([*good, "min_blocks", "max_blocks", "compute_rps", "prefetch"]))
    check_read_or_refused(reader, {**good, name: value})


def check_read_or_refused(reader: type[Message], source: object) -> None:
    try:
        message = reader.from_json(source)
    except ValueError as error:
        line = str(error)
        assert line.isprintable()
        assert len(line) < 400
    else:
        assert over_the_wire(message) == message


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("protocol", 2, "status: protocol must be 1, the version that this end speaks, not 2"),
        ("protocol", "1", 'status: protocol must be a whole number from 0 to 2147483647, not "1"'),
        ("protocol", True, "status: protocol must be a whole number from 0 to 2147483647, not true"),
        ("throughput", -1, "status: throughput must be a finite number of at least 0, not -1"),
        ("throughput", math.nan, "status: throughput must be a finite number of at least 0, not NaN"),
        ("throughput", math.inf, "status: throughput must be a finite number of at least 0, not Infinity"),
        pytest.param(
            "throughput",
            10**5000,
            "status: throughput must be a finite number of at least 0, not a number out of range",
            id="huge",
        ),
        ("throughput", True, "status: throughput must be a finite number of at least 0, not true"),
        ("total_blocks", 0, "status: total_blocks must be a whole number from 1 to 2147483647, not 0"),
        ("total_blocks", 80.0, "status: total_blocks must be a whole number from 1 to 2147483647, not 80.0"),
        ("pinned", 1, "status: pinned must be true or false, not 1"),
        (
            "state",
            "dead",
            'status: state must be one of idle, joining, online, draining, stopping, failed, not "dead"',
        ),
        ("peer_id", "", 'status: peer_id must be text of 1 to 256 printable characters, not ""'),
        ("peer_id", "Q\nm", 'status: peer_id must be text of 1 to 256 printable characters, not "Q?m"'),
        ("span", {"start": 70, "end": 81}, "status: span must end at total_blocks = 80 or before, not an object"),
        ("min_blocks", 19, "status: num_blocks with min_blocks and max_blocks must leave at least one length"),
        ("capabilities", ["a", 1], "status: capabilities must hold names of 1 to 256 printable characters, not a list"),
        ("capabilities", ["a"] * 65, "status: capabilities must be a list of at most 64 names, not a list"),
        ("restart", [], "a restart must be a JSON object, not a list"),
    ],
)
def test_a_refusal_says_what_where_and_what_is_allowed(field: str, value: object, complaint: str) -> None:
    with pytest.raises(ValueError, match="must ") as refusal:
        ServerStatus.from_json({**DOCUMENTED_STATUS, field: value})
    assert str(refusal.value).startswith(complaint)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", "x" * 129),
        ("id", "a\x1b[31m"),
        ("id", 7),
        ("span", {"start": 5, "end": 5}),
        ("span", {"start": -1, "end": 5}),
        ("span", {"start": 0.0, "end": 5}),
        ("span", {"start": 0, "end": 10**30}),
        ("span", None),
        ("if_span", {}),
        ("if_span", False),
        ("drain_seconds", -0.5),
        ("drain_seconds", 1e300),
        ("reason", 5),
    ],
)
def test_a_restart_request_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^restart request: {field} "):
        RestartRequest.from_json({**RESTART, field: value})


def test_the_three_cases_of_if_span() -> None:
    """A span must be served, none may be served, or it does not matter."""
    some = RestartRequest.from_json(RESTART)
    none = RestartRequest.from_json({**RESTART, "if_span": None})
    absent = RestartRequest.from_json({name: value for name, value in RESTART.items() if name != "if_span"})
    present, other = Span(0, 18), Span(1, 19)
    assert [some.expects(span) for span in (present, other, None)] == [True, False, False]
    assert [none.expects(span) for span in (present, other, None)] == [False, False, True]
    assert [absent.expects(span) for span in (present, other, None)] == [True, True, True]
    assert "if_span" not in absent.to_json()
    assert none.to_json()["if_span"] is None
    with pytest.raises(ValueError, match="unconditional"):
        RestartRequest("id", present, if_span=present, reason="", conditional=False)


def test_text_for_people_is_made_harmless_both_ways() -> None:
    hostile = "Traceback\n\x1b[2J\ud800" + "x" * 5000
    written = RestartStatus("id", Span(0, 1), RestartPhase.FAILED, error=hostile).to_json()
    read = RestartStatus.from_json({**written, "error": hostile})
    for error in (written["error"], read.error):
        assert isinstance(error, str)
        assert error.startswith("Traceback")
        assert error.isprintable()
        assert len(error) <= 2000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b"1" * 5000,
        b"[" * 60000,
        b'{"a":' * 10000,
        b'"\n"',
        b"{}{}",
    ],
)
def test_what_is_not_json_is_a_value_error_in_one_line(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"^the body is n") as refusal:
        parse_json(body)
    assert str(refusal.value).isprintable()


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_a_value_error(body: bytes) -> None:
    try:
        document = parse_json(body)
    except ValueError:
        return
    assert document == json.loads(body)


def test_a_status_that_is_not_json_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        render_json({"throughput": math.nan})


def test_only_the_last_two_phases_are_final() -> None:
    assert [phase for phase in RestartPhase if phase.is_final] == [RestartPhase.ONLINE, RestartPhase.FAILED]


@pytest.mark.parametrize(
    ("least", "most", "lengths"), [(None, None, [18]), (17, None, [17, 18]), (None, 19, [18, 19]), (5, 6, [5, 6])]
)
def test_lengths_of_spans_that_a_server_can_hold(least: int | None, most: int | None, lengths: list[int]) -> None:
    status = ServerStatus.from_json({**DOCUMENTED_STATUS, "min_blocks": least, "max_blocks": most})
    assert list(status.lengths) == lengths
