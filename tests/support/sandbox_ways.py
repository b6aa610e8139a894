"""The two ways in which limits are held, for suites that hold on each of them."""

from __future__ import annotations

from typing import Literal

from fleet.sandbox.backends.bubblewrap.cgroups import find_parents

Way = Literal["cgroups", "rlimits"]
WAYS: tuple[Way, ...] = ("cgroups", "rlimits") if find_parents() else ("rlimits",)
"""`rlimits` with a watchdog everywhere; `cgroups` only where this process may make them."""


def limited_by_cgroup(way: Way) -> frozenset[str]:
    """What a cgroup limits here, when limits are held this way."""
    return frozenset(find_parents()) if way == "cgroups" else frozenset()
