"""Which replica serves a call: calls that share a prompt prefix go to one, whose prefix cache then serves them.

Every caller ranks the replicas of a key alike (rendezvous hashing: Thaler and Ravishankar, 1998), so callers need not
speak with each other, and a replica that comes or goes moves its own keys only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple


class Choice(NamedTuple):
    """The replica to ask, and why."""

    replica: str
    why: Literal["affinity", "spilled", "least_loaded"]


def rank(key: str, replicas: Collection[str]) -> list[str]:
    """The replicas in the order in which this key prefers them; the same on every machine."""
    return sorted(replicas, key=lambda name: hashlib.blake2b(f"{key}\0{name}".encode(), digest_size=8).digest())


def choose(
    key: str,
    loads: Mapping[str, int],
    *,
    draw: str,
    slots: int,
    preferred: str | None = None,
    spill_factor: float = 1.5,
) -> Choice:
    """The replica for a call.

    The preferred replica of the key, unless calls would wait there for no good reason: it has work for all its slots,
    and either more than `spill_factor` times the mean load, or another one has half of its slots free. Without a key,
    and after a spill, the least loaded one.

    Args:
        key: affinity of the call; empty for none.
        loads: calls under way by healthy replica; at least one.
        draw: breaks ties between replicas of equal load.
        slots: calls that one replica serves at a time.
        preferred: where the key was served last; taken while it is healthy.
    """
    if not key:
        return Choice(_least_loaded(loads, draw), "least_loaded")
    first = preferred if preferred is not None and preferred in loads else rank(key, loads)[0]
    load, total, least = loads[first], sum(loads.values()), min(loads.values())
    if load >= slots and (load * len(loads) > spill_factor * total or 2 * least < slots):
        return Choice(_least_loaded(loads, draw), "spilled")
    return Choice(first, "affinity")


def _least_loaded(loads: Mapping[str, int], draw: str) -> str:
    least = min(loads.values())
    return rank(draw, [name for name, load in loads.items() if load == least])[0]
