"""The owner's hand on one stream: snapshots, the margin of its lease, and a log that went back (EV-4, EV-6, EV-19)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic_core import from_json

from fleet.events import codec
from fleet.events.envelope import Head, StoredEvent
from fleet.events.payload import Payload
from fleet.events.story import MilestoneReached, StoryParked
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import CommitUnknown, LogRegressed, OwnershipLost, StoreUnavailable, VersionConflict
from fleet.kernel.ids import CommandId, StreamId
from fleet.log.memory import MemoryEventLog, MemorySnapshotStore
from fleet.log.port import Appended, AppendRequest, Duplicate, Lease, Snapshot
from fleet.models.chat import Sampling
from fleet.models.port import AgentRequest
from fleet.owner.journal.journal import Journal
from fleet.owner.journal.steps import Work
from fleet.owner.journal.story_stream import SNAPSHOT_EVERY
from fleet.owner.tenure import Tenure
from fleet.owner.workbench import seat
from fleet.policy.runs.spec import RunSpec
from fleet.redaction.redact_model import redact_model
from fleet.story.evolve.story import fold
from fleet.story.snapshot import encode_state, state_schema
from tests.support.bench import ScriptedAgents, World
from tests.support.rules import step_policy
from tests.support.story_events import STORY, story

STREAM = StreamId.of_story(STORY)
PARKED = StoryParked(cause="stuck", detail="nothing moved")


class SpyLog(MemoryEventLog):
    """Remembers from which version each read began; `error` is raised by the next append."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[int] = []
        self.keeps_refusals = True
        self.error: Exception | None = None

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        self.reads.append(after)
        return await super().read(stream, after=after, limit=limit)

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return await super().append(request)

    async def refuse(self, stream: StreamId, *, reason: str) -> None:
        if not self.keeps_refusals:
            raise StoreUnavailable("the store does not answer")
        await super().refuse(stream, reason=reason)

    def cut(self, version: int) -> None:
        """The log loses everything after this version, as an append-only file that was cut does."""
        entry = self._streams[STREAM]
        del entry.events[version:]
        last = entry.events[-1]
        entry.head = Head(version=version, hash=last.hash, epoch=entry.head.epoch)
        entry.commands = {k: d for k, d in entry.commands.items() if d.last <= version}


async def long_story(count: int = SNAPSHOT_EVERY + 20) -> tuple[World, SpyLog]:
    """A story of more than `count` events, of which the first owner has put a snapshot."""
    log = SpyLog()
    world = World(log=log)
    await story(until="base").write_to(log)
    journal = await world.journal()
    for number in range(count - journal.state.version):
        await journal.record(f"note/{number}", MilestoneReached(milestone_id="mi-one1", name="n", ref=f"{number}"))  # type: ignore[arg-type]
    return world, log


@pytest.mark.rule("EV-6")
async def test_long_story_is_loaded_from_a_snapshot_and_its_tail():
    world, log = await long_story()
    snapshot = await world.snapshots.get(STREAM)
    assert snapshot is not None
    assert snapshot.version == SNAPSHOT_EVERY
    log.reads.clear()
    journal = await world.journal()
    assert log.reads == [SNAPSHOT_EVERY - 1]
    assert journal.state == fold(await log.read(STREAM))
    assert await journal.record("park/1", PARKED)


@pytest.mark.rule("EV-6", "EV-16")
async def test_commands_from_before_the_snapshot_are_known():
    world, _ = await long_story()
    journal = await world.journal()
    assert journal.knows(CommandId(f"{STORY}/step-1"))
    assert journal.knows(CommandId(f"{STORY}/note/0"))
    assert not journal.knows(CommandId(f"{STORY}/note/none"))
    assert not await journal.record("note/0", PARKED)


async def test_event_is_dumped_once_and_never_read_back_by_who_appends_it(monkeypatch: pytest.MonkeyPatch):
    """One look at what is recorded; the fold takes the payload that is at hand (EV-11)."""
    log = MemoryEventLog()
    world = World(log=log)
    await story(until="base").write_to(log)
    journal = await world.journal()
    dumped, read = list[object](), list[bytes]()

    def spied_dump(model: Payload) -> tuple[Payload, dict[str, Any]]:
        dumped.append(model)
        return redact_model(model)

    def spied_read(data: bytes, **options: Any) -> Any:
        read.append(data)
        return from_json(data, **options)

    monkeypatch.setattr(codec, "redact_model", spied_dump)
    monkeypatch.setattr(codec, "from_json", spied_read)
    assert await journal.record("park/1", PARKED)
    assert (dumped, read) == ([PARKED], [])
    assert journal.state == fold(await log.read(STREAM))
    assert not await journal.record("park/1", PARKED)
    assert dumped == [PARKED]


async def test_command_on_record_is_answered_from_what_is_known_and_not_sent_again():
    log = SpyLog()
    world = World(log=log)
    await story(until="base").write_to(log)
    journal = await world.journal()
    assert await journal.record("park/1", PARKED)
    log.error, before = StoreUnavailable("the log was asked"), journal.state
    log.reads.clear()
    assert not await journal.record("park/1", PARKED)
    assert (log.reads, journal.state) == ([], before)
    with pytest.raises(StoreUnavailable, match="the log was asked"):
        await journal.record("park/2", PARKED)


async def test_story_that_was_long_before_there_were_snapshots_gets_one_when_it_is_loaded():
    world, _ = await long_story()
    await world.snapshots.drop(STREAM)
    version = (await world.journal()).state.version
    found = await world.snapshots.get(STREAM)
    assert found is not None
    assert found.version == version


async def changed(world: World, **changes: object) -> None:
    found = await world.snapshots.get(STREAM)
    assert found is not None
    await world.snapshots.drop(STREAM)
    await world.snapshots.put(STREAM, replace(found, **changes))  # type: ignore[arg-type]


@pytest.mark.rule("EV-6")
@pytest.mark.parametrize(
    "changes",
    [
        {"hash": "f" * 64},
        {"schema": "story-state/0/older"},
        {"data": b"{}"},
        {"version": 5000},
        {"version": 0},
        {"data": encode_state(story(until="scored").state)},
    ],
    ids=["hash", "schema", "data", "ahead", "empty", "of-another-version"],
)
async def test_snapshot_that_the_log_does_not_confirm_is_not_used(changes: dict[str, object]):
    world, log = await long_story()
    await changed(world, **changes)
    log.reads.clear()
    journal = await world.journal()
    assert log.reads[-1] == 0
    assert journal.state == fold(await log.read(STREAM))
    assert await journal.record("park/1", PARKED)


class BrokenSnapshots(MemorySnapshotStore):
    async def get(self, stream: StreamId) -> Snapshot | None:
        raise StoreUnavailable("the cache does not answer")

    async def put(self, stream: StreamId, snapshot: Snapshot) -> None:
        raise StoreUnavailable("the cache does not answer")


@pytest.mark.rule("EV-6")
async def test_snapshots_that_cannot_be_read_or_written_disturb_nothing():
    world, _ = await long_story()
    world.snapshots = BrokenSnapshots()
    journal = await world.journal()
    assert journal.state.version == SNAPSHOT_EVERY + 20
    assert await journal.record("park/1", PARKED)
    assert journal.state.disposition == "parked"


def test_schema_of_a_snapshot_is_that_of_the_state():
    assert state_schema() == state_schema()


async def owned(**parts: object) -> tuple[World, Journal, Tenure, MemoryClock]:
    """A journal that is held within the tenure of a lease of 15 s."""
    world = World(clock=MemoryClock(), **parts)  # type: ignore[arg-type]
    await story(until="base").write_to(world.log)
    journal = await world.journal()
    clock = world.clock
    assert isinstance(clock, MemoryClock)
    tenure = Tenure(Lease(STREAM, "council:0/a1", 0, 15), clock, since_ms=clock.monotonic_ms())
    journal.hold(tenure)
    return world, journal, tenure, clock


@pytest.mark.rule("EV-4", "GL-19")
async def test_nothing_is_started_once_two_thirds_of_the_lease_have_passed_without_a_renewal():
    runs: list[object] = []
    agents = ScriptedAgents(lambda r: {"code": r.own})
    world, journal, tenure, clock = await owned(agents=agents, program=runs.append)
    clock.advance(10)
    assert not tenure.is_over
    clock.advance(0.001)
    before, effects = await world.types(), list[str]()

    async def effect(*_: object) -> dict[str, object]:
        effects.append("done")
        return {}

    work = Work(seat=seat("devops"), tool="git", op="push_branch", args={"branch": "fleet/st-one"})
    request = AgentRequest(
        kind="draft", role="devops", principal=seat("devops").principal, shared="s", sampling=Sampling(max_tokens=9)
    )
    for call in (
        lambda: journal.record("park/1", PARKED),
        lambda: journal.run("run/1", RunSpec(argv=("true",)), work),
        lambda: journal.ask("ask/1", request, work),
        lambda: journal.act("act/1", {}, work, effect),
        lambda: journal.act_unsafe("unsafe/1", {}, work, effect),
    ):
        with pytest.raises(OwnershipLost, match="could not renew its lease"):
            await call()
    assert (await world.types(), effects, runs, agents.asked) == (before, [], [], [])


@pytest.mark.rule("EV-4")
@pytest.mark.parametrize("kind", ["ask", "act", "act_unsafe"])
async def test_effect_is_not_started_when_the_margin_ended_while_its_start_was_recorded(kind: str):
    agents, effects = ScriptedAgents(lambda r: {"code": r.own}), list[str]()

    class SlowLog(MemoryEventLog):
        clock: MemoryClock | None = None

        async def append(self, request: AppendRequest) -> Appended | Duplicate:
            if self.clock is not None:
                self.clock.advance(11)
            return await super().append(request)

    async def effect(*_: object) -> dict[str, object]:
        effects.append("done")
        return {}

    log = SlowLog()
    world, journal, _, log.clock = await owned(agents=agents, log=log)
    work = Work(seat=seat("devops"), tool="git", op="push_branch", args={"branch": "fleet/st-one"})
    request = AgentRequest(
        kind="draft", role="qa", principal=seat("qa").principal, shared="s", sampling=Sampling(max_tokens=9)
    )
    calls = {
        "ask": lambda: journal.ask("ask/1", request, Work(seat=seat("qa"), tool="model", op="draft")),
        "act": lambda: journal.act("act/1", {}, work, effect),
        "act_unsafe": lambda: journal.act_unsafe("unsafe/1", {}, work, effect),
    }
    with pytest.raises(OwnershipLost):
        await calls[kind]()
    assert ((await world.types())[-1], agents.asked, effects) == ("StepStarted", [], [])


@pytest.mark.rule("EV-4")
async def test_renewal_counts_from_when_it_was_asked_for_and_a_late_one_not_at_all():
    _, journal, tenure, clock = await owned()
    clock.advance(6)
    tenure.renewed(asked_ms=clock.monotonic_ms())
    clock.advance(6)
    # Answered now, but asked for two seconds after the last good one.
    tenure.renewed(asked_ms=clock.monotonic_ms() - 4000)
    clock.advance(7)
    assert tenure.is_over
    tenure.renewed(asked_ms=clock.monotonic_ms())
    assert tenure.is_over
    with pytest.raises(OwnershipLost):
        journal.admit()


async def test_tenure_that_was_ended_stays_over():
    _, journal, tenure, _ = await owned()
    journal.admit()
    tenure.end()
    with pytest.raises(OwnershipLost):
        await journal.record("park/1", PARKED)


@pytest.mark.rule("EV-18")
async def test_lost_reply_is_not_asked_for_again_once_the_margin_has_ended():
    class Lost(MemoryEventLog):
        clock: MemoryClock | None = None
        calls = 0

        async def append(self, request: AppendRequest) -> Appended | Duplicate:
            if self.clock is None:
                return await super().append(request)
            self.calls += 1
            self.clock.advance(6)
            raise CommitUnknown("the reply was lost")

    log = Lost()
    _, journal, _, log.clock = await owned(log=log)
    with pytest.raises(CommitUnknown):
        await journal.record("park/1", PARKED)
    assert log.calls == 2


@pytest.mark.rule("LC-8")
async def test_append_on_a_stream_that_has_grown_reloads_it_so_that_it_can_be_decided_again():
    world = World()
    await story(until="base").write_to(world.log)
    journal, other = await world.journal(), await world.journal()
    await other.record("note/1", PARKED)
    with pytest.raises(VersionConflict):
        await journal.record("note/2", PARKED)
    assert journal.state == other.state
    assert await journal.record("note/2", PARKED)


async def regressed() -> tuple[World, SpyLog, Journal]:
    """An owner that knows of more than the log still holds."""
    log = SpyLog()
    world = World(log=log)
    await story(until="base").write_to(log)
    journal = await world.journal()
    await journal.record("note/1", PARKED)
    log.cut(journal.state.version - 2)
    return world, log, journal


@pytest.mark.rule("EV-19")
async def test_log_that_lost_acknowledged_events_is_refused_and_nothing_more_is_written():
    world, log, journal = await regressed()
    known = journal.state.version
    with pytest.raises(LogRegressed, match=f"version {known} was acknowledged"):
        await journal.record("note/2", PARKED)
    assert "ends before it" in (await log.refused())[STREAM]
    with pytest.raises(LogRegressed):
        await (await world.journal()).record("note/3", PARKED)
    assert (await log.head(STREAM)).version == known - 2


@pytest.mark.rule("EV-19", "LC-95")
async def test_story_whose_loss_was_accepted_goes_on_from_what_is_left():
    world, log, journal = await regressed()
    with pytest.raises(LogRegressed):
        await journal.record("note/2", PARKED)
    await log.accept_loss(STREAM)
    again = await world.journal()
    assert await again.record("note/2", PARKED)


@pytest.mark.rule("EV-19")
async def test_log_that_holds_another_history_is_refused():
    _, log, journal = await regressed()
    other = Journal(
        log=log,
        blobs=journal.blobs,
        clock=journal.clock,
        sandbox=World().sandbox,
        agents=World().agents,
        story_id=STORY,
        epoch=0,
        policy=step_policy(),
    )
    await other.load()
    for number in range(4):
        await other.record(f"other/{number}", PARKED)
    with pytest.raises(LogRegressed, match="holds another event there"):
        await journal.record("note/2", PARKED)


@pytest.mark.rule("EV-19")
async def test_owner_that_a_log_without_its_epoch_fences_finds_that_the_log_went_back():
    log = SpyLog()
    world = World(log=log)
    await story(until="base").write_to(log)
    epoch = log.raise_epoch(STREAM)
    journal = await world.journal(epoch=epoch)
    await journal.record("note/1", PARKED)
    log.cut(journal.state.version - 1)
    entry = log._streams[STREAM]  # pyright: ignore[reportPrivateUsage]
    entry.head = replace(entry.head, epoch=epoch - 1)
    with pytest.raises(LogRegressed):
        await journal.record("note/2", PARKED)
    assert STREAM in await log.refused()


async def test_owner_that_is_fenced_by_a_newer_one_has_only_lost_its_story():
    log = SpyLog()
    world = World(log=log)
    await story(until="base").write_to(log)
    journal = await world.journal()
    log.raise_epoch(STREAM)
    with pytest.raises(OwnershipLost):
        await journal.record("note/1", PARKED)
    assert await log.refused() == {}


async def test_regress_is_told_even_when_the_refusal_cannot_be_stored():
    _, log, journal = await regressed()
    log.keeps_refusals = False
    with pytest.raises(LogRegressed):
        await journal.record("note/2", PARKED)


async def test_conflict_on_an_empty_stream_is_no_regress():
    log = SpyLog()
    world = World(log=log)
    journal = await world.journal()
    log.error = VersionConflict("the stream moved", expected=0, actual=1)
    with pytest.raises(VersionConflict):
        await journal.record("note/1", PARKED)
    assert await log.refused() == {}
