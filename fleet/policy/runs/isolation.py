"""Which isolation a fleet may go without, when its operator says so by name (RC-32)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple, get_args

WaivableItem = Literal[
    "cpu",
    "disk",
    "egress_denied",
    "hidden_environment",
    "hidden_host_files",
    "hidden_host_services",
    "kernel_files",
    "namespaces",
    "privileges",
    "read_only_system",
    "socket_families",
]
"""Items of RC-30 and RC-31 as a sandbox names them. Time, memory, processes and output cannot be waived."""

WAIVABLE: frozenset[str] = frozenset(get_args(WaivableItem))


class Unmet(NamedTuple):
    """What a sandbox does not hold: what refuses a run, and the items that may be missing."""

    refused: tuple[str, ...]
    waived: tuple[str, ...]


def item_of(finding: str) -> str:
    """The item that a finding of a sandbox's health is about: `disk` of `disk (check 31): no quota`."""
    return finding.partition(":")[0].partition(" (")[0].strip()


def split_unmet(unmet: Sequence[str], waived: Collection[str]) -> Unmet:
    """The findings that refuse every run, and those whose item is waived and may be.

    Args:
        unmet: findings of `SandboxHealth.unmet`.
        waived: items that the operator goes without; one that may not be waived counts for nothing.
    """
    items = frozenset(waived) & WAIVABLE
    return Unmet(
        refused=tuple(f for f in unmet if item_of(f) not in items),
        waived=tuple(f for f in unmet if item_of(f) in items),
    )
