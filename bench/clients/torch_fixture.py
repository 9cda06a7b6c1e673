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
    before = torch.cuda.mem_get_info
    with Driver() as driver:
        cards = [driver.add_gpu("h200"), driver.add_gpu("rtx-4090")]
        driver.process(cards[0], used="20 GiB")
        with torch_on(driver, torch):
            said = [torch.cuda.mem_get_info(torch.device("cuda", index)) for index in range(torch.cuda.device_count())]
            totals = [torch.cuda.get_device_properties(f"cuda:{index}").total_memory for index in range(2)]
            available = torch.cuda.is_available()
        wanted = [(card.memory.free, card.memory.total - card.memory.reserved) for card in cards]
    right = (
        available and said == wanted and totals == [total for _, total in wanted] and torch.cuda.mem_get_info is before
    )
    print(f"torch {torch.__version__}: {said}")
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
