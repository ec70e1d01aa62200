"""The private key by which a node of the DHT is known, kept in a file so that its peer id outlives the process."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarmkeel.swarm.failures import IdentityError
from swarmkeel.swarm.hivemind_dht import P2P, PeerID

_MAX_BYTES: Final = 64 * 1024
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_UNSAFE_FOR_A_KEY: Final = _OTHERS_MAY_WRITE | stat.S_IROTH | stat.S_IXOTH


@dataclass(frozen=True)
class Identity:
    """A key file that this process holds: no other node can take it until it is released.

    Attributes:
        path: The file.
        peer_id: The peer id that follows from the key, base58.
    """

    path: Path
    peer_id: str
    _descriptor: int

    def release(self) -> None:
        """Let others take it; to be called once."""
        os.close(self._descriptor)


def create_identity(path: Path) -> None:
    """Make a new key file, readable for this user alone, if there is none.

    A missing folder is made too, for this user alone. Takes a good part of a second of computing.

    Raises:
        IdentityError: If the folder does not allow it, or lets others replace the file.
    """
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = folder.stat().st_mode
        if mode & _OTHERS_MAY_WRITE and not mode & stat.S_ISVTX:
            raise IdentityError(f"{folder} lets other users replace the key in it", f"run: chmod go-w {folder}")
        if path.exists():
            return
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
        os.close(handle)
        try:
            P2P.generate_identity(draft)
            with suppress(FileExistsError):  # another process was faster: its key is as good
                os.link(draft, path)
        finally:
            Path(draft).unlink()
    except OSError as error:
        raise IdentityError(
            f"cannot make the key file {path}: {error.strerror}", "give identity_path a place that this user may write"
        ) from error


def claim_identity(path: Path) -> Identity:
    """Take an existing key file for one node.

    Raises:
        IdentityError: If it is missing, unreadable, open to others, no key, or held by another node on this machine.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise IdentityError(
            f"cannot read the key file {path}: {error.strerror}", "make it readable for this user, or name another"
        ) from error
    try:
        return Identity(path, _check(path, descriptor), descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _check(path: Path, descriptor: int) -> str:
    """Give the peer id of an opened key file and lock it; raises as `claim_identity` does."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise IdentityError(f"the key file {path} is no file", "name a file, or a path where one can be made")
    if status.st_mode & _UNSAFE_FOR_A_KEY:
        raise IdentityError(f"the key file {path} is open to other users", f"run: chmod 0400 {path}")
    try:
        peer_id = str(PeerID.from_identity(os.read(descriptor, _MAX_BYTES)).to_base58())
    except Exception as error:  # protobuf and cryptography each have their own ways to refuse
        raise IdentityError(
            f"the key file {path} holds no private key", "remove it, a new one is made at the next start"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise IdentityError(
            f"the key file {path} is in use by another node", "give every node an identity_path of its own"
        ) from error
    return peer_id
