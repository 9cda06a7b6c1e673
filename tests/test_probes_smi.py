"""The nvidia-smi probe, with small scripts that stand in for nvidia-smi."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from smi_stand_in import MIB, TWO_GPUS, Smi, ask, budget, nothing_is_left, smi

from pytest_vramsettle import _bounded_run
from pytest_vramsettle._bounded_run import run_within
from pytest_vramsettle._smi import parse_gpus, parse_holders
from pytest_vramsettle.kills import KillRecord
from pytest_vramsettle.probes import (
    GpuLost,
    GpuReading,
    NvidiaSmiProbe,
    ProbeFailed,
    ProbeMissing,
    ProbeTimeout,
    Reading,
)
from pytest_vramsettle.settle import wait_for_vram_settle

__all__ = ["nothing_is_left", "smi"]  # fixtures


UNREACHABLE = "Unable to determine the device handle for GPU1: 0000:02:00.0"


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 2.0
    while lives(pid) and time.monotonic() < deadline:
        time.sleep(0.002)
    return not lives(pid)


class TestNvidiaSmi:
    def test_free_memory(self, smi: Smi) -> None:
        smi(TWO_GPUS)
        assert ask(NvidiaSmiProbe()).gpus == (
            GpuReading(0, "GPU-a", 24080 * MIB, 24564 * MIB, None),
            GpuReading(1, "GPU-b", 100 * MIB, 24564 * MIB, None),
        )

    def test_holders(self, smi: Smi) -> None:
        smi(TWO_GPUS)
        readings = ask(NvidiaSmiProbe(), holders=True).gpus
        assert [reading.holders for reading in readings] == [{}, {77: 20480 * MIB, 78: None}]

    def test_one_run_unless_holders_are_asked_for(self, smi: Smi, tmp_path: Path) -> None:
        smi(f'echo "$*" >> {tmp_path}/log\n{TWO_GPUS}')
        ask(NvidiaSmiProbe())
        ask(NvidiaSmiProbe(), holders=True)
        assert (tmp_path / "log").read_text().splitlines() == [
            "--query-gpu=index,uuid,memory.free,memory.total --format=csv,noheader,nounits",
            "--query-gpu=index,uuid,memory.free,memory.total --format=csv,noheader,nounits",
            "--query-compute-apps=gpu_uuid,pid,used_memory --format=csv,noheader,nounits",
        ]

    def test_it_is_looked_up_at_every_reading(self, smi: Smi) -> None:
        probe = NvidiaSmiProbe()
        with pytest.raises(ProbeMissing, match="not on PATH"):
            ask(probe)
        path = smi(TWO_GPUS)
        assert len(ask(probe).gpus) == 2
        path.unlink()
        with pytest.raises(ProbeMissing):
            ask(probe)

    @pytest.mark.parametrize(
        "script", ['echo "No devices were found"; exit 6', "exit 6", 'echo "No devices were found"']
    )
    def test_no_devices(self, smi: Smi, script: str) -> None:
        smi(script)
        assert ask(NvidiaSmiProbe(), holders=True) == Reading()

    @pytest.mark.parametrize(
        ("script", "message"),
        [
            ("echo 'it has failed'; exit 9", "memory query with status 9: it has failed"),
            ("echo 'mismatch' >&2; exit 18", "status 18: mismatch"),
            ("kill -ABRT $$", "signal 6"),
            ("true", "nothing at all"),
            ("printf '0, GPU-a, 24080, 24'", "cut off"),
            ("echo '0, GPU-a, 24080'", "3 fields in place of 4"),
            ("echo '0, GPU-a, 24080, lots'", "'lots' where a number belongs"),
            ("echo '0, GPU-a, -5, 24564'", "'-5' where a number belongs"),
            ("echo '0, GPU-a, nan, 24564'", "'nan' where a number belongs"),
            ("echo '[N/A], GPU-a, 1, 2'", "without an index"),
            ("echo '0, , 1, 2'", "without an index and UUID"),
            ("echo '0, GPU-a, 1, 2'; echo '0, GPU-b, 1, 2'", "twice"),
            ("echo '0, GPU-a, 1, 2'; echo '1, GPU-a, 1, 2'", "twice"),
            (TWO_GPUS.replace('echo "GPU-b, 77', 'exit 9; echo "GPU-b, 77'), "process query with status 9"),
            ("printf '\\377\\000\\n'", "1 fields in place of 4"),
            (f"echo '0, GPU-a, 1, 2'; echo '{UNREACHABLE}: Unknown Error' >&2", "status 0: 0, GPU-a, 1, 2\nUnable to"),
            (f"echo '{UNREACHABLE}: Unknown Error'; echo 'No devices were found'; exit 6", "status 6: .*Unknown"),
        ],
    )
    def test_what_it_cannot_have_meant(self, smi: Smi, script: str, message: str) -> None:
        smi(script)
        with pytest.raises(ProbeFailed, match=message):
            ask(NvidiaSmiProbe(), holders=True)

    @pytest.mark.parametrize(
        "script",
        [
            "echo '0, GPU-a, 1, 2'; echo 'GPU is lost.  Reboot' >&2; exit 15",
            "echo '0, GPU-a, [GPU is lost], 2'",
            f"echo '{UNREACHABLE}: GPU is lost.'; echo 'No devices were found'; exit 6",
        ],
    )
    def test_a_lost_gpu(self, smi: Smi, script: str) -> None:
        smi(script)
        with pytest.raises(GpuLost):
            ask(NvidiaSmiProbe())

    def test_something_that_cannot_be_run(self, smi: Smi) -> None:
        path = smi("")
        path.write_text("#!/no/such/interpreter\n")
        with pytest.raises(ProbeFailed, match="cannot be run"):
            ask(NvidiaSmiProbe())

    def test_without_a_pidfd(self, smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_bounded_run, "_pidfd", lambda pid: None)
        smi(TWO_GPUS)
        assert len(ask(NvidiaSmiProbe(), holders=True).gpus) == 2
        smi("sleep 60")
        with pytest.raises(ProbeTimeout):
            ask(NvidiaSmiProbe(), seconds=0.1)

    def test_where_selectors_take_no_pipes(self) -> None:
        def start(code: str) -> subprocess.Popen[bytes]:
            pipe = subprocess.PIPE
            return subprocess.Popen([sys.executable, "-S", "-c", code], stdout=pipe, stderr=pipe)

        run = _bounded_run._communicate_in_thread
        assert run(budget(), start("print('hello'); raise SystemExit(3)"))[:2] == (3, "hello\n")
        with pytest.raises(ProbeTimeout):
            run(budget(0.1), start("import time; time.sleep(60)"))
        while any(thread.name == "vram-probe" for thread in threading.enumerate()):
            time.sleep(0.001)


class TestWedgedNvidiaSmi:
    """It has 0.3 s; the bounds are generous for a busy machine."""

    @pytest.mark.parametrize(
        "script",
        [
            "sleep 60",
            "trap '' TERM INT HUP; while true; do sleep 1; done",
            "echo '0, GPU-a, 1, 2'; exec sleep 60",
            "exec >&- 2>&-; exec sleep 60",
            "sleep 60 & wait",
            "kill -STOP $$",
        ],
    )
    def test_killed_and_reaped(self, smi: Smi, tmp_path: Path, script: str) -> None:
        smi(f"echo $$ > {tmp_path}/pid\n{script}")
        started = time.monotonic()
        with pytest.raises(ProbeTimeout):
            ask(NvidiaSmiProbe(), seconds=0.3)
        assert 0.3 <= time.monotonic() - started < 8
        assert not lives(int((tmp_path / "pid").read_text()))

    def test_its_children_are_killed_too(self, smi: Smi, tmp_path: Path) -> None:
        smi(f"sleep 60 & echo $! > {tmp_path}/pid; wait")
        with pytest.raises(ProbeTimeout):
            ask(NvidiaSmiProbe(), seconds=0.3)
        assert gone(int((tmp_path / "pid").read_text()))

    @pytest.mark.parametrize("pidfd", [True, False])
    def test_a_grandchild_that_holds_the_pipe_changes_nothing(
        self, smi: Smi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pidfd: bool
    ) -> None:
        if not pidfd:
            monkeypatch.setattr(_bounded_run, "_pidfd", lambda pid: None)
        smi(f"sleep 60 & echo $! > {tmp_path}/pid\necho '0, GPU-a, 1, 2'")
        started = time.monotonic()
        assert len(ask(NvidiaSmiProbe()).gpus) == 1
        assert time.monotonic() - started < 5.0
        assert gone(int((tmp_path / "pid").read_text()))

    def test_output_without_end(self, smi: Smi) -> None:
        smi("exec yes")
        with pytest.raises(ProbeFailed, match="printed more than"):
            ask(NvidiaSmiProbe())

    def test_much_output_on_both_pipes(self, smi: Smi) -> None:
        smi("head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; exit 9")
        with pytest.raises(ProbeFailed, match="status 9"):
            ask(NvidiaSmiProbe())

    def test_no_time_no_run(self, smi: Smi, tmp_path: Path) -> None:
        smi(f"touch {tmp_path}/ran")
        with pytest.raises(ProbeTimeout):
            ask(NvidiaSmiProbe(), seconds=0.0)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("by", ["cancel", "newer kill"])
    def test_interrupted(self, smi: Smi, by: str) -> None:
        smi("exec sleep 60")
        kills, cancel = KillRecord(), threading.Event() if by == "cancel" else None
        kills.stamp()
        acted: list[float] = []

        def act() -> None:
            acted.append(time.monotonic())
            if cancel is not None:
                cancel.set()
            else:
                kills.stamp()

        timer = threading.Timer(0.2, act)
        timer.start()
        result = wait_for_vram_settle(kills, cancel=cancel, probe=NvidiaSmiProbe())
        took = time.monotonic() - acted[0]
        timer.join()
        assert result.outcome == ("cancelled" if by == "cancel" else "superseded")
        assert took < 5  # the stand-in would take 30

    def test_the_wait_is_bounded_by_max_wait(self, smi: Smi) -> None:
        smi("exec sleep 60")
        result = wait_for_vram_settle(
            since_kill=time.monotonic(), probe=NvidiaSmiProbe(), max_wait=0.3, policy="two-samples"
        )
        assert result.outcome == "timed_out"
        assert 0.3 <= result.elapsed < 5

    def test_one_that_sigkill_does_not_end(self, smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
        path = smi("exec sleep 60")
        with monkeypatch.context() as stuck_inside_the_kernel:
            stuck_inside_the_kernel.setattr(_bounded_run, "_kill_group", lambda process: None)
            with pytest.raises(ProbeTimeout):
                run_within(budget(0.1), [str(path)])
        # No second one is started beside it.
        with pytest.raises(ProbeFailed, match="still there"):
            run_within(budget(), [str(path)])
        stuck = _bounded_run._undying[str(path)]
        stuck.kill()
        stuck.wait()
        smi("echo back")
        assert run_within(budget(), [str(path)]).stdout == "back\n"
        assert _bounded_run._undying == {}


class TestParsing:
    def test_cards_that_do_not_tell(self) -> None:
        assert list(parse_gpus("0, GPU-a, [N/A], [Not Supported]\n")) == [(0, "GPU-a", None, None)]

    def test_a_process_on_two_instances_of_one_card(self) -> None:
        text = "GPU-a, 7, 100\nGPU-a, 7, 50\nGPU-b, 7, 1\nGPU-b, 8, 5\nGPU-b, 8, [N/A]\nGPU-b, [N/A], [N/A]\n"
        assert parse_holders(text) == {"GPU-a": {7: 150 * MIB}, "GPU-b": {7: MIB, 8: None}}

    def test_nobody(self) -> None:
        assert parse_holders("") == {}
