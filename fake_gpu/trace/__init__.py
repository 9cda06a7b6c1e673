"""Reclaim traces: recorded on real hardware or imported from a log, replayed on the fake driver. See docs/traces.md."""

from fake_gpu.trace.csv_log import ImportedLog, import_log
from fake_gpu.trace.files import TraceWriter
from fake_gpu.trace.format import Event, Header, Machine, Sample, TracedGpu
from fake_gpu.trace.story import Frame, Story
from fake_gpu.trace.trace import ReclaimTrace

__all__ = [
    "Event",
    "Frame",
    "Header",
    "ImportedLog",
    "Machine",
    "ReclaimTrace",
    "Sample",
    "Story",
    "TraceWriter",
    "TracedGpu",
    "import_log",
]
