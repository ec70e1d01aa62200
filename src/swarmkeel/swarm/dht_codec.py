"""Decodes what other peers answer. Every byte here is hostile: nothing recurses, grows or raises beyond what is said.

hivemind keeps the records under one key as a dictionary {subkey: (value, expiration)}, each value serialized by itself.
Its own reader rejects or crashes on a whole dictionary because of one bad entry; this one drops that entry.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgpack

MAX_VALUE_BYTES: Final = 64 * 1024
"""Larger values are refused; an honest server's record is below 1 KiB."""
_MAX_NESTING: Final = 8
"""Containers inside containers; an honest record has 3 levels."""
_MAX_LIST: Final = 256
"""Items of a list inside a value. msgpack makes a list as long as it is declared before it has seen any item, so that
nested lies about the length cost a thousand times this."""
_MAX_RECORDS: Final = 16_384
"""Records under one key; an answer of 4 MiB, hivemind's limit, holds about 6000."""
_RECORD_OVERHEAD: Final = 200
"""Bytes that a record takes beside its value and its subkey: so much do a million empty ones cost, each."""
ENTRY_BYTES: Final = 100
"""Bytes that a record takes in the dictionary of its key, be it one that is there already under another."""
_CONTAINERS: Final = frozenset({list, tuple, dict})
_TUPLE_CODE: Final = 0x40
_DICTIONARY_CODE: Final = 0x50


class UndecodableError(ValueError):
    """These bytes are not what they should be."""


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One entry of a dictionary in the DHT.

    Attributes:
        subkey: What it is stored under; a peer id as base58 text if honest, but anything hashable.
        value: The value, still serialized.
        expiration: When it ends, seconds since the epoch; may be infinite.
    """

    subkey: object
    value: bytes
    expiration: float

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about; small values and long subkeys count for what they cost."""
        inside = len(self.subkey.data) if isinstance(self.subkey, msgpack.ExtType) else 0
        return len(self.value) + sys.getsizeof(self.subkey) + inside + _RECORD_OVERHEAD


def encode_value(value: object) -> bytes:
    """Serialize plain values, lists, dicts and tuples as hivemind does."""
    return bytes(msgpack.packb(value, use_bin_type=True, strict_types=True, default=_encode_tuple))


def _encode_tuple(value: object) -> msgpack.ExtType:
    if not isinstance(value, tuple):
        raise TypeError(f"{type(value).__name__} cannot be stored in the DHT")
    return msgpack.ExtType(_TUPLE_CODE, encode_value(list(value)))


def decode_value(data: bytes) -> object:
    """Decode one serialized value as hivemind does, within bounds.

    Tuples come back as tuples; other extension types as their bytes, undecoded.

    Raises:
        UndecodableError: If it is too large, too deeply nested, or no msgpack.
    """
    if len(data) > MAX_VALUE_BYTES:
        raise UndecodableError("too large")
    value = _unpack(data, _EXTENSION_HOOKS[0], _MAX_LIST)
    _check_nesting(value)
    return value


def decode_dictionary(data: bytes) -> Iterator[RawRecord | None]:
    """Decode a dictionary of records one by one.

    Returns:
        Every entry; None for one that is malformed.

    Raises:
        UndecodableError: If it is no dictionary at all.
    """
    outer = _unpack(data, msgpack.ExtType, 1)
    if not isinstance(outer, msgpack.ExtType) or outer.code != _DICTIONARY_CODE:
        raise UndecodableError("not a dictionary")
    content = _unpack(outer.data, msgpack.ExtType, _MAX_RECORDS)
    match content:
        case [_, _, [*entries]]:
            return (_read_entry(entry) for entry in entries)
        case _:
            raise UndecodableError("not a dictionary")


def _read_entry(entry: object) -> RawRecord | None:
    match entry:
        case [subkey, bytes(value), float() | int() as expiration]:
            try:
                hash(subkey)
                moment = float(expiration)
            except (TypeError, OverflowError):
                return None
            return None if math.isnan(moment) else RawRecord(subkey, value, moment)
        case _:
            return None


def _unpack(data: bytes, ext_hook: Callable[[int, bytes], object], max_list: int) -> object:
    try:
        value: object = msgpack.unpackb(data, ext_hook=ext_hook, raw=False, max_array_len=max_list)
    except Exception as error:  # the parser has many ways to refuse hostile bytes, down to MemoryError
        raise UndecodableError(type(error).__name__) from error
    return value


def _extension_hook(inner: Callable[[int, bytes], object] | None) -> Callable[[int, bytes], object]:
    """Make a decoder of tuples whose own tuples are decoded by `inner`: recursion that ends by construction."""

    def decode_extension(code: int, data: bytes) -> object:
        if code != _TUPLE_CODE:
            return data
        if inner is None:
            raise UndecodableError("nested too deep")
        items = _unpack(data, inner, _MAX_LIST)
        if not isinstance(items, list):
            raise UndecodableError("not a tuple")
        return tuple(items)

    return decode_extension


def _extension_hooks() -> list[Callable[[int, bytes], object]]:
    hooks = [_extension_hook(None)]
    for _ in range(_MAX_NESTING):
        hooks.insert(0, _extension_hook(hooks[0]))
    return hooks


_EXTENSION_HOOKS: Final = _extension_hooks()


def _check_nesting(value: object) -> None:
    """Refuse containers nested too deep: `repr` and validators recurse, so what is let through must be shallow."""
    level: list[Any] = [value] if type(value) in _CONTAINERS else []
    for _ in range(_MAX_NESTING):
        if not level:
            return
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) in _CONTAINERS
        ]
    if level:
        raise UndecodableError("nested too deep")
