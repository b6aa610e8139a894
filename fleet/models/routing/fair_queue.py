"""Who is served next at a busy engine: persons before stories before batch work, and tenants in turn.

Pure: the order depends on the calls and the times given, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fleet.models.chat import ChatRequest, Priority

ORDER: tuple[Priority, ...] = ("person", "story", "batch")
AGED_AFTER_MS = 15_000
"""A call that has waited so long behind more urgent ones gets a share of the engine all the same."""
LARGEST = 262_144
"""A larger call counts as one of so many tokens."""
PASSES = 3
"""So many calls may pass an aged one; then it is served. A person waits for one more call at most by this."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One call that waits."""

    number: int
    """In order of arrival."""
    tenant: str
    priority: Priority
    tokens: int
    """Estimate of prompt and reply together, from 1 to `LARGEST`."""
    arrived_ms: int
    finish: float
    """Where its tenant's share ends with it: the lowest of a priority is served first."""


class Admitted(NamedTuple):
    """The call waits. `displaced` is another one that gave up its place and has to come later."""

    ticket: Ticket
    displaced: Ticket | None = None


class Full(NamedTuple):
    """The call is refused: so many wait already, and none of them has a weaker claim."""

    waiting: int


class FairQueue:
    """The calls that wait for one engine.

    More urgent calls go first. A less urgent one that has waited for `aged_after_ms` is passed by at most `PASSES`
    more, then it is served, the oldest first: so nothing waits for ever. Among calls of one priority the tenants take
    turns, each for its weight in tokens; the calls of one tenant keep their order.

    Args:
        max_waiting: more calls than this never wait. When all places are taken, an arrival displaces a less urgent
            call, or one of a tenant that holds at least two places more; otherwise it is refused.
        weights: shares of tenants; 1 where none is given.

    Source: self-clocked fair queueing (Golestani, 1994).
    """

    def __init__(
        self, *, max_waiting: int, weights: Mapping[str, int] | None = None, aged_after_ms: int = AGED_AFTER_MS
    ) -> None:
        self._max_waiting = max_waiting
        self._aged_after_ms = aged_after_ms
        self._weights = weights or {}
        self._lines: dict[tuple[Priority, str], dict[int, Ticket]] = {}
        """The calls of each tenant in one priority; never an empty line."""
        self._served = dict.fromkeys(ORDER, 0.0)
        """The finish of the call that was served last: who comes now begins there."""
        self._numbers = 0
        self._passes = 0

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def offer(self, tenant: str, priority: Priority, *, tokens: int, now_ms: int) -> Admitted | Full:
        """The call waits from now on, unless there is no room for it. `now_ms` never goes back."""
        displaced = None
        if len(self) >= self._max_waiting:
            displaced = self._weaker_than(tenant, priority)
            if displaced is None:
                return Full(len(self))
            self.remove(displaced)
        self._numbers += 1
        tokens = max(1, min(tokens, LARGEST))
        line = self._lines.setdefault((priority, tenant), {})
        begin = _youngest(line).finish if line else self._served[priority]
        finish = begin + tokens / max(1, self._weights.get(tenant, 1))
        ticket = line[self._numbers] = Ticket(self._numbers, tenant, priority, tokens, now_ms, finish)
        return Admitted(ticket, displaced)

    def take(self, *, now_ms: int) -> Ticket | None:
        """The call to serve next, which waits no longer; None when none waits."""
        heads = [next(iter(line.values())) for line in self._lines.values()]
        first = min(heads, key=_turn, default=None)
        if first is None:
            return None
        behind = [ticket for ticket in heads if ticket.priority != first.priority]
        oldest = min(behind, key=lambda ticket: ticket.number, default=None)
        is_aged = oldest is not None and now_ms - oldest.arrived_ms >= self._aged_after_ms
        if oldest is not None and is_aged and self._passes >= PASSES:
            self._passes = 0
            self.remove(oldest)
            return oldest
        self._passes = self._passes + 1 if is_aged else 0
        self._served[first.priority] = first.finish
        self.remove(first)
        return first

    def remove(self, ticket: Ticket) -> None:
        """The call waits no longer: it was ended or ran out of time. It must be waiting."""
        line = self._lines[ticket.priority, ticket.tenant]
        del line[ticket.number]
        if not line:
            del self._lines[ticket.priority, ticket.tenant]

    def _weaker_than(self, tenant: str, priority: Priority) -> Ticket | None:
        """The youngest call of the longest line of the least urgent ones, where it has to give up its place."""
        lowest = max((name for name, _ in self._lines), key=ORDER.index)
        if ORDER.index(lowest) < ORDER.index(priority):
            return None
        line = max((line for (name, _), line in self._lines.items() if name == lowest), key=len)
        own = self._lines.get((priority, tenant), {})
        return _youngest(line) if lowest != priority or len(line) > len(own) + 1 else None


def _turn(ticket: Ticket) -> tuple[int, float, int]:
    return ORDER.index(ticket.priority), ticket.finish, ticket.number


def _youngest(line: dict[int, Ticket]) -> Ticket:
    return line[next(reversed(line))]


def estimate_call(request: ChatRequest) -> int:
    """An upper guess of the tokens of a call: a third of the prompt's letters, and the whole reply bound."""
    return sum(len(message.content) for message in request.messages) // 3 + request.sampling.max_tokens


def fair_shares(sizes: Sequence[int], room: int) -> list[int]:
    """How much of each may stay, in the unit of `sizes`: small ones stay whole, large ones share what that leaves."""
    shares, left = [0] * len(sizes), room
    for done, (size, index) in enumerate(sorted((size, index) for index, size in enumerate(sizes))):
        shares[index] = min(size, left // (len(sizes) - done))
        left -= shares[index]
    return shares
