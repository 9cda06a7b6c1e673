"""nvmlDeviceGetFieldValues: many small questions in one call, each with its own return code."""

from __future__ import annotations

import struct
from collections.abc import Callable

from fake_gpu.derived import averages_power, margin_to_slowdown
from fake_gpu.gpu import Gpu
from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml
from fake_gpu.nvml.errors import check_ecc, check_remaps_rows, check_retires_pages, counts_errors_in
from fake_gpu.nvml.links import check_nvlink, nvlink_version_number
from fake_gpu.nvml.pack import PAIR, known
from fake_gpu.nvml.power import energy_mj, milliwatts
from fake_gpu.profile import Power

_ENTRY = struct.Struct("<IIqqII8s")
_UNSIGNED, _LONG_LONG, _SIGNED = (1, "<I4x"), (3, "<Q"), (5, "<i4x")
_ALL_LINKS = 0xFFFF_FFFF

Answer = Callable[[Call, Gpu, int], int]

_fields: dict[int, tuple[tuple[int, str], Answer]] = {}


def _answers(*numbers: int, kind: tuple[int, str] = _UNSIGNED) -> Callable[[Answer], Answer]:
    def register(answer: Answer) -> Answer:
        _fields.update(dict.fromkeys(numbers, (kind, answer)))
        return answer

    return register


@nvml("nvmlDeviceGetFieldValues")
def field_values(call: Call, gpu: Gpu, count: int, entries: bytes) -> bytes:
    if count <= 0:
        raise NvmlError("INVALID_ARGUMENT")
    seen_us = call.wall_us
    return b"".join(_entry(call, gpu, entries[at : at + 8], seen_us) for at in range(0, len(entries), _ENTRY.size))


@nvml("nvmlDeviceClearFieldValues")
def clear_field_values(call: Call, gpu: Gpu, count: int, entries: bytes) -> None:
    raise NvmlError("NO_PERMISSION")


def _entry(call: Call, gpu: Gpu, asked: bytes, seen_us: int) -> bytes:
    number, scope = PAIR.unpack(asked)
    code, kind, value = 0, 0, bytes(8)
    try:
        (kind, layout), answer = known(_fields.get(number))
        value = struct.pack(layout, answer(call, gpu, scope))
    except NvmlError as error:
        code = error.code
    return _ENTRY.pack(number, scope, seen_us, 0, kind, code, value)


# -- ECC


@_answers(1, 2)
def _ecc_mode(call: Call, gpu: Gpu, scope: int) -> int:
    return known(gpu.profile.ecc)


@_answers(3, 4, 5, 6, kind=_LONG_LONG)
def _ecc_total(call: Call, gpu: Gpu, scope: int) -> int:
    check_ecc(gpu)
    return 0


def _register_ecc_locations() -> None:
    # Corrected and uncorrected by turns, volatile from 7 and aggregate from 18: L1, L2, device memory, registers,
    # textures; then the CBU's uncorrected ones alone.
    for first in (7, 18):
        for offset, location in enumerate((0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 6)):

            @_answers(first + offset, kind=_LONG_LONG)
            def count(call: Call, gpu: Gpu, scope: int, location: int = location) -> int:
                check_ecc(gpu)
                if not counts_errors_in(gpu, location):
                    raise NvmlError("NOT_SUPPORTED")
                return 0


_register_ecc_locations()


@_answers(29, 30, 31, 92, 93)
def _retired(call: Call, gpu: Gpu, scope: int) -> int:
    check_retires_pages(gpu)
    return 0


@_answers(142, 143, 144, 145)
def _remapped(call: Call, gpu: Gpu, scope: int) -> int:
    check_remaps_rows(gpu)
    return 0


# -- temperature, power, energy


@_answers(82)
def _memory_temperature(call: Call, gpu: Gpu, scope: int) -> int:
    return known(gpu.profile.temperature.memory_idle)


@_answers(83, 191, kind=_LONG_LONG)
def _energy(call: Call, gpu: Gpu, scope: int) -> int:
    return energy_mj(gpu, call.now_ns)


def _check_whole_card(scope: int) -> None:
    if scope:
        raise NvmlError("NOT_SUPPORTED")  # of the module or of the memory alone


@_answers(185)
def _average_power(call: Call, gpu: Gpu, scope: int) -> int:
    _check_whole_card(scope)
    if not averages_power(gpu.profile):
        raise NvmlError("NOT_SUPPORTED")
    return milliwatts(gpu.activity.power)


@_answers(186)
def _power_now(call: Call, gpu: Gpu, scope: int) -> int:
    _check_whole_card(scope)
    return milliwatts(gpu.activity.power)


def _register_power_limits() -> None:
    def lowest(power: Power) -> float:
        return power.min_limit

    def highest(power: Power) -> float:
        return power.max_limit

    def default(power: Power) -> float:
        return power.default_limit

    for number, limit in ((187, lowest), (188, highest), (189, default), (190, default), (192, default)):

        @_answers(number)
        def answer(call: Call, gpu: Gpu, scope: int, limit: Callable[[Power], float] = limit) -> int:
            _check_whole_card(scope)
            return milliwatts(limit(gpu.profile.power))


_register_power_limits()


def _register_margins() -> None:
    # Shutdown, slowdown, memory, GPU: degrees left at that threshold, which is none or less.
    for number, threshold in ((193, "shutdown"), (194, "slowdown"), (195, "memory_max"), (196, "gpu_max")):

        @_answers(number, kind=_SIGNED)
        def answer(call: Call, gpu: Gpu, scope: int, threshold: str = threshold) -> int:
            known(margin_to_slowdown(gpu))
            facts = gpu.profile.temperature
            if threshold == "memory_max":
                return 0
            return known(facts.gpu_max) - int(known(getattr(facts, threshold)))


_register_margins()


# -- links


@_answers(94, 95, 230)
def _none_so_far(call: Call, gpu: Gpu, scope: int) -> int:
    """PCIe replays, their roll-overs; and the recovery that the card asks for."""
    return 0


@_answers(91)
def _nvlinks(call: Call, gpu: Gpu, scope: int) -> int:
    return known(gpu.profile.nvlinks or None)


@_answers(38, 45, 52, 59, 138, 139, 140, 141, 160, kind=_LONG_LONG)
def _nvlink_counters(call: Call, gpu: Gpu, scope: int) -> int:
    """Errors of all links; KiB sent and received, of one link or all."""
    check_nvlink(gpu, 0 if scope == _ALL_LINKS else scope)
    return 0


@_answers(165)
def _nvlink_state(call: Call, gpu: Gpu, scope: int) -> int:
    check_nvlink(gpu, scope)
    return 1


@_answers(166)
def _nvlink_version(call: Call, gpu: Gpu, scope: int) -> int:
    check_nvlink(gpu, scope)
    return nvlink_version_number(gpu)
