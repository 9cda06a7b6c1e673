"""What a card is doing: utilization, temperature, fans, encoder."""

from __future__ import annotations

import struct

from fake_gpu.derived import clock_mhz, margin_to_slowdown
from fake_gpu.gpu import Gpu
from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml
from fake_gpu.nvml.pack import PAIR, counted, expect_version, i32, known, number, one_of, u32
from fake_gpu.nvml.power import milliwatts

_SAMPLING_PERIOD_US = 167_000
"""What real cards answer for the engines' utilization."""
_SAMPLE = struct.Struct("<QI4x")
_SAMPLED = 10
"""Kinds of sample; module power, the eighth, has no card here, and nobody decodes JPEG or tracks optical flow."""
_WHOLE_CARDS_SAMPLES = frozenset({1, 2, 3, 4, 8, 9})
_UNSIGNED = 1
"""NVML's number for the type of a sample."""
_THRESHOLDS = 8
_SLOWEST_FAN, _FASTEST_FAN = 30, 100
"""Percent that a fan can be set to: an RTX 4090's."""
_SENSORS = 2
_TEMPERATURE = struct.Struct("<IIi")


# -- utilization, in percent; a partitioned card has none of its own


def _check_whole(gpu: Gpu) -> None:
    if gpu.profile.mig:
        raise NvmlError("NOT_SUPPORTED")


@nvml("nvmlDeviceGetUtilizationRates")
def utilization(call: Call, gpu: Gpu) -> bytes:
    _check_whole(gpu)
    return PAIR.pack(gpu.activity.gpu_percent, gpu.activity.memory_percent)


def _engine(gpu: Gpu, percent: int) -> tuple[bytes, bytes]:
    _check_whole(gpu)
    return u32(percent), u32(_SAMPLING_PERIOD_US)


@nvml("nvmlDeviceGetEncoderUtilization")
def encoder_utilization(call: Call, gpu: Gpu) -> tuple[bytes, bytes]:
    return _engine(gpu, gpu.activity.encoder_percent)


@nvml("nvmlDeviceGetDecoderUtilization")
def decoder_utilization(call: Call, gpu: Gpu) -> tuple[bytes, bytes]:
    return _engine(gpu, gpu.activity.decoder_percent)


@nvml("nvmlDeviceGetJpgUtilization", "nvmlDeviceGetOfaUtilization")
def other_engines(call: Call, gpu: Gpu) -> tuple[bytes, bytes]:
    return _engine(gpu, 0)


@nvml("nvmlDeviceGetSamples")
def samples(call: Call, gpu: Gpu, kind: int, after_us: int, count: int, room: int | None) -> tuple[bytes, bytes, bytes]:
    """One, of now: the driver keeps none. Without an array: how many there are, and that is no error, says nvml.h."""
    if kind in _WHOLE_CARDS_SAMPLES:
        _check_whole(gpu)
    value = known((*_sampled(gpu), None, 0, 0)[one_of(kind, _SAMPLED)])
    seen_us = call.wall_us
    if room is not None and count == 0:
        raise NvmlError("INVALID_ARGUMENT")
    if after_us >= seen_us:
        raise NvmlError("NOT_FOUND")
    return u32(_UNSIGNED), u32(1), b"" if room is None else _SAMPLE.pack(seen_us, value)


def _sampled(gpu: Gpu) -> tuple[int, ...]:
    """Milliwatts; percent of the card, its memory, its encoder, its decoder; MHz of its cores and its memory."""
    doing = gpu.activity
    rates = (doing.gpu_percent, doing.memory_percent, doing.encoder_percent, doing.decoder_percent)
    return milliwatts(doing.power), *rates, clock_mhz(gpu, "sm"), clock_mhz(gpu, "memory")


@nvml("nvmlDeviceGetEncoderStats")
def encoder_stats(call: Call, gpu: Gpu) -> tuple[bytes, bytes, bytes]:
    """Sessions, frames per second, latency: nobody encodes."""
    return u32(0), u32(0), u32(0)


@nvml("nvmlDeviceGetEncoderSessions", "nvmlDeviceGetFBCSessions")
def no_sessions(call: Call, gpu: Gpu, count: int, room: int | None) -> tuple[bytes, bytes]:
    return counted([], count, room)


@nvml("nvmlDeviceGetFBCStats")
def frame_capture_stats(call: Call, gpu: Gpu) -> bytes:
    return bytes(12)


# -- temperature, in degrees Celsius


def _temperature(gpu: Gpu, sensor: int) -> int:
    if one_of(sensor, _SENSORS):
        raise NvmlError("NOT_SUPPORTED")  # the hottest spot: cards with one sensor do not have it
    return gpu.activity.temperature


@nvml("nvmlDeviceGetTemperature")
def temperature(call: Call, gpu: Gpu, sensor: int) -> bytes:
    return u32(_temperature(gpu, sensor))


@nvml("nvmlDeviceGetTemperatureV")
def temperature_structure(call: Call, gpu: Gpu, request: bytes) -> bytes:
    expect_version(request, _TEMPERATURE.size)
    version, sensor, _ = _TEMPERATURE.unpack(request)
    return _TEMPERATURE.pack(version, sensor, _temperature(gpu, sensor))


@nvml("nvmlDeviceGetTemperatureThreshold")
def temperature_threshold(call: Call, gpu: Gpu, threshold: int) -> bytes:
    """Of shutdown, slowdown, memory, GPU; the four that follow belong to cards with acoustic limits."""
    facts = gpu.profile.temperature
    known_ones = (facts.shutdown, facts.slowdown, facts.memory_max, facts.gpu_max)
    return number((*known_ones, *[None] * 4)[one_of(threshold, _THRESHOLDS)])


@nvml("nvmlDeviceGetMarginTemperature")
def margin_temperature(call: Call, gpu: Gpu, request: bytes) -> bytes:
    expect_version(request, 8)
    return request[:4] + i32(known(margin_to_slowdown(gpu)))


# -- fans; cards that the server's fans cool have none


def _check_fan(gpu: Gpu, fan: int = 0) -> None:
    if not gpu.profile.fans:
        raise NvmlError("NOT_SUPPORTED")
    one_of(fan, gpu.profile.fans)


@nvml("nvmlDeviceGetNumFans")
def fans(call: Call, gpu: Gpu) -> bytes:
    _check_fan(gpu)
    return u32(gpu.profile.fans)


@nvml("nvmlDeviceGetFanSpeed")
def fan_speed(call: Call, gpu: Gpu) -> bytes:
    _check_fan(gpu)
    return u32(gpu.activity.fan_percent)


@nvml("nvmlDeviceGetFanSpeed_v2", "nvmlDeviceGetTargetFanSpeed")
def fan_speed_v2(call: Call, gpu: Gpu, fan: int) -> bytes:
    _check_fan(gpu, fan)
    return u32(gpu.activity.fan_percent)


@nvml("nvmlDeviceGetMinMaxFanSpeed")
def fan_speed_range(call: Call, gpu: Gpu) -> tuple[bytes, bytes]:
    _check_fan(gpu)
    return u32(_SLOWEST_FAN), u32(_FASTEST_FAN)


@nvml("nvmlDeviceGetFanControlPolicy_v2")
def fan_control_policy(call: Call, gpu: Gpu, fan: int) -> bytes:
    """0: the driver follows the temperature."""
    _check_fan(gpu, fan)
    return u32(0)
