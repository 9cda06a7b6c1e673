"""llama-server's command line: its usual options, and what it says of a wrong one.

Names and manner follow llama.cpp's common/arg.cpp and tools/server/README.md. What bears on memory, the network and the
answers is heeded; the other options listed here are accepted and change nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fake_gpu.llama.shape import CACHE_TYPES
from fake_gpu.units import MIB

FIT_CONTEXT = 4096
"""Below this llama-server's fit does not reduce the context: the default of --fit-ctx."""

FIT_MARGIN_MIB = 1024
"""What its fit leaves free on each GPU: the default of --fit-target."""

AUTO = -1
ALL = -2


class UsageError(Exception):
    """A command line that llama-server refuses; the text is what it prints."""


class _WrongValue(Exception):
    """Why a value cannot be; llama.cpp has it from the C++ library for numbers: "stoi", "stof"."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU that the program sees; sizes in bytes."""

    name: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Options:
    """A command line, understood. `context` 0 and `gpu_layers` AUTO are for the server to choose."""

    model: str = ""
    alias: str = ""
    context: int = 0
    gpu_layers: int = AUTO
    host: str = "127.0.0.1"
    port: int = 8080
    type_k: str = "f16"
    type_v: str = "f16"
    tensor_split: tuple[float, ...] = ()
    main_gpu: int = 0
    split_mode: str = "layer"
    devices: str = ""
    parallel: int = 4
    api_keys: tuple[str, ...] = ()
    fit: bool = True
    fit_context: int = FIT_CONTEXT
    fit_margin_mib: int = FIT_MARGIN_MIB
    fit_print: bool = False
    answer: str = ""
    """What `--version`, `--help` or `--list-devices` prints instead of serving."""

    @property
    def model_name(self) -> str:
        """What clients are told it is called."""
        return self.alias or os.path.basename(self.model)


VERSION = "version: 7000 (fake)\nbuilt for the fake NVIDIA driver\n"

_Reader = Callable[[Options, str], Options]


def _with(options: Options, field: str, value: Any) -> Options:
    return replace(options, **{field: value})


def _stoi(value: str) -> int:
    """As C++ reads an int: what follows the number is ignored, and 32 bits have to hold it."""
    found = re.match(r"\s*[+-]?[0-9]{1,20}", value)
    if found is None or not -(1 << 31) <= int(found[0]) < 1 << 31:
        raise _WrongValue("stoi")
    return int(found[0])


def _integer(field: str) -> _Reader:
    return lambda options, value: _with(options, field, _stoi(value))


def _context(options: Options, value: str) -> Options:
    if _stoi(value) < 0:
        raise _WrongValue("invalid value")
    return replace(options, context=_stoi(value))


def _text(field: str) -> _Reader:
    return lambda options, value: _with(options, field, value)


def _switch(field: str) -> _Reader:
    def read(options: Options, value: str) -> Options:
        words = {"on": True, "enabled": True, "true": True, "1": True}
        words |= {"off": False, "disabled": False, "false": False, "0": False}
        if value not in words:
            raise _WrongValue("invalid value")
        return _with(options, field, words[value])

    return read


def _cache_type(field: str) -> _Reader:
    def read(options: Options, value: str) -> Options:
        if value not in CACHE_TYPES:
            raise _WrongValue(f"Unsupported cache type: {value}")
        return _with(options, field, value)

    return read


def _gpu_layers(options: Options, value: str) -> Options:
    layers = {"auto": AUTO, "all": ALL}.get(value)
    # A negative number other than -1 means all, as in llama.cpp's model loader.
    return replace(options, gpu_layers=max(ALL, _stoi(value)) if layers is None else layers)


def _tensor_split(options: Options, value: str) -> Options:
    try:
        parts = tuple(float(part) for part in value.replace("/", ",").split(","))
    except ValueError:
        raise _WrongValue("stof") from None
    return replace(options, tensor_split=parts)


def _split_mode(options: Options, value: str) -> Options:
    if value not in ("none", "layer", "row", "tensor"):
        raise _WrongValue("invalid value")
    return replace(options, split_mode=value)


def _devices(count: int) -> _Reader:
    """--device, where so many GPUs are seen."""

    def read(options: Options, value: str) -> Options:
        there = [f"CUDA{number}" for number in range(count)]
        missing = [name for name in value.split(",") if name not in there]
        if missing and value != "none":
            raise _WrongValue(f"invalid device: {missing[0]}")
        return replace(options, devices=value)

    return read


def _api_key(options: Options, value: str) -> Options:
    return replace(options, api_keys=(*options.api_keys, *value.split(",")))


def _nothing(options: Options, value: str) -> Options:
    return options


_WITH_VALUE: dict[tuple[str, ...], _Reader] = {
    ("-m", "--model"): _text("model"),
    ("-a", "--alias"): _text("alias"),
    ("-c", "--ctx-size"): _context,
    ("-ngl", "--n-gpu-layers", "--gpu-layers"): _gpu_layers,
    ("--host",): _text("host"),
    ("--port",): _integer("port"),
    ("-ctk", "--cache-type-k"): _cache_type("type_k"),
    ("-ctv", "--cache-type-v"): _cache_type("type_v"),
    ("-ts", "--tensor-split"): _tensor_split,
    ("-mg", "--main-gpu"): _integer("main_gpu"),
    ("-sm", "--split-mode"): _split_mode,
    ("-dev", "--device"): _devices(0),  # `parse` knows how many there are
    ("-np", "--parallel"): _integer("parallel"),
    ("--api-key",): _api_key,
    ("-fit", "--fit"): _switch("fit"),
    ("-fitc", "--fit-ctx"): _integer("fit_context"),
    ("-fitt", "--fit-target"): _integer("fit_margin_mib"),
    ("-b", "--batch-size", "-ub", "--ubatch-size", "-t", "--threads", "-tb", "--threads-batch"): _nothing,
    ("--threads-http", "-to", "--timeout", "-fa", "--flash-attn", "--keep", "-s", "--seed"): _nothing,
    ("-n", "--predict", "--n-predict", "--temp", "--temperature", "--top-k", "--top-p", "--min-p"): _nothing,
    ("--repeat-penalty", "--rope-scaling", "--rope-scale", "--rope-freq-base", "--rope-freq-scale"): _nothing,
    ("-mm", "--mmproj", "--lora", "-md", "--model-draft", "--draft-max", "--draft-min", "-ngld"): _nothing,
    ("--chat-template", "--chat-template-file", "--chat-template-kwargs", "--reasoning-format"): _nothing,
    ("--reasoning-budget", "-lv", "--verbosity", "--log-verbosity", "--log-file", "--path"): _nothing,
    ("--slot-save-path", "--cache-reuse", "-cram", "--cache-ram", "-ot", "--override-tensor"): _nothing,
    ("--override-kv", "-ncmoe", "--n-cpu-moe", "--numa", "--prio", "--poll", "--api-key-file"): _nothing,
    ("--ctx-checkpoints", "-hf", "--hf-repo", "-hff", "--hf-file", "--pooling"): _nothing,
}

_FLAGS = (
    *("--mlock", "--mmap", "--no-mmap", "--jinja", "--no-jinja", "--warmup", "--no-warmup", "-v", "--verbose"),
    *("-cb", "--cont-batching", "-nocb", "--no-cont-batching", "--metrics", "--slots", "--no-slots", "--props"),
    *("--no-webui", "--webui", "--no-ui", "--embedding", "--embeddings", "--reranking", "--rerank", "--log-disable"),
    *("--log-timestamps", "--log-prefix", "--log-colors", "--context-shift", "--no-context-shift", "--swa-full"),
    *("-kvo", "--kv-offload", "-nkvo", "--no-kv-offload", "-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified"),
    *("--no-mmproj", "--offline", "--check-tensors", "-cmoe", "--cpu-moe", "--no-perf", "--perf", "--repack"),
    *("--no-repack", "--no-host", "--no-prefill-assistant", "--direct-io", "--no-direct-io"),
)

_READERS = {name: read for names, read in _WITH_VALUE.items() for name in names}


def parse(arguments: Sequence[str], program: str, devices: Sequence[Device] = ()) -> Options:
    """The options of `llama-server` or `llama-fit-params`, without the program's name. Raises UsageError.

    `devices` are the GPUs that the program sees.
    """
    options = Options()
    rest = iter(arguments)
    for argument in rest:
        name = argument.replace("_", "-") if argument.startswith("--") else argument  # as llama.cpp has it
        if name in ("-h", "--help", "--usage"):
            return replace(options, answer=_help())
        if name == "--version":
            return replace(options, answer=VERSION)
        if name == "--list-devices":
            return replace(options, answer=_listed(devices))
        if name in _FLAGS:
            continue
        if name in ("-fitp", "--fit-print") and program == "llama-fit-params":
            read = _switch("fit_print")
        elif name in ("-dev", "--device"):
            read = _devices(len(devices))
        elif name in _READERS:
            read = _READERS[name]
        else:
            raise UsageError(f"error: invalid argument: {argument}\n")
        value = next(rest, None)
        if value is None:
            raise UsageError(f"error: expected value for argument: {argument}\n")
        try:
            options = read(options, value)
        except _WrongValue as error:
            raise UsageError(
                f'error while handling argument "{argument}": {error}\n\nto show complete usage, run with -h\n'
            ) from None
    return _checked(options)


def _checked(options: Options) -> Options:
    if not options.model:
        raise UsageError("error: --model is required: the fake llama-server has no router mode\n")
    if not 0 <= options.port <= 65535:
        raise UsageError('error while handling argument "--port": invalid value\n')
    if options.host.endswith(".sock"):
        raise UsageError("error: the fake llama-server listens on 127.0.0.1 alone, not on a Unix socket\n")
    return replace(options, parallel=max(1, options.parallel))


def _listed(devices: Sequence[Device]) -> str:
    lines = [
        f"  CUDA{number}: {one.name} ({one.total // MIB} MiB, {one.free // MIB} MiB free)\n"
        for number, one in enumerate(devices)
    ]
    return "Available devices:\n" + "".join(lines)


def _help() -> str:
    names = [", ".join(names) for names in _WITH_VALUE] + ["--list-devices, " + ", ".join(_FLAGS)]
    return "----- options of the fake llama-server -----\n\n" + "".join(f"{line}\n" for line in names)
