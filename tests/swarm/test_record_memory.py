from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.swarm.dht_codec import RawRecord
from swarmkeel.swarm.record_memory import MAX_BYTES_PER_KEY, RecordMemory

NOW = 1_000_000.0


def record(subkey: object, expires_in: float, value: bytes = b"v") -> RawRecord:
    return RawRecord(subkey, value, NOW + expires_in)


def merge(memory: RecordMemory, *records: RawRecord, at: float = 0.0, key: str = "m.0") -> set[RawRecord]:
    merged = memory.merge(key, {entry.subkey: entry for entry in records}, NOW + at)
    assert all(subkey == entry.subkey for subkey, entry in merged.items())
    return set(merged.values())


def test_a_record_that_a_later_reading_misses_counts_until_it_expires() -> None:
    memory = RecordMemory(900)
    mine, other = record("a", 60), record("b", 200)
    assert merge(memory, mine, other) == {mine, other}
    assert merge(memory, other, at=59) == {mine, other}
    assert merge(memory, at=61) == {other}
    assert merge(memory, at=201) == set()


def test_of_two_records_the_one_that_expires_later_counts_whoever_was_read_first() -> None:
    old, new = record("a", 60, b"online"), record("a", 61, b"offline")
    memory = RecordMemory(900)
    merge(memory, old)
    assert merge(memory, new) == {new}
    assert merge(memory, old) == {new}


def test_a_record_that_claims_to_hold_for_ever_is_forgotten_when_nobody_shows_it_any_more() -> None:
    memory = RecordMemory(900)
    forever = RawRecord("a", b"v", float("inf"))
    merge(memory, forever)
    assert merge(memory, at=900) == {forever}
    assert merge(memory, at=901) == set()
    assert merge(memory, at=0) == set()


def test_a_clock_that_is_set_back_does_not_make_it_be_remembered_for_ever() -> None:
    memory = RecordMemory(900)
    merge(memory, record("a", 600))
    assert merge(memory, at=-1000) == set()


def test_what_has_expired_is_given_if_it_was_read_and_not_remembered() -> None:
    memory = RecordMemory(900)
    over = record("a", -1)
    assert merge(memory, over) == {over}
    assert merge(memory) == set()


def test_without_seconds_nothing_is_remembered_and_keys_are_kept_apart() -> None:
    forgetful, memory = RecordMemory(0), RecordMemory(900)
    for each in (forgetful, memory):
        merge(each, record("a", 60))
    assert merge(forgetful, at=0.001) == set()
    assert merge(memory, key="m.1") == set()


def test_a_flood_is_read_but_not_remembered_and_pushes_out_nobody_who_expires_before() -> None:
    memory = RecordMemory(900)
    honest = record("honest", 240)
    flood = [record(f"x{number}", 500 + number, bytes(MAX_BYTES_PER_KEY // 8)) for number in range(20)]
    assert merge(memory, honest, *flood) == {honest, *flood}
    kept = merge(memory)
    assert honest in kept
    assert sum(entry.size for entry in kept) <= MAX_BYTES_PER_KEY


def test_a_flood_of_records_of_nothing_is_not_remembered_either() -> None:
    """What each record costs is not its value alone."""
    memory = RecordMemory(900)
    merge(memory, *(record(str(number), 500, b"") for number in range(20_000)))
    assert 100 < len(merge(memory)) < MAX_BYTES_PER_KEY // 200


READINGS = st.lists(
    st.tuples(
        st.floats(0, 100),
        st.lists(st.builds(record, st.sampled_from("abc"), st.floats(-10, 300), st.sampled_from([b"x", b"y"]))),
    )
)


@given(READINGS)
def test_what_was_read_and_holds_is_never_missing_and_nothing_else_comes_up(
    readings: list[tuple[float, list[RawRecord]]],
) -> None:
    memory, at, ever = RecordMemory(900), 0.0, set[RawRecord]()
    for wait, records in readings:
        at += wait
        fresh = {entry.subkey: entry for entry in records}
        ever |= set(fresh.values())
        merged = merge(memory, *fresh.values(), at=at)
        for subkey in "abc":
            best = max(
                (entry for entry in ever if entry.subkey == subkey and entry.expiration > NOW + at),
                key=lambda entry: (entry.expiration, entry.value),
                default=fresh.get(subkey),
            )
            assert next((entry for entry in merged if entry.subkey == subkey), None) == best
