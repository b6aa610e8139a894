"""Which supervisor of a fleet carries out a run, and what all of them say together. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from fleet.policy.runs.spec import RepoMount, RunSpec
from fleet.sandbox.port import SandboxHealth

_DIGITS = 12
_ON_NODE = re.compile(rf"sandbox:([0-9a-f]{{{_DIGITS}}})")


def on_node(node_id: str) -> str:
    """The name of the supervisor of a node, the same for as long as the node lives.

    Args:
        node_id: Ray's, in hexadecimal; no two nodes ever have the same.
    """
    return f"sandbox:{node_id[:_DIGITS]}"


def node_of(name: str) -> str | None:
    """How the id of the node begins whose supervisor has this name; None for the home's, and for anything else."""
    match = _ON_NODE.fullmatch(name)
    return match and match[1]


def is_bound(spec: RunSpec) -> bool:
    """Whether the run has to be where repositories are staged: with the home's supervisor."""
    return any(isinstance(mount, RepoMount) for mount in spec.mounts)


def ranked(key: str, names: Iterable[str]) -> list[str]:
    """These supervisors, first the one that the key belongs to, then the one that would follow it, and so on.

    The key is that of a run, or the name of a work session, whose runs stay together.
    Rendezvous hashing: when one comes or goes, only the keys move that are its own.
    """
    return sorted(names, key=lambda name: sha256(f"{name} {key}".encode()).digest(), reverse=True)


def combined(home: SandboxHealth, others: Mapping[str, SandboxHealth | None]) -> SandboxHealth:
    """What a fleet's sandbox enforces: the home's word, the sums of all, and what is wrong elsewhere, by name.

    Args:
        others: the further supervisors by name; None for one that does not answer.
    """
    answers = [health for health in others.values() if health is not None]
    everybody: Sequence[SandboxHealth] = (home, *answers)
    unmet = [f"{name}: {item}" for name, health in others.items() for item in _unmet(health)]
    is_worse = any(health is None or health.status != "ok" for health in others.values())
    return replace(
        home,
        status="degraded" if home.status == "ok" and is_worse else home.status,
        unmet=(*home.unmet, *unmet),
        mend=tuple(dict.fromkeys(mend for health in everybody for mend in health.mend)),
        active=sum(health.active for health in everybody),
        total=sum(health.total for health in everybody),
        capacity=sum(health.capacity for health in everybody),
        disk=tuple(use for health in everybody for use in health.disk),
    )


def _unmet(health: SandboxHealth | None) -> Sequence[str]:
    if health is None:
        return ("does not answer",)
    return health.unmet or (("sandbox is down",) if health.status == "down" else ())
