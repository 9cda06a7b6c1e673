"""The worker's side: a pytest session of its own that runs one item when it is told to, or scenarios without pytest."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_vramsettle.conformance.worker import MESSAGE_LIMIT, STACKS_SIGNAL, framed

_PR_SET_PDEATHSIG = 1


class Connection:
    """To the parent, by raw reads and writes: the clock of a scenario must not take them for its own."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_inheritable(fd, False)

    def send(self, message: Any) -> None:
        """Raises OSError where the parent is gone."""
        data = memoryview(framed(message))
        while data:
            data = data[os.write(self._fd, data) :]

    def requests(self) -> Iterator[dict[str, Any]]:
        """Until the parent closes."""
        while True:
            head = self._read(4)
            length = int.from_bytes(head, "big")
            if len(head) < 4 or length > MESSAGE_LIMIT:
                return
            data = self._read(length)
            if len(data) < length:
                return
            yield json.loads(data)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                part = os.read(self._fd, count - len(data))
            except OSError:
                return b""
            if not part:
                return b""
            data += part
        return data


def main(told: Mapping[str, Any]) -> None:
    """The worker's life. It dies with its parent, whatever that dies of."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != told["parent"]:
        os._exit(1)
    os.set_inheritable(told["stacks"], False)
    faulthandler.register(STACKS_SIGNAL, file=told["stacks"], all_threads=True)
    sys.argv[:] = told.get("argv", sys.argv[:1])
    connection = Connection(told["fd"])
    if "arguments" in told:
        _pytest_worker(told, connection)
    else:
        _plain_worker(told, connection)


def _plain_worker(told: Mapping[str, Any], connection: Connection) -> None:
    """Scenarios by name, for the command line. What the implementation prints goes to standard error."""
    os.dup2(2, 1)
    from pytest_vramsettle.conformance.named import judged

    connection.send({"ready": True})
    for request in connection.requests():
        connection.send(judged(request))
        connection.send(None)


def _pytest_worker(told: Mapping[str, Any], connection: Connection) -> None:
    import pytest

    from pytest_vramsettle.conformance.items import Items

    raise SystemExit(pytest.main(list(told["arguments"]), plugins=[Items(told, connection)]))
