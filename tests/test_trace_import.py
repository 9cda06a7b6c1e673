"""Logs that nvidia-smi wrote, as traces: what is understood, and what is refused by line."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_client import nvidia_smi
from nvml_client import HandClock

from fake_gpu import Driver, InvalidValue, Ramp
from fake_gpu.trace import ImportedLog, ReclaimTrace, import_log
from fake_gpu.trace.story import readings_of
from fake_gpu.units import GIB, MIB

HEAD = "timestamp, index, uuid, memory.used [MiB], memory.free [MiB]"
DAY = "2026/11/23 14:03:"


def rows(
    *readings: tuple[str, int], uuid: str = "GPU-a", index: int = 0, total: int = 1000, unit: str = " MiB"
) -> list[str]:
    """(seconds, MiB used) as nvidia-smi prints them."""
    return [f"{DAY}{at}, {index}, {uuid}, {used}{unit}, {total - used}{unit}" for at, used in readings]


KILL = (("22.000", 900), ("22.100", 900), ("22.200", 400), ("22.300", 0), ("22.400", 0))


def imported(tmp_path: Path, *lines: str, end: str = "\n", **options: str) -> ImportedLog:
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines) + end, encoding="utf-8")
    return import_log(path, **options)


def free(trace: ReclaimTrace, index: int = 0) -> list[tuple[int, int]]:
    """(ms, MiB) wherever the trace says something new."""
    return [
        (sample.t_ns // 1_000_000, (sample.free[index] or 0) // MIB) for sample in trace.samples if index in sample.free
    ]


def test_a_log_with_a_header_and_units(tmp_path: Path) -> None:
    log = imported(tmp_path, HEAD, *rows(*KILL))
    assert free(log.trace) == [(0, 100), (200, 600), (300, 1000)]
    assert log.trace.header.source == "nvidia-smi"
    assert log.trace.header.recorded == "2026-11-23T14:03:22.000"
    assert log.trace.kill_ns == log.trace.death_ns == 100_000_000
    assert log.trace.settled_after == 0.2
    assert "found by the largest gain of free memory (900 MiB)" in log.notices[0]
    assert not log.trace.torn


@pytest.mark.parametrize(
    "lines",
    [
        rows(*KILL),
        rows(*KILL, unit=""),
        [HEAD, *rows(*KILL, unit="")],
        [HEAD, *rows(*KILL[:2]), HEAD, "", *rows(*KILL[2:])],
        ["\ufeff" + HEAD, *rows(*KILL)],
        [line + "\r" for line in (HEAD, *rows(*KILL))],
    ],
    ids=["no header", "bare numbers", "header, bare numbers", "appended to", "byte order mark", "CRLF"],
)
def test_every_way_in_which_nvidia_smi_writes_it(tmp_path: Path, lines: list[str]) -> None:
    assert free(imported(tmp_path, *lines).trace) == [(0, 100), (200, 600), (300, 1000)]


def test_powershell_writes_utf_16(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("\r\n".join((HEAD, *rows(*KILL), "")).encode("utf-16"))
    assert len(free(import_log(path).trace)) == 3


def test_columns_in_another_order_and_more_of_them(tmp_path: Path) -> None:
    head = "name, memory.free [MiB], memory.total [MiB], utilization.gpu [%], uuid, driver_version, timestamp"
    lines = [f"NVIDIA H200, {size} MiB, 2000 MiB, 7 %, GPU-b, 590.48.01, {DAY}{at}" for at, size in KILL]
    (card,) = imported(tmp_path, head, *lines, killed_at="0s").trace.header.gpus
    assert (card.uuid, card.name, card.total) == ("GPU-b", "NVIDIA H200", 2000 * MIB)
    columns = "timestamp,uuid,memory.free,memory.total"
    log = imported(tmp_path, *[f"{DAY}{at}, GPU-b, {1000 - used}, 1000" for at, used in KILL], columns=columns)
    assert free(log.trace) == [(0, 100), (200, 600), (300, 1000)]


def test_several_gpus_share_the_samples(tmp_path: Path) -> None:
    left = rows(*KILL)
    right = rows(*[(at[:-1] + "3", used // 3) for at, used in KILL], uuid="GPU-b", index=1)
    lines = [line for pair in zip(left, right, strict=True) for line in pair]
    trace = imported(tmp_path, HEAD, *lines).trace
    assert len(trace.samples) == 5
    assert free(trace, 1) == [(0, 700), (200, 867), (300, 1000)]
    assert [sum(story.held.values()) // MIB for story in trace.stories] == [900, 300]
    with pytest.raises(InvalidValue, match="comes back on 2 GPUs"):
        trace.shares()


def test_the_kill_may_be_given(tmp_path: Path) -> None:
    for killed_at in (f"{DAY}22.050", "50ms"):
        trace = imported(tmp_path, HEAD, *rows(*KILL), killed_at=killed_at).trace
        assert trace.kill_ns == 50_000_000
        assert trace.settled_after == 0.25
    with pytest.raises(InvalidValue, match=r"killed_at='2 min' is not in .*22.000 to .*22.400"):
        imported(tmp_path, HEAD, *rows(*KILL), killed_at="2 min")

    with pytest.raises(
        InvalidValue, match=r"killed_at='23.11.2026': give a time stamp as in the log, such as '2026/11/23"
    ):
        imported(tmp_path, HEAD, *rows(*KILL), killed_at="23.11.2026")


def test_a_log_without_a_kill_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"no kill can be found: free memory grows by 50 MiB at most.*--killed-at"):
        imported(tmp_path, HEAD, *rows(("22.0", 100), ("23.0", 50), ("24.0", 900)))


def test_a_torn_last_line_is_left_out_and_said(tmp_path: Path) -> None:
    whole = imported(tmp_path, HEAD, *rows(*KILL), end="")
    assert not whole.trace.torn
    for end in (f"\n{DAY}22.5", f"\n{DAY}22.500, 0, GPU-a, 0 MiB, 10"):
        log = imported(tmp_path, HEAD, *rows(*KILL), end=end)
        assert log.trace.rows == whole.trace.rows
        assert log.trace.torn
        assert log.notices[0].startswith("line 7 was cut off and left out")
    bare = imported(tmp_path, *rows(*KILL, unit=""), end="")
    assert "line 5 was cut off" in bare.notices[0]  # 100 may have been the beginning of 1000


def test_what_a_card_does_not_tell(tmp_path: Path) -> None:
    silent = [f"{DAY}{at}, 1, GPU-b, [N/A], [N/A]" for at, _ in KILL]
    lost = [
        line if "22.2" not in line else f"{DAY}22.200, 0, GPU-a, [Unknown Error], [Unknown Error]"
        for line in rows(*KILL)
    ]
    log = imported(tmp_path, HEAD, *[line for pair in zip(lost, silent, strict=True) for line in pair])
    assert [gpu.index for gpu in log.trace.header.gpus] == [0]
    assert "GPU 1 never told its free memory" in log.notices[0]
    assert [sample.free for sample in log.trace.samples][2] == {0: None}
    with pytest.raises(InvalidValue, match="no GPU tells its free memory"):
        imported(tmp_path, HEAD, *silent)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (f"{DAY}23.0, 0, GPU-a, 1 GiB, 1 GiB", "line 3: memory.used is in GiB .*nvidia-smi writes MiB"),
        (f"{DAY}23.0, 0, GPU-a, 1.5 MiB, 2 MiB", "line 3: memory.used is '1.5 MiB'"),
        (f"{DAY}21.9, 0, GPU-a, 1 MiB, 2 MiB", "line 3: time runs back, from .*22.000 to .*21.9: the clock was set"),
        (f"{DAY}23,123, 0, GPU-a, 1 MiB, 2 MiB", "line 3: a decimal comma"),
        (f"{DAY}23.0; 0; GPU-a; 1 MiB; 2 MiB", "line 3: columns are separated by ';'"),
        (
            "23.11.2026 14:03:23.0, 0, GPU-a, 1 MiB, 2 MiB",
            "line 3: '23.11.2026 .*is not a time as nvidia-smi writes it",
        ),
        ("2026/23/11 14:03:23.0, 0, GPU-a, 1 MiB, 2 MiB", "line 3: .*is not a time: month must be in"),
        (f"{DAY}23.0, 0, GPU-a, 1 MiB", "line 3: 4 columns in .* where 5 belong: timestamp, index"),
        (f"{DAY}23.0, GPU-a, 0, 1 MiB, 2 MiB", "line 3: 'GPU-a' is not the index of a GPU"),
        (f"{DAY}23.0, 0, GPU-b, 1 MiB, 2 MiB", "line 3: GPU 0 is GPU-b, and was GPU-a: the GPUs were renumbered"),
        ("Unable to determine the device handle for GPU0000:01:00.0", "line 3: 1 columns in"),
        ("timestamp, index, memory.used [MiB], memory.free [MiB]", "line 3: another header than before"),
    ],
)
def test_what_is_not_to_be_understood_is_refused_by_line(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(InvalidValue, match=complaint):
        imported(tmp_path, HEAD, *rows(("22.000", 5)), line)


@pytest.mark.parametrize(
    ("head", "complaint"),
    [
        ("timestamp, index, memory.used [GB], memory.free [MiB]", r"line 1: memory.used is in \[GB\]"),
        ("timestamp, index, memory.used [MiB]", "line 1: no column memory.free in"),
        ("timestamp, memory.total [MiB], memory.free [MiB]", "line 1: no column index or uuid in"),
        ("timestamp, index, memory.free [MiB]", "line 1: no column memory.used or memory.total in"),
    ],
)
def test_a_header_that_will_not_do_is_refused(tmp_path: Path, head: str, complaint: str) -> None:
    with pytest.raises(InvalidValue, match=complaint):
        imported(tmp_path, head)


@pytest.mark.parametrize("text", [b"", b"\n", HEAD.encode(), b"2026/11"])
def test_an_empty_log_says_how_one_is_made(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "log.csv").write_bytes(text)
    with pytest.raises(
        InvalidValue, match=r"holds no readings\. Such a log is made by: nvidia-smi --query-gpu=timestamp"
    ):
        import_log(tmp_path / "log.csv")


@given(st.lists(st.lists(st.integers(0, 1000), min_size=2, max_size=2), min_size=1, max_size=20), st.booleans())
def test_what_is_free_in_the_log_is_free_in_the_trace(
    tmp_path_factory: pytest.TempPathFactory, used: list[list[int]], units: bool
) -> None:
    unit = " MiB" if units else ""
    lines = [
        line
        for number, both in enumerate(used)
        for index, size in enumerate(both)
        for line in rows((f"{number + 10}.{index:03}", size), index=index, uuid=f"GPU-{index}", unit=unit)
    ]
    trace = imported(tmp_path_factory.mktemp("log"), *lines, killed_at="0s").trace
    for index in range(2):
        read = readings_of(trace.rows, index)
        assert [one.t_ns for one in read] == [number * 10**9 for number in range(len(used))]
        assert [one.free for one in read] == [(1000 - both[index]) * MIB for both in used]


@settings(max_examples=40)
@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode), st.integers(0, 300))
def test_whatever_the_file_holds_the_error_is_ours(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log.csv"
    path.write_bytes("\n".join((HEAD, *rows(*KILL))).encode()[:cut] + tail)
    with contextlib.suppress(InvalidValue):
        import_log(path)


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"a\nb\xff")
    with pytest.raises(InvalidValue, match="line 2: this is not text"):
        import_log(tmp_path / "log.csv")


def test_a_log_of_our_own_nvidia_smi_gives_the_ramp_again(tmp_path: Path, driver: Driver, clock: HandClock) -> None:
    gpu = driver.add_gpu("rtx-4090")
    process = driver.process(gpu, used="20 GiB", reclaim=Ramp.linear("600ms", after="150ms"))
    query = "--query-gpu=timestamp,index,uuid,name,memory.total,memory.used,memory.free"
    lines = []
    for number in range(12):
        if number == 1:
            process.kill()
        head, line = nvidia_smi(query, "--format=csv").stdout.splitlines()
        stamp = line.partition(",")[0]
        lines.append(line.replace(stamp, f"{DAY}22.{number * 75:03}"))
        clock.go(0.075)
    trace = imported(tmp_path, head, *lines, killed_at=f"{DAY}22.075").trace
    assert trace.header.gpus[0].name == gpu.name
    assert sum(trace.stories[0].held.values()) == 20 * GIB
    ramp = Ramp.points(trace.shares())
    for ms in range(0, 825, 75):
        assert abs(ramp.reclaimed(20 * GIB, ms * 10**6) - process.reclaim.reclaimed(20 * GIB, ms * 10**6)) <= MIB
