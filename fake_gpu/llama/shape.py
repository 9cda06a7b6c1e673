"""What one call of `Driver.llama_server` has asked for: the model's sizes, the pace, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass

from fake_gpu import checks
from fake_gpu.errors import InvalidValue
from fake_gpu.ramp import Ramp, checked_ramp
from fake_gpu.units import Duration, Size, parse_duration, parse_size

CACHE_TYPES: dict[str, tuple[int, int]] = {
    "f32": (4, 1),
    "f16": (2, 1),
    "bf16": (2, 1),
    "q8_0": (34, 32),
    "q4_0": (18, 32),
    "q4_1": (20, 32),
    "iq4_nl": (18, 32),
    "q5_0": (22, 32),
    "q5_1": (24, 32),
}
"""Bytes and values of a block of each type that llama.cpp takes for its KV cache (ggml's block sizes)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A model and its server. Sizes in bytes, times in nanoseconds.

    `layers` is what `-ngl` counts: the model's blocks and its output layer. `kv_bytes_per_token` is of all layers at
    f16, K and V together; `overhead` what each GPU in use holds beside weights and KV cache.
    """

    weights: int
    layers: int
    kv_bytes_per_token: int
    overhead: int
    train_context: int
    load_ns: int
    crash_ns: int | None
    ignores_sigterm: bool
    leaves_child: int | None
    reclaim: Ramp

    @property
    def layer_bytes(self) -> int:
        """Weights of one layer, rounded up."""
        return -(-self.weights // self.layers)

    def cache_bytes(self, layers: int, context: int, type_k: str, type_v: str) -> int:
        """The KV cache of so many layers for so many tokens; half of it is K."""
        half = layers * context * self.kv_bytes_per_token // (2 * self.layers)
        # kv_bytes_per_token counts 2 bytes a value.
        return sum(half * size // (2 * values) for size, values in (CACHE_TYPES[type_k], CACHE_TYPES[type_v]))


def make_shape(
    *,
    weights: Size,
    layers: int,
    kv_bytes_per_token: Size,
    overhead: Size,
    train_context: int,
    load_time: Duration,
    crash: Duration | None,
    ignores_sigterm: bool,
    leaves_child: bool | Size,
    reclaim: Ramp,
) -> Shape:
    """A Shape of what a test writes. Raises InvalidValue."""
    if not parse_size(weights):
        raise InvalidValue(f"weights={weights!r}: a model has some")
    child = None if leaves_child is False else 0 if leaves_child is True else parse_size(leaves_child)
    return Shape(
        weights=parse_size(weights),
        layers=checks.count("layers", layers, 1),
        kv_bytes_per_token=parse_size(kv_bytes_per_token),
        overhead=parse_size(overhead),
        train_context=checks.count("train_context", train_context, 256),
        load_ns=parse_duration(load_time),
        crash_ns=None if crash is None else parse_duration(crash),
        ignores_sigterm=bool(ignores_sigterm),
        leaves_child=child,
        reclaim=checked_ramp(reclaim),
    )
