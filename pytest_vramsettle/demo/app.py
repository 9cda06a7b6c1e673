"""The demo backend over HTTP: /load, /unload, /cancel, /status. Needs FastAPI and uvicorn (pytest-vramsettle[demo]).

python -m pytest_vramsettle.demo.app --server-command /usr/local/bin/llama-server --port 8000
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

try:
    import uvicorn
    from anyio import CapacityLimiter, to_thread
    from fastapi import FastAPI, HTTPException
    from pydantic import BaseModel, ConfigDict, Field
except ImportError as error:
    raise ImportError(
        f"the demo backend's HTTP server needs FastAPI and uvicorn, and {error.name} is not installed: "
        f"run pip install 'pytest-vramsettle[demo]'"
    ) from error

from pytest_vramsettle.demo.backend import Backend
from pytest_vramsettle.settle import wait_for_vram_settle
from pytest_vramsettle.whole_backend import BackendError, WholeBackend

__all__ = ["LoadRequest", "make_app"]

HOST = "127.0.0.1"


class LoadRequest(BaseModel):
    """The body of /load. `context` in tokens."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1)
    context: int = Field(default=8192, ge=256)
    cache_type: Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"] = "f16"


def make_app(backend: WholeBackend, *, at_end: Callable[[], object] = lambda: None) -> FastAPI:
    """The application. `at_end` is called when the server shuts down.

    Loads have threads of the common pool. Unloads have one of their own, and status and cancel are answered by the
    event loop itself: no number of waiting loads can hold them up.
    """
    unloading = CapacityLimiter(1)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await to_thread.run_sync(at_end)

    app = FastAPI(title="pytest-vramsettle demo backend", lifespan=lifespan)

    @app.post("/load")
    def load(body: LoadRequest) -> dict[str, Any]:
        try:
            outcome = backend.load(body.model, context=body.context, cache_type=body.cache_type)
        except BackendError as error:
            raise HTTPException(status_code=503, detail=str(error)) from error
        return {"status": outcome, **backend.status().as_dict()}

    @app.post("/unload")
    async def unload() -> dict[str, Any]:
        had_one = await to_thread.run_sync(backend.unload, limiter=unloading)
        return {"status": "unloaded" if had_one else "nothing_loaded"}

    @app.post("/cancel")
    async def cancel() -> dict[str, Any]:
        return {"status": "cancelled" if backend.cancel() else "nothing_to_cancel"}

    @app.get("/status")
    async def status() -> dict[str, Any]:
        return backend.status().as_dict()

    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs it with uvicorn, on loopback."""
    parser = argparse.ArgumentParser(prog="python -m pytest_vramsettle.demo.app", description=__doc__)
    parser.add_argument("--server-command", required=True, help="what starts llama-server, as a shell would read it")
    parser.add_argument("--port", type=int, default=8000, help="0: a free one; it is printed")
    parser.add_argument("--wait", choices=["verified", "two-samples", "none"], default="verified")
    chosen = parser.parse_args(arguments)
    backend = Backend(shlex.split(chosen.server_command), wait=_wait(chosen.wait))
    app = make_app(backend, at_end=backend.close)
    try:
        uvicorn.run(app, host=HOST, port=chosen.port, log_level="info", access_log=False)
    finally:
        backend.close()


def _wait(policy: str) -> Callable[..., object]:
    """What is done between the kill and the reading. "none" is there to show what that leads to."""
    if policy == "none":
        return lambda kills, *, cancel: None
    return lambda kills, *, cancel: wait_for_vram_settle(kills, cancel=cancel, policy=policy)


if __name__ == "__main__":
    main()
