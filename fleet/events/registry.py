"""The closed list of event types."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from fleet.events import (
    approval,
    budget,
    context,
    council,
    decision,
    plan,
    platform,
    project,
    report,
    step,
    story,
    task,
    workspace,
)
from fleet.events.payload import Payload


def _collect(*families: ModuleType) -> dict[str, type[Payload]]:
    collected: dict[str, type[Payload]] = {}
    for family in families:
        # A class without a type of its own is the base of several.
        types = [
            c for c in vars(family).values() if isinstance(c, type) and issubclass(c, Payload) and "type" in vars(c)
        ]
        for cls in sorted(types, key=lambda each: each.type):
            assert collected.setdefault(cls.type, cls) is cls, f"two classes store {cls.type}"
    return collected


EVENT_TYPES: Mapping[str, type[Payload]] = MappingProxyType(
    _collect(
        story, approval, plan, task, project, step, workspace, decision, context, council, budget, report, platform
    )
)
"""Every event type by name, in the catalogue's order of families. A type that is not in it is never written."""
