"""What llama-server writes to its standard error, as far as programs read it. Wording follows llama.cpp's log."""

from __future__ import annotations

from collections.abc import Sequence

from fake_gpu.llama.options import Options
from fake_gpu.llama.sizes import Layout
from fake_gpu.units import MIB


def devices(gpus: Sequence[tuple[str, int]]) -> str:
    """The GPUs that it sees: name and free bytes."""
    if not gpus:
        return "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected\n"
    lines = [f"ggml_cuda_init: found {len(gpus)} CUDA devices:"]
    lines += [f"  Device {number}: {name}" for number, (name, _) in enumerate(gpus)]
    lines += [
        f"llama_model_load_from_file_impl: using device CUDA{number} ({name}) - {free // MIB} MiB free"
        for number, (name, free) in enumerate(gpus)
    ]
    return _joined(lines)


def listening(options: Options, port: int) -> str:
    """Its HTTP server answers, and the model is about to be loaded. The address is the one that really listens."""
    return _joined(
        [
            "init: using 6 threads for HTTP server",
            f"start: binding port with default address family, asked for {options.host}:{options.port}",
            f"main: HTTP server is listening, hostname: 127.0.0.1, port: {port}, http threads: 6",
            "main: loading model",
            f"srv    load_model: loading model '{options.model}'",
        ]
    )


def cannot_bind(options: Options) -> str:
    """The port is taken."""
    return (
        f"start: couldn't bind HTTP server socket, hostname: {options.host}, port: {options.port}\n"
        "main: exiting due to HTTP server error\n"
    )


def model(layout: Layout) -> str:
    """Where its weights are, once they are there."""
    lines = [
        f"print_info: n_ctx_train      = {layout.shape.train_context}",
        f"print_info: n_layer          = {layout.shape.layers - 1}",  # without the output layer
        f"load_tensors: offloaded {layout.on_gpu}/{layout.shape.layers} layers to GPU",
        f"load_tensors:   CPU_Mapped model buffer size = {_mib(layout.shape.weights - _on_gpus(layout))} MiB",
    ]
    lines += [
        f"load_tensors:        CUDA{gpu} model buffer size = {_mib(layout.weights(gpu))} MiB"
        for gpu, layers in enumerate(layout.layers)
        if layers
    ]
    return _joined(lines)


def ready(layout: Layout, options: Options, port: int) -> str:
    """The rest of a load that went well."""
    lines = [f"llama_context: n_ctx         = {layout.context}"]
    for gpu, layers in enumerate(layout.layers):
        if layers:
            lines.append(f"llama_kv_cache:      CUDA{gpu} KV buffer size = {_mib(layout.cache(gpu))} MiB")
            lines.append(f"llama_context:      CUDA{gpu} compute buffer size = {_mib(layout.overhead(gpu))} MiB")
    lines += [
        f"srv          init: initializing slots, n_slots = {options.parallel}",
        "main: model loaded",
        f"main: server is listening on http://127.0.0.1:{port} - starting the main loop",
        "srv  update_slots: all slots are idle",
    ]
    return _joined(lines)


def no_main_gpu(options: Options, gpus: int) -> str:
    """--main-gpu names a GPU that is not there."""
    return _joined(
        [
            f"llama_model_load_from_file_impl: invalid value for main_gpu: {options.main_gpu} "
            f"(available devices: {gpus})",
            f"common_init_from_params: failed to load model '{options.model}'",
            f"srv    load_model: failed to load model, '{options.model}'",
            "main: exiting due to model loading error",
        ]
    )


def no_room_for_weights(gpu: int, size: int, path: str) -> str:
    """Out of memory while loading the weights."""
    return _joined(
        [
            _cuda_malloc(gpu, size),
            f"alloc_tensor_range: failed to allocate CUDA{gpu} buffer of size {size}",
            f"llama_model_load: error loading model: unable to allocate CUDA{gpu} buffer",
            "llama_model_load_from_file_impl: failed to load model",
            f"common_init_from_params: failed to load model '{path}'",
            f"srv    load_model: failed to load model, '{path}'",
            "main: exiting due to model loading error",
        ]
    )


def no_room_for_cache(gpu: int, size: int, path: str) -> str:
    """Out of memory behind the weights."""
    return _joined(
        [
            _cuda_malloc(gpu, size),
            f"alloc_tensor_range: failed to allocate CUDA{gpu} buffer of size {size}",
            "llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache",
            f"common_init_from_params: failed to create context with model '{path}'",
            f"srv    load_model: failed to load model, '{path}'",
            "main: exiting due to model loading error",
        ]
    )


def needs(layout: Layout) -> str:
    """What `llama-fit-params --fit-print on` writes: device, and MiB of weights, KV cache and compute buffers."""
    lines = [
        f"CUDA{gpu} {layout.weights(gpu) // MIB} {layout.cache(gpu) // MIB} {layout.overhead(gpu) // MIB} "
        for gpu in range(len(layout.layers))
    ]
    rest = layout.shape.layers - layout.on_gpu
    cache = layout.shape.cache_bytes(rest, layout.context, layout.type_k, layout.type_v)
    return _joined([*lines, f"Host {(layout.shape.weights - _on_gpus(layout)) // MIB} {cache // MIB} 0 "])


def fitted(layout: Layout) -> str:
    """What `llama-fit-params` writes: the options that fit."""
    split = f" -ts {','.join(map(str, layout.layers))}" if len(layout.layers) > 1 else ""
    return f"-c {layout.context} -ngl {layout.on_gpu}{split}\n"


def _cuda_malloc(gpu: int, size: int) -> str:
    return (
        f"ggml_backend_cuda_buffer_type_alloc_buffer: allocating {_mib(size)} MiB on device {gpu}: "
        f"cudaMalloc failed: out of memory"
    )


def _on_gpus(layout: Layout) -> int:
    return sum(layout.weights(gpu) for gpu in range(len(layout.layers)))


def _mib(size: int) -> str:
    return f"{size / MIB:.2f}"


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
