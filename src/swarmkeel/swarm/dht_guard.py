"""Makes hivemind fit to run inside a daemon: bounded parsing, and no say in the process's logging.

hivemind's serializer decodes a tuple by calling itself once a level, from C: a record of 0.9 KB with 200 nested tuples
overflows the stack and ends the process with SIGSEGV. Such bytes reach a node in what others store at it, before any
code of ours sees them, so the serializer itself has to be replaced, on the class, before the first node is made. What
this node reads from others does not pass hivemind's parser at all: see `dht_codec`.
"""

from __future__ import annotations

import logging
from typing import Final

import msgpack

from swarmkeel.swarm.hivemind_dht import DHTProtocol, MSGPackSerializer, use_hivemind_log_handler

_MAX_DEPTH: Final = 16
_TUPLE_CODE: Final = 0x40
_DICTIONARY_CODE: Final = 0x50


class BoundedSerializer(MSGPackSerializer):  # type: ignore[misc] # hivemind is published without types
    """hivemind's serializer, but for what nests too deep or holds types that have no place in a DHT."""

    @classmethod
    def loads(cls, buf: bytes) -> object:
        """Decode as hivemind does.

        Raises:
            ValueError: If extension types are nested more than 16 deep, or are neither tuples nor DHT dictionaries.
        """
        _check_extensions(buf)
        value: object = MSGPackSerializer.loads(buf)
        return value


def _check_extensions(buffer: bytes) -> None:
    """Look at every extension type inside without ever recursing; raises as `BoundedSerializer.loads` says."""
    pending = [(buffer, 0)]
    while pending:
        data, depth = pending.pop()
        inner: list[tuple[int, bytes]] = []
        msgpack.unpackb(data, ext_hook=lambda code, payload, found=inner: found.append((code, payload)), raw=False)
        if inner and depth == _MAX_DEPTH:
            raise ValueError(f"extension types nested more than {_MAX_DEPTH} deep")
        for code, payload in inner:
            if code not in (_TUPLE_CODE, _DICTIONARY_CODE):
                raise ValueError(f"unexpected extension type {code}")
            pending.append((payload, depth + 1))


def install_guards() -> None:
    """Put the bounded serializer in place and take the process's logging back from hivemind; may be called again."""
    DHTProtocol.serializer = BoundedSerializer
    # hivemind's import gives its logger a handler of its own and renames a level of the whole process.
    use_hivemind_log_handler("nowhere")
    logging.addLevelName(logging.WARNING, "WARNING")
    # Below this it mostly forwards the chatter of p2pd, and names what strangers sent.
    logging.getLogger("hivemind").setLevel(logging.ERROR)
