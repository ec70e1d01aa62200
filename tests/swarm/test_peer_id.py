"""Peer ids from key files, the same as hivemind and the specification have them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hivemind.p2p import P2P, PeerID
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.swarm.peer_id import peer_id_of_key


def test_an_rsa_key_has_the_peer_id_that_hivemind_gives_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    P2P.generate_identity(str(path))
    key = path.read_bytes()
    assert peer_id_of_key(key) == PeerID.from_identity(key).to_base58()
    for end in range(0, len(key) // 2, 7):
        with pytest.raises(ValueError):  # noqa: PT011 - which part is missing does not matter
            peer_id_of_key(key[:end])


def test_an_ed25519_key_of_the_specification() -> None:
    # https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#test-vectors
    key = bytes.fromhex(
        "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b87"
        "1c3cacf6010f0e42d474fce27e"
    )
    assert peer_id_of_key(key) == peer_id_of_key(key[:3] + b"\x60" + key[4:] + key[36:])
    public_key = bytes.fromhex("080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e")
    assert PeerID.from_base58(peer_id_of_key(key)).to_bytes() == b"\x00\x24" + public_key
    assert peer_id_of_key(key).startswith("12D3KooW")


@given(st.binary(max_size=200))
def test_anything_else_is_a_value_error_or_a_peer_id(source: bytes) -> None:
    with suppress(ValueError):
        assert peer_id_of_key(source)
