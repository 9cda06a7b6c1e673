"""What the demo says, as rich renderables. Pure functions: every sentence follows from the data."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pytest_vramsettle.demo.chart import BLOCKS, Gap, Glyphs, chart, gap_of
from pytest_vramsettle.demo.loader import Placement
from pytest_vramsettle.demo.race import Round, Setting, Timeline, VirtualRace, same_result


def opening(setting: Setting, glyphs: Glyphs = BLOCKS) -> RenderableType:
    """Who takes part, and what the signs mean."""
    model = setting.model
    return Group(
        Text("Reloading a model: the race for its memory", style="bold"),
        Text(),
        Text(
            f"A fake machine with {setting.cards} x {setting.card}, and real programs on it: a server "
            f"process, nvidia-smi, signals."
        ),
        Text(
            f"GPU 0  our server (PID {setting.server_pid}) holds {setting.server_mib} MiB: a model of {model.layers} layers"
        ),
        Text(f"GPU 1  somebody else's process holds {setting.tenant_mib} MiB"),
        Text(
            f"A reload kills the server (SIGKILL), probes free memory and places the model on the GPU with the most. "
            f"The kernel reaps the PID at once. The driver reclaims the memory later: from {setting.begins:g} s to "
            f"{setting.back:g} s after the kill. That is the ramp. Three ways to wait for it:"
        ),
        Text(),
        legend(glyphs),
        Text(),
    )


def legend(glyphs: Glyphs = BLOCKS) -> Text:
    """The signs of the charts."""
    return Text.assemble(
        (glyphs.full, "cyan"),
        " free on GPU 0   ",
        (glyphs.other * 2, "magenta"),
        " free on GPU 1   ",
        (glyphs.probe, "yellow"),
        " probe   ",
        (glyphs.decision, "bold"),
        " the probe that decides   ",
        (glyphs.gap, "bold red"),
        " misread",
    )


def running(number: int, title: str, timeline: Timeline, gap: Gap | None, width: int, glyphs: Glyphs) -> RenderableType:
    """A round while it runs."""
    return Group(heading(number, title), *chart(timeline, gap, width, glyphs))


def heading(number: int, title: str) -> Text:
    """Of one round."""
    return Text(f"{number}  {title}", style="bold")


def finished(number: int, one: Round, width: int, glyphs: Glyphs = BLOCKS) -> RenderableType:
    """A round that is over: its chart, and what it means."""
    return Group(
        running(number, one.way.title, one.timeline, gap_of(one), width, glyphs),
        Padding(verdict(one, glyphs), (0, 0, 1, 3)),
    )


def verdict(one: Round, glyphs: Glyphs = BLOCKS) -> Text:
    """When it decided, what it misread, and where the model went."""
    bad = one.is_misread or one.placement.on_gpu < one.right.on_gpu
    mark, style = (glyphs.bad, "bold red") if bad else (glyphs.good, "bold green")
    return Text("\n").join(
        [
            Text(when(one)),
            Text(what_was_read(one), style="red" if one.is_misread else "green"),
            Text.assemble((f"{mark} ", style), (where(one), style)),
        ]
    )


def when(one: Round) -> str:
    """The moment of the decision, beside the ramp."""
    said = "Nothing waited." if one.said is None else f'The wait said "{one.said}".'
    if one.share_back <= 0:
        state = "when none of the memory was back"
    elif one.decided < one.back:
        state = f"when {one.share_back:.0%} of the memory was back"
    else:
        state = f"{seconds(one.decided - one.back)} after all memory was back"
    return f"{said} Decided {seconds(one.decided)} after the kill, {state}."


def what_was_read(one: Round) -> str:
    """The misread."""
    read, final = one.placement.read[0].free_mib, one.right.read[0].free_mib
    if one.is_misread:
        return f"Misread {one.misread_mib} MiB: GPU 0 read {read} MiB free; {final} MiB are, once reclaim is over."
    return f"Misread {one.misread_mib} MiB: GPU 0 read {read} MiB free, of the {final} MiB that are free in the end."


def where(one: Round) -> str:
    """The placement, and the right one where it is another."""
    got, right = one.placement, one.right
    rest = f"{got.on_cpu} offloaded to the CPU" if got.on_cpu else "none offloaded to the CPU"
    text = f"{gpu_of(got)}: {got.on_gpu} of {got.layers} layers fit, {rest}."
    if got.on_gpu < right.on_gpu:
        text += f" {gpu_of(right)} would take {'all' if not right.on_cpu else right.on_gpu}."
    return text


def gpu_of(placement: Placement) -> str:
    """Which GPU it is."""
    return "no GPU" if placement.gpu is None else f"GPU {placement.gpu.index}"


def virtually(rounds: Sequence[Round], again: VirtualRace) -> Text:
    """The same reloads on the virtual clock, beside those in real time."""
    differing = [
        f"round {number} ({where(virtual)} {what_was_read(virtual)})"
        for number, (one, virtual) in enumerate(zip(rounds, again.rounds, strict=True), 1)
        if not same_result(one, virtual)
    ]
    alike = "The same outcomes, placements and misreads" if not differing else f"They differ in {'; '.join(differing)}"
    return Text.assemble(
        ("Once more, as a test sees it", "bold"),
        f"\nThe same {len(rounds)} reloads with the same programs, on the virtual clock: ",
        (f"{again.virtual_seconds:.2f} virtual seconds took {again.real_seconds:.2f} real ones", "bold"),
        f". {alike}.\n",
    )


def summary(rounds: Sequence[Round], glyphs: Glyphs = BLOCKS) -> Table:
    """One line for each round."""
    table = Table(box=box.SIMPLE_HEAD if glyphs is BLOCKS else box.ASCII, pad_edge=False)
    table.add_column("wait")
    table.add_column("it said")
    table.add_column("decided after", justify="right")
    table.add_column("misread", justify="right")
    table.add_column("placed on")
    table.add_column("on the CPU", justify="right")
    for one in rounds:
        table.add_row(
            one.way.short,
            one.said or "nothing",
            seconds(one.decided),
            f"{one.misread_mib} MiB",
            gpu_of(one.placement),
            f"{one.placement.on_cpu} of {one.placement.layers} layers",
            style="red" if one.is_misread else "green",
        )
    return table


def what_next() -> Text:
    """Three lines that lead on."""
    return Text.assemble(
        ("Next\n", "bold"),
        "test it   def test_reload(fake_driver, monotonic_clock, settle): ...   README.md\n",
        "cure it   with kills.recording(pid): process.kill(); process.wait()\n",
        "          result = wait_for_vram_settle(kills)   # then probe, then load",
    )


def seconds(value: float) -> str:
    """'0.26 s'; below a hundredth, milliseconds."""
    return f"{value:.2f} s" if value >= 0.01 else f"{value * 1000:.0f} ms"
