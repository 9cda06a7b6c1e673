"""The nvidia-smi probe: two queries, and an unforgiving reader for their output."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping

from pytest_vramsettle._bounded_run import Finished, run_within
from pytest_vramsettle._budget import GpuLost, ProbeBudget, ProbeFailed, ProbeMissing
from pytest_vramsettle._quantities import MIB
from pytest_vramsettle.readings import GpuReading, Reading

_FORMAT = "--format=csv,noheader,nounits"
_GPUS = "--query-gpu=index,uuid,memory.free,memory.total"
_HOLDERS = "--query-compute-apps=gpu_uuid,pid,used_memory"

# Exit statuses as `nvidia-smi --help` documents them.
_NO_DEVICES = 6
_LOST = 15
_UNREACHABLE = "Unable to determine the device handle"
"""Said of a GPU that fails: since driver 580 with status 0 where another one is well, with 6 where none is."""

_Holders = dict[str, dict[int, int | None]]


class NvidiaSmiProbe:
    """Free memory by UUID from `nvidia-smi`, which is looked up on PATH at every reading.

    With `holders`, a second run tells which PIDs hold memory; between the two runs other processes may allocate.
    nvidia-smi prints whole MiB, rounded.
    """

    def __init__(self, command: str = "nvidia-smi") -> None:
        self._command = command

    def read(self, budget: ProbeBudget, *, holders: bool) -> Reading:
        """Raises ProbeMissing when it is not on PATH, GpuLost, ProbeTimeout, ProbeInterrupted, else ProbeFailed."""
        path = shutil.which(self._command)
        if path is None:
            raise ProbeMissing(f"{self._command} is not on PATH")
        finished = run_within(budget, [path, _GPUS, _FORMAT])
        none = finished.status == _NO_DEVICES or finished.stdout.startswith("No devices were found")
        if none and _UNREACHABLE not in finished.stdout + finished.stderr:
            return Reading()
        gpus = list(parse_gpus(_checked(finished, "the memory query")))
        if not gpus:
            raise ProbeFailed("nvidia-smi answered the memory query with nothing at all")
        by_gpu: _Holders | None = None
        if holders:
            by_gpu = parse_holders(_checked(run_within(budget, [path, _HOLDERS, _FORMAT]), "the process query"))
        return Reading(tuple(_reading(row, by_gpu) for row in gpus))

    def __repr__(self) -> str:
        return f"NvidiaSmiProbe({self._command!r})"


def _checked(finished: Finished, query: str) -> str:
    said = (finished.stdout + finished.stderr).strip()
    if finished.status == _LOST or "GPU is lost" in said:
        raise GpuLost(f"nvidia-smi answered {query} with status {finished.status}: {_short(said)}")
    if finished.status != 0 or _UNREACHABLE in said:
        how = f"status {finished.status}" if finished.status >= 0 else f"signal {-finished.status}"
        raise ProbeFailed(f"nvidia-smi answered {query} with {how}: {_short(said)}")
    return finished.stdout


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


_Row = tuple[int, str, int | None, int | None]


def _reading(row: _Row, by_gpu: Mapping[str, Mapping[int, int | None]] | None) -> GpuReading:
    index, uuid, free, total = row
    return GpuReading(index, uuid, free, total, None if by_gpu is None else by_gpu.get(uuid, {}))


def parse_gpus(text: str) -> Iterator[_Row]:
    """Index, UUID, free and total bytes of each line. Raises ProbeFailed, with the line, for what it cannot be."""
    seen: set[int | str] = set()
    for line, (index_text, uuid, free, total) in _rows(text, 4):
        index = _number(line, index_text)
        if index is None or not uuid or uuid.startswith("["):
            raise ProbeFailed(f"nvidia-smi printed a GPU without an index and UUID: {line!r}")
        if index in seen or uuid in seen:
            raise ProbeFailed(f"nvidia-smi printed a GPU twice: {line!r}")
        seen.update((index, uuid))
        yield index, uuid, _mib(line, free), _mib(line, total)


def parse_holders(text: str) -> _Holders:
    """Bytes by PID by UUID. Raises ProbeFailed, with the line, for what it cannot be."""
    holders: _Holders = {}
    for line, (uuid, pid_text, used_text) in _rows(text, 3):
        pid = _number(line, pid_text)
        if pid is None:
            continue
        used, on_gpu = _mib(line, used_text), holders.setdefault(uuid, {})
        # A process shows up once for each MIG instance that it uses.
        before = on_gpu.get(pid, 0)
        on_gpu[pid] = None if used is None or before is None else before + used
    return holders


def _rows(text: str, columns: int) -> Iterator[tuple[str, list[str]]]:
    if text and not text.endswith("\n"):
        raise ProbeFailed(f"nvidia-smi's output is cut off: {_short(text[-80:])!r}")
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != columns:
            raise ProbeFailed(f"nvidia-smi printed a line of {len(fields)} fields in place of {columns}: {line!r}")
        yield line, fields


def _number(line: str, field: str) -> int | None:
    if field.startswith("["):  # [N/A], [Not Supported], [Unknown Error], [Insufficient Permissions]
        return None
    if not (field.isascii() and field.isdigit()):
        raise ProbeFailed(f"nvidia-smi printed {field!r} where a number belongs: {line!r}")
    return int(field)


def _mib(line: str, field: str) -> int | None:
    number = _number(line, field)
    return None if number is None else number * MIB
