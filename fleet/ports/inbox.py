"""Port: commands on their way to the owner of a stream, and the answers (EV-7, EV-10, EV-17)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleet.digest import digest_of
from fleet.ids import CommandId, Digest, Principal, StreamId

__all__ = ["Answer", "Command", "Delivery", "Inbox"]


@dataclass(frozen=True, slots=True)
class Command:
    """One command for the owner of `stream`: `name` is imperative (`create_story`), `body` is its JSON arguments."""

    command_id: CommandId
    stream: StreamId
    name: str
    principal: Principal
    body: dict[str, Any] = field(default_factory=dict[str, Any])
    trace_id: str = ""
    """Trace of the caller, which the events that the command records carry (AP-8)."""

    @property
    def request(self) -> Digest:
        """Digest of what is asked, without the id it is asked under; the same before and after the queue (AP-2)."""
        # No canonical JSON: a body may hold what the owner is still to refuse, such as floats.
        return digest_of(json.dumps([self.stream, self.name, self.body], sort_keys=True).encode())


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
    request: str = ""
    """`Command.request` of the command that was answered."""


class Inbox(Protocol):
    """A durable queue with one group of consumers, the council shards. Delivery is at least once."""

    async def submit(self, command: Command) -> None:
        """The command is queued and will be delivered; a second submit of an answered command id does nothing."""
        ...

    async def take(self, consumer: str, *, timeout_s: float) -> list[Delivery]:
        """Commands for this consumer, those that a dead one left for 30 s included; empty when the time is over.

        A command that comes again comes alone, so that whoever dies of it takes no other command along. One that was
        delivered `MAX_ATTEMPTS` times and never answered is set aside instead: one dead letter, and a problem that
        names it as the answer (EV-22).
        """
        ...

    async def defer(self, delivery: Delivery) -> None:
        """The command comes again soon and this delivery does not count: an outage kept it from being handled (EV-23).

        Nothing happens when the delivery was acknowledged or taken over meanwhile.
        """
        ...

    async def acknowledge(self, delivery: Delivery, answer: Answer) -> None:
        """The answer is stored for 24 h and the command will not be delivered again."""
        ...

    async def answer(self, command_id: CommandId, *, timeout_s: float) -> Answer | None:
        """The stored answer, waiting at most `timeout_s` for it; None when there is none yet."""
        ...
