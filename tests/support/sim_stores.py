"""The stores of a simulated run, as they are: what the oracle looks at, and what counts on the other side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from fleet.forge.memory import MemoryForge
from fleet.forge.port import Commit, StagedRepository
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.port import DecisionGraph
from fleet.kernel.ids import CommandId, StreamId
from fleet.log.memory import (
    MemoryDeadLetters,
    MemoryEventLog,
    MemoryFeed,
    MemoryFeedGroup,
    MemoryInbox,
    MemoryLeaseStore,
    MemorySnapshotStore,
)
from fleet.log.port import Lease, LeaseStore
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.sandbox.memory import MemoryRunLedger
from fleet.trees.memory import MemoryBlobStore
from tests.support import sim_story
from tests.support.bench import ScriptedAgents
from tests.support.simulation import SimClock, SimLoop


class Stores:
    """The stores of one run, as they are: what the oracle looks at."""

    def __init__(
        self,
        loop: SimLoop,
        *,
        log: MemoryEventLog | None = None,
        leases: Callable[[MemoryEventLog, SimClock], LeaseStore] = MemoryLeaseStore,
        graph: DecisionGraph | None = None,
        forge: Callable[[MemoryBlobStore], CountingForge] | None = None,
    ) -> None:
        self.clock = SimClock(loop)
        self.log = log or MemoryEventLog()
        self.blobs = MemoryBlobStore()
        self.leases = WatchedLeases(leases(self.log, self.clock), self.clock)
        self.inbox = MemoryInbox(self.clock, abandoned_after_s=10.0)
        self.letters = MemoryDeadLetters(self.clock, inbox=self.inbox)
        self.feed = MemoryFeed(self.log, self.clock)
        self.hints = MemoryFeedGroup(self.log, self.clock, abandoned_after_s=10.0)
        self.ledger = MemoryRunLedger(self.clock)
        self.snapshots = MemorySnapshotStore(self.log)
        self.graph: DecisionGraph = graph or MemoryGraph()
        self.agents = CountingAgents(self.log)
        self.forge = (forge or CountingForge)(self.blobs)
        self.forge.add_repository(sim_story.REPOSITORY, branches={"main": sim_story.BASE_COMMIT})


class WatchedLeases:
    """A lease store whose grants are looked at: `broken` names every one that another owner's lease stood against."""

    def __init__(self, inner: LeaseStore, clock: SimClock) -> None:
        self._inner, self._clock = inner, clock
        self._owners: dict[tuple[StreamId, int], str] = {}
        self._lives: dict[StreamId, tuple[str, int]] = {}
        self.broken: list[str] = []

    async def claim(self, stream: StreamId, owner: str, *, ttl_s: int) -> Lease:
        """See `LeaseStore.claim`."""
        lease = await self._inner.claim(stream, owner, ttl_s=ttl_s)
        now_ms = self._clock.now_ms()
        before, until_ms = self._lives.get(stream, ("", 0))
        if until_ms > now_ms and before.split("/")[0] != owner.split("/")[0]:
            self.broken.append(f"O3: {stream} was granted to {owner} while the lease of {before} lived")
        if self._owners.setdefault((stream, lease.epoch), owner) != owner or lease.epoch < 1:
            first = self._owners[stream, lease.epoch]
            self.broken.append(f"O3: epoch {lease.epoch} of {stream} was granted to {first} and to {owner}")
        self._lives[stream] = (owner, now_ms + ttl_s * 1000)
        return lease

    async def renew(self, lease: Lease) -> None:
        """See `LeaseStore.renew`."""
        await self._inner.renew(lease)
        self._lives[lease.stream] = (lease.owner, self._clock.now_ms() + lease.ttl_s * 1000)

    async def renew_all(self, leases: Sequence[Lease]) -> frozenset[StreamId]:
        """See `LeaseStore.renew_all`."""
        lost = await self._inner.renew_all(leases)
        for lease in leases:
            if lease.stream not in lost:
                self._lives[lease.stream] = (lease.owner, self._clock.now_ms() + lease.ttl_s * 1000)
        return lost

    async def release(self, lease: Lease) -> None:
        """See `LeaseStore.release`."""
        await self._inner.release(lease)
        if self._lives.get(lease.stream, ("", 0))[0] == lease.owner:
            del self._lives[lease.stream]


class CountingAgents(ScriptedAgents):
    """The scripted team; `paid_again` lists requests that came although their answer was on record."""

    def __init__(self, log: MemoryEventLog) -> None:
        super().__init__(sim_story.answer)
        self._log = log
        self.paid_again: list[str] = []

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        stream = StreamId.of_story(request_id.partition("/")[0])
        if CommandId(f"{request_id}/finish") in await self._log.commands(stream):
            self.paid_again.append(request_id)
        return await super().ask(request, request_id=request_id, timeout_s=timeout_s)


class CountingForge(MemoryForge):
    """A forge that counts how often each branch really moved."""

    def __init__(self, blobs: MemoryBlobStore) -> None:
        super().__init__(blobs)
        self.moved: Counter[str] = Counter()

    async def publish(self, url: str, branch: str, commit: Commit, *, expected_old: str | None) -> None:
        """See `Forge.publish`."""
        before = self.branches(url).get(branch)
        await super().publish(url, branch, commit, expected_old=expected_old)
        self.moved[branch] += self.branches(url).get(branch) != before

    async def stage(self, url: str, ref: str | None = None) -> StagedRepository:
        """See `Forge.stage`."""
        return await super().stage(url, ref)
