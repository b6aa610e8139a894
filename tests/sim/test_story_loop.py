"""The story loop from the measured base to the gate of the design, killed at every append (PL-48, CN-122).

The design phase needs role agents alone, so the whole loop runs in memory: council, ballots, derivation, gate.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fleet.events.budget import BudgetScope
from fleet.events.codec import decode
from fleet.events.council import CouncilDecided
from fleet.events.envelope import StoredEvent
from fleet.events.plan import TaskDerivationFailed
from fleet.events.story import StoryParked, StoryUnparked
from fleet.events.task import TreeMerged
from fleet.events.workspace import WorkspaceReported, WorkspaceSummary
from fleet.kernel.errors import InvalidInput, ReplyMalformed, VersionConflict
from fleet.kernel.ids import CommandId, EntityId, Principal, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import Appended, AppendRequest, Command, Duplicate
from fleet.models.memory import ScriptedChatModel
from fleet.models.port import AgentRequest
from fleet.owner.story_owner import StoryOwner
from fleet.story.commands.councils import council_id_of
from fleet.story.evolve.story import fold
from fleet.story.plan import plan, waiting_for
from fleet.story.state import StoryState
from fleet.trees.tree import FileEntry, encode_tree
from tests.support.acting import Acted, acting_policy, calling, role_agent, toolbox
from tests.support.bench import ScriptedAgents, World
from tests.support.rules import fsm
from tests.support.story_events import AC_1, AC_2, STORY, digest, story


class Crash(BaseException):
    """The process ended here; no handler of ours may survive it."""


class MortalLog(MemoryEventLog):
    """Ends the process at one append: before it is stored, or after."""

    def __init__(self, *, at: int = 0, stored: bool = True) -> None:
        super().__init__()
        self.at, self.stored, self.count, self.is_armed = at, stored, 0, False

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        if not self.is_armed:
            return await super().append(request)
        self.count += 1
        if self.count != self.at:
            return await super().append(request)
        if self.stored:
            await super().append(request)
        raise Crash


def proposal(request: AgentRequest) -> dict[str, Any]:
    criteria = [{"ac": ac, "how": "by folding letters"} for ac in (AC_1, AC_2)]
    path = "text/slug.py" if request.role != "devops" else "text/other.py"
    return {
        "summary": f"Fold with a table, as {request.role} sees it",
        "interface": "slugify(title: str) -> str",
        "path": path,
        "criteria": criteria,
        "risk": "none",
    }


def ballot(request: AgentRequest) -> dict[str, Any]:
    labels = [label for label in "ABCDE" if f"Candidate {label}:" in request.own]
    votes = [{"label": label, "vote": "approve", "reason": "it fits"} for label in labels]
    # The better candidate is known by its text, so that both orders of asking agree.
    best_first = sorted(labels, key=lambda label: request.own.split(f"Candidate {label}:")[1].strip()[:80])
    return {"votes": votes, "ranking": best_first}


TASKS = {
    "tasks": [
        {
            "title": "Write slugify",
            "description": "Fold umlauts, lower the case, join words with hyphens.",
            "role": "developer",
            "kind": "code",
            "estimated_hours": 2,
            "priority": 1,
            "keywords": ["slug", "text"],
            "depends_on": [],
            "acceptance_refs": [AC_1, AC_2],
            "paths": ["text/slug.py"],
        }
    ]
}


def team(request: AgentRequest) -> dict[str, Any] | BaseException:
    match request.kind:
        case "propose":
            return proposal(request)
        case "critique":
            return {"severity": "minor", "problem": "digits are not mentioned"}
        case "vote":
            return ballot(request)
        case "derive":
            return TASKS
        case _:
            return AssertionError(f"nobody was to be asked for {request.kind}")


async def world_of(log: MortalLog, answer: Any = team) -> World:
    """A story in DESIGN whose base tree is measured."""
    world = World(log=log, agents=ScriptedAgents(answer))
    blob = await world.blobs.put(b"def old():\n    return 1\n")
    files = {"text/slug.py": FileEntry("100644", blob), "text/other.py": FileEntry("100644", blob)}
    tree = await world.blobs.put(encode_tree(files))
    written = story(until="scope").add(
        TreeMerged(base_digest=tree, result_digest=tree, commit="0a" * 20),
        WorkspaceReported(
            run_id=EntityId("rn-base1"),
            tree_digest=tree,
            report_digest=digest("report"),
            complete=True,
            summary=WorkspaceSummary(build_ok=True),
        ),
    )
    await written.write_to(log)
    log.is_armed = True
    return world


async def work(world: World) -> StoryState:
    """What the story came to: it waits for a person, or is parked."""
    owner = StoryOwner(await world.bench())
    task = asyncio.create_task(owner.run())
    try:
        for _ in range(20_000):
            await asyncio.sleep(0)
            if task.done():
                task.result()
            state = owner.bench.state
            if state.park is not None or waiting_for(state, fsm(), now_ms=owner.bench.now_ms) is not None:
                return state
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    raise AssertionError("the story neither waits nor is parked")


def outcome(state: StoryState) -> dict[str, Any]:
    """What must not depend on crashes: decisions, tasks, ballots and hash."""
    return {
        "state": state.state,
        "decisions": {k: (d.status, d.proposed.title) for k, d in state.decisions.items()},
        "tasks": {k: t.task.title for k, t in state.tasks.items()},
        "councils": {k: (c.status, c.winner, sorted(c.deliberation.ballots)) for k, c in state.councils.items()},
        "plan": state.plan.proposal.plan_digest if state.plan else None,
        "gates": sorted(a.request.gate for a in state.approvals.values()),
    }


async def test_story_is_designed_planned_and_put_to_the_po():
    world = await world_of(MortalLog())
    state = await work(world)
    assert waiting_for(state, fsm(), now_ms=world.clock.now_ms()) == "gate approve_design waits for role po"
    (council,) = state.councils.values()
    held = council.deliberation
    assert (council.status, len(held.versions()), len(held.ballots)) == ("DECIDED", 3, 4)
    assert [t.task.title for t in state.tasks.values()] == ["Write slugify"]
    assert len(world.agents.asked) == len(set(world.agents.asked))


@pytest.mark.rule("CN-125", "CN-22")
async def test_voters_see_neither_authors_nor_votes_and_proposers_nothing_of_each_other():
    world = await world_of(MortalLog())
    await work(world)
    asked = world.agents.requests
    assert {r.kind for r in asked} == {"propose", "critique", "vote", "derive"}
    for request in asked:
        if request.kind == "propose":
            assert "Fold with a table" not in request.shared + request.own
        if request.kind == "vote":
            assert "agent:" not in request.own
            assert "approve" not in request.own


@pytest.mark.rule("CN-61", "CN-126")
async def test_tokens_of_the_council_are_those_of_its_calls():
    world = await world_of(MortalLog())
    state = await work(world)
    payloads = [decode(e) for e in await world.events()]
    (decided,) = [p for p in payloads if isinstance(p, CouncilDecided)]
    calls = [r for r in world.agents.requests if r.kind in ("propose", "critique", "vote")]
    assert sum(decided.tokens.values()) == 15 * len(calls)
    assert state.calls == len(world.agents.requests)


def ledgers(events: list[StoredEvent], state: StoryState) -> dict[str, list[int]]:
    """Tokens spent by the story and each of its councils, as an owner that begins with each prefix would have them."""
    scopes = [BudgetScope(kind="story", id=STORY), *(BudgetScope(kind="council", id=c) for c in state.councils)]
    found: dict[str, list[int]] = {scope.id: [] for scope in scopes}
    folded: StoryState | None = None
    for event in events:
        folded = fold([event], folded)
        assert folded is not None
        for scope in scopes:
            found[scope.id].append(folded.budgets.usage(scope).totals().spent.tokens)
    return found


@pytest.mark.rule("CN-120", "MB-24")
@pytest.mark.parametrize("at", range(4, 40, 6))
async def test_ledger_of_a_council_never_falls_wherever_its_owner_dies(at: int):
    world = await world_of(MortalLog(at=at))
    with pytest.raises(Crash):
        await work(world)
    before = await world.events()
    state = await work(world)
    events = await world.events()
    assert len(before) < len(events)
    for scope, spent in ledgers(events, state).items():
        assert spent == sorted(spent), f"{scope} after {at} appends"
        assert spent[-1] > 0
    assert {STORY, *state.councils} == ledgers(events, state).keys()


@pytest.mark.rule("PL-48", "CN-122", "CN-121")
@pytest.mark.parametrize("stored", [True, False], ids=["after", "before"])
async def test_owner_killed_at_any_append_comes_to_the_same_end_and_pays_no_recorded_answer_twice(stored: bool):
    plain = MortalLog()
    expected = outcome(await work(await world_of(plain)))
    assert plain.count > 30
    for at in range(1, plain.count + 1):
        log = MortalLog(at=at, stored=stored)
        world = await world_of(log)
        with pytest.raises(Crash):
            await work(world)
        state = fold(await world.events())
        assert state is not None
        recorded = {f"{STORY}/{k}" for k, s in state.steps.items() if s.finished is not None}
        before = len(world.agents.asked)
        assert outcome(await work(world)) == expected, at
        assert not recorded & set(world.agents.asked[before:]), at


@pytest.mark.rule("CN-61")
async def test_members_that_look_around_first_come_to_the_same_design_and_it_counts_as_drafting():
    expected = outcome(await work(await world_of(MortalLog())))
    world = await world_of(MortalLog())
    look = calling("files__read", path="text/other.py")
    model = ScriptedChatModel.when((lambda r: len(r.messages) < 3, look), (lambda r: True, "old() returns 1"))
    world.agents = Acted(team, agent=role_agent(model))
    world.policy = acting_policy("architect", "devops")
    world.tools = toolbox(world.blobs, world.sandbox, world.clock)
    state = await work(world)
    assert outcome(state) == expected
    proposals = {r.role: r.own for r in world.agents.requests if r.kind == "propose"}
    assert {role for role, own in proposals.items() if "def old()" in own} == {"architect", "devops"}
    assert len(world.agents.acted) == 4
    (decided,) = [p for p in map(decode, await world.events()) if isinstance(p, CouncilDecided)]
    spent = sum(s.finished.cost.tokens_in + s.finished.cost.tokens_out for s in state.steps.values() if s.finished)
    assert sum(decided.tokens.values()) <= spent
    assert decided.tokens["draft"] > 3 * 15


@pytest.mark.rule("PL-49", "CN-121")
async def test_replanning_every_prefix_of_the_recorded_story_gives_the_same_intents():
    world = await world_of(MortalLog())
    await work(world)
    events = await world.events()
    state: StoryState | None = None
    for cut, event in enumerate(events, start=1):
        state = fold([event], state)
        assert state is not None
        if cut % 5 == 0:
            again = fold(events[:cut])
            assert again == state
            assert plan(state, fsm(), now_ms=1) == plan(again, fsm(), now_ms=1)


@pytest.mark.rule("PL-23")
async def test_plan_that_stays_invalid_parks_with_every_problem():
    def useless(request: AgentRequest) -> Any:
        return {"tasks": []} if request.kind == "derive" else team(request)

    world = await world_of(MortalLog(), useless)
    state = await work(world)
    assert state.park is not None
    assert state.park.cause == "derivation_failed"
    (failed,) = [p for p in map(decode, await world.events()) if isinstance(p, TaskDerivationFailed)]
    assert (failed.attempts, failed.requires_manual_review) == (3, True)
    assert {p.attempt for p in failed.problems} == {1, 2, 3}


@pytest.mark.rule("CN-24", "CN-56")
async def test_council_without_a_single_draft_is_undecided_and_escalated():
    def silent(request: AgentRequest) -> Any:
        return ReplyMalformed("no usable reply") if request.kind == "propose" else team(request)

    world = await world_of(MortalLog(), silent)
    state = await work(world)
    (council,) = state.councils.values()
    assert (council.status, council.reason) == ("UNDECIDED", "no_valid_candidate")
    assert state.park is not None
    assert state.park.cause == "council_undecided"
    assert "council_escalation" in [a.request.gate for a in state.approvals.values()]


async def told(world: World, name: str, body: dict[str, Any], who: str = "user:ana") -> None:
    """A person says this of the story."""
    command_id = CommandId(f"{who}/{name}-{len(await world.events())}")
    await world.commands.handle(
        await world.bench(), Command(command_id, StreamId.of_story(STORY), name, Principal(who), body)
    )


@pytest.mark.rule("CN-56", "LC-95", "LC-72")
async def test_granted_escalation_asks_a_new_council_the_same_and_lets_the_story_go_on():
    is_back: list[bool] = []

    def silent_first(request: AgentRequest) -> Any:
        return team(request) if is_back or request.kind != "propose" else ReplyMalformed("no usable reply")

    world = await world_of(MortalLog(), silent_first)
    first = next(iter((await work(world)).councils))
    # Once more without anybody to answer: no consent makes a winner.
    await told(world, "approve", {"gate": "council_escalation", "notes": "somebody looks at the models"})
    state = await work(world)
    assert [c.status for c in state.councils.values()] == ["UNDECIDED", "UNDECIDED"]
    assert state.park is not None
    assert state.park.cause == "council_undecided"
    is_back.append(True)
    await told(world, "approve", {"gate": "council_escalation"})
    state = await work(world)
    assert [c.status for c in state.councils.values()] == ["UNDECIDED", "UNDECIDED", "DECIDED"]
    assert (state.park, waiting_for(state, fsm(), now_ms=world.clock.now_ms())) == (
        None,
        "gate approve_design waits for role po",
    )
    notes = [p.note for p in map(decode, await world.events()) if isinstance(p, StoryUnparked)]
    assert notes[0] == "somebody looks at the models"
    assert "the same is asked of another one" in notes[1]
    assert first not in notes[1]


@pytest.mark.rule("CN-56", "LC-95")
async def test_rejected_escalation_leaves_the_story_with_the_person():
    def silent(request: AgentRequest) -> Any:
        return ReplyMalformed("no usable reply") if request.kind == "propose" else team(request)

    world = await world_of(MortalLog(), silent)
    await work(world)
    await told(world, "reject", {"gate": "council_escalation", "reason": "I decide it myself"})
    state = await work(world)
    assert (len(state.councils), state.disposition) == (1, "parked")
    await told(world, "unpark", {"note": "once more as it stands"})
    state = await work(world)
    assert (len(state.councils), state.disposition) == (1, "parked")


def silent(request: AgentRequest) -> Any:
    return ReplyMalformed("no usable reply") if request.kind == "propose" else team(request)


@pytest.mark.rule("CN-56", "LC-73", "LC-95")
async def test_escalation_that_nobody_answered_is_asked_again_when_the_story_goes_on():
    world = await world_of(MortalLog(), silent)
    (council,) = (await work(world)).councils.values()
    for number in (2, 3, 4):
        world.clock.advance(25 * 3600)
        await told(world, "unpark", {"note": "somebody is there again"})
        state = await work(world)
        if state.park is not None and state.park.cause == "approval_unanswered":
            await told(world, "unpark", {"note": "somebody is there again"})
            state = await work(world)
        asked = [a for a in state.approvals.values() if a.request.gate == "council_escalation"]
        assert [a.status for a in asked] == ["expired"] * (number - 1) + ["requested"]
        assert [a.request.attempt for a in asked] == [*range(1, number + 1)]
        assert {a.request.subject.id for a in asked} == {council.opened.council_id}
        assert state.park is not None
        assert state.park.cause == "council_undecided"
    parks = [p.cause for p in map(decode, await world.events()) if isinstance(p, StoryParked)]
    assert parks.count("approval_unanswered") == 1
    await told(world, "approve", {"gate": "council_escalation"})
    assert len((await work(world)).councils) == 2


@pytest.mark.rule("AP-76", "CN-56", "LC-73", "LC-95")
async def test_person_asks_again_about_a_council_that_was_turned_down():
    world = await world_of(MortalLog(), silent)
    await work(world)
    with pytest.raises(VersionConflict, match="is requested"):
        await told(world, "request_approval", {"gate": "council_escalation"})
    await told(world, "reject", {"gate": "council_escalation", "reason": "I decide it myself"})
    assert len((await work(world)).councils) == 1
    await told(world, "request_approval", {"gate": "council_escalation"})
    state = await work(world)
    (last,) = [a for a in state.approvals.values() if a.status == "requested"]
    assert (last.request.attempt, last.request.requested_by, state.disposition) == (2, "user:ana", "parked")
    await told(world, "approve", {"gate": "council_escalation"})
    assert len((await work(world)).councils) == 2


@pytest.mark.rule("AP-76")
async def test_nothing_is_asked_about_councils_while_none_is_undecided():
    world = await world_of(MortalLog(), team)
    await work(world)
    with pytest.raises(InvalidInput, match="came to no decision"):
        await told(world, "request_approval", {"gate": "council_escalation"})


@pytest.mark.rule("CN-111", "CN-47", "CN-113")
async def test_ballots_that_stay_broken_are_refused_and_give_no_quorum():
    def broken(request: AgentRequest) -> Any:
        if request.kind != "vote":
            return team(request)
        return {"votes": [], "ranking": []}

    world = await world_of(MortalLog(), broken)
    state = await work(world)
    (council,) = state.councils.values()
    assert (council.status, council.reason, dict(council.deliberation.ballots)) == ("UNDECIDED", "no_quorum", {})
    assert len(council.deliberation.refused) == 4


# A council that a person asked for, beside the story's own work.

ASKED = Command(
    command_id=CommandId("user:ana/which-way"),
    stream=StreamId.of_story(STORY),
    name="request_council",
    principal=Principal("user:ana"),
    body={
        "story_id": STORY,
        "task_description": "Which way of folding umlauts should the slugs use?",
        "role": "architect",
        "output_kind": "text",
        "constraints": {"rubric": [{"name": "readers", "text": "Links stay readable"}]},
        "budget": {"tokens": 50_000, "wall_s": 600},
    },
)
ADVICE = council_id_of(ASKED.stream, ASKED.command_id)


def advising_team(request: AgentRequest) -> Any:
    if request.kind != "advise":
        return team(request)
    addressed = [{"ref": ac, "how": "by folding letters"} for ac in (AC_1, AC_2)]
    return {"summary": f"Way {request.variant}", "text": f"Fold by table {request.variant}.", "addressed": addressed}


async def asked_and_worked(world: World) -> StoryState:
    """What the story came to after the request, which is sent as often as it takes."""
    await world.commands.handle(await world.bench(), ASKED)
    return await work(world)


def without_advice(state: StoryState) -> dict[str, Any]:
    """The outcome of the story's own work."""
    found = outcome(state)
    return found | {"councils": {k: v for k, v in found["councils"].items() if k != ADVICE}}


@pytest.mark.rule("CN-13", "PL-48")
async def test_council_on_request_leaves_the_storys_own_work_as_it_would_have_been():
    expected = outcome(await work(await world_of(MortalLog())))
    state = await asked_and_worked(await world_of(MortalLog(), advising_team))
    assert state.councils[ADVICE].status == "DECIDED"
    assert without_advice(state) == expected


@pytest.mark.rule("CN-13", "CN-122", "AP-2")
@pytest.mark.parametrize("stored", [True, False], ids=["after", "before"])
async def test_owner_killed_in_a_council_on_request_comes_to_the_same_record(stored: bool):
    plain = MortalLog()
    whole = await asked_and_worked(await world_of(plain, advising_team))
    expected, record = outcome(whole), whole.councils[ADVICE]
    last = max(n for n, e in enumerate(await plain.read(ASKED.stream), 1) if ADVICE.encode() in e.body)
    assert last > 40
    # Every third append is enough here: each kind of step of a council comes several times.
    for at in range(1, plain.count + 1, 3):
        log = MortalLog(at=at, stored=stored)
        world = await world_of(log, advising_team)
        with pytest.raises(Crash):
            await asked_and_worked(world)
        before = fold(await world.events())
        assert before is not None
        recorded = {f"{STORY}/{k}" for k, s in before.steps.items() if s.finished is not None}
        count = len(world.agents.asked)
        after = await asked_and_worked(world)
        assert outcome(after) == expected, at
        assert after.councils[ADVICE].said == record.said, at
        assert not recorded & set(world.agents.asked[count:]), at


@pytest.mark.rule("LC-97", "PL-12")
@pytest.mark.parametrize(
    ("way", "body"),
    [
        ("reject", {"gate": "approve_design"}),
        ("reject", {"gate": "approve_design", "back": "reject_design"}),
        ("transition", {"event": "reject_design"}),
    ],
    ids=["no", "no-and-back", "back"],
)
async def test_design_that_a_person_turned_down_goes_back_with_the_reason_and_another_comes(
    way: str, body: dict[str, str]
):
    world = await world_of(MortalLog(), team)
    first = await work(world)
    assert first.plan is not None
    asked = len(world.agents.asked)
    await told(world, way, {**body, "reason": "it would do with `one` file less"})
    state = await work(world)
    assert waiting_for(state, fsm(), now_ms=world.clock.now_ms()) == "gate approve_design waits for role po"
    assert state.plan is not None
    assert (state.plan.proposal.plan_id != first.plan.proposal.plan_id, state.plan.status) == (True, "ADOPTED")
    assert state.plans[first.plan.proposal.plan_id].status == "REJECTED"
    assert [c.status for c in state.design_councils()] == ["DECIDED", "DECIDED"]
    assert {t.state for k, t in state.tasks.items() if k in first.tasks} == {"cancelled"}
    assert {t.state for k, t in state.tasks.items() if k not in first.tasks} == {"todo"}
    new = world.agents.asked[asked:]
    assert any("draft" in step for step in new)
    shown = [r.shared + r.own for r in world.agents.requests[asked:] if r.kind in ("propose", "derive")]
    assert {"propose", "derive"} <= {r.kind for r in world.agents.requests[asked:]}
    assert all("was turned down" in text and "it would do with `one` file less" in text for text in shown)
    events = [e.type for e in await world.events()]
    at = events.index("PlanRejected")
    assert events[at + 1] == "DecisionRejected"
