"""docs/fidelity.md: the fake nvidia-smi beside real output, line by line.

`python -m bench.fidelity [DIRECTORY]` prints it. The directory has what real cards printed: capture files (*.txt) and
`nvidia-smi -q -x` (*.xml), at any depth. They are not part of this repository.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fake_gpu.capture import Machine, machine_of, read_machine
from fake_gpu.capture.compare import Comparison, compared, is_help
from fake_gpu.errors import FakeGpuError

DIRECTORY = Path(__file__).resolve().parents[2] / "shared" / "captures"
_LONGEST = 160
_HELD_OUT = (
    "The machine is made of that one output, and asked all the others. A line of --query-gpu has some 190 values, of",
    "which one that differs makes the line differ; so the values are counted too. What -q does not say (further",
    "counters, the host's CPUs, NVLinks, UUIDs of MIG devices) cannot be known then.",
    "",
)

_HEAD = """# How true the fake nvidia-smi is

Made by `make fidelity`; do not edit. Each real output below was read, a machine was made of it (`fake_gpu.capture`),
and the fake nvidia-smi was asked the same again. What is of the moment (time, load, power, temperature, clocks,
processes) was set from the output of the same command before: two commands of one capture were run some time apart.
Lines are compared with Python's difflib; the share is that of identical lines in the longer of both outputs. Of XML
the indentation is not compared. The help texts are in the fake's own words and are not compared.

No card's name is in the code that reads and prints: `fake-gpu profile compare FILE` does the same with output of yours.

"""


def files(directory: Path) -> list[Path]:
    """What there is to compare."""
    return sorted(path for kind in ("*.txt", "*.xml") for path in directory.rglob(kind))


def lines_of(paths: list[Path]) -> Iterator[str]:
    """The page, line by line."""
    read: list[tuple[str, Machine, list[Comparison]]] = []
    refused = []
    for path in paths:
        try:
            machine = read_machine(path)
            read.append((path.stem, machine, [one for one in compared(machine) if not is_help(one.shot)]))
        except FakeGpuError as error:
            refused.append(f"- {path.name}: {str(error).replace(str(path), path.name)}")
    yield from _summary(read)
    yield from _held_out(read)
    for name, machine, comparisons in read:
        yield from _details(name, machine, comparisons)
    if refused:
        yield from ("## Not read", "", *refused, "")


def _summary(read: list[tuple[str, Machine, list[Comparison]]]) -> Iterator[str]:
    yield from ("| output | driver | lines | identical | share |", "| --- | --- | ---: | ---: | ---: |")
    for name, machine, comparisons in read:
        yield f"| {name} | {machine.driver_version} | {_figures(comparisons)} |"
    yield f"| all | | {_figures([one for _, _, comparisons in read for one in comparisons])} |"
    yield ""


def _held_out(read: list[tuple[str, Machine, list[Comparison]]]) -> Iterator[str]:
    """How much of the other commands follows from the idle card's -q, so that nothing is quoted that is asked for."""
    yield from ("## From `nvidia-smi -q` of the idle card alone", "", *_HELD_OUT)
    yield from ("| output | lines | identical | share |", "| --- | ---: | ---: | ---: |")
    for name, machine, _ in read:
        idle = tuple(shot for shot in machine.shots if shot.option == "-q")[:1]
        others = [shot for shot in machine.shots if shot not in idle]
        if not others:
            continue
        alone = replace(machine_of(idle, name), shots=tuple(others))
        comparisons = [one for one in compared(alone) if not is_help(one.shot)]
        yield f"| {name} | {_figures(comparisons)} |"
        fields = [row for one in comparisons if one.shot.option == "--query-gpu" for row in _cells(one)]
        if fields:
            same = sum(real == ours for real, ours in fields)
            yield f"| {name}, values of --query-gpu | {len(fields)} | {same} | {_percent(same, len(fields))} |"
    yield ""


def _cells(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """The real value and ours of each field."""
    rows = comparison.shot.text.rstrip("\n").split("\n")[1:]
    ours = dict(comparison.different)
    for row in rows:
        yield from zip(row.split(", "), (ours.get(row, row) or "").split(", "), strict=False)


def _figures(comparisons: list[Comparison]) -> str:
    lines, same = sum(one.lines for one in comparisons), sum(one.same for one in comparisons)
    return f"{lines} | {same} | {_percent(same, lines)}"


def _percent(same: int, lines: int) -> str:
    return "100 %" if same == lines else f"{100 * same / lines:.2f} %"


def _details(name: str, machine: Machine, comparisons: list[Comparison]) -> Iterator[str]:
    cards = ", ".join(card.profile.name for card in machine.cards)
    yield from (f"## {name}", "", f"{cards}, driver {machine.driver_version}.", "")
    yield from ("| state | command | lines | identical | share |", "| --- | --- | ---: | ---: | ---: |")
    for one in comparisons:
        yield f"| {one.shot.state} | `{one.shot.command}` | {_figures([one])} |"
    yield ""
    for one in comparisons:
        if not one.different:
            continue
        yield from (f"`{one.shot.command}` {one.shot.state}".rstrip() + ", real (-) and fake (+):", "", "```diff")
        for real, ours in one.different:
            yield from (f"{sign}{_cut(line)}" for sign, line in (("-", real), ("+", ours)) if line is not None)
        yield from ("```", "")


def _cut(line: str) -> str:
    line = line.replace("\x1b", "\\e").rstrip()
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def main(arguments: list[str]) -> int:
    """Prints the page. 2 where there is nothing to compare."""
    directory = Path(arguments[0]) if arguments else DIRECTORY
    paths = files(directory)
    if not paths:
        print(
            f"bench.fidelity: there is no output of real cards in {directory}; name a directory with capture files "
            f"(*.txt) or the output of nvidia-smi -q -x (*.xml)",
            file=sys.stderr,
        )
        return 2
    sys.stdout.write(_HEAD)
    sys.stdout.writelines(f"{line}\n" for line in lines_of(paths))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
