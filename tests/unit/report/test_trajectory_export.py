"""Trajectories as rows: everything that a story recorded lands somewhere, without secrets, and always the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest

from fleet.audit.service.stream_export import commands_of, export_stream
from fleet.audit.service.whole_log import WholeLog
from fleet.events.budget import UsageAdjusted
from fleet.events.codec import encode
from fleet.events.council import CouncilCancelled, CouncilUndecided
from fleet.events.envelope import Head, StoredEvent
from fleet.events.project import StoryTombstoned
from fleet.events.registry import EVENT_TYPES
from fleet.events.step import StepOutcomeUnknown, StepStarted
from fleet.events.story import AcceptanceCriterion, RepoSource, StoryCreated, StoryStarted
from fleet.events.task import TreeMerged
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import LogCorrupted, StoreFull, StoryNotFound
from fleet.kernel.ids import CommandId, EntityId, StepId, StoryId, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import AppendRequest
from fleet.models.chat import ChatMessage, ChatRequest, Sampling, TokenUsage, ToolUse
from fleet.models.port import AgentAnswer
from fleet.owner.journal.step_records import failed_step, finished_ask
from fleet.report.memory import MemoryTrajectorySink
from fleet.report.service.trajectories.export import ExportProgress, ExportSummary, TrajectoryExport
from fleet.report.service.trajectories.rows import TrajectoryRow
from fleet.report.usage import sum_usage, usage_rows
from fleet.secrets.service import KnownSecrets
from fleet.trees.memory import MemoryBlobStore
from tests.support.damaged import DAMAGED, DamagedLog
from tests.support.event_samples import samples
from tests.support.story_events import BASE, PO, STORY, StoryLog, story

SECRET = "sk-proj-" + "Zb81Qm44Tn07Kd52Wp93Xr60"
ROW_OF = {
    "StepStarted": "steps",
    "StepFinished": "steps",
    "ToolDenied": "steps",
    "CouncilOpened": "councils",
    "CouncilDecided": "councils",
    "TestsFiltered": "councils",
    "DraftReceived": "contributions",
    "DraftFailed": "contributions",
    "TestsAuthored": "contributions",
    "CritiqueReceived": "contributions",
    "RepairReceived": "contributions",
    "EstimateCast": "contributions",
    "EvidenceRecorded": "evidence",
    "BallotCast": "ballots",
    "BallotRefused": "ballots",
    "StoryCreated": "stories",
}
"""Where an event is, beside the table of all events."""
LAYER = f"layer:python:{'5a' * 12}"
TOOLCHAINS = [("python", None, "python"), ("python", LAYER, LAYER), ("env:/opt/env", None, "env:/opt/env")]


class World:
    """A log, its blobs, and exports of them."""

    def __init__(self) -> None:
        self.log, self.blobs, self.sink = MemoryEventLog(), MemoryBlobStore(), MemoryTrajectorySink()
        self.told: list[ExportProgress] = []

    async def export(self, *stories: StoryId) -> ExportSummary:
        self.sink = MemoryTrajectorySink()
        export = TrajectoryExport(
            log=WholeLog(self.log, self.blobs),
            blobs=self.blobs,
            sink=self.sink,
            secrets=KnownSecrets(),
            progress=self.told.append,
        )
        return await export.run(stories)

    def rows(self, table: str) -> Sequence[Any]:
        return self.sink.rows[table]


async def world_of(log: StoryLog) -> World:
    world = World()
    await log.write_to(world.log)
    return world


def every_event_of_a_story() -> StoryLog:
    """One of each type that a story may hold, in an order in which each has what it belongs to."""
    found = samples()
    first = ("StoryCreated", "CouncilOpened", "StepStarted")
    rest = [t for t in found if t not in first and EVENT_TYPES[t].group not in ("project", "platform")]
    last = ("CouncilDecided", "CouncilUndecided", "CouncilCancelled")
    order = [*first, *(t for t in rest if t not in last), *last]
    log = StoryLog(StoryId("st-all7"))
    for name in order:
        log.add(found[name])
    return log


async def test_every_event_is_a_row_and_every_type_of_a_trajectory_is_in_its_own_table_too() -> None:
    log = every_event_of_a_story()
    world = await world_of(log)
    summary = await world.export()
    assert [row.type for row in world.rows("events")] == [event.type for event in log.events]
    assert {row.type for row in world.rows("events")} >= set(ROW_OF)
    for name, table in ROW_OF.items():
        assert world.rows(table), f"{name} is in no row of {table}"
    assert {row.kind for row in world.rows("contributions")} == {
        "draft",
        "draft_failed",
        "tests",
        "critique",
        "repair",
        "estimate",
    }
    assert {row.is_counted for row in world.rows("ballots")} == {True, False}
    assert "denied" in {row.outcome for row in world.rows("steps")}
    assert summary.events == len(log.events)
    for event, row in zip(log.events, world.rows("events"), strict=True):
        body = json.loads(event.body)
        del body["meta"]
        assert json.loads(row.body) == body


@pytest.mark.parametrize(("named", "packages", "shown"), TOOLCHAINS)
async def test_story_shows_the_toolchain_that_its_runs_had(named: str, packages: str | None, shown: str) -> None:
    log = story(only=("created", "scored"))
    log.add(StoryStarted(repo=RepoSource(provider="local", url="/srv/text"), toolchain=named, record=False))
    log.add(TreeMerged(base_digest=BASE, result_digest=BASE, commit="0a" * 20, toolchain=packages))
    world = await world_of(log)
    await world.export()
    assert [row.toolchain for row in world.rows("stories")] == [shown]


async def test_delivered_story_has_its_outcome_and_the_sums_of_the_ledger() -> None:
    log = story(until="closed")
    world = await world_of(log)
    await world.export()
    (row,) = world.rows("stories")
    (used,) = sum_usage(usage_rows(log.decoded), by="story")
    assert (row.outcome, row.state, row.events) == ("delivered", log.state.state, log.version)
    assert row.last_hash == log.events[-1].hash
    mine = {name: value for name, value in asdict(used).items() if name != "key"}
    assert {name: getattr(row, name) for name in mine} == mine
    assert [c.text for c in row.acceptance_criteria]
    assert row.missing_blobs > 0


async def test_corrections_of_usage_are_in_the_sums() -> None:
    log = story(until="created").step("s")
    log.add(UsageAdjusted(step_id=StepId("s"), delta={"tokens": 50, "output_tokens": 20, "calls": 1}, source="e"))
    world = await world_of(log)
    await world.export()
    (row,) = world.rows("stories")
    (used,) = sum_usage(usage_rows(log.decoded), by="story")
    assert (row.calls, row.tokens_in, row.tokens_out) == (used.calls, used.tokens_in, used.tokens_out)
    assert row.tokens_unpriced == used.tokens_unpriced


async def asked(world: World, log: StoryLog, name: str, *, secret: str = "") -> None:
    """A model call on record with its blobs, as owners record it."""
    use = ToolUse(id="1", name="fs_read", arguments=json.dumps({"path": "a.py", "note": secret}))
    messages = (
        ChatMessage(role="system", content=f"You write code. {secret}"),
        ChatMessage(role="assistant", content="", tool_uses=(use,)),
        ChatMessage(role="tool", content=f"x = 1 {secret}", tool_use_id="1"),
    )
    request = ChatRequest(messages=messages, sampling=Sampling(seed=7), json_schema={"type": "object"})
    answer = AgentAnswer(
        value={"text": f"done {secret}", "ratio": 0.5},
        prompt=await world.blobs.put(canonical_json(request)),
        reply=await world.blobs.put(f'{{"text":"done {secret}"}}'.encode()),
        usage=TokenUsage(tokens_in=9, tokens_out=4, tokens_cached=3),
        engine="e",
        model="m",
        revision="1",
        latency_ms=8,
        cost_microusd=5,
    )
    begun = log.step(name).decoded_payloads("StepStarted")[-1]
    assert isinstance(begun, StepStarted)
    del log.events[-1]
    log.add(await finished_ask(world.blobs, StepId(name), answer, seed=7))


async def test_model_call_has_its_conversation_its_reply_and_its_request() -> None:
    world, log = World(), story(until="created")
    await asked(world, log, "s")
    await log.write_to(world.log)
    summary = await world.export()
    (step,) = world.rows("steps")
    assert (step.outcome, step.calls, step.tokens_cached, step.cost_microusd, step.seed) == ("succeeded", 1, 3, 5, 7)
    assert json.loads(step.result) == {"text": "done ", "ratio": 0.5}
    assert set(json.loads(step.request)) == {"sampling", "json_schema"}
    said = [(m.position, m.role, m.content, m.is_reply) for m in world.rows("messages")]
    assert said == [
        (0, "system", "You write code. ", False),
        (1, "assistant", "", False),
        (2, "tool", "x = 1 ", False),
        (3, "assistant", '{"text":"done "}', True),
    ]
    assert [u.name for u in world.rows("messages")[1].tool_uses] == ["fs_read"]
    assert world.rows("messages")[2].tool_use_id == "1"
    assert summary.missing_blobs == 0


async def test_replies_that_were_of_no_use_are_told_apart_from_the_one_that_counts() -> None:
    from fleet.kernel.errors import ReplyMalformed

    world, log = World(), story(until="created").step("s")
    del log.events[-1]
    kept = await world.blobs.put(b"not JSON")
    attempts = [{"engine": "e", "code": "reply_malformed", "reply": str(kept)}, {"engine": "e", "code": "timeout"}]
    attempts.append({"engine": "e", "code": "reply_malformed", "reply": "no digest"})
    log.add(await failed_step(world.blobs, StepId("s"), ReplyMalformed("no JSON", attempts=attempts)))
    await log.write_to(world.log)
    await world.export()
    assert [(m.content, m.is_reply, m.is_used) for m in world.rows("messages")] == [
        ("not JSON", True, False),
        (None, True, False),
    ]
    (step,) = world.rows("steps")
    assert (step.outcome, step.error_code) == ("failed", "reply_malformed")


async def test_steps_that_are_not_over_are_told_so() -> None:
    begun = story(until="created").step("a").decoded_payloads("StepStarted")[0]
    assert isinstance(begun, StepStarted)
    log = story(until="created").add(begun, begun.model_copy(update={"step_id": StepId("b")}))
    log.add(StepOutcomeUnknown(step_id=StepId("b"), sent_digest=begun.request_digest, sent_at=1))
    log.add(begun.model_copy(update={"step_id": StepId("c")}), begun.model_copy(update={"step_id": StepId("c")}))
    opened = samples()["CouncilOpened"]
    log.add(opened)
    world = await world_of(log)
    await world.export()
    found = [(row.step_id, row.outcome) for row in world.rows("steps")]
    assert found == [("c", "unknown"), ("a", "unfinished"), ("b", "unknown"), ("c", "unfinished")]
    assert [row.outcome for row in world.rows("councils")] == ["open"]
    assert world.rows("stories")[0].outcome == "open"


def texts(rows: Sequence[TrajectoryRow]) -> str:
    return repr(rows)


@pytest.mark.rule("CX-60")
async def test_no_secret_leaves_wherever_it_stood() -> None:
    world = World()
    created = samples()["StoryCreated"]
    assert isinstance(created, StoryCreated)
    log = StoryLog()
    criterion = AcceptanceCriterion(ac_id=EntityId("ac-one1"), text=f"it uses {SECRET} well")
    log.add(
        created.model_copy(
            update={"title": f"use {SECRET}", "description": SECRET, "acceptance_criteria": (criterion,)}
            | {"constraints": {"api_key": SECRET, SECRET: 1}}
        )
    )
    await asked(world, log, "s", secret=SECRET)
    denied = samples()["ToolDenied"].model_copy(update={"reason": f"{SECRET} is in it"})
    drafted, critique = samples()["DraftReceived"], samples()["CritiqueReceived"]
    blob = await world.blobs.put(canonical_json({"files": {"a.py": f"KEY = '{SECRET}'"}}))
    log.add(denied, drafted.model_copy(update={"candidate_digest": blob}))
    log.add(critique.model_copy(update={"critique_digest": await world.blobs.put(SECRET.encode())}))
    log.add(samples()["BallotCast"].model_copy(update={"reasons_digest": blob}))
    decided = samples()["CouncilDecided"].model_copy(
        update={"minority_report_digest": await world.blobs.put(f"he said {SECRET}".encode())}
    )
    log.add(samples()["CouncilOpened"], decided)
    await log.write_to(world.log)
    await world.export()
    everything = [row for table in world.sink.rows.values() for row in table]
    assert SECRET not in texts(everything)
    assert texts(everything).count("[REDACTED:PROVIDER]") >= 12
    for row in everything:
        for name, value in asdict(row).items():
            if (
                name in ("body", "result", "request", "content", "reasons")
                and value
                and type(row).__name__ != "MessageRow"
            ):
                json.loads(value)


async def test_same_log_gives_the_same_rows_in_the_order_of_stories_and_versions() -> None:
    world = World()
    for name in ("st-b2", "st-a1"):
        log = StoryLog(StoryId(name))
        log.add(samples()["StoryCreated"]).step("s")
        await log.write_to(world.log)
    first = await world.export()
    rows = world.sink.rows
    again = await world.export()
    assert world.sink.rows == rows
    assert first == again
    assert [row.story_id for row in rows["stories"]] == ["st-a1", "st-b2"]
    assert [(p.story_id, p.number, p.stories, p.events) for p in world.told[:2]] == [
        ("st-a1", 1, 2, 3),
        ("st-b2", 2, 2, 3),
    ]
    await world.export(StoryId("st-b2"))
    assert {row.story_id for row in world.rows("events")} == {"st-b2"}


async def test_council_without_a_winner_says_how_it_ended() -> None:
    opened, undecided, cancelled = (samples()[f"Council{name}"] for name in ("Opened", "Undecided", "Cancelled"))
    again = opened.model_copy(update={"council_id": EntityId("co-two2")})
    log = StoryLog().add(samples()["StoryCreated"], opened, samples()["TestsFiltered"], undecided, again)
    log.add(cancelled.model_copy(update={"council_id": EntityId("co-two2")}), cancelled)
    world = await world_of(log)
    await world.export()
    first, second = world.rows("councils")
    assert isinstance(undecided, CouncilUndecided)
    assert isinstance(cancelled, CouncilCancelled)
    assert (first.outcome, first.reason, first.winner) == ("undecided", undecided.reason, None)
    assert first.decision_hash == undecided.decision_hash
    assert first.tests_kept
    assert (second.outcome, second.reason, second.tally) == ("cancelled", cancelled.reason, None)


async def test_edited_story_is_shown_as_it_was_in_the_end() -> None:
    created, edited = samples()["StoryCreated"], samples()["StoryEdited"]
    changes = {"title": "New", "tags": ["x"], "acceptance_criteria": [{"ac_id": "ac-two2", "text": "two"}]}
    log = StoryLog().add(created, edited.model_copy(update={"changes": changes}))
    log.add(samples()["StoryParked"], samples()["StoryUnparked"], samples()["StoryCancelled"])
    world = await world_of(log)
    await world.export()
    (row,) = world.rows("stories")
    assert (row.title, row.tags, [c.text for c in row.acceptance_criteria]) == ("New", ("x",), ["two"])
    assert (row.outcome, row.parked_for) == ("cancelled", None)
    assert row.ended_ms == log.events[-1].ts_ms


async def test_unknown_stories_are_all_named_and_nothing_is_written() -> None:
    world = await world_of(story(until="created"))
    with pytest.raises(StoryNotFound, match="st-none1, st-none2"):
        await world.export(StoryId("st-none2"), STORY, StoryId("st-none1"))
    assert world.sink.rows == {}


async def test_event_that_cannot_be_read_ends_the_export_of_that_story_and_nothing_is_left() -> None:
    class Broken(MemoryEventLog):
        async def read(self, stream: StreamId, **options: Any) -> list[StoredEvent]:
            raise LogCorrupted("an entry does not verify")

    world = World()
    world.log = Broken()
    await story(until="created").write_to(world.log)
    with pytest.raises(LogCorrupted):
        await world.export(STORY)
    assert world.sink.rows == {}


async def test_story_that_cannot_be_read_is_left_out_of_an_export_of_all() -> None:
    world = World()
    world.log = DamagedLog()
    await story(until="created").write_to(world.log)
    await world.log.alter()
    done = await world.export()
    assert (done.stories, list(done.damaged)) == (1, [DAMAGED])
    assert {row.story_id for row in world.rows("events")} == {STORY}


async def test_full_disk_ends_the_export_and_nothing_is_left() -> None:
    class Full(MemoryTrajectorySink):
        is_abandoned = False

        def add(self, row: TrajectoryRow) -> None:
            raise StoreFull("no room")

        def abandon(self) -> None:
            self.is_abandoned = True

    world, sink = await world_of(story(until="created")), Full()
    export = TrajectoryExport(log=WholeLog(world.log), blobs=world.blobs, sink=sink, secrets=KnownSecrets())
    with pytest.raises(StoreFull):
        await export.run()
    assert sink.is_abandoned


async def test_long_story_is_read_page_by_page_and_its_rows_leave_at_once() -> None:
    asked: list[int | None] = []
    held: list[int] = []

    class Paged(MemoryEventLog):
        async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
            asked.append(limit)
            held.append(len(sink.taken))
            return await super().read(stream, after=after, limit=limit)

    class Counting(MemoryTrajectorySink):
        taken: list[TrajectoryRow] = []

        def add(self, row: TrajectoryRow) -> None:
            self.taken.append(row)
            super().add(row)

    log, paged, sink = StoryLog().add(samples()["StoryCreated"]), Paged(), Counting()
    for number in range(600):
        log.step(f"s-{number}")
    await log.write_to(paged)
    asked.clear()
    held.clear()
    export = TrajectoryExport(log=WholeLog(paged), blobs=MemoryBlobStore(), sink=sink, secrets=KnownSecrets())
    done = await export.run([STORY])
    assert done.events == 1201
    assert asked == [500, 500, 201]
    assert held[0] == 0
    assert 500 < held[1] < held[2]


async def test_archived_story_is_exported_from_its_blob() -> None:
    log = story(until="closed")
    world = World()
    kept = await world.blobs.put(export_stream(log.events, commands_of(log.events)))
    tombstone = StoryTombstoned(
        story_id=STORY, export_digest=kept, last_version=log.version, last_hash=log.events[-1].hash
    )
    await world.log.append(
        AppendRequest(
            stream=StreamId("project:pr-default"),
            events=[encode(tombstone)],
            expected=Head(),
            command_id=CommandId("archive/st-slug7"),
            actor=PO,
            ts_ms=1,
            closes=False,
        )
    )
    summary = await world.export(STORY)
    assert (summary.stories, summary.events) == (1, log.version)
    assert world.rows("stories")[0].outcome == "delivered"


async def test_fleet_without_stories_gives_empty_tables() -> None:
    world = World()
    summary = await world.export()
    assert (summary.stories, summary.events) == (0, 0)
    assert all(rows == [] for rows in world.sink.rows.values())
