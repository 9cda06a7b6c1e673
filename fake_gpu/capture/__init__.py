"""Real nvidia-smi output: read, made into profiles and machines, and compared with what the fake prints."""

from fake_gpu.capture.machine import Machine, machine_of, read_machine

__all__ = ["Machine", "machine_of", "read_machine"]
