"""A fake llama-server that a test has started, and what it answers."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from fake_gpu import Driver

CONTEXT = ("-c", "4096")
_LISTENS = re.compile(r"HTTP server is listening, hostname: 127\.0\.0\.1, port: (\d+)")
_PATIENCE_S = 10.0


def server(driver: Driver, **arguments: object) -> list[str]:
    """The command of a server with 18 GiB of weights, which are loaded at once."""
    return driver.llama_server(**{"weights": "18 GiB", "load_time": 0, **arguments})  # type: ignore[arg-type]  # as given


class Llama:
    """`command -m a.gguf ARGUMENTS --port 0`, with its log in a file. Killed at the end, if it still lives."""

    def __init__(self, command: Sequence[str], *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self.popen = subprocess.Popen(
            [*command, "-m", "a.gguf", "--port", "0", *arguments],
            stdin=subprocess.DEVNULL,
            stderr=self._log,
            env=None if environment is None else {**os.environ, **environment},
        )
        self.pid = self.popen.pid

    def __enter__(self) -> Llama:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.popen.kill()
        self.popen.wait()
        self._log.close()

    @property
    def log(self) -> str:
        return os.pread(self._log.fileno(), 1 << 20, 0).decode()

    def await_line(self, text: str) -> str:
        """The log, once it has that text; or once the process is dead."""
        until = time.clock_gettime(time.CLOCK_MONOTONIC) + _PATIENCE_S
        while text not in self.log and self.popen.poll() is None:
            if time.clock_gettime(time.CLOCK_MONOTONIC) > until:
                raise TimeoutError(f"no {text!r} in {self.log}")
            time.sleep(0.001)
        return self.log

    @property
    def port(self) -> int:
        found = _LISTENS.search(self.await_line("HTTP server is listening"))
        if found is None:
            raise ValueError(self.log)
        return int(found[1])

    def ready(self) -> Llama:
        self.await_line("starting the main loop")
        return self

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_S)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), dict(headers or {}))
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        finally:
            connection.close()
