"""Port: commands on their way to the owner of a stream, and the answers (EV-7, EV-10, EV-17)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from fleet.ids import CommandId, Principal, StreamId

__all__ = ["Answer", "Command", "Delivery", "Inbox"]


@dataclass(frozen=True, slots=True)
class Command:
    """One command for the owner of `stream`: `name` is imperative (`create_story`), `body` is its JSON arguments."""

    command_id: CommandId
    stream: StreamId
    name: str
    principal: Principal
    body: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Delivery:
    """A command handed to one consumer; acknowledge it with `receipt` once its answer is stored."""

    receipt: str
    command: Command
    attempts: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a command: `result`, or the wire form of an error in `problem`."""

    ok: bool
    result: dict[str, Any] = field(default_factory=dict[str, Any])
    problem: dict[str, Any] = field(default_factory=dict[str, Any])


class Inbox(Protocol):
    """A durable queue with one group of consumers, the council shards. Delivery is at least once."""

    async def submit(self, command: Command) -> None:
        """The command is queued and will be delivered; a second submit of an answered command id does nothing."""
        ...

    async def take(self, consumer: str, *, timeout_s: float) -> list[Delivery]:
        """Commands for this consumer, those that a dead one left for 30 s included; empty when the time is over."""
        ...

    async def acknowledge(self, delivery: Delivery, answer: Answer) -> None:
        """The answer is stored for 24 h and the command will not be delivered again."""
        ...

    async def answer(self, command_id: CommandId, *, timeout_s: float) -> Answer | None:
        """The stored answer, waiting at most `timeout_s` for it; None when there is none yet."""
        ...
