"""Sending a command and waiting for its owner's answer (AP-2, AP-4)."""

from __future__ import annotations

from typing import Any

from fleet.errors import IdempotencyMismatch, StoreUnavailable, from_wire
from fleet.ports import Answer, Command, Inbox
from fleet.services.planning_desk import Pending

__all__ = ["asked", "result_of", "settled"]


async def asked(inbox: Inbox, command: Command, *, timeout_s: float) -> dict[str, Any] | Pending:
    """The owner's result, or Pending when it did not decide in time. Errors of the owner arrive as themselves.

    IdempotencyMismatch when the key's stored answer is that to another request (AP-2).
    """
    await inbox.submit(command)
    answer = await inbox.answer(command.command_id, timeout_s=timeout_s)
    if answer is None:
        return Pending(command.command_id)
    if answer.request not in ("", command.request):
        key = command.command_id.partition("/")[2]
        raise IdempotencyMismatch(f"key {key!r} was used for another request: send a new one with a new key")
    return result_of(answer)


def settled(found: dict[str, Any] | Pending, name: str) -> dict[str, Any]:
    """The result; StoreUnavailable when nobody answered in the time that was given."""
    if isinstance(found, Pending):
        raise StoreUnavailable(
            f"no shard answered command {name} in time; it stays queued. Is the fleet up? See `fleet status`",
            command_id=found.command_id,
        )
    return found


def result_of(answer: Answer) -> dict[str, Any]:
    """What the owner said; its refusal is raised."""
    if answer.ok:
        return answer.result
    raise from_wire(answer.problem)
