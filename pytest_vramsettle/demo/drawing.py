"""What the demo says, as rich renderables. Pure functions: every sentence follows from the data."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pytest_vramsettle.demo.chart import BLOCKS, Gap, Glyphs, chart, gap_of
from pytest_vramsettle.demo.race import Placement, Round, Setting, Timeline, VirtualRace, same_result


def opening(setting: Setting, glyphs: Glyphs = BLOCKS) -> RenderableType:
    """Who takes part, and what the signs mean."""
    return Group(
        Text("Reloading a model: the race for its memory", style="bold"),
        Text(
            f"{setting.cards} x {setting.card}. The cards are fake, and so is the llama-server; but it is a real "
            f"process, ended by real signals, and free memory is read by running nvidia-smi.\n"
        ),
        Text(f"GPU 0  our server holds {setting.server_mib} MiB: all {setting.layers} layers of its model"),
        Text(f"GPU 1  somebody else's process holds {setting.tenant_mib} MiB\n"),
        Text(
            f"A reload with a longer context ends the server, probes free memory, and starts another on the GPU with "
            f"the most; layers that do not fit run on the CPU, slowly. "
            f"The PID is gone at once; its memory is not: the driver reclaims it from {setting.begins:g} s to "
            f"{setting.back:g} s after the kill. Three ways to deal with this ramp, in real time:\n"
        ),
        legend(glyphs),
        Text(),
    )


def legend(glyphs: Glyphs = BLOCKS) -> Text:
    """The signs of the charts."""
    return Text.assemble(
        (glyphs.full, "cyan"),
        " free on GPU 0  ",
        (glyphs.other, "bright_blue"),
        " free on GPU 1  ",
        (glyphs.probe, "yellow"),
        " probe  ",
        (glyphs.decision, "bold"),
        " probe that decides  ",
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
        Padding.indent(verdict(one, glyphs), 3),
        Text(),
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
    said = "No wait." if one.said is None else f'It said "{one.said}".'
    if one.decided >= one.back:
        state = f"the memory back for {seconds(one.decided - one.back)}"
    elif one.share_back > 0:
        state = f"{one.share_back:.0%} of the memory back"
    else:
        state = "none of the memory back"
    return f"{said} Decided {seconds(one.decided)} after the kill: {state}."


def what_was_read(one: Round) -> str:
    """The misread."""
    read, final = one.placement.read[0].free_mib, one.right.read[0].free_mib
    return f"Misread {one.misread_mib} MiB: GPU 0 read {read} MiB free; after reclaim it is {final} MiB."


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
    return "no GPU" if placement.gpu is None else f"GPU {placement.gpu}"


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
    table.add_column("layers on CPU", justify="right")
    for one in rounds:
        table.add_row(
            one.way.short,
            one.said or "nothing",
            seconds(one.decided),
            f"{one.misread_mib} MiB",
            gpu_of(one.placement),
            f"{one.placement.on_cpu} of {one.placement.layers}",
            style="red" if one.is_misread else "green",
        )
    return table


def what_next() -> Text:
    """Three lines that lead on."""
    return Text.assemble(
        ("Next", "bold"),
        "\ntest it   def test_reload(fake_driver, monotonic_clock, settle): ...",
        "\ncure it   with kills.recording(pid): ...  and then  wait_for_vram_settle(kills)",
        "\nread on   README.md begins with that test, and has the cure for your load path",
    )


def seconds(value: float) -> str:
    """'0.26 s'; below a hundredth, milliseconds."""
    return f"{value:.2f} s" if value >= 0.01 else f"{value * 1000:.0f} ms"
