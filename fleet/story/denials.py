"""Calls that are refused again and again: a task that asks a third time for the same is stuck (RT-67, MB-40). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.events import Payload, StepStarted, StuckDetected, ToolDenied

__all__ = ["MAX_DENIALS", "stuck_on_denial"]

MAX_DENIALS = 3
"""Identical refusals of one task within the last 20 of its steps."""
_WINDOW = 20


def stuck_on_denial(before: Sequence[Payload], denied: ToolDenied) -> StuckDetected | None:
    """What is to be recorded beside this refusal; None while it may be chance, or when it was recorded already.

    Identical are refusals of one call (tool, operation, arguments) to one principal in one task. A refused call starts
    no step, so the record names none.

    Args:
        before: everything that the story has on record, in order.
    """
    task = denied.task_id
    if task is None or denied.call_digest is None:
        return None
    if any(isinstance(p, StuckDetected) and (p.task_id, p.pattern) == (task, "repeated_denial") for p in before):
        return None  # each level at most once per task and pattern (MB-41)
    steps = [p for p in before if isinstance(p, StepStarted | ToolDenied) and p.task_id == task]
    same = [p for p in steps[-(_WINDOW - 1) :] if isinstance(p, ToolDenied) and _is_same(p, denied)]
    if len(same) + 1 < MAX_DENIALS:
        return None
    return StuckDetected(task_id=task, pattern="repeated_denial", steps=(), level=1)


def _is_same(one: ToolDenied, other: ToolDenied) -> bool:
    return (one.principal, one.call_digest) == (other.principal, other.call_digest)
