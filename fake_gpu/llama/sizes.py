"""Where a model's layers go, and how much each GPU then holds. Pure functions of sizes in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fake_gpu.llama.options import ALL, AUTO, Options
from fake_gpu.llama.shape import Shape
from fake_gpu.units import MIB

_CONTEXT_STEP = 256
"""llama.cpp pads a context to a multiple of this."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model is loaded: `layers[i]` of its layers to the i-th visible GPU, the rest to the CPU."""

    shape: Shape
    context: int
    layers: tuple[int, ...]
    type_k: str
    type_v: str

    @property
    def on_gpu(self) -> int:
        """Layers on all GPUs."""
        return sum(self.layers)

    def weights(self, gpu: int) -> int:
        """Bytes of weights on a GPU."""
        return self.shape.weights * self.layers[gpu] // self.shape.layers

    def cache(self, gpu: int) -> int:
        """Bytes of KV cache on a GPU."""
        return self.shape.cache_bytes(self.layers[gpu], self.context, self.type_k, self.type_v)

    def overhead(self, gpu: int) -> int:
        """Bytes of context and compute buffers on a GPU; none where no layer is."""
        return self.shape.overhead if self.layers[gpu] else 0

    def total(self, gpu: int) -> int:
        """All of it."""
        return self.weights(gpu) + self.cache(gpu) + self.overhead(gpu)


def lay_out(shape: Shape, options: Options, free: Sequence[int]) -> Layout:
    """What llama-server would do with so many free bytes on each visible GPU.

    What the command line leaves open (`-c`, `-ngl`) is fitted to the free memory, as llama.cpp's --fit does: first the
    context is reduced, down to --fit-ctx, then the layers. What it gives is done, whether it fits or not.
    """
    context = _padded(options.context or shape.train_context)
    wanted = _wanted(shape, options)
    if options.gpu_layers == AUTO and options.fit and free:
        room = [size - options.fit_margin_mib * MIB for size in free]
        if not options.context:
            context = _reduced(shape, options, room, context)
        most = [_most_layers(shape, options, size, context) for size in _allowed(options, room)]
        spread = tuple(most) if sum(most) < wanted else _within(most, _spread(options, wanted, free))
        return _layout(shape, options, context, spread)
    return _layout(shape, options, context, _spread(options, wanted, free))


def _layout(shape: Shape, options: Options, context: int, layers: tuple[int, ...]) -> Layout:
    return Layout(shape, context, layers, options.type_k, options.type_v)


def _padded(context: int) -> int:
    return -(-context // _CONTEXT_STEP) * _CONTEXT_STEP


def _wanted(shape: Shape, options: Options) -> int:
    return shape.layers if options.gpu_layers in (ALL, AUTO) else min(options.gpu_layers, shape.layers)


def _allowed(options: Options, room: Sequence[int]) -> list[int]:
    """The room on the GPUs that the split mode uses; none on the others."""
    if options.split_mode == "none":
        return [size if gpu == options.main_gpu else 0 for gpu, size in enumerate(room)]
    return list(room)


def _most_layers(shape: Shape, options: Options, room: int, context: int) -> int:
    each = shape.layer_bytes + shape.cache_bytes(1, context, options.type_k, options.type_v)
    return max(0, min(shape.layers, (room - shape.overhead) // each))


def _reduced(shape: Shape, options: Options, room: Sequence[int], context: int) -> int:
    """The longest context, at most the given one, with which all layers fit; else the shortest that is allowed."""

    def fits(steps: int) -> bool:
        layers = sum(_most_layers(shape, options, size, steps * _CONTEXT_STEP) for size in _allowed(options, room))
        return layers >= shape.layers

    low, high = _padded(min(context, options.fit_context)) // _CONTEXT_STEP, context // _CONTEXT_STEP
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low * _CONTEXT_STEP


def _spread(options: Options, wanted: int, free: Sequence[int]) -> tuple[int, ...]:
    """So many layers over the GPUs: by --tensor-split, else by their free memory, as llama.cpp does."""
    if not free:
        return ()
    parts: list[float] = [float(size) for size in free]
    if options.tensor_split:
        parts = [*options.tensor_split, *([0.0] * len(free))][: len(free)]
    parts = [max(0.0, part) for part in _allowed(options, [round(part * 1_000_000) for part in parts])]
    whole = sum(parts)
    if not whole:
        return tuple(wanted if gpu == 0 else 0 for gpu in range(len(free)))
    ends, reached = [], 0.0
    for part in parts:
        reached += part
        ends.append(round(wanted * reached / whole))
    return tuple(end - begin for begin, end in zip([0, *ends], ends, strict=False))


def _within(most: Sequence[int], spread: Sequence[int]) -> tuple[int, ...]:
    """As `spread`, but nowhere more than there is room for: what is too much on one GPU goes to others."""
    layers = [min(pair) for pair in zip(most, spread, strict=True)]
    rest = sum(spread) - sum(layers)
    for gpu, room in enumerate(most):
        more = min(rest, room - layers[gpu])
        layers[gpu] += more
        rest -= more
    return tuple(layers)
