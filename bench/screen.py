"""What nvitop's screen of eight GPUs costs with the fake driver, beside a library that answers the same from memory."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.measure import Goal, Section, alternate, compare, timed
from fake_gpu import Driver
from fake_gpu.nvml.dispatch import Session

ROOT = Path(__file__).parent.parent
NVITOP = str(Path(sys.executable).with_name("nvitop"))
ROUNDS, REFRESHES = 15, 20

REFRESH = """
import json, sys, time
from nvitop import take_snapshots
taken = []
for _ in range(int(sys.argv[1]) + 1):
    start = time.perf_counter()
    take_snapshots()
    taken.append(time.perf_counter() - start)
print(json.dumps(sorted(taken[1:])[len(taken) // 2]))
"""


def section() -> Section:
    """`nvitop -1`, and what a running nvitop reads for each new screen."""
    with tempfile.TemporaryDirectory() as name, Driver() as driver:
        for _ in range(8):
            driver.spawn(driver.add_gpu("h200"), used="70 GiB")
        fake = {**os.environ, **driver.environment}
        stub = _stub(driver, Path(name), fake)
        screens = alternate({"fake": timed(_screen(fake)), "stub": timed(_screen(stub))}, ROUNDS, 30)
        refreshes = alternate({"fake": _refresh(fake), "stub": _refresh(stub)}, 5, 30)
    return Section(
        "nvitop, eight GPUs with a process each",
        "the same with a library that has all answers in memory",
        (
            compare("nvitop -1", screens["fake"], screens["stub"], Goal("ratio", 2.0)),
            compare("take_snapshots() in a running one", refreshes["fake"], refreshes["stub"]),
        ),
    )


def _screen(environment: dict[str, str]) -> Callable[[], object]:
    return lambda: subprocess.run([NVITOP, "-1"], env=environment, stdout=subprocess.PIPE, check=True)


def _refresh(environment: dict[str, str]) -> Callable[[], float]:
    def measured() -> float:
        done = subprocess.run(
            [sys.executable, "-c", REFRESH, str(REFRESHES)], env=environment, stdout=subprocess.PIPE, check=True
        )
        return float(json.loads(done.stdout))

    return measured


def _stub(driver: Driver, place: Path, fake: dict[str, str]) -> dict[str, str]:
    """Builds the library of recorded answers, and returns an environment that leads to it."""
    pairs: dict[tuple[int, bytes], bytes] = {}
    answer = driver.nvml.call

    def record(index: int, request: bytes, session: Session) -> tuple[bytes, int]:
        reply, delay = answer(index, request, session)
        pairs[index, request] = reply
        return reply, delay

    driver.nvml.call = record  # type: ignore[method-assign]  # for two runs
    _screen(fake)()
    _refresh(fake)()
    driver.nvml.call = answer  # type: ignore[method-assign]  # as above
    recorded = place / "answers"
    recorded.write_bytes(
        b"".join(
            struct.pack("<III", index, len(request), len(reply)) + request + reply
            for (index, request), reply in pairs.items()
        )
    )
    command = [sys.executable, "build_natives.py", "--static-stub", str(place / "libnvidia-ml.so.1")]
    subprocess.run(command, cwd=ROOT, check=True)
    return {**fake, "LD_LIBRARY_PATH": str(place), "STATIC_STUB": str(recorded)}
