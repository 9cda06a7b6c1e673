"""What a virtual clock may be made with: checked alike for the class and for the marker."""

from __future__ import annotations


def check_seed(seed: object) -> None:
    """Raises TypeError for what is neither None nor an int."""
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise TypeError(f"seed= takes an int, not {seed!r}")


def check_grace(grace: object) -> None:
    """Raises TypeError for what is no number, ValueError for one that is not above 0; infinity is."""
    if isinstance(grace, bool) or not isinstance(grace, (int, float)):
        raise TypeError(f"child_grace= takes a number of seconds, not {grace!r}")
    if not grace > 0:
        raise ValueError(f"child_grace= takes a number of seconds above 0, not {grace!r}")
