"""What a run asked for outside, as its step records it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fleet.policy.runs.spec import EgressDecision

MAX_CONTACTS = 50
"""Of one step; the whole list is in the result of the run."""


def contacts_of(decisions: Sequence[EgressDecision]) -> tuple[str, ...] | None:
    """One line for each host, port and answer, in their order, refused ones first; None when there are none."""
    counts = Counter((d.allowed, d.host, d.port, d.reason) for d in decisions)
    ordered = sorted(counts.items(), key=lambda item: item[0][0])
    return (
        tuple(
            f"{host}:{port} {'allowed' if allowed else 'refused'} {reason} {times}"
            for (allowed, host, port, reason), times in ordered[:MAX_CONTACTS]
        )
        or None
    )
