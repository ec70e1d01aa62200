from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from swarmkeel.swarm.failures import IdentityError
from swarmkeel.swarm.identity import claim_identity, create_identity


@pytest.fixture(scope="module")
def key_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("identity") / "key"
    create_identity(path)
    return path.read_bytes()


@pytest.fixture
def key_file(tmp_path: Path, key_bytes: bytes) -> Path:
    path = tmp_path / "node.key"
    path.write_bytes(key_bytes)
    path.chmod(0o400)
    return path


def test_a_new_key_is_for_this_user_alone_and_lasts(tmp_path: Path) -> None:
    path = tmp_path / "state" / "swarmkeel" / "node.key"
    create_identity(path)
    identity = claim_identity(path)
    identity.release()
    create_identity(path)
    again = claim_identity(path)
    again.release()

    assert identity.peer_id.startswith("Qm")
    assert again.peer_id == identity.peer_id
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_where_others_may_replace_the_key_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)

    with pytest.raises(IdentityError, match="chmod go-w"):
        create_identity(folder / "node.key")
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(IdentityError, match="cannot make"):
        create_identity(tmp_path / "file" / "node.key")


@pytest.mark.parametrize("mode", [0o404, 0o420, 0o602, 0o644])
def test_a_key_that_others_may_read_or_change_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)

    with pytest.raises(IdentityError, match="chmod 0400"):
        claim_identity(key_file)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440])
def test_a_key_that_only_its_owner_may_change_is_taken(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)

    claim_identity(key_file).release()


def _empty(path: Path, _key: bytes) -> None:
    path.write_bytes(b"")


def _cut_short(path: Path, key: bytes) -> None:
    path.write_bytes(key[: len(key) // 2])


def _text(path: Path, _key: bytes) -> None:
    path.write_text("not a key\n")


def _huge(path: Path, _key: bytes) -> None:
    path.write_bytes(b"\x0a" * 1_000_000)


@pytest.mark.parametrize("spoil", [_empty, _cut_short, _text, _huge])
def test_a_file_without_a_key_is_refused(
    tmp_path: Path, key_bytes: bytes, spoil: Callable[[Path, bytes], None]
) -> None:
    path = tmp_path / "node.key"
    spoil(path, key_bytes)
    path.chmod(0o400)

    with pytest.raises(IdentityError, match="no private key"):
        claim_identity(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing"):
        with pytest.raises(IdentityError):
            claim_identity(path)


def test_a_key_serves_one_node_at_a_time(key_file: Path) -> None:
    first = claim_identity(key_file)
    with pytest.raises(IdentityError, match="in use"):
        claim_identity(key_file)
    first.release()

    claim_identity(key_file).release()
