"""A whole backend behind HTTP: requests as a spec has them, one connection each, with the standard library's client."""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from dataclasses import dataclass
from typing import Any

from pytest_vramsettle.smoke.spec import Call, Reply, Spec, at_pointer, filled
from pytest_vramsettle.whole_backend import BackendError, BackendStatus, LoadOutcome

__all__ = ["Answer", "HttpBackend", "TimedOut", "Unreachable"]

UNANSWERED_S = 10.0
"""Seconds that any request but a load may take before it counts as unanswered."""

_EXCERPT = 300


class Unreachable(BackendError):
    """Nobody answers there, or what answers speaks no HTTP, or it takes too long."""


class TimedOut(Unreachable):
    """It takes too long."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to one request. `body` is the JSON, or the text where it is none; `seconds` from sending to the end."""

    status: int
    body: Any
    seconds: float

    def misfits(self, reply: Reply) -> list[str]:
        """What is not as it has to be, in words; empty where all is."""
        found = []
        if self.status not in reply.status:
            found.append(f"HTTP status {self.status}, not {' or '.join(map(str, reply.status))}")
        for pointer, wanted in reply.fields.items():
            values = wanted if isinstance(wanted, list) else [wanted]
            try:
                value = at_pointer(self.body, pointer)
            except LookupError:
                found.append(f"no {pointer} in the reply")
                continue
            if value not in values:
                found.append(f"{pointer} is {value!r}, not {' or '.join(map(repr, values))}")
        if found:
            found[-1] += f" (the reply: {self.excerpt()})"
        return found

    def excerpt(self) -> str:
        """The beginning of the body, in one line."""
        text = json.dumps(self.body) if not isinstance(self.body, str) else " ".join(self.body.split())
        return text if len(text) <= _EXCERPT else text[:_EXCERPT] + " …"

    def field(self, pointer: str | None) -> Any:
        """What is at a JSON pointer; None where nothing is, or there is no pointer."""
        try:
            return None if pointer is None else at_pointer(self.body, pointer)
        except LookupError:
            return None


class HttpBackend:
    """A server at a URL, as a WholeBackend. `exchange` is one request, for those who look at replies themselves."""

    def __init__(self, url: str, spec: Spec) -> None:
        parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL of a server: give one such as http://127.0.0.1:8000")
        try:
            self.port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise ValueError(f"{url!r} has a port that is none: give one from 1 to 65535") from None
        self.host: str = parts.hostname
        self._secure = parts.scheme == "https"
        self._prefix = parts.path.rstrip("/")
        self._spec = spec

    def exchange(self, call: Call, values: dict[str, Any] | None = None, *, timeout: float = UNANSWERED_S) -> Answer:
        """Sends one request and reads the reply. Raises Unreachable, TimedOut among them."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=timeout)
        body = None if call.body is None else json.dumps(filled(call.body, values or {}))
        headers = {"Accept": "application/json", **({} if body is None else {"Content-Type": "application/json"})}
        started = time.monotonic()
        try:
            connection.request(call.method, self._prefix + call.path, body, headers | call.headers)
            reply = connection.getresponse()
            data = reply.read()
        except TimeoutError:
            raise TimedOut(f"no answer from {self.host}:{self.port} within {timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"no answer from {self.host}:{self.port}: {_reason(error)}") from None
        finally:
            connection.close()
        return Answer(reply.status, _decoded(data), time.monotonic() - started)

    def send_load(self, model: str, context: int, cache_type: str) -> Answer:
        """A load, and its reply whatever it is. Raises Unreachable."""
        values = {"model": model, "context": context, "cache_type": cache_type}
        return self.exchange(self._spec.load, values, timeout=self._spec.load_seconds)

    def load(self, model: str, *, context: int = 8192, cache_type: str = "f16") -> LoadOutcome:
        """As WholeBackend has it. Raises BackendError for a reply that the spec does not know."""
        answer = self.send_load(model, context, cache_type)
        replies = self._spec.replies
        outcomes: list[tuple[LoadOutcome, Reply]] = [
            ("already_loaded", replies.already_loaded),
            ("loaded", replies.loaded),
            ("cancelled", replies.cancelled),
        ]
        for outcome, reply in outcomes:
            if not answer.misfits(reply):
                return outcome
        raise BackendError(f"the load was answered with HTTP status {answer.status}: {answer.excerpt()}")

    def unload(self) -> bool:
        """Whether the reply says that something was unloaded."""
        return not self.exchange(self._spec.unload).misfits(self._spec.replies.unloaded)

    def cancel(self) -> bool:
        """Whether the reply says that something was cancelled."""
        return not self.exchange(self._spec.cancel).misfits(self._spec.replies.cancel)

    def status(self) -> BackendStatus:
        """What the spec's fields tell; `layers` and `layers_on_gpu` cannot be told from them."""
        answer = self.exchange(self._spec.status)
        fields = self._spec.fields
        pid = answer.field(fields.pid)
        waits = bool(self._spec.replies.waiting.fields) and not answer.misfits(self._spec.replies.waiting)
        phase = "settling" if waits else "idle" if pid is None else "serving"
        return BackendStatus(phase=phase, pid=pid, context=answer.field(fields.context))


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "replace")
