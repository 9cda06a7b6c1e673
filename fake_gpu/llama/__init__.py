"""A fake llama-server: a real process with llama.cpp's options and HTTP interface, whose memory is the fake driver's.

The executable (native/llama.c) only exists, listens and carries bytes. What it says, holds and answers is decided here,
in the driver's process, by the driver's clock.
"""

from fake_gpu.llama.holder import NAME
from fake_gpu.llama.servers import LlamaServers, RunningServer
from fake_gpu.llama.shape import Shape, make_shape

__all__ = ["NAME", "LlamaServers", "RunningServer", "Shape", "make_shape"]
