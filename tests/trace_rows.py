"""Traces for the tests, put together by hand."""

from __future__ import annotations

import json
from pathlib import Path

from fake_gpu.trace import Event, Header, ReclaimTrace, Sample, TracedGpu
from fake_gpu.units import GIB

MS = 1_000_000
DEAD = 77


def header(
    gpus: int = 1, total: int = 24 * GIB, reserved: int | None = None, killed: tuple[int, ...] = (DEAD,)
) -> Header:
    cards = tuple(TracedGpu(index=n, uuid=f"GPU-{n}", total=total, reserved=reserved) for n in range(gpus))
    return Header(format="vramsettle-trace", version=1, gpus=cards, killed=killed)


def sample(ms: float, *free: int | None, **held: dict[int, int | None]) -> Sample:
    """Free bytes of GPU 0, 1, …; what is held there as `on_0={pid: bytes}`."""
    listed = {int(name.removeprefix("on_")): pids for name, pids in held.items()}
    return Sample(t_ns=round(ms * MS), free=dict(enumerate(free)), held=listed)


def killed(ms: float) -> Event:
    return Event(t_ns=round(ms * MS), event="kill_sent", pid=DEAD, signal="KILL")


def gone(ms: float) -> Event:
    return Event(t_ns=round(ms * MS), event="pid_gone", pid=DEAD)


def simple() -> ReclaimTrace:
    """20 of 24 GiB held; killed at 10 ms, gone at 11 ms; a plateau from 30 to 40 ms; all back at 50 ms."""
    rows = [
        sample(0, 4 * GIB, on_0={DEAD: 20 * GIB}),
        sample(9, 4 * GIB),
        killed(10),
        gone(11),
        sample(20, 4 * GIB, on_0={}),
        sample(30, 14 * GIB),
        sample(40, 14 * GIB),
        sample(50, 24 * GIB),
        sample(90, 24 * GIB),
    ]
    return ReclaimTrace(header(), tuple(rows))


def write_lines(path: Path, *rows: object, tail: str = "\n") -> Path:
    """Lines as somebody else's program might write them."""
    path.write_text("\n".join(json.dumps(row) for row in rows) + tail, encoding="utf-8")
    return path
