"""The layout of `fleet/`: which modules are pure rules, and which are ports, services, adapters or outer packages."""

from __future__ import annotations

from pathlib import PurePath

OUTER = frozenset({"bench", "cli", "config", "desk", "extensions", "owner", "projects", "remote", "web", "wiring"})
"""Packages whose every module may wait, read and write."""

PORT = frozenset({"port"})
SERVICE = frozenset({"service"})
ADAPTERS = frozenset(
    """
    backends egress engines files folders kit kubernetes local memory neo4j providers redis rules sinks sqlite
    tokenizers weight_sources
    """.split()  # noqa: SIM905 - a list of words reads better than quotes
)
"""`rules` holds what the adapters of a port do alike."""

APART = ("fleet/sandbox/inside/", "fleet/kernel/clock", "fleet/kernel/collector", "fleet/knowledge/syntax")
"""Programs that run in the sandbox or a process of their own, where nothing of ours is installed; clocks; the garbage
collector."""


def is_pure(path: str) -> bool:
    """Whether a module of `fleet/` only maps values to values.

    Args:
        path: relative to the root of the repository, such as `fleet/story/plan.py`.
    """
    package, *inner = PurePath(path).with_suffix("").parts[1:]
    first = inner[0] if inner else ""
    return package not in OUTER and first not in PORT | SERVICE | ADAPTERS and not path.startswith(APART)


def part_of(path: str) -> str:
    """The part that coverage is asked of: the rules of a package (`story`), or all else in it (`models.adapters`)."""
    package = PurePath(path).with_suffix("").parts[1]
    return package if is_pure(path) or package in OUTER else f"{package}.adapters"
