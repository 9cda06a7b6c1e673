"""One running llama-server: what it is told to do, what it holds, and when.

Everything here runs in the driver's server thread, which never sleeps: a load that takes time is an answer that comes
late, on the driver's clock.
"""

from __future__ import annotations

import signal
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from fake_gpu.errors import DriverStateError, InvalidValue
from fake_gpu.gpu import Gpu, Presence
from fake_gpu.llama import texts
from fake_gpu.llama.http import Connection, Refusal, State, answer, refused
from fake_gpu.llama.options import ALL, Device, Options, UsageError, parse
from fake_gpu.llama.shape import Shape
from fake_gpu.llama.sizes import Layout, lay_out
from fake_gpu.nvml.dispatch import NEVER

if TYPE_CHECKING:
    from fake_gpu.driver import Driver
    from fake_gpu.process import Process

NAME = "llama-server"
_U32 = struct.Struct("<I")
_CHUNK = 1 << 19
"""Bytes of text or data in one order: a frame has 1 MiB at most."""


class Link(Protocol):
    """The connection to the executable, as the driver's server has it."""

    pid: int

    def send(self, data: bytes) -> None:
        """Sends whole frames."""

    def wait(self, delay_ns: int, then: Callable[[], None]) -> None:
        """Has `then` called so much later (NEVER: not at all). Meanwhile the process holds no clock."""


def order(letter: bytes, number: int | None = None, data: bytes = b"") -> bytes:
    """One frame that the executable obeys (native/llama.c)."""
    body = letter + (b"" if number is None else _U32.pack(number)) + data
    return _U32.pack(len(body)) + body


class Holder:
    """A llama-server from its first word to its end."""

    def __init__(self, driver: Driver, link: Link, shape: Shape, arguments: list[str], visible: str | None) -> None:
        self._driver, self._link, self._shape = driver, link, shape
        self._arguments, self._visible = arguments, visible
        self._options = Options()
        self._gpus: tuple[Gpu, ...] = ()
        self._layout: Layout | None = None
        self._process: Process | None = None
        self._ready = False
        self._port = 0
        self._begun_ns = 0
        self._clients: dict[int, Connection] = {}
        self._answered = 0

    def start(self) -> None:
        """Understands its command line, and has it listen; or ends it, as the real one ends."""
        try:
            self._options = parse(self._arguments, NAME, _devices(self._driver, self._visible))
        except UsageError as error:
            self._end(str(error), 1)
            return
        if self._options.answer:
            self._link.send(order(b"o", data=self._options.answer.encode()))
            self._end("", 0)
            return
        if self._shape.ignores_sigterm:
            self._link.send(order(b"i"))
        if self._shape.leaves_child is not None:
            self._link.send(order(b"g"))
        self._begun_ns = self._driver.sync()
        self._link.send(order(b"b", self._options.port))

    @property
    def loaded(self) -> Layout | None:
        """How its model is loaded; None until it is."""
        return self._layout if self._ready else None

    @property
    def model(self) -> str:
        """As its command line has it."""
        return self._options.model

    def heard(self, letter: bytes, number: int, data: bytes) -> None:
        """What the executable tells: its port, and what comes over its connections."""
        if letter == b"B":
            self._bound(number)
        elif letter == b"D":
            self._serve(number, data)
        elif letter == b"C":
            self._clients.pop(number, None)

    # -- loading

    def _bound(self, port: int) -> None:
        if not port:
            self._end(texts.cannot_bind(self._options), 1)
            return
        self._port = port
        self._gpus = visible_gpus(self._driver, self._visible, self._options)
        free = [gpu.memory.free for gpu in self._gpus]
        self._say(texts.devices([(gpu.name, size) for gpu, size in zip(self._gpus, free, strict=True)]))
        self._say(texts.listening(self._options, port))
        if _has_no_main_gpu(self._options, len(free)):
            self._end(texts.no_main_gpu(self._options, len(free)), 1)
            return
        self._layout = layout = lay_out(self._shape, self._options, free)
        full = self._allocate_weights(layout)
        if full is not None:
            self._end(texts.no_room_for_weights(full, layout.weights(full), self._options.model), 1)
            return
        self._say(texts.model(layout))
        self._wait(self._shape.load_ns, self._loaded)

    def _wait(self, delay_ns: int, then: Callable[[], None]) -> None:
        """Waits, unless it is to crash before that."""
        crash_ns = self._shape.crash_ns
        if crash_ns is not None:
            rest = max(0, self._begun_ns + crash_ns - self._driver.clock.monotonic_ns())
            if delay_ns == NEVER or rest <= delay_ns:
                self._link.wait(rest, self._crash)
                return
        self._link.wait(delay_ns, then)

    def _allocate_weights(self, layout: Layout) -> int | None:
        """Holds the weights. Returns the GPU on which they do not fit, if any."""
        held = {gpu: layout.weights(number) for number, gpu in enumerate(self._gpus) if layout.layers[number]}
        if not held:
            return None
        try:
            self._process = self._driver.attach(self._link.pid, held, name=NAME, reclaim=self._shape.reclaim)
        except (InvalidValue, DriverStateError):
            return self._fullest(layout.weights)
        return None

    def _fullest(self, wanted: Callable[[int], int]) -> int:
        lacking = [number for number, gpu in enumerate(self._gpus) if gpu.memory.free < wanted(number)]
        return lacking[0] if lacking else 0

    def _loaded(self) -> None:
        layout = self._layout
        if layout is None:
            return
        for number, gpu in enumerate(self._gpus):
            if self._process is None or not layout.layers[number]:
                continue
            try:
                self._process.hold(layout.total(number), gpu)
            except (InvalidValue, DriverStateError):
                self._end(texts.no_room_for_cache(number, layout.cache(number), self._options.model), 1)
                return
        self._ready = True
        if not self._shape.ignores_sigterm:
            self._link.send(order(b"h"))
        self._say(texts.ready(layout, self._options, self._port))
        self._wait(NEVER, self._crash)

    # -- serving

    def _serve(self, client: int, data: bytes) -> None:
        for request in self._clients.setdefault(client, Connection()).feed(data):
            if isinstance(request, Refusal):
                self._link.send(order(b"d", client, refused(request)) + order(b"c", client))
                return
            self._answered += 1
            layout = self._layout if self._ready else None
            reply = answer(request, State(self._options, layout, self._driver.wall_time(), self._answered))
            for start in range(0, len(reply), _CHUNK):
                self._link.send(order(b"d", client, reply[start : start + _CHUNK]))
            if request.closes:
                self._link.send(order(b"c", client))

    # -- its end

    def _say(self, text: str) -> None:
        self._link.send(order(b"e", data=text.encode("utf-8", "surrogateescape")))

    def _end(self, text: str, code: int) -> None:
        if text:
            self._say(text)
        self._link.send(order(b"x", code))

    def _crash(self) -> None:
        self._link.send(order(b"k", signal.SIGSEGV))


def fit_params(driver: Driver, shape: Shape, arguments: list[str], visible: str | None) -> bytes:
    """What a run of llama-fit-params is to do: orders up to its exit."""
    try:
        options = parse(arguments, "llama-fit-params", _devices(driver, visible))
    except UsageError as error:
        return order(b"e", data=str(error).encode()) + order(b"x", 1)
    free = [gpu.memory.free for gpu in visible_gpus(driver, visible, options)]
    if not options.answer and _has_no_main_gpu(options, len(free)):
        return order(b"e", data=texts.no_main_gpu(options, len(free)).encode()) + order(b"x", 1)
    if options.answer:
        text = options.answer
    elif options.fit_print:
        # It tells what the given options need, and fits nothing; -ngl left open is all.
        text = texts.needs(lay_out(shape, options if options.gpu_layers >= 0 else _all(options), free))
    else:
        text = texts.fitted(lay_out(shape, options, free))
    return order(b"o", data=text.encode()) + order(b"x", 0)


def _all(options: Options) -> Options:
    return replace(options, gpu_layers=ALL)


def _devices(driver: Driver, visible: str | None) -> list[Device]:
    gpus = visible_gpus(driver, visible, Options())
    return [Device(gpu.name, gpu.memory.total, gpu.memory.free) for gpu in gpus]


def _has_no_main_gpu(options: Options, gpus: int) -> bool:
    """As llama.cpp's model loader has it: --main-gpu counts where the model is not split."""
    return options.split_mode == "none" and 0 < gpus <= options.main_gpu


def visible_gpus(driver: Driver, visible: str | None, options: Options) -> tuple[Gpu, ...]:
    """The GPUs that a process sees: CUDA_VISIBLE_DEVICES (None: it is not set), narrowed by --device.

    Indices are in the order of nvidia-smi's. As in CUDA, the list ends at the first entry that is no GPU, and a UUID
    may be cut short where that is clear.
    """
    present = [gpu for gpu in driver.gpus if gpu.presence_in_model is Presence.PRESENT]
    seen = present if visible is None else _selected(present, visible)
    if options.devices:
        names = options.devices.split(",")
        seen = [gpu for number, gpu in enumerate(seen) if f"CUDA{number}" in names]
    if options.split_mode == "none" and options.main_gpu < 0:
        return ()  # the CPU alone, as in llama.cpp
    return tuple(seen)


def _selected(present: list[Gpu], visible: str) -> list[Gpu]:
    seen: list[Gpu] = []
    for entry in (part.strip() for part in visible.split(",")):
        if entry.isdigit():
            found = present[int(entry) : int(entry) + 1]
        else:
            found = [gpu for gpu in present if entry and gpu.uuid.startswith(entry)]
        if len(found) != 1 or found[0] in seen:
            break
        seen += found
    return seen
