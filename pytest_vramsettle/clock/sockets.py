"""What the kernel tells of a socket that belongs to somebody else, by its descriptor.

Not through `socket.socket(fileno=...)`: under `socket.setdefaulttimeout` that makes the other's socket non-blocking.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys

_libc = ctypes.CDLL(None, use_errno=True)
_LONGEST_ADDRESS = 128  # sockaddr_storage

_INT = struct.Struct("i")
# The ports of IPv4 and IPv6 addresses stand at the same place, in network order.
_PORT = struct.Struct(">H")


def option(fd: int, level: int, name: int, size: int) -> bytes:
    """getsockopt(2). Raises OSError."""
    value, length = ctypes.create_string_buffer(size), ctypes.c_uint(size)
    if _libc.getsockopt(fd, level, name, value, ctypes.byref(length)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return value.raw[: length.value]


def number(fd: int, name: int) -> int:
    """An option of SOL_SOCKET that is an int. Raises OSError."""
    value: int = _INT.unpack(option(fd, socket.SOL_SOCKET, name, _INT.size))[0]
    return value


def name(fd: int) -> bytes:
    """getsockname(2): an address as the kernel has it. Raises OSError."""
    return _address(_libc.getsockname, fd)


def peer(fd: int) -> bytes:
    """getpeername(2). Raises OSError where it is not connected."""
    return _address(_libc.getpeername, fd)


def _address(function: ctypes._NamedFuncPointer, fd: int) -> bytes:
    address, length = ctypes.create_string_buffer(_LONGEST_ADDRESS), ctypes.c_uint(_LONGEST_ADDRESS)
    if function(fd, address, ctypes.byref(length)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return address.raw[: length.value]


def family(address: bytes) -> int:
    return int.from_bytes(address[:2], sys.byteorder)


def port(address: bytes) -> int:
    """Of an IPv4 or IPv6 address."""
    value: int = _PORT.unpack_from(address, 2)[0]
    return value


def host(address: bytes) -> bytes:
    """Of an IPv4 or IPv6 address."""
    return address[8:24] if family(address) == socket.AF_INET6 else address[4:8]


def is_named(address: bytes) -> bool:
    """Whether a Unix address has a path, or an abstract name: one of a pair has neither."""
    return len(address) > 2
