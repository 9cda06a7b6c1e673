"""One llama-server process: its command line, its log, and what it answers over HTTP on loopback."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

_HOST = "127.0.0.1"
_ANSWER_TIMEOUT_S = 2.0
_LAST_WORDS = 600
_OFFLOADED = re.compile(rb"offloaded (\d+)/(\d+) layers to GPU")


class Server:
    """A llama-server that was started, or is about to be. `port` was free a moment ago."""

    def __init__(self, command: Sequence[str], arguments: Sequence[str]) -> None:
        self.port = _free_port()
        self.command = [*command, *arguments, "--host", _HOST, "--port", str(self.port)]
        # A pipe that nobody reads would block it; closed by `end`.
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # it outlives this function
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of its process. Raises ValueError where it was not started."""
        if self.process is None:
            raise ValueError(f"{self.command[0]} was not started")
        return self.process.pid

    def wait_until_ready(self, timeout: float, interval: float, cancel: threading.Event) -> bool:
        """Whether its model is loaded; False when it has died, was cancelled, or takes longer than that."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and not self.has_ended():
            if self._get("/health") is not None:
                return True
            if cancel.wait(interval):
                return False
        return False

    def has_ended(self) -> bool:
        """Whether it does not run: it has died, or was never started."""
        return self.process is None or self.process.poll() is not None

    def context(self) -> int | None:
        """Tokens, as it says itself."""
        props = self._get("/props") or {}
        found = props.get("default_generation_settings", {}).get("n_ctx")
        return found if isinstance(found, int) else None

    def layers(self) -> tuple[int | None, int | None]:
        """How many layers it has put on the GPU, of how many, as its log says."""
        found = _OFFLOADED.search(self._read_log())
        return (int(found[1]), int(found[2])) if found else (None, None)

    def last_words(self) -> str:
        """The end of its log."""
        return self._read_log()[-_LAST_WORDS:].decode("utf-8", "replace").strip()

    def end(self) -> None:
        """Kills it where it still runs, and lets go of its log."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def _read_log(self) -> bytes:
        # Not by seeking: the server writes at the position that it shares with us.
        return os.pread(self.log.fileno(), os.fstat(self.log.fileno()).st_size, 0)

    def _get(self, path: str) -> dict[str, Any] | None:
        """The answer of a request that succeeds; None for any other, and where nobody answers."""
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=_ANSWER_TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            found = json.loads(body) if answer.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
        return found if isinstance(found, dict) else None


def end_all(servers: list[Server]) -> None:
    """Ends them all; a function, for a backend that nobody has a reference to any more."""
    for server in servers:
        server.end()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
