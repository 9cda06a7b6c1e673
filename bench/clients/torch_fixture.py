"""The fixture torch_cuda with a real torch: run by the interpreter of torch's environment. Prints what torch says."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from fake_gpu import Driver
from pytest_vramsettle.torch_cuda import torch_on


def main() -> None:
    """Two cards as torch sees them, and that nothing of it stays. Exits 1 where a figure is not the driver's."""
    torch: Any = importlib.import_module("torch")
    before = names(torch)
    with Driver() as driver:
        cards = [driver.add_gpu("h200"), driver.add_gpu("rtx-4090")]
        driver.process(cards[0], used="20 GiB")
        with torch_on(driver, torch):
            said = figures(torch)
        wanted = [
            (card.name, card.memory.free, card.memory.total - card.memory.reserved, card.profile.compute_capability)
            for card in cards
        ]
    right = said == wanted and names(torch) == before
    print(f"torch {torch.__version__}: {said}")
    sys.exit(0 if right else 1)


def figures(torch: Any) -> list[tuple[str, int, int, tuple[int, int]]]:
    """Name, free and total bytes and capability of each card; nothing where two ways to the same figure differ."""
    cuda = torch.cuda
    if not cuda.is_available():
        return []
    found = []
    for index in range(cuda.device_count()):
        with cuda.device(index):
            inside = (cuda.current_device(), cuda.mem_get_info(), cuda.get_device_name())
            cuda.synchronize()
        cuda.empty_cache()
        cuda.ipc_collect()
        named = f"cuda:{index}"
        outside = (index, cuda.memory.mem_get_info(torch.device(named)), cuda.get_device_name(named))
        if inside != outside or cuda.get_device_properties(named).total_memory != inside[1][1]:
            return []
        found.append((inside[2], *inside[1], cuda.get_device_capability(index)))
    cuda.set_device("cuda:1")
    return found if cuda.current_device() == 1 else []


def names(torch: Any) -> dict[str, object]:
    """What torch.cuda and torch.cuda.memory have."""
    return {
        f"{module.__name__}.{name}": value
        for module in (torch.cuda, torch.cuda.memory)
        for name, value in vars(module).items()
        if callable(value)
    }


if __name__ == "__main__":
    main()
