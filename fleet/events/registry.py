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

__all__ = ["EVENT_TYPES"]


def _collect(*families: ModuleType) -> dict[str, type[Payload]]:
    exported = (getattr(family, name) for family in families for name in family.__all__)
    return {cls.type: cls for cls in exported if isinstance(cls, type) and issubclass(cls, Payload)}


EVENT_TYPES: Mapping[str, type[Payload]] = MappingProxyType(
    _collect(
        story, approval, plan, task, project, step, workspace, decision, context, council, budget, report, platform
    )
)
"""Every event type by name, in the catalogue's order of families. A type that is not in it is never written."""
