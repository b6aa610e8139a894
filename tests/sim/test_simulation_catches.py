"""The simulation is no better than what it can see: stores that break their contracts are all found out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from fleet.events.envelope import Head
from fleet.forge.port import Commit
from fleet.graph.changes import Cursor, GraphChange
from fleet.graph.memory.graph import MemoryGraph
from fleet.kernel.ids import StreamId
from fleet.log.memory import MemoryEventLog, MemoryLeaseStore
from fleet.log.port import Appended, AppendRequest, Duplicate, Lease
from fleet.log.rules import chain
from tests.support.faulty_ports import Fault
from tests.support.sim_faults import OneFault
from tests.support.sim_judge import expected_ends, judge
from tests.support.sim_stores import CountingForge, Stores
from tests.support.sim_world import LEAN, Scenario, simulate
from tests.support.simulation import SimLoop

SEEDS = range(150)


def finding(stores: Callable[[SimLoop], Stores]) -> str:
    """The first thing that the oracle says against runs over these stores."""
    for seed in SEEDS:
        outcome = simulate(seed, replace(LEAN, heals_in_s=120.0), stores=stores)
        try:
            judge(outcome, expected_ends(LEAN))
        except AssertionError as error:
            return str(error)
    return f"nothing was found in {len(SEEDS)} seeds"


class ForgetfulLog(MemoryEventLog):
    """Acknowledges one append that it never stores."""

    count = 0

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        self.count += 1
        if self.count != 20:
            return await super().append(request)
        events = chain(request)
        head = Head(version=events[-1].version, hash=events[-1].hash, epoch=request.expected.epoch)
        return Appended(head=head, events=events)


class RewritingLog(MemoryEventLog):
    """Stores another body than the one that it acknowledged."""

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        outcome = await super().append(request)
        if isinstance(outcome, Appended) and outcome.events[-1].version > 10:
            told = replace(outcome.events[-1], body=b"{}")
            return Appended(head=outcome.head, events=(*outcome.events[:-1], told))
        return outcome


class OpenLog(MemoryEventLog):
    """Looks at no epoch: what a former owner still sends is written behind what the new one wrote."""

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        head = await self.head(request.stream)
        if request.expected.epoch == head.epoch or request.command_id in await self.commands(request.stream):
            return await super().append(request)
        expected = Head(version=head.version, hash=head.hash, epoch=request.expected.epoch)
        stream = self._streams[request.stream]  # pyright: ignore[reportPrivateUsage]
        return self._store(replace(request, expected=expected), stream)  # pyright: ignore[reportPrivateUsage]


class RepeatingLog(MemoryEventLog):
    """Does not know the commands that it has stored already."""

    count = 0

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        outcome = await super().append(request)
        if not isinstance(outcome, Duplicate):
            return outcome
        self.count += 1
        again = replace(
            request, expected=await self.head(request.stream), command_id=f"{request.command_id}#{self.count}"
        )
        return await super().append(again)


class GenerousLeases(MemoryLeaseStore):
    """Grants what another owner holds, under the same epoch."""

    _log: MemoryEventLog

    async def claim(self, stream: StreamId, owner: str, *, ttl_s: int) -> Lease:
        epoch = (await self._log.head(stream)).epoch
        if epoch == 0:
            return await super().claim(stream, owner, ttl_s=ttl_s)
        return Lease(stream=stream, owner=owner, epoch=epoch, ttl_s=ttl_s)


class ImpatientLeases(MemoryLeaseStore):
    """Takes a lease for ended as soon as somebody else asks."""

    async def claim(self, stream: StreamId, owner: str, *, ttl_s: int) -> Lease:
        self._held.pop(stream, None)  # pyright: ignore[reportPrivateUsage]
        return await super().claim(stream, owner, ttl_s=ttl_s)


class LossyGraph(MemoryGraph):
    """Moves the cursor and forgets the changes, now and then."""

    count = 0

    async def apply(
        self,
        stream: StreamId,
        changes: Sequence[GraphChange],
        *,
        expected: Cursor,
        reached: Cursor,
        projection: int | None = None,
    ) -> bool:
        self.count += 1
        kept = changes if self.count % 5 else ()
        return await super().apply(stream, kept, expected=expected, reached=reached, projection=projection)


@pytest.mark.parametrize(
    ("stores", "rules"),
    [
        (lambda loop: Stores(loop, log=ForgetfulLog()), ("O1",)),
        (lambda loop: Stores(loop, log=RewritingLog()), ("O1",)),
        (lambda loop: Stores(loop, log=OpenLog()), ("O3",)),
        (lambda loop: Stores(loop, log=RepeatingLog()), ("O3", "O4")),
        (lambda loop: Stores(loop, leases=GenerousLeases), ("O3",)),
        (lambda loop: Stores(loop, leases=ImpatientLeases), ("O3",)),
        (lambda loop: Stores(loop, graph=LossyGraph()), ("O5",)),
    ],
    ids=["forgets", "rewrites", "unfenced", "repeats", "two-owners", "impatient", "lossy-graph"],
)
@pytest.mark.rule("EV-3", "EV-14", "EV-15")
@pytest.mark.timeout(600)
def test_store_that_breaks_its_contract_is_caught(stores: Callable[[SimLoop], Stores], rules: tuple[str, ...]) -> None:
    found = finding(stores)
    assert found.startswith(rules), found


class RepeatingForge(CountingForge):
    """Moves a branch each time it is told to, whatever is there."""

    async def publish(self, url: str, branch: str, commit: Commit, *, expected_old: str | None) -> None:
        self.moved[branch] += 1


@pytest.mark.rule("RC-51", "PL-43")
def test_receiver_that_commits_a_keyed_effect_twice_is_caught() -> None:
    scenario = Scenario("point-branch", stories=("branch",), shards=1, projectors=1, faults_until_s=0.0)

    def calls(fault: Fault | None, k: int) -> tuple[OneFault, str]:
        made: list[OneFault] = []

        def faults(loop: SimLoop) -> OneFault:
            made.append(OneFault(loop, k, fault))
            return made[0]

        outcome = simulate("point", scenario, stores=lambda loop: Stores(loop, forge=RepeatingForge), faults=faults)
        try:
            judge(outcome, None)
        except AssertionError as error:
            return made[0], str(error)
        return made[0], ""

    undisturbed, found = calls(None, -1)
    assert found == ""
    _, found = calls(Fault.LOST_REPLY, undisturbed.calls.index("forge.publish"))
    assert found.startswith("O4"), found
