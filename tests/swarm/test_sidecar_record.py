from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.swarm.dht_codec import UndecodableError, decode_value, encode_value
from swarmkeel.swarm.sidecar import SIDECAR_VERSION, Claim, Sidecar
from swarmkeel.swarm.sidecar_record import (
    MAX_RECORD_BYTES,
    MAX_SHAPES,
    SidecarRejected,
    SidecarRejection,
    sidecar_from_wire,
    sidecar_to_wire,
)
from swarmkeel.swarm.span import Span

MOMENTS = st.floats(0, 1e11)
RATES = st.floats(0, 1e9)
SPANS = st.builds(lambda start, length: Span(start, start + length), st.integers(0, 9000), st.integers(1, 900))
CLAIMS = st.builds(
    Claim,
    origin=st.none() | SPANS,
    target=SPANS,
    made_at=MOMENTS,
    expires_at=MOMENTS,
    throughput=RATES,
    gain_rps=st.floats(-1e9, 1e9),
    digest=st.text("0123456789abcdef", max_size=16),
)
SIDECARS = st.builds(
    Sidecar,
    peer_id=st.just("Qm1"),
    movable_at=st.none() | MOMENTS,
    load_seconds=st.floats(0, 86_400),
    fetch_seconds=st.floats(0, 86_400),
    arrives_at=st.none() | MOMENTS,
    shapes=st.lists(st.tuples(st.integers(1, 1000), RATES), max_size=MAX_SHAPES).map(tuple),
    claim=st.none() | CLAIMS,
    dry_run_movable_at=st.none() | MOMENTS,
)
WHATEVER = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
CLAIM: dict[str, Any] = {
    "origin": [0, 4],
    "target": [4, 8],
    "made_at": 1000.0,
    "expires_at": 1100.0,
    "throughput": 3.0,
    "gain_rps": 1.0,
    "digest": "ab",
}
FIELDS: dict[str, Any] = {"movable_at": 5.0, "load_seconds": 60.0, "shapes": [[2, 3.0]], "claim": CLAIM}
DEEP: list[Any] = []
for _ in range(5000):
    DEEP = [DEEP]


def reject(value: object) -> SidecarRejection:
    with pytest.raises(SidecarRejected) as rejected:
        sidecar_from_wire("Qm1", value)
    assert isinstance(rejected.value, ValueError)
    return rejected.value.reason


@given(SIDECARS)
def test_what_a_sidecar_tells_comes_back_from_the_wire_and_is_small(sidecar: Sidecar) -> None:
    data = encode_value(sidecar_to_wire(sidecar))
    assert len(data) < MAX_RECORD_BYTES
    assert sidecar_from_wire("Qm1", decode_value(data)) == sidecar


def test_a_withdrawn_record_is_no_record_and_no_error() -> None:
    assert sidecar_from_wire("Qm1", None) is None


def test_unknown_fields_are_passed_over() -> None:
    newer = {**FIELDS, "mood": "good", "claim": {**CLAIM, "why": "because"}}
    sidecar = sidecar_from_wire("Qm1", (SIDECAR_VERSION, newer))
    assert sidecar is not None
    assert sidecar.claim == Claim(Span(0, 4), Span(4, 8), 1000.0, 1100.0, 3.0, 1.0, "ab")


@pytest.mark.parametrize(
    "value", [7, "text", b"bytes", [], (1,), (1, {}, 2), (True, FIELDS), ("1", FIELDS), (1, []), (1, None), DEEP]
)
def test_what_has_no_version_and_fields_is_rejected(value: object) -> None:
    assert reject(value) is SidecarRejection.SHAPE


@pytest.mark.parametrize("version", [0, 2, -1, 10**30])
def test_other_versions_are_told_apart(version: int) -> None:
    assert reject((version, FIELDS)) is SidecarRejection.VERSION


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        *(("movable_at", value, "movable_at") for value in ("5", True, math.nan, math.inf, -1.0, 10**400, DEEP)),
        *(("load_seconds", value, "load_seconds") for value in (None, -1, 86_401, math.nan, "1", [1])),
        *(("shapes", value, "shapes") for value in (None, 5, {2: 3.0}, [[2]], [[2, 3, 4]], [["2", 3.0]], [[0, 1.0]])),
        ("shapes", [[2, -1.0]], "shapes"),
        ("shapes", [[2, math.inf]], "shapes"),
        ("shapes", [[True, 1.0]], "shapes"),
        ("shapes", [[2, 1.0]] * (MAX_SHAPES + 1), "shapes"),
        ("shapes", DEEP, "shapes"),
        *(("claim", value, "claim") for value in (5, "x", [], True, DEEP)),
        *(("claim", {**CLAIM, "origin": value}, "claim") for value in ([4], [4, 4], [-1, 3], ["0", 4], [0, 10**9])),
        *(("claim", {**CLAIM, "target": value}, "claim") for value in (None, [8, 4], [0.0, 4.0], "04", {0: 4}, DEEP)),
        *(("claim", {**CLAIM, "made_at": value}, "claim") for value in (None, -1.0, math.nan, math.inf, True)),
        *(("claim", {**CLAIM, "expires_at": value}, "claim") for value in (None, math.nan, 1e300)),
        *(("claim", {**CLAIM, "throughput": value}, "claim") for value in (None, -1.0, math.inf, "9")),
        *(("claim", {**CLAIM, "gain_rps": value}, "claim") for value in (None, math.nan, -math.inf, "9")),
        *(("claim", {**CLAIM, "digest": value}, "claim") for value in (None, b"ab", "AB", "0" * 17, "\x1b[31m")),
    ],
)
def test_a_wrong_field_is_rejected_by_its_name(field: str, value: object, reason: str) -> None:
    assert reject((SIDECAR_VERSION, {**FIELDS, field: value})).value == reason


@given(WHATEVER)
def test_whatever_is_stored_is_a_record_or_rejected(value: object) -> None:
    for stored in (value, (SIDECAR_VERSION, value), (SIDECAR_VERSION, {**FIELDS, "claim": value})):
        try:
            sidecar = sidecar_from_wire("Qm1", stored)
        except SidecarRejected:
            continue
        assert sidecar is None or isinstance(sidecar, Sidecar)


@given(st.dictionaries(st.sampled_from([*FIELDS, "x"]), WHATEVER), st.dictionaries(st.sampled_from([*CLAIM]), WHATEVER))
def test_no_field_makes_the_reader_fail(fields: dict[str, object], claim: dict[str, object]) -> None:
    try:
        sidecar = sidecar_from_wire("Qm1", (SIDECAR_VERSION, {**FIELDS, **fields, "claim": {**CLAIM, **claim}}))
    except SidecarRejected:
        return
    assert sidecar is not None
    assert sidecar.claim is not None
    assert math.isfinite(sidecar.claim.throughput)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_rejected(data: bytes) -> None:
    with suppress(UndecodableError, SidecarRejected):
        sidecar_from_wire("Qm1", decode_value(data))
