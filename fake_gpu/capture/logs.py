"""Reads what `nvidia-smi -q` and `-q -x` have printed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fake_gpu.capture.cards import LAST, card_of_text, card_of_xml, value_of
from fake_gpu.capture.entries import Entry, tree_of_text, tree_of_xml
from fake_gpu.capture.files import Shot
from fake_gpu.capture.findings import Findings, OutputFindings, counted
from fake_gpu.capture.seen import Seen
from fake_gpu.errors import InvalidValue

_LEAST_COLUMN: Final = 32
"""Labels are as long as that: with the colon before it the blanks are gone, as in many quotations."""
CTIME: Final = "%a %b %d %H:%M:%S %Y"


@dataclass(frozen=True, slots=True)
class Log:
    """One output: what it says at its head, and of each GPU. `column`: of the colon, from 0; None where unknown."""

    driver_version: str
    cuda_version: tuple[int, int]
    seen: Seen
    dtd: str | None = None
    column: int | None = None


def when(text: str, layout: str = CTIME) -> float:
    """Seconds since the epoch of a local time; half a millisecond on, because cutting to milliseconds follows."""
    return datetime.strptime(text.strip(), layout).timestamp() + 0.0005


def read_log(shot: Shot, findings: Findings) -> Log:
    """What `nvidia-smi -q` or `-q -x` has printed; what is wrong with its values is told to `findings`.

    Raises InvalidValue where it is nothing of the kind, or XML that is cut.
    """
    of_output = findings.of_output(shot.line)
    if shot.outputs > 1:
        of_output.note(1, f"{shot.outputs} outputs, one after the other: the first that is complete was read")
    return _read_xml(shot.text, of_output) if "-x" in shot.arguments else _read_text(shot, of_output)


def _read_text(shot: Shot, findings: OutputFindings) -> Log:
    top = tree_of_text(shot.text)
    head = {entry.label: entry for entry in top.children if entry.value is not None}
    gpus = [entry for entry in top.children if entry.label.startswith("GPU ") and entry.value is None]
    if not gpus or "Driver Version" not in head:
        end = findings.line(shot.text.rstrip("\n").count("\n") + 1)
        raise InvalidValue(
            f"this is not what `nvidia-smi -q` prints, or is cut: it ends at line {end} and has no "
            f"{'GPU' if 'Driver Version' in head else 'Driver Version'}"
        )
    _check_end(shot, gpus, head.get("Attached GPUs"), findings)
    _check_count(gpus, head.get("Attached GPUs"), findings)
    return Log(
        _driver_version(head["Driver Version"], findings),
        _version(value_of(head.get("CUDA Version"))),
        Seen(tuple(card_of_text(gpu, findings) for gpu in gpus), _when(head.get("Timestamp"), findings)),
        column=_column(shot.text, head["Driver Version"]),
    )


def _column(text: str, entry: Entry) -> int | None:
    """Where the colon of a line at the text's head stands; None where whoever published it took the blanks out."""
    column = text.split("\n")[entry.line - 1].find(":")
    return column if column > _LEAST_COLUMN else None


def _read_xml(text: str, findings: OutputFindings) -> Log:
    root = tree_of_xml(text, findings.first)
    gpus = [entry for entry in root.children if entry.label == "gpu"]
    if root.label != "nvidia_smi_log" or not gpus:
        raise InvalidValue(f"this is not what `nvidia-smi -q -x` prints: <{root.label}> with {len(gpus)} <gpu>")
    _check_count(gpus, root.find("attached_gpus"), findings)
    dtd = re.search(r'<!DOCTYPE nvidia_smi_log SYSTEM "([^"]+)"', text)
    return Log(
        _driver_version(root.find("driver_version") or Entry("driver_version", "", root.line), findings),
        _version(value_of(root.find("cuda_version"))),
        Seen(tuple(card_of_xml(gpu, findings) for gpu in gpus), _when(root.find("timestamp"), findings)),
        dtd[1] if dtd else None,
    )


def _driver_version(entry: Entry, findings: OutputFindings) -> str:
    text = value_of(entry).partition(" [Deprecated")[0]
    if not re.match(r"\d+\.\d+", text):
        findings.refuse(entry.line, f"{entry.label} is {text!r}: expected such as '590.48.01'")
    return text


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    minor = minor.partition(" ")[0]  # drivers from 610 on say behind it that the label is deprecated
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def _when(stamp: Entry | None, findings: OutputFindings) -> float | None:
    if stamp is None:
        return None
    try:
        return when(value_of(stamp))
    except ValueError:
        findings.refuse(
            stamp.line, f"{stamp.label} is {value_of(stamp)!r}: expected such as 'Tue Jul 14 09:00:27 2026'"
        )
        return None


# -- whether all of it is there


def _check_end(shot: Shot, gpus: list[Entry], attached: Entry | None, findings: OutputFindings) -> None:
    """Refuses a text that ends amid a GPU's block: without what comes last there, or without the blank line behind."""
    of = f" of {value_of(attached)}" if attached else ""
    missing = _missing(gpus, attached)
    more = f", and so {'is' if missing == 1 else 'are'} {counted(missing, 'attached GPU')}" if missing > 0 else ""
    whole = True
    for place, gpu in enumerate(gpus, 1):
        if gpu.find(*LAST) is None:
            whole = False
            amid = f", in {gpu.children[-1].label!r}," if gpu.children else ""
            findings.refuse(
                gpu.last_line,
                f"{gpu.label} ({place}{of}) ends here{amid} and its Processes are missing"
                f"{more if place == len(gpus) else ''}: the output is cut, or was asked for with -d: give all of "
                f"nvidia-smi -q",
            )
    # -i prints fewer GPUs than are attached, too: then it is known from the command, or the block is whole.
    known = bool(shot.state) and not any(one.startswith(("-i", "--id")) for one in shot.arguments)
    if whole and missing > 0 and (known or not shot.text.endswith("\n\n")):
        findings.refuse(
            gpus[-1].last_line,
            f"the output ends here, with {gpus[-1].label} ({len(gpus)}{of}), and {counted(missing, 'attached GPU')} "
            f"{'is' if missing == 1 else 'are'} missing: the output is cut: take it again",
        )


def _missing(gpus: list[Entry], attached: Entry | None) -> int:
    told = value_of(attached)
    return int(told) - len(gpus) if told.isdigit() else 0


def _check_count(gpus: list[Entry], attached: Entry | None, findings: OutputFindings) -> None:
    missing = _missing(gpus, attached)
    if attached is None:
        return
    if not value_of(attached).isdigit():
        findings.refuse(attached.line, f"{attached.label} is {value_of(attached)!r}: expected a number")
    elif missing > 0:
        findings.note(
            attached.line,
            f"{value_of(attached)} GPUs are attached, and {len(gpus)} of them stand{'s' if len(gpus) == 1 else ''} "
            f"in the output, as nvidia-smi -i prints it",
        )
    elif missing < 0:
        findings.refuse(
            attached.line,
            f"{attached.label} is {value_of(attached)}, and {counted(len(gpus), 'GPU')} follow: give one output",
        )
