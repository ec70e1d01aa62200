"""The peer id that follows from a private key of libp2p, without what it takes to use the key. Standard library only.

A key file is the protobuf message PrivateKey of libp2p's specification (peer-ids): field 1 its type, field 2 its data.
"""

from __future__ import annotations

import hashlib
from typing import Final

_RSA: Final = 0
_ED25519: Final = 1
_ED25519_LENGTHS: Final = (64, 96)  # private key, public key, and in old files the public key again
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_LONGEST_INLINE: Final = 42
_TYPE_TAG, _DATA_TAG = 0x08, 0x12
_MORE: Final = 0x80
"""Bit of a byte that says, in a varint, that there are more, and in a length of DER, that it is a long one."""
_SEQUENCE, _INTEGER, _BIT_STRING = 0x30, 0x02, 0x03
_RSA_ALGORITHM: Final = bytes.fromhex("300d06092a864886f70d0101010500")  # SEQUENCE of rsaEncryption and NULL, RFC 8017


def peer_id_of_key(key_file: bytes) -> str:
    """Give the peer id, base58, of the private key in a key file.

    Args:
        key_file: The whole content, as hivemind and p2pd write it.

    Raises:
        ValueError: If it is no RSA or Ed25519 key in that format.
    """
    kind, data = _read_message(key_file)
    if kind == _RSA:
        public_key = _rsa_public_key(data)
    elif kind == _ED25519 and len(data) in _ED25519_LENGTHS:
        public_key = data[32:64]
    else:
        raise ValueError("no RSA or Ed25519 private key")
    message = bytes((_TYPE_TAG, kind, _DATA_TAG)) + _varint(len(public_key)) + public_key
    if len(message) <= _LONGEST_INLINE:
        return _base58(bytes((0x00, len(message))) + message)
    digest = hashlib.sha256(message).digest()
    return _base58(bytes((0x12, len(digest))) + digest)


def _read_message(source: bytes) -> tuple[int, bytes]:
    """Read the two fields of PrivateKey."""
    kind, data, position = None, None, 0
    while position < len(source):
        tag, position = source[position], position + 1
        value, position = _read_varint(source, position)
        if tag == _TYPE_TAG:
            kind = value
        elif tag == _DATA_TAG and position + value <= len(source):
            data, position = source[position : position + value], position + value
        else:
            raise ValueError("no libp2p private key")
    if kind is None or data is None:
        raise ValueError("no libp2p private key")
    return kind, data


def _read_varint(source: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(source):
        byte, position = source[position], position + 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & _MORE:
            return value, position
    raise ValueError("it ends in the middle of a number")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= _MORE:
        encoded.append(value & 0x7F | _MORE)
        value >>= 7
    return bytes((*encoded, value))


def _rsa_public_key(private_key: bytes) -> bytes:
    """Turn RSAPrivateKey (RFC 8017, A.1.2) into SubjectPublicKeyInfo: modulus and exponent are taken as they stand."""
    content, _ = _read_der(private_key, 0, _SEQUENCE)
    _version, modulus_at = _read_der(content, 0, _INTEGER)
    _modulus, exponent_at = _read_der(content, modulus_at, _INTEGER)
    _exponent, exponent_end = _read_der(content, exponent_at, _INTEGER)
    numbers = _der(_SEQUENCE, content[modulus_at:exponent_end])
    return _der(_SEQUENCE, _RSA_ALGORITHM + _der(_BIT_STRING, b"\x00" + numbers))


def _read_der(source: bytes, position: int, tag: int) -> tuple[bytes, int]:
    """Give the content of the DER element at `position`, and where the next one begins."""
    if source[position : position + 1] != bytes((tag,)) or position + 1 == len(source):
        raise ValueError("no RSA private key")
    length, position = source[position + 1], position + 2
    if length & _MORE:
        octets = length & 0x7F
        length, position = int.from_bytes(source[position : position + octets], "big"), position + octets
    if position + length > len(source):
        raise ValueError("no whole RSA private key")
    return source[position : position + length], position + length


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < _MORE:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, _MORE | len(octets))) + octets + content


def _base58(data: bytes) -> str:
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    leading_zeros = len(data) - len(data.lstrip(b"\x00"))
    return _BASE58[0] * leading_zeros + text
