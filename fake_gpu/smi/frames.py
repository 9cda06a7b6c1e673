"""What nvidia-smi's text looks like by driver: the frames of the tables, and the column of the colon in `-q`.

Each frame is that of the first driver in which it was seen, and of those after it; see docs/nvidia-smi.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

_FIRST_WIDE_LOG: Final = 581
"""580.105.08 has its colon at column 42, 590.48.01 at 55; 581 to 589 nobody has looked at."""
_NARROW_COLUMN: Final = 42
_WIDE_COLUMN: Final = 55
FIRST_WITH_KMD: Final = 610
"""The first driver known to call its version KMD version, and CUDA's CUDA UMD version."""


def label_column(major: int) -> int:
    """Where the colon stands in `-q`, from 0, in drivers of this branch; a version that is no number is the latest."""
    return _NARROW_COLUMN if 0 < major < _FIRST_WIDE_LOG else _WIDE_COLUMN


@dataclass(frozen=True, slots=True)
class GpuRows:
    """Columns of the table of GPUs. Widths are without the bars between them.

    `persistence` and `wddm`: what ends the first heading, of Linux and of Windows; `mode` and `wddm_mode` stand below.
    `name`, `power`, `limit`, `used` and `total`: their widths; `no_limit`: what stands for a limit that is not known;
    `end`: blanks behind the limit; `bus_indent`: before the bus id.
    """

    widths: tuple[int, int, int]
    persistence: str
    wddm: str
    headings: str
    name: int
    mode: str
    wddm_mode: str
    power: int
    limit: int
    no_limit: str
    end: int
    bus_indent: int
    used: int
    total: int


@dataclass(frozen=True, slots=True)
class ProcessRows:
    """Columns of the table of processes. `longest`: characters of a name; of a longer one the end is shown."""

    heading: str
    pid: int
    name: int
    longest: int


@dataclass(frozen=True, slots=True)
class MigRows:
    """Columns of the table of MIG devices. `memory_end`, `bar1_end`: blanks behind the second and the fourth size.

    `memory` and `bar1`: headings. `engines`: both lines over the engines. `headed_if_empty`: whether the headings stand
    above "No MIG devices found".
    """

    widths: tuple[int, int, int, int]
    memory: str
    bar1: str
    engines: tuple[str, str]
    used: int
    memory_end: int
    bar1_used: int
    bar1_end: int
    headed_if_empty: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """The table of the drivers from branch `first` on. `banner`: with places for `driver` and `cuda`.

    `width`: of a line, between its first and last character. `corner`: what stands at the left below the banner.
    `between`: the line between two tables.
    """

    first: int
    width: int
    banner: str
    corner: str
    gpus: GpuRows
    between: str
    processes: ProcessRows
    mig: MigRows


_BANNER_79: Final = "| NVIDIA-SMI {driver:<13}Driver Version: {driver:<13}CUDA Version: {cuda:<9}|\n"
_BANNER_89: Final = "| NVIDIA-SMI {driver:<23}Driver Version: {driver:<13}CUDA Version: {cuda:<9}|\n"
_BANNER_91: Final = "| NVIDIA-SMI {driver:<23}Driver Version: {driver:<15}CUDA Version: {cuda:<9}|\n"
_BANNER_KMD: Final = "| NVIDIA-SMI {driver:<23}KMD Version: {driver:<14}CUDA UMD Version: {cuda:<9}|\n"
_NARROW_ENGINES: Final = ("      Shared           ", " CE ENC DEC OFA JPG    ")
_WIDE_ENGINES: Final = ("        Shared         ", " CE ENC  DEC  OFA  JPG ")

_79: Final = Frame(
    first=0,
    width=77,
    banner=_BANNER_79,
    corner="|",
    gpus=GpuRows(
        widths=(31, 22, 22),
        persistence="Persistence-M|",
        wddm="    TCC/WDDM |",
        headings="| GPU  Name        Persistence-M| Bus-Id        Disp.A | Volatile Uncorr. ECC |\n"
        "| Fan  Temp  Perf  Pwr:Usage/Cap|         Memory-Usage | GPU-Util  Compute M. |\n",
        name=18,
        mode="  {:<3}  ",
        wddm_mode=" WDDM  ",
        power=6,
        limit=4,
        no_limit="N/A",
        end=1,
        bus_indent=1,
        used=7,
        total=5,
    ),
    between=" " * 79,
    processes=ProcessRows(
        "|  GPU   GI   CI        PID   Type   Process name                  GPU Memory |\n"
        "|        ID   ID                                                   Usage      |\n",
        pid=10,
        name=32,
        longest=28,
    ),
    mig=MigRows(
        widths=(18, 22, 11, 23),
        memory="Memory-Usage",
        bar1="BAR1-Usage",
        engines=("         Shared        ", " CE  ENC  DEC  OFA  JPG"),
        used=7,
        memory_end=1,
        bar1_used=7,
        bar1_end=1,
        headed_if_empty=True,
    ),
)

_530: Final = Frame(
    first=530,
    width=87,
    banner=_BANNER_89,
    corner="|",
    gpus=GpuRows(
        widths=(41, 22, 22),
        persistence="Persistence-M|",
        wddm="    TCC/WDDM |",
        headings="| GPU  Name                  Persistence-M| Bus-Id        Disp.A | Volatile Uncorr. ECC |\n"
        "| Fan  Temp  Perf            Pwr:Usage/Cap|         Memory-Usage | GPU-Util  Compute M. |\n",
        name=28,
        mode="    {:<3}",
        wddm_mode="   WDDM",
        power=17,
        limit=4,
        no_limit="N/A",
        end=0,
        bus_indent=1,
        used=7,
        total=5,
    ),
    between=" " * 89,
    processes=ProcessRows(
        "|  GPU   GI   CI        PID   Type   Process name                            GPU Memory |\n"
        "|        ID   ID                                                             Usage      |\n",
        pid=10,
        name=42,
        longest=38,
    ),
    mig=MigRows(
        widths=(18, 32, 11, 23),
        memory="Memory-Usage",
        bar1="BAR1-Usage",
        engines=_NARROW_ENGINES,
        used=16,
        memory_end=2,
        bar1_used=16,
        bar1_end=2,
        headed_if_empty=True,
    ),
)

_535: Final = replace(
    _530,
    first=535,
    gpus=replace(
        _530.gpus,
        persistence="Persistence-M |",
        wddm="    TCC/WDDM  |",
        headings="| GPU  Name                 Persistence-M | Bus-Id        Disp.A | Volatile Uncorr. ECC |\n"
        "| Fan  Temp   Perf          Pwr:Usage/Cap |         Memory-Usage | GPU-Util  Compute M. |\n",
        name=27,
        mode="    {:<3} ",
        wddm_mode="  WDDM  ",
        power=16,
        end=1,
    ),
)

_550: Final = Frame(
    first=550,
    width=89,
    banner=_BANNER_91,
    corner="|",
    gpus=replace(
        _535.gpus,
        widths=(41, 24, 22),
        headings="| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |\n"
        "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |\n",
        power=15,
        limit=5,
        no_limit="N/A ",
        bus_indent=3,
        used=8,
        total=6,
    ),
    between=" " * 89,
    processes=ProcessRows(
        "|  GPU   GI   CI        PID   Type   Process name                              GPU Memory |\n"
        "|        ID   ID                                                               Usage      |\n",
        pid=10,
        name=44,
        longest=38,
    ),
    mig=replace(_530.mig, widths=(18, 34, 11, 23), memory_end=4, bar1_used=18),
)

_570: Final = replace(
    _550,
    first=570,
    gpus=replace(_550.gpus, wddm=" Driver-Model |"),
    processes=ProcessRows(
        "|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |\n"
        "|        ID   ID                                                               Usage      |\n",
        pid=16,
        name=38,
        longest=32,
    ),
    mig=MigRows(
        widths=(18, 34, 11, 23),
        memory="Shared Memory-Usage",
        bar1="Shared BAR1-Usage",
        engines=_WIDE_ENGINES,
        used=16,
        memory_end=4,
        bar1_used=16,
        bar1_end=4,
        headed_if_empty=False,
    ),
)

_580: Final = replace(_570, first=580, corner="+", between="")
_610: Final = replace(_580, first=FIRST_WITH_KMD, banner=_BANNER_KMD)

_FRAMES: Final = (_610, _580, _570, _550, _535, _530, _79)
"""The latest first."""


def frame_of(major: int) -> Frame:
    """The table's frame in drivers of this branch; a version that is no number has that of 590."""
    return next(frame for frame in _FRAMES if (major or _580.first) >= frame.first)
