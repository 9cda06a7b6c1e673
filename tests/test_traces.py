"""Reclaim traces: the format, what is refused, and the ramps that come of them."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trace_rows import DEAD, MS, gone, header, killed, sample, simple, write_lines

from fake_gpu import InvalidValue, Ramp
from fake_gpu.errors import WriteFailed
from fake_gpu.trace import Event, ReclaimTrace, Sample, TraceWriter
from fake_gpu.trace.format import EventName
from fake_gpu.units import GIB, MIB

HEADER = {
    "kind": "header",
    "format": "vramsettle-trace",
    "version": 1,
    "gpus": [{"index": 0, "uuid": "GPU-a", "total": 1000}],
}


def line(t_ms: float, free: int) -> dict[str, object]:
    return {"kind": "sample", "t_ns": round(t_ms * MS), "free": {"0": free}}


def death(t_ms: float, event: str = "pid_gone") -> dict[str, object]:
    return {"kind": "event", "t_ns": round(t_ms * MS), "event": event}


def times(ramp: Ramp, *milliseconds: float) -> list[int]:
    return [ramp.reclaimed(1000, round(t * MS)) for t in milliseconds]


def test_a_ramp_from_a_trace(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "t.jsonl",
        HEADER,
        death(9.9, "kill_sent"),
        line(9.95, 200),
        death(10),
        line(110, 200),
        line(210, 600),
        line(310, 500),
        line(410, 1000),
    )
    ramp = Ramp.from_trace(path)
    assert times(ramp, 0, 100, 150, 200, 300, 400) == [0, 0, 250, 500, 500, 1000]
    assert Ramp.from_trace(path, gpu="GPU-a") == Ramp.from_trace(path, gpu=0) == ramp


def test_memory_that_came_back_while_the_process_was_dying_is_back_at_its_death(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "t.jsonl", HEADER, line(0, 0), death(1, "kill_sent"), line(50, 400), death(60), line(100, 1000)
    )
    assert times(Ramp.from_trace(path), 0, 40) == [400, 1000]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([line(0, 1)], "line 1: the header has to come first"),
        ([HEADER | {"version": 2, "new": 1}], "version 1, is wanted; this is 'vramsettle-trace', version 2"),
        ([HEADER | {"format": "perfetto"}], "this is 'perfetto', version 1"),
        ([HEADER | {"hostname": "lab7"}], "line 1: .*unknown field `hostname`"),
        ([HEADER, HEADER], "line 2: a second header"),
        ([HEADER | {"gpus": []}], "names no GPU"),
        ([HEADER | {"gpus": HEADER["gpus"] * 2}], "two GPUs have the index 0"),  # type: ignore[operator]  # a list
        ([HEADER, {"kind": "sample", "free": {"0": 1}}], "line 2: .*missing required field `t_ns`"),
        ([HEADER, {"kind": "sample", "t_ns": 0.5, "free": {"0": 1}}], "line 2: Expected `int`, got `float`"),
        ([HEADER, {"kind": "sample", "t_ns": 0, "fre": {"0": 1}}], "line 2: .*unknown field `fre`"),
        ([HEADER, {"kind": "sample", "t_ns": 0}], "line 2: the first sample tells .* GPU 0 is missing"),
        ([HEADER, line(0, 1) | {"free": {"0": 1, "7": 1}}], "line 2: there is no GPU 7"),
        ([HEADER, line(2e15, 1)], "line 2: Expected `int` <"),
        ([HEADER, line(0, 1001)], "line 2: 1001 bytes are free on GPU 0, which has 1000"),
        ([HEADER, line(0, -1)], "line 2: Expected `int` >= 0"),
        ([HEADER, death(0, "exploded")], "line 2: Invalid enum value 'exploded'"),
        ([HEADER, line(2, 1), line(1, 1)], "line 3: time runs back, from t_ns 2000000 to 1000000"),
    ],
)
def test_what_is_no_trace_is_refused_by_line(tmp_path: Path, rows: list[object], complaint: str) -> None:
    with pytest.raises(InvalidValue, match=complaint):
        ReclaimTrace.read(write_lines(tmp_path / "t.jsonl", *rows))


def test_a_trace_without_a_kill_or_a_gain_makes_no_ramp(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="nobody dies in it"):
        Ramp.from_trace(write_lines(tmp_path / "t.jsonl", HEADER, line(2, 1)))
    with pytest.raises(InvalidValue, match="comes back on 0 GPUs"):
        Ramp.from_trace(write_lines(tmp_path / "t.jsonl", HEADER, death(0), line(2, 1)))
    with pytest.raises(InvalidValue, match="has no GPU 'GPU-b'; it has 0 \\(GPU-a\\)"):
        Ramp.from_trace(write_lines(tmp_path / "t.jsonl", HEADER, line(0, 1), death(0), line(2, 500)), gpu="GPU-b")


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_and_none_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(InvalidValue, match="is empty"):
        ReclaimTrace.read(tmp_path / "t.jsonl")
    with pytest.raises(InvalidValue, match="cannot be read: No such file"):
        ReclaimTrace.read(tmp_path / "none.jsonl")


def test_a_torn_last_line_is_left_out_and_said(tmp_path: Path) -> None:
    rows = [HEADER, line(0, 0), death(1, "kill_sent"), line(2, 500)]
    whole = ReclaimTrace.read(write_lines(tmp_path / "whole.jsonl", *rows, tail=""))
    torn = ReclaimTrace.read(write_lines(tmp_path / "torn.jsonl", *rows, tail='\n{"kind": "sam'))
    assert torn.rows == whole.rows
    assert (whole.torn, torn.torn) == (False, True)
    assert "cut off" in "\n".join(torn.describe())
    with pytest.raises(InvalidValue, match=r"line 2: .*Is this a reclaim trace"):
        ReclaimTrace.read(write_lines(tmp_path / "inside.jsonl", HEADER, tail='\n{"kind": "sam\n{}\n'))


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_what_is_written_is_read_again_and_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    trace = simple()
    trace.write(tmp_path / name)
    read = ReclaimTrace.read(tmp_path / name)
    assert (read.header, read.rows, read.torn) == (trace.header, trace.rows, False)
    with pytest.raises(InvalidValue, match="is there already"):
        trace.write(tmp_path / name)
    trace.write(tmp_path / name, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / "usual").touch()
    assert (tmp_path / name).stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_a_writer_that_never_closes_leaves_a_trace(tmp_path: Path, name: str) -> None:
    trace = simple()
    writer = TraceWriter(tmp_path / name, trace.header)
    for row in trace.rows:
        writer.write(row)
    writer.flush()
    read = ReclaimTrace.read(tmp_path / name)
    assert read.rows == trace.rows
    assert read.torn == name.endswith(".gz")
    with pytest.raises(InvalidValue, match="row 10: time runs back"):
        writer.write(sample(1, 0))
    writer.close()
    assert not ReclaimTrace.read(tmp_path / name).torn


def test_a_compressed_trace_may_be_cut_anywhere(tmp_path: Path) -> None:
    text = gzip.compress(b"".join([simple_line + b"\n" for simple_line in _lines(tmp_path)]))
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(text[:-12])
    assert ReclaimTrace.read(path).torn
    path.write_bytes(b"not gzip")
    with pytest.raises(InvalidValue, match="not compressed by gzip"):
        ReclaimTrace.read(path)


def _lines(tmp_path: Path) -> list[bytes]:
    simple().write(tmp_path / "plain.jsonl")
    return (tmp_path / "plain.jsonl").read_bytes().splitlines()


def test_a_hand_made_trace_is_checked_as_well() -> None:
    with pytest.raises(InvalidValue, match="the trace, row 2: time runs back"):
        ReclaimTrace(header(), (sample(5, 0), sample(4, 0)))


def test_who_held_what() -> None:
    rows = (
        sample(0, 4 * GIB, 20 * GIB, on_0={DEAD: 16 * GIB, 5: 2 * GIB}, on_1={5: GIB}),
        killed(1),
        gone(2),
        sample(10, 9 * GIB, 20 * GIB, on_0={5: 3 * GIB}),  # it allocates one of the six that came back
        sample(20, 8 * GIB, 20 * GIB),  # somebody who is not listed takes one
        sample(30, 19 * GIB, 20 * GIB),
    )
    trace = ReclaimTrace(header(2), rows)
    first, second = trace.stories
    assert first.held == {DEAD: 16 * GIB}
    assert second.held == {}
    assert [(frame.dead_bytes // GIB, frame.others[5] // GIB, frame.unlisted // GIB) for frame in first.frames] == [
        (16, 2, 2),
        (10, 3, 2),
        (10, 3, 3),
        (0, 3, 2),
    ]
    assert trace.settled_after == 0.028
    assert trace.never_back == 0
    assert [frame.unlisted // GIB for frame in second.frames] == [3, 3, 3, 3]


def test_the_death_is_that_of_the_last_of_the_tree_and_of_nobody_else() -> None:
    def event(ms: int, name: EventName, pid: int) -> Event:
        return Event(t_ns=ms * MS, event=name, pid=pid)

    events = (
        event(1, "kill_sent", 99),
        event(2, "kill_sent", DEAD),
        event(3, "pid_gone", DEAD),
        event(5, "pid_gone", 78),
        event(6, "pid_gone", 99),
    )
    trace = ReclaimTrace(header(killed=(DEAD, 78)), (sample(0, 0), *events))
    assert (trace.kill_ns, trace.death_ns) == (2 * MS, 5 * MS)


def test_the_truth_of_a_trace() -> None:
    trace = simple()
    assert (trace.kill_ns, trace.death_ns) == (10 * MS, 11 * MS)
    assert trace.settled_after == 0.039
    never = ReclaimTrace(header(), (sample(0, 4 * GIB, on_0={DEAD: 20 * GIB}), gone(1), sample(9, 5 * GIB)))
    assert never.never_back == 19 * GIB
    assert never.settled_after == 0.008


def test_what_comes_last_and_is_less_than_two_roundings_is_not_waited_for() -> None:
    rows = (sample(0, 4 * GIB, on_0={DEAD: 20 * GIB}), gone(1), sample(9, 24 * GIB - 2 * MIB), sample(99, 24 * GIB))
    assert ReclaimTrace(header(), rows).settled_after == 0.008
    rows = (*rows[:2], sample(9, 24 * GIB - 2 * MIB - 1), sample(99, 24 * GIB))
    assert ReclaimTrace(header(), rows).settled_after == 0.098


def test_where_nobody_is_listed_noise_on_another_gpu_is_no_reclaim() -> None:
    rows = (sample(0, 4 * GIB, 20 * GIB), killed(1), sample(9, 24 * GIB, 20 * GIB + 20 * MIB))
    first, second = ReclaimTrace(header(2), rows).stories
    assert (first.held, second.held) == ({DEAD: 20 * GIB}, {})


def test_a_reserve_is_no_larger_than_the_readings_leave_room_for() -> None:
    rows = (sample(0, 4 * GIB, on_0={DEAD: 19 * GIB}), gone(1), sample(9, 23 * GIB))
    (story,) = ReclaimTrace(header(reserved=2 * GIB), rows).stories
    assert story.reserved == GIB
    assert [frame.dead_bytes for frame in story.frames] == [19 * GIB, 0]


@given(st.integers(1, 1 << 48), st.data())
@example(49, None)
def test_a_ramp_gives_what_the_trace_says_to_the_byte(held: int, data: st.DataObject | None) -> None:
    missing = 48 if data is None else data.draw(st.integers(0, held))
    rows = (sample(0, 0, on_0={DEAD: held}), gone(1), sample(2, held - missing), sample(3, held))
    ramp = Ramp.points(ReclaimTrace(header(total=held), rows).shares())
    assert ramp.reclaimed(held, MS) == held - missing


@settings(max_examples=40)
@example(b'\x80"', 27)
@given(st.binary(max_size=60), st.integers(0, 900))
def test_whatever_the_file_holds_the_error_is_ours(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, cut: int
) -> None:
    path = tmp_path_factory.mktemp("t") / "t.jsonl"
    simple().write(path)
    path.write_bytes(path.read_bytes()[:cut] + tail)
    with contextlib.suppress(InvalidValue):
        ReclaimTrace.read(path)


sizes = st.integers(0, 24 * GIB)


@given(st.lists(st.tuples(st.integers(0, 9), sizes), min_size=1), st.integers(0, 50))
def test_rows_survive_the_file(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]], at: int) -> None:
    rows: list[Sample | Event] = []
    t_ns = 0
    for step, free in steps:
        t_ns += step
        rows.append(Sample(t_ns=t_ns, free={0: free}, held={0: {1: free, 2: None}}))
    rows.insert(0, Event(t_ns=0, event="note", text="ä\n"))
    trace = ReclaimTrace(header(), tuple(rows))
    path = tmp_path_factory.mktemp("t") / "t.jsonl.gz"
    trace.write(path)
    assert ReclaimTrace.read(path).rows == trace.rows


def test_a_full_disk_is_told() -> None:
    with pytest.raises(WriteFailed, match=r"/dev/full cannot be written any further: No space left"):
        TraceWriter("/dev/full", header(), overwrite=True)
