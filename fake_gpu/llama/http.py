"""HTTP/1.1 over a connection whose bytes come in pieces, and what llama-server answers to a request.

Paths, fields and errors follow llama.cpp's tools/server/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fake_gpu.llama.options import Options
from fake_gpu.llama.sizes import Layout

_LIMIT = 8 << 20
"""Bytes of a request, at most."""

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 503: "Service Unavailable"}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
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


class Connection:
    """Collects what one client sends, and cuts it into requests."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Request] | None:
        """The requests that are complete now; None where it is no HTTP."""
        self._data += data
        found: list[Request] = []
        while True:
            head, end, _ = bytes(self._data).partition(b"\r\n\r\n")
            if not end:
                return found if len(self._data) < _LIMIT else None
            lines = head.decode("latin-1").split("\r\n")
            words = lines[0].split(" ")
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
            }
            length = headers.get("content-length", "0")
            if len(words) != 3 or not length.isdigit() or int(length) > _LIMIT or "transfer-encoding" in headers:
                return None
            size = len(head) + 4 + int(length)
            if len(self._data) < size:
                return found
            body = bytes(self._data[len(head) + 4 : size])
            del self._data[:size]
            closes = headers.get("connection", "").lower() == "close" or words[2] == "HTTP/1.0"
            found.append(Request(words[0], words[1].partition("?")[0], headers, body, closes))


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


def bad_request() -> bytes:
    """The answer to what is no HTTP."""
    return b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


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
    except (ValueError, KeyError, TypeError):
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
