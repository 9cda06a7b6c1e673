"""What an executable sends when it is run: its arguments, and two texts more (native/request.h)."""

from __future__ import annotations

import struct

from fake_gpu.nvml.dispatch import BadRequest

_U32 = struct.Struct("<I")


def strings_of(frame: bytes) -> list[str]:
    """argv and the two texts: a count of the former, then a length and bytes for each. Raises BadRequest."""
    if len(frame) < _U32.size:
        raise BadRequest("a run: a request without a count of arguments")
    (count,) = _U32.unpack_from(frame)
    strings = []
    at = _U32.size
    while at < len(frame):
        if at + _U32.size > len(frame):
            raise BadRequest("a run: the request ends inside a length")
        (length,) = _U32.unpack_from(frame, at)
        at += _U32.size + length
        if at > len(frame):
            raise BadRequest("a run: the request ends inside a text")
        strings.append(frame[at - length : at].decode("utf-8", "surrogateescape"))
    if len(strings) != count + 2:
        raise BadRequest(f"a run: {len(strings)} texts where {count} arguments and 2 more belong")
    return strings
