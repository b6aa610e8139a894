"""What tokens cost: money in 1e-6 USD, rounded up, so that no part of a call is free (GL-12, MB-20)."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.models.engine_config import Price

_MTOK = 1_000_000


def cost_of(price: Price, *, tokens_in: int, tokens_out: int) -> int:
    """What the call costs in 1e-6 USD; cached tokens are charged like others."""
    total = tokens_in * price.in_microusd_per_mtok + tokens_out * price.out_microusd_per_mtok
    return -(-total // _MTOK)


def affordable_tokens(price: Price, room_microusd: int, *, tokens_in: int) -> int | None:
    """The longest reply that fits beside the prompt into this much money; None when replies are free."""
    if not price.out_microusd_per_mtok:
        return None if cost_of(price, tokens_in=tokens_in, tokens_out=0) <= room_microusd else 0
    left = room_microusd * _MTOK - tokens_in * price.in_microusd_per_mtok
    return max(0, left // price.out_microusd_per_mtok)


def dearest(prices: Iterable[Price]) -> Price | None:
    """A price that none of these exceeds; None when there is none."""
    listed = list(prices)
    if not listed:
        return None
    return Price(
        in_microusd_per_mtok=max(p.in_microusd_per_mtok for p in listed),
        out_microusd_per_mtok=max(p.out_microusd_per_mtok for p in listed),
    )
