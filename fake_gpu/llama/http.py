"""HTTP/1.1 over a connection whose bytes come in pieces, and what llama-server answers to a request.

Paths, fields and errors follow llama.cpp's tools/server/README.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fake_gpu.llama.options import Options
from fake_gpu.llama.sizes import Layout

_LIMIT = 8 << 20
"""Bytes of a request's head, and of its body, at most."""

_HEAD_END = re.compile(rb"\r?\n\r?\n")
"""A line may end with LF alone: RFC 9112, 2.2."""

_LONGEST_METHOD = 20
_BEGIN = re.compile(rb"[A-Za-z]{1,20}(?: .*)?", re.DOTALL)
"""What the first bytes of a request look like, however few have come."""

_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    413: "Payload Too Large",
    503: "Service Unavailable",
}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "invalid_request_error",
    503: "unavailable_error",
}
_PUBLIC = ("/health", "/v1/health", "/models", "/v1/models")
_REPLY = "This is the fake llama-server: it holds memory, and has no model."


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `closes`: the client wants no other over this connection."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    closes: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """What cannot be answered, and ends its connection: an HTTP status and the reason."""

    code: int
    message: str


_NO_HTTP = Refusal(400, "that is no HTTP/1.1 request")
_CHUNKED = Refusal(400, "the fake llama-server takes no chunked requests: send a Content-Length")
_TOO_LARGE = Refusal(413, f"the fake llama-server takes requests of {_LIMIT >> 20} MiB at most")


class Connection:
    """Collects what one client sends, and cuts it into requests."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._is_over = False

    def feed(self, data: bytes) -> list[Request | Refusal]:
        """The requests that are complete now. A refusal is the last: what follows it is not looked at."""
        found: list[Request | Refusal] = []
        if self._is_over:
            return found
        self._data += data
        while (one := self._next()) is not None:
            found.append(one)
            if isinstance(one, Refusal):
                self._is_over = True
                self._data.clear()
        return found

    def _next(self) -> Request | Refusal | None:
        """None where more has to come."""
        while self._data.startswith((b"\r", b"\n")):  # empty lines before a request are ignored: RFC 9112, 2.2
            del self._data[:1]
        if not self._data:
            return None
        if not _BEGIN.fullmatch(self._data[: _LONGEST_METHOD + 1]):
            return _NO_HTTP
        end = _HEAD_END.search(self._data)
        if end is None:
            return None if len(self._data) < _LIMIT else _TOO_LARGE
        first, *lines = self._data[: end.start()].decode("latin-1").split("\n")
        words = first.rstrip("\r").split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = headers.get("content-length", "0")
        if len(words) != 3 or words[2] not in ("HTTP/1.0", "HTTP/1.1") or not (length.isascii() and length.isdigit()):
            return _NO_HTTP
        if "transfer-encoding" in headers:
            return _CHUNKED
        if len(length) > len(str(_LIMIT)) or int(length) > _LIMIT:  # in this order: int() refuses thousands of digits
            return _TOO_LARGE
        size = end.end() + int(length)
        if len(self._data) < size:
            return None
        body = bytes(self._data[end.end() : size])
        del self._data[:size]
        closes = headers.get("connection", "").lower() == "close" or words[2] == "HTTP/1.0"
        return Request(words[0], words[1].partition("?")[0], headers, body, closes)


@dataclass(frozen=True, slots=True)
class State:
    """What a server can tell of itself. `layout` is None until its model is loaded; times in seconds."""

    options: Options
    layout: Layout | None
    wall_time: float
    answered: int


def answer(request: Request, state: State) -> bytes:
    """The whole answer to one request."""
    if request.path not in _PUBLIC and not _is_let_in(request, state.options):
        return _error(request, 401, "Invalid API Key")
    if state.layout is None:
        return _error(request, 503, "Loading model")
    path = request.path.removeprefix("/v1")
    if request.method in ("GET", "HEAD") and path in _PAGES:
        return _response(request, 200, _PAGES[path](state, state.layout))
    if request.method == "POST" and path == "/chat/completions":
        return _chat(request, state)
    return _error(request, 404, "File Not Found")


def refused(refusal: Refusal) -> bytes:
    """The whole answer to what is refused."""
    return _error(Request("", "", {}, b"", closes=True), refusal.code, refusal.message)


def _is_let_in(request: Request, options: Options) -> bool:
    key = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key", "")
    return not options.api_keys or key in options.api_keys


def _props(state: State, layout: Layout) -> dict[str, Any]:
    options = state.options
    return {
        "default_generation_settings": {"id": 0, "n_ctx": layout.context, "is_processing": False},
        "total_slots": options.parallel,
        "model_alias": options.model_name,
        "model_path": options.model,
        "modalities": {"vision": False, "audio": False},
        "endpoint_slots": True,
        "endpoint_props": False,
        "endpoint_metrics": False,
        "chat_template": "",
        "bos_token": "",
        "eos_token": "",
        "build_info": "b7000-fake",
        "is_sleeping": False,
    }


def _slots(state: State, layout: Layout) -> list[dict[str, Any]]:
    # One KV cache for all slots (kv_unified) is what llama-server does of itself.
    slots = range(state.options.parallel)
    return [{"id": number, "n_ctx": layout.context, "is_processing": False} for number in slots]


def _models(state: State, layout: Layout) -> dict[str, Any]:
    meta = {"n_ctx_train": layout.shape.train_context, "size": layout.shape.weights}
    one = {"id": state.options.model_name, "object": "model", "created": int(state.wall_time), "owned_by": "llamacpp"}
    return {"object": "list", "data": [one | {"meta": meta}]}


def _health(state: State, layout: Layout) -> dict[str, Any]:
    return {"status": "ok"}


_PAGES: dict[str, Callable[[State, Layout], object]] = {
    "/health": _health,
    "/props": _props,
    "/slots": _slots,
    "/models": _models,
}


def _chat(request: Request, state: State) -> bytes:
    try:
        body = json.loads(request.body)
        messages = body["messages"]
        words = sum(len(str(message["content"]).split()) for message in messages)
    except (ValueError, KeyError, TypeError, RecursionError):
        return _error(request, 400, "'messages' is required: a list of objects with role and content")
    usage = {
        "completion_tokens": len(_REPLY.split()),
        "prompt_tokens": words,
        "total_tokens": words + len(_REPLY.split()),
    }
    common = {
        "created": int(state.wall_time),
        "model": state.options.model_name,
        "system_fingerprint": "b7000-fake",
        "id": f"chatcmpl-fake-{state.answered}",
    }
    if body.get("stream"):
        return _stream(request, common | {"object": "chat.completion.chunk"})
    message = {"role": "assistant", "content": _REPLY}
    choice = {"finish_reason": "stop", "index": 0, "message": message}
    return _response(request, 200, {"choices": [choice], "object": "chat.completion", "usage": usage, **common})


def _stream(request: Request, common: dict[str, Any]) -> bytes:
    steps: list[tuple[dict[str, str], str | None]] = [
        ({"role": "assistant", "content": _REPLY}, None),
        ({}, "stop"),
    ]
    events = [{"choices": [{"finish_reason": end, "index": 0, "delta": delta}], **common} for delta, end in steps]
    data = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return _bytes(request, 200, data.encode(), "text/event-stream")


def _error(request: Request, code: int, message: str) -> bytes:
    return _response(request, code, {"error": {"message": message, "type": _ERRORS[code], "code": code}})


def _response(request: Request, code: int, body: object) -> bytes:
    return _bytes(request, code, json.dumps(body).encode(), "application/json; charset=utf-8")


def _bytes(request: Request, code: int, body: bytes, kind: str) -> bytes:
    head = (
        f"HTTP/1.1 {code} {_REASONS[code]}\r\nServer: llama.cpp\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: {'close' if request.closes else 'keep-alive'}\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if request.method == "HEAD" else body)
