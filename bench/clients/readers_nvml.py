"""Readers of clients that load libnvidia-ml.so.1: run as `<the client's python> -m`, see matrix.py."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.clients.reading import GIB, MIB, Card, held, main, of_memory, output, program, screen

load: Any = importlib.import_module
"""A client's module. Not an import statement: this file is checked where no client is installed."""


def bindings(nvml: Any) -> list[Card]:
    """Through any module that has NVML's functions under their names."""
    nvml.nvmlInit()
    cards: list[Card] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            name = nvml.nvmlDeviceGetName(handle)
            card = of_memory(nvml.nvmlDeviceGetMemoryInfo(handle))
            card["name"] = name.decode() if isinstance(name, bytes) else name
            with contextlib.suppress(AttributeError):
                card["processes"] = held(nvml.nvmlDeviceGetComputeRunningProcesses(handle))
            cards.append(card)
        except nvml.NVMLError as error:
            cards.append({"error": str(error)})
    nvml.nvmlShutdown()
    return cards


def nvidia_ml_py() -> list[Card]:
    """Every function of one device that takes nothing else is called once; it may fail, but not crash."""
    nvml = load("pynvml")
    nvml.nvmlInit()
    for index in range(nvml.nvmlDeviceGetCount()):
        with contextlib.suppress(nvml.NVMLError):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            for name in [name for name in dir(nvml) if re.match(r"nvmlDevice(Get|Is)", name)]:
                with contextlib.suppress(nvml.NVMLError, TypeError):
                    getattr(nvml, name)(handle)
    return bindings(nvml)


def py3nvml() -> list[Card]:
    return bindings(load("py3nvml.py3nvml"))


def nvidia_ml_py3() -> list[Card]:
    """Its nvidia_smi module joins str and bytes, and fails on any Python 3: its bindings are what works."""
    return bindings(load("pynvml"))


def vllm() -> list[Card]:
    """The file alone: the package around it wants torch."""
    (place,) = load("importlib.util").find_spec("vllm").submodule_search_locations
    sys.path.insert(0, f"{place}/third_party")
    return bindings(load("pynvml"))


def gpustat() -> list[Card]:
    cards: list[Card] = []
    for told in json.loads(output(program("gpustat"), "--json"))["gpus"]:
        if told["memory.total"] is None:
            cards.append({"error": told["name"]})
            continue
        processes = held(told["processes"], memory="gpu_memory_usage", unit=MIB)
        sizes = {"total": told["memory.total"] * MIB, "used": told["memory.used"] * MIB}
        cards.append({"name": told["name"], "uuid": told["uuid"], "processes": processes, **sizes})
    return cards


def nvitop() -> list[Card]:
    cards: list[Card] = []
    for device in load("nvitop").Device.all():
        total = device.memory_total()
        if not isinstance(total, int):
            cards.append({"error": device.name()})
            continue
        processes = {str(pid): one.gpu_memory() for pid, one in device.processes().items()}
        sizes = {"total": total, "used": device.memory_used(), "free": device.memory_free()}
        cards.append({"name": device.name(), "processes": processes, **sizes})
    return cards


def pynvml_utils() -> list[Card]:
    query = (
        load("pynvml_utils").nvidia_smi.getInstance().DeviceQuery("gpu_name, memory.free, memory.total, memory.used")
    )
    return [
        {"name": one["product_name"], **{key: one["fb_memory_usage"][key] * MIB for key in ("total", "used", "free")}}
        for one in query["gpu"]
    ]


def nvtop() -> list[Card]:
    found = r"MEM\[[|\s]*([\d.]+)Gi/([\d.]+)Gi\]"
    text = screen("nvtop", until=lambda text: bool(re.search(r"Command[^F]+F2", text)))
    names = re.findall(r"Device \d+ \[([^\]]*)\]", text)
    sizes = re.findall(found, text)
    processes = re.findall(r"(\d+)\s+\S+\s+(\d)\s+Compute\s+\S+\s+(\d+)MiB", text)
    if not names:
        raise RuntimeError(" ".join(text.split()) or "nothing on the screen")
    return [
        {
            "name": name,
            "used": float(used) * GIB,
            "total": float(total) * GIB,
            "processes": {pid: int(size) * MIB for pid, gpu, size in processes if int(gpu) == index},
        }
        for index, (name, (used, total)) in enumerate(zip(names, sizes, strict=True))
    ]


def nvmon() -> list[Card]:
    os.environ["NVMON_NO_UPDATE_CHECK"] = "1"
    found = r"MEM\s+\d+%\s+([\d.]+) / ([\d.]+) GiB"
    text = screen(program("nvmon"), until=lambda text: len(re.findall(found, text)) >= 2 * 3)
    sizes = re.findall(found, text)[:3]
    if not sizes:
        raise RuntimeError(" ".join(text.split())[-200:] or "nothing on the screen")
    return [{"used": float(used) * GIB, "total": float(total) * GIB} for used, total in sizes]


def glances() -> list[Card]:
    lines = output(program("glances"), "--stdout-json", "gpu", "--stop-after", "2").splitlines()
    cards = json.loads([line for line in lines if line.startswith("{")][-1])["gpu"]
    return [
        {"name": one["name"], "percent": one["mem"]} if one["mem"] is not None else {"error": one["name"]}
        for one in cards
    ]


def codecarbon() -> list[Card]:
    devices = load("codecarbon.core.gpu").AllGPUDevices()
    return [
        {
            "name": still["name"],
            "total": one["total_memory"],
            "used": one["used_memory"],
            "free": one["free_memory"],
            "processes": held(one["compute_processes"], memory="used_memory"),
        }
        for still, one in zip(devices.get_gpu_static_info(), devices.get_gpu_details(), strict=True)
    ]


def zeus() -> list[Card]:
    """Power, and energy that has to grow."""
    gpus = load("zeus.device").get_gpus()
    cards = []
    for index in range(len(gpus)):
        try:
            before = gpus.get_total_energy_consumption(index)
            time.sleep(0.3)
            grown = gpus.get_total_energy_consumption(index) - before
        except Exception as error:
            if "NotSupported" not in type(error).__name__:
                raise
            grown = None
        watts = gpus.get_instant_power_usage(index) / 1000
        if grown is not None and not 0 < grown < watts * 1000 * 3:
            raise RuntimeError(f"in 0.3 s it used {grown} mJ at {watts} W")
        cards.append({"name": gpus.get_name(index), "watts": watts})
    return cards


def torch_helpers() -> list[Card]:
    """What torch.cuda asks NVML. It wants a CUDA context first, and the current device: those alone are replaced."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    cuda = load("torch.cuda")
    cuda._lazy_init = lambda: None
    cuda.current_device = lambda: 0
    return [
        {"used": cuda.device_memory_used(index), "watts": cuda.power_draw(index) / 1000}
        for index in range(cuda.device_count())
    ]


def torch_count() -> list[Card]:
    """device_count and is_available, in the process and in the mode in which torch asks NVML and not CUDA."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    cuda = load("torch.cuda")
    uuids = cuda._raw_device_uuid_nvml() or []
    if cuda.is_available() != (cuda.device_count() > 0):
        raise RuntimeError(f"is_available() is {cuda.is_available()} with {cuda.device_count()} devices")
    return [{"uuid": "GPU-" + uuid.removeprefix("GPU-")} for uuid in uuids[: cuda.device_count()]]


def ray() -> list[Card]:
    manager = load("ray._private.accelerators.nvidia_gpu").NvidiaGPUAcceleratorManager
    return [{} for _ in range(manager.get_current_node_num_accelerators())]


def ray_dashboard() -> list[Card]:
    provider = load("ray.dashboard.modules.reporter.gpu_providers").GpuMetricProvider()
    return [
        {
            "name": one["name"],
            "used": one["memory_used"] * MIB,
            "total": one["memory_total"] * MIB,
            "processes": held((one["processes_pids"] or {}).values(), memory="gpu_memory_usage", unit=MIB),
        }
        for one in provider.get_gpu_usage()
    ]


def wandb() -> list[Card]:
    """A run without a network: its system monitor writes to a file."""
    os.environ["WANDB_SILENT"] = "true"
    module = load("wandb")
    run = module.init(mode="offline", project="p", settings=module.Settings(x_stats_sampling_interval=0.2))
    directory = os.path.dirname(run.dir)
    time.sleep(6)
    run.finish()
    stats: dict[str, float] = {}
    path = next(entry.path for entry in os.scandir(directory) if entry.name.endswith(".wandb"))
    for data in wandb_records(Path(path).read_bytes()):
        record = load("wandb.proto.wandb_internal_pb2").Record()
        record.ParseFromString(data)
        stats.update({item.key: float(item.value_json) for item in record.stats.item if item.key.startswith("gpu.")})
    indices = sorted({key.split(".")[1] for key in stats if re.fullmatch(r"gpu\.\d+\.memoryAllocatedBytes", key)})
    return [
        {"used": stats[f"gpu.{index}.memoryAllocatedBytes"], "percent": stats[f"gpu.{index}.memoryAllocated"]}
        for index in indices
    ]


def wandb_records(data: bytes) -> Iterator[bytes]:
    """The records of LevelDB's log format: blocks of 32 KiB, in each a checksum, a length, a type and so many bytes."""
    at, block, whole = 7, 1 << 15, b""  # the file has seven bytes of its own in front
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            yield whole
            whole = b""


def mlflow() -> list[Card]:
    monitor = load("mlflow.system_metrics.metrics.gpu_monitor").GPUMonitor()
    monitor.collect_metrics()
    metrics = monitor.aggregate_metrics()
    sizes = [metrics.get(f"gpu_{index}_memory_usage_megabytes") for index in range(monitor.num_gpus)]
    return [{"error": "no value"} if size is None else {"used": size * 1e6} for size in sizes]


def distributed() -> list[Card]:
    """It reports the device that CUDA_VISIBLE_DEVICES names, and keeps to it: one process for each."""
    count = load("distributed.diagnostics.nvml").device_get_count()
    script = (
        "import json; from distributed.diagnostics import nvml; "
        "print(json.dumps({**nvml.one_time(), **nvml.real_time()}))"
    )
    cards: list[Card] = []
    for index in range(count):
        told = json.loads(output(sys.executable, "-c", script, CUDA_VISIBLE_DEVICES=str(index)))
        cards.append({"name": told["name"], "total": told["memory-total"], "used": told["memory-used"]})
    return cards


def hwloc() -> list[Card]:
    told = output("hwloc-ls", "--whole-io", "--of", "xml")
    devices = re.findall(r'name="nvml\d+".*?</object>', told, re.DOTALL)
    models = [re.search(r'"GPUModel" value="([^"]*)"', one) for one in devices]
    uuids = [re.search(r'"NVIDIAUUID" value="([^"]*)"', one) for one in devices]
    return [{"name": m[1], "uuid": u[1]} for m, u in zip(models, uuids, strict=True) if m and u]


def clearml() -> list[Card]:
    cards: list[Card] = []
    for one in load("clearml.utilities.gpu.gpustat").new_query(per_process_stats=True):
        if not isinstance(one.entry["memory.total"], int):
            cards.append({"error": one.name})
            continue
        processes = held(one.processes or [], memory="gpu_memory_usage", unit=MIB)
        sizes = {"total": one.memory_total * MIB, "used": one.memory_used * MIB, "free": one.memory_free * MIB}
        cards.append({"name": one.name, "processes": processes, **sizes})
    return cards


def comet_ml() -> list[Card]:
    return [
        {"name": one.get("name"), "total": one["total_memory"], "used": one["used_memory"], "free": one["free_memory"]}
        for one in load("comet_ml.system.gpu.gpu_logging").get_gpu_details()
    ]


def carbontracker() -> list[Card]:
    gpus = load("carbontracker.components.gpu.nvidia").NvidiaGPU(pids=[], devices_by_pid=False)
    if not gpus.available():
        raise RuntimeError("it finds no GPU")
    gpus.init()
    cards = [{"name": name, "watts": watts} for name, watts in zip(gpus.devices(), gpus.power_usage(), strict=True)]
    gpus.shutdown()
    return cards


def eco2ai() -> list[Card]:
    """It gives all cards the name of the first."""
    gpu = load("eco2ai.tools.tools_gpu").GPU()
    return [of_memory(memory) for memory in gpu.gpu_memory() or []]


def swanlab() -> list[Card]:
    nvidia = load("swanlab.sdk.internal.probe_python.hardware_vendor.accelerator.nvidia").NvidiaGPU
    snapshot = nvidia.get()
    if snapshot is None:
        raise RuntimeError("it finds no GPU")
    indices = [one.index for one in snapshot.devices]
    shim = SimpleNamespace(accelerators=[SimpleNamespace(vendor="nvidia", device_indices=indices)])
    made = nvidia.new(shim)
    if made is None:
        raise RuntimeError("it finds no GPU")
    values = dict(made[0].collect())
    return [{"name": one.name, "used": values[f"gpu.{one.index}.mem.value"] * MIB} for one in snapshot.devices]


def scalene() -> list[Card]:
    """It knows one process at a time, on all cards together: the processes of the script, asked for by PID."""
    gpu = load("scalene.scalene_nvidia_gpu").ScaleneNVIDIAGPU()
    if not gpu.has_gpu():
        raise RuntimeError("it finds no GPU")
    pids = os.environ["SCRIPTED_PIDS"].split(",")
    sizes = {pid: gpu.gpu_memory_usage(int(pid)) * MIB for pid in pids}
    return [{"processes": {pid: size for pid, size in sizes.items() if size}}]


def jupyterlab_nvdashboard() -> list[Card]:
    """Its web socket's handler, with a list in place of the browser."""
    gpu = load("jupyterlab_nvdashboard.apps.gpu")
    sent: list[str] = []
    gpu.GPUUsageWebSocketHandler.send_data(SimpleNamespace(write_message=sent.append))
    told = json.loads(sent[0])
    return [
        {"used": used, "total": total} for used, total in zip(told["memory_usage"], told["total_memory"], strict=True)
    ]


def gpu_who() -> list[Card]:
    told = json.loads(output(program("gpu-who"), "--json"))
    processes = told.get("processes", [])
    return [
        {
            "name": one["name"],
            **{key: one[f"mem_{key}"] * MIB for key in ("total", "used", "free")},
            "processes": {
                str(process["pid"]): process["gpu_mem_mib"] * MIB
                for process in processes
                if process["gpu_index"] == one["index"]
            },
        }
        for one in told["gpus"]
    ]


def gpumetric() -> list[Card]:
    metrics = load("gpumetric").GPUMetrics
    cards: list[Card] = []
    for index in range(3):
        try:
            with metrics(index) as one:
                stats = one.sample()
            cards.append({"used": stats.memory_mib * MIB})
        except Exception as error:
            if index == 0:
                raise
            cards.append({"error": f"{type(error).__name__}: {error}"})
    return cards


def gpulink() -> list[Card]:
    with load("gpulink").DeviceCtx() as context:
        return [{"name": one.gpu_name, **of_memory(one)} for one in context.get_memory_info(context.gpus.ids)]


READERS = {
    "nvidia-ml-py": nvidia_ml_py,
    "py3nvml": py3nvml,
    "nvidia-ml-py3": nvidia_ml_py3,
    "vllm": vllm,
    "gpustat": gpustat,
    "nvitop": nvitop,
    "pynvml_utils": pynvml_utils,
    "nvtop": nvtop,
    "nvmon": nvmon,
    "glances": glances,
    "codecarbon": codecarbon,
    "zeus": zeus,
    "torch (helpers)": torch_helpers,
    "torch (count)": torch_count,
    "ray": ray,
    "ray-dashboard": ray_dashboard,
    "wandb": wandb,
    "mlflow": mlflow,
    "distributed": distributed,
    "hwloc": hwloc,
    "clearml": clearml,
    "comet_ml": comet_ml,
    "carbontracker": carbontracker,
    "eco2ai": eco2ai,
    "swanlab": swanlab,
    "scalene": scalene,
    "jupyterlab-nvdashboard": jupyterlab_nvdashboard,
    "gpu-who": gpu_who,
    "gpumetric": gpumetric,
    "gpulink": gpulink,
}

if __name__ == "__main__":
    main(READERS)
