"""Who is served next at a busy engine: persons before stories before batch work, and tenants in turn.

Pure: the order depends on the calls and the times given, and on nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fleet.models.chat import ChatRequest, Priority

ORDER: tuple[Priority, ...] = ("person", "story", "batch")
QUANTUM = 1024
"""Tokens that a tenant of weight 1 may take in one turn."""
AGED_AFTER_MS = 15_000
"""A call that has waited so long behind more urgent ones gets a share of the engine all the same."""
LARGEST = 256 * QUANTUM
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


class Admitted(NamedTuple):
    """The call waits. `displaced` is another one that gave up its place and has to come later."""

    ticket: Ticket
    displaced: Ticket | None = None


class Full(NamedTuple):
    """The call is refused: so many wait already, and none of them has a weaker claim."""

    waiting: int


@dataclass(slots=True)
class _Tenant:
    deficit: int
    waiting: dict[int, Ticket] = field(default_factory=dict[int, Ticket])


class _Level:
    """The calls of one priority: tenants in turn by deficit round robin (Shreedhar and Varghese, 1995)."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._ring: OrderedDict[str, _Tenant] = OrderedDict()
        self.arrivals: dict[int, Ticket] = {}

    def add(self, ticket: Ticket) -> None:
        tenant = self._ring.get(ticket.tenant)
        if tenant is None:
            tenant = self._ring[ticket.tenant] = _Tenant(self._share(ticket.tenant))
        tenant.waiting[ticket.number] = ticket
        self.arrivals[ticket.number] = ticket

    def remove(self, ticket: Ticket) -> None:
        del self.arrivals[ticket.number]
        tenant = self._ring[ticket.tenant]
        del tenant.waiting[ticket.number]
        if not tenant.waiting:
            del self._ring[ticket.tenant]

    def take(self) -> Ticket:
        """The first call of the tenant whose turn it is; there must be one."""
        while True:
            name, tenant = next(iter(self._ring.items()))
            first = next(iter(tenant.waiting.values()))
            if tenant.deficit >= first.tokens:
                self.charge(first)
                return first
            tenant.deficit += self._share(name)
            self._ring.move_to_end(name)

    def charge(self, ticket: Ticket) -> None:
        """The call is taken out, at the cost of its tenant's share."""
        self._ring[ticket.tenant].deficit -= ticket.tokens
        self.remove(ticket)

    def oldest(self) -> Ticket | None:
        return next(iter(self.arrivals.values()), None)

    def held_by(self, tenant: str) -> int:
        return len(self._ring[tenant].waiting) if tenant in self._ring else 0

    def youngest_of_the_longest(self) -> Ticket:
        longest = max(self._ring.values(), key=lambda tenant: len(tenant.waiting))
        return next(reversed(longest.waiting.values()))

    def counts(self) -> dict[str, int]:
        return {name: len(tenant.waiting) for name, tenant in self._ring.items()}

    def _share(self, tenant: str) -> int:
        return QUANTUM * max(1, self._weights.get(tenant, 1))


class FairQueue:
    """The calls that wait for one engine.

    More urgent calls go first. A less urgent one that has waited for `aged_after_ms` is passed by at most `PASSES`
    more, then it is served, the oldest first: so nothing waits for ever. Among calls of one priority the tenants take
    turns, each for its weight in tokens; the calls of one tenant keep their order.

    Args:
        max_waiting: more calls than this never wait. When all places are taken, an arrival displaces a less urgent
            call, or one of a tenant that holds at least two places more; otherwise it is refused.
        weights: shares of tenants; 1 where none is given.
    """

    def __init__(
        self, *, max_waiting: int, weights: Mapping[str, int] | None = None, aged_after_ms: int = AGED_AFTER_MS
    ) -> None:
        self._max_waiting = max_waiting
        self._aged_after_ms = aged_after_ms
        self._levels: dict[Priority, _Level] = {name: _Level(weights or {}) for name in ORDER}
        self._numbers = 0
        self._passes = 0

    def __len__(self) -> int:
        return sum(len(level.arrivals) for level in self._levels.values())

    def offer(self, tenant: str, priority: Priority, *, tokens: int, now_ms: int) -> Admitted | Full:
        """The call waits from now on, unless there is no room for it. `now_ms` never goes back."""
        displaced = None
        if len(self) >= self._max_waiting:
            displaced = self._weaker_than(tenant, priority)
            if displaced is None:
                return Full(len(self))
            self.remove(displaced)
        self._numbers += 1
        ticket = Ticket(self._numbers, tenant, priority, max(1, min(tokens, LARGEST)), now_ms)
        self._levels[priority].add(ticket)
        return Admitted(ticket, displaced)

    def take(self, *, now_ms: int) -> Ticket | None:
        """The call to serve next, which waits no longer; None when none waits."""
        level = next((level for level in self._levels.values() if level.arrivals), None)
        if level is None:
            return None
        aged = self._aged(now_ms, besides=level)
        if aged is not None and self._passes >= PASSES:
            self._passes = 0
            self._levels[aged.priority].charge(aged)
            return aged
        self._passes = self._passes + 1 if aged is not None else 0
        return level.take()

    def remove(self, ticket: Ticket) -> None:
        """The call waits no longer: it was ended or ran out of time. It must be waiting."""
        self._levels[ticket.priority].remove(ticket)

    def counts(self) -> dict[tuple[Priority, str], int]:
        """How many calls wait, by priority and tenant."""
        return {
            (name, tenant): count for name, level in self._levels.items() for tenant, count in level.counts().items()
        }

    def _aged(self, now_ms: int, *, besides: _Level) -> Ticket | None:
        """The oldest less urgent call, if it has waited for long."""
        oldest = [level.oldest() for level in self._levels.values() if level is not besides]
        first = min((ticket for ticket in oldest if ticket is not None), key=lambda t: t.number, default=None)
        return first if first is not None and now_ms - first.arrived_ms >= self._aged_after_ms else None

    def _weaker_than(self, tenant: str, priority: Priority) -> Ticket | None:
        for name in reversed(ORDER[ORDER.index(priority) + 1 :]):
            if self._levels[name].arrivals:
                return self._levels[name].youngest_of_the_longest()
        level = self._levels[priority]
        if not level.arrivals:
            return None
        candidate = level.youngest_of_the_longest()
        return candidate if level.held_by(candidate.tenant) > level.held_by(tenant) + 1 else None


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
