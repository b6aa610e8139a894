"""Room in a prompt, shared among texts of different sizes."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["fair_shares"]


def fair_shares(sizes: Sequence[int], room: int) -> list[int]:
    """How much of each may stay, in the unit of `sizes`: small ones stay whole, large ones share what that leaves."""
    shares, left = [0] * len(sizes), room
    for done, (size, index) in enumerate(sorted((size, index) for index, size in enumerate(sizes))):
        shares[index] = min(size, left // (len(sizes) - done))
        left -= shares[index]
    return shares
