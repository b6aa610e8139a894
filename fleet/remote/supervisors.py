"""The supervisors of a fleet as a caller sees them: which there are, and which one a run goes to (RC-26)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from fleet.kernel.errors import FleetError, SandboxUnavailable, ToolTimeout
from fleet.kernel.ids import RunKey
from fleet.policy.runs.spec import LiveFolder
from fleet.remote.nodes import NodeWatch
from fleet.remote.resolver import ActorResolver
from fleet.sandbox.service.spread import node_of, ranked

T = TypeVar("T")

_ANSWER_S = 3.0
_MOST_SEATS = 10_000


class SearchPatience(NamedTuple):
    """How often a caller looks for supervisors, and how long it waits for one; in seconds."""

    fresh_s: float = 3.0
    """Between two questions to the home which there are."""
    again_s: float = 0.5
    """Between two calls of one that does not answer."""
    verdict_s: float = 60.0
    """In which Ray has to say whether a node that is silent is dead; until then its runs wait for it."""


class Supervisors:
    """The home's supervisor and those of further nodes, as the home names them.

    The home is asked every few seconds at most. While it does not answer, those that it named last are taken, but for
    those that Ray knows to be gone; at first the home alone.
    """

    def __init__(
        self,
        resolver: ActorResolver,
        home: str,
        watch: NodeWatch | None = None,
        *,
        patience: SearchPatience | None = None,
    ) -> None:
        self._resolver, self._home, self._watch = resolver, home, watch or NodeWatch()
        self._patience = patience or SearchPatience()
        self._names, self._asked = (home,), float("-inf")
        self._seats: dict[str, str] = {}
        """Supervisors of work sessions by the name of the session, the one that was asked last coming last."""
        self._asking = asyncio.Lock()  # one question at a time; who waits gets the same answer

    async def names(self) -> tuple[str, ...]:
        """All of them, the home first."""
        async with self._asking:
            if time.monotonic() - self._asked > self._patience.fresh_s:
                self._names, self._asked = await self._asked_home(), time.monotonic()
            return self._names

    async def _asked_home(self) -> tuple[str, ...]:
        try:
            names = await self._resolver.call(self._home, "supervisors", timeout_s=_ANSWER_S, found_within_s=0)
        except (SandboxUnavailable, ToolTimeout):
            names = [name for name in self._names if not await self._watch.is_gone(name)]
        return tuple(names)

    async def at_one(
        self,
        key: RunKey,
        ask: Callable[[str], Awaitable[T]],
        *,
        is_bound: bool = False,
        folder: LiveFolder | None = None,
    ) -> T:
        """What the supervisor answers that the key belongs to; another one's answer once its node is known to be dead.

        One that died on a node that lives starts again there, and takes up what it had begun: it is waited for. So is
        the home's where it has another node to go to.

        Args:
            is_bound: it is the home's whatever the key.
            folder: of a work session, whose runs go where its folder is as long as that node lives.

        Raises:
            SandboxUnavailable: as `ask`; or the supervisor does not answer, and Ray could not say in time what became
                of it. On a fleet of one node that is said at once.
        """
        chosen, until = "", 0.0
        while True:
            names = (self._home,) if is_bound else await self.names()
            left = [name for name in names if not await self._watch.is_gone(name)]
            if chosen not in left:
                chosen, until = await self._seat(folder, left) if folder else ranked(key, left)[0], 0.0
            try:
                return await ask(chosen)
            except SandboxUnavailable as error:
                until = until or time.monotonic() + self._patience.verdict_s
                is_its_own = error.details.get("actor") != chosen
                if is_its_own or time.monotonic() > until or not await self._comes_back(chosen):
                    raise
            await asyncio.sleep(self._patience.again_s)

    async def _seat(self, folder: LiveFolder, names: Sequence[str]) -> str:
        """The one of these supervisors that has the folder of the session; where none has, the session's own one."""
        session = f"{folder.story} {folder.session}"
        seat = self._seats.pop(session, "")
        if seat not in names:
            order = ranked(session, names)
            has = await asyncio.gather(*(self._keeps(name, folder) for name in order)) if len(order) > 1 else ()
            seat = next((name for name, here in zip(order, has, strict=False) if here), order[0])
        self._seats[session] = seat
        if len(self._seats) > _MOST_SEATS:
            del self._seats[next(iter(self._seats))]
        return seat

    async def _keeps(self, name: str, folder: LiveFolder) -> bool:
        try:
            return await self._resolver.call(name, "keeps", folder, timeout_s=_ANSWER_S, found_within_s=0)
        except FleetError:
            return False

    async def _comes_back(self, name: str) -> bool:
        return node_of(name) is not None or await self._watch.has_several()

    async def at_any(self, key: RunKey, ask: Callable[[str], Awaitable[T]]) -> T:
        """The first answer of a supervisor, beginning with the one that the key belongs to. Raises as `ask`."""
        *before, last = ranked(key, await self.names())
        for name in before:
            try:
                return await ask(name)
            except SandboxUnavailable as error:
                if error.details.get("actor") != name:
                    raise
        return await ask(last)


class RayPeers:
    """Implements the port Peers for the supervisors of this fleet.

    Args:
        home: the one that moves from node to node, and has no other name for it.
    """

    def __init__(self, resolver: ActorResolver, home: str, watch: NodeWatch | None = None) -> None:
        self._resolver, self._home, self._watch = resolver, home, watch or NodeWatch()

    async def has_dropped(self, supervisor: str, key: RunKey) -> bool:
        """See the port."""
        if supervisor != self._home and node_of(supervisor) is None:
            return False
        if await self._watch.is_gone(supervisor):
            return True
        try:
            return not await self._resolver.call(supervisor, "holds", key, timeout_s=_ANSWER_S, found_within_s=0)
        except FleetError:
            return False
