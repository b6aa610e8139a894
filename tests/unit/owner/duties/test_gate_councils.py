"""Gates that are delegated to a council of a role: it is convened, and only its yes is the delegate's (LC-77)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fleet.events.approval import ApprovalExpired, ApprovalGranted
from fleet.events.codec import decode
from fleet.events.platform import DelegationRevoked
from fleet.events.story import RepoSource, RunDelegation, StoryScored, StoryStarted
from fleet.events.task import TreeMerged
from fleet.kernel.ids import CommandId, EntityId, Principal
from fleet.log.port import Command
from fleet.models.port import AgentRequest
from fleet.owner.duties import gate_councils, gates
from fleet.owner.duties.councils import advance_council, end_council
from fleet.owner.workbench import Workbench
from fleet.planning.platform_state import PLATFORM
from fleet.story.intents import AdvanceCouncil, DecideGate, EndCouncil, Intent, OpenGateCouncil, RequestGate
from fleet.story.plan import plan, waiting_for
from fleet.story.state import CouncilRecord
from fleet.trees.tree import FileEntry, encode_tree
from tests.support.bench import ScriptedAgents, World
from tests.support.rules import fsm
from tests.support.story_events import CONTENT, PO, STORY, StoryLog, created_payload, story
from tests.unit.owner.test_requested_councils import PATH, do, reported

DAY_MS = 86_400_000


def votes(vote: str) -> Callable[[AgentRequest], Any]:
    """Voters of one mind."""
    return lambda _: {"votes": [{"label": "A", "vote": vote, "reason": "so it seems"}]}


def delegation(**changes: Any) -> RunDelegation:
    known: dict[str, Any] = {
        "delegation_id": EntityId("dg-scope1"),
        "gate": "approve_scope",
        "delegate": Principal("agent:architect-900"),
        "granted_by": PO,
        "max_rigor": "L2",
        "valid_until": 2_000_000_000_000,
        "reason": "small changes may begin at once",
        "council": "architect",
    }
    return RunDelegation(**(known | changes))


async def waiting(
    answer: Callable[[AgentRequest], Any], *, author: Principal = PO, **changes: Any
) -> tuple[World, Workbench]:
    """A story in DRAFT whose scope is asked for."""
    world = World(agents=ScriptedAgents(answer))
    blob = await world.blobs.put(b"def shout(text: str) -> str:\n    return text.upper()\n")
    tree = await world.blobs.put(encode_tree({PATH: FileEntry("100644", blob)}))
    log = StoryLog().add(created_payload(), actor=author)
    log.add(StoryScored(content_digest=CONTENT, score="95", threshold="75", dor_ok=True, scorer_version="1"))
    log.add(
        StoryStarted(
            repo=RepoSource(provider="local", url="/srv/text"),
            model="recorded",
            toolchain="python",
            delegations=(delegation(**changes),),
            record=False,
        ),
        actor=PO,
    )
    log.move("BACKLOG", "create_story", "DRAFT")
    log.add(TreeMerged(base_digest=tree, result_digest=tree, commit="0a" * 20), reported(tree))
    await log.write_to(world.log)
    bench = await world.bench()
    (request,) = owed(bench)
    assert isinstance(request, RequestGate)
    await gates.request_gate(bench, request)
    return world, bench


def owed(bench: Workbench) -> tuple[Intent, ...]:
    return plan(bench.state, fsm(), now_ms=bench.now_ms)


async def opened(bench: Workbench) -> EntityId:
    """The council of the gate, once it is open."""
    (intent,) = owed(bench)
    assert isinstance(intent, OpenGateCouncil)
    await gate_councils.open_gate_council(bench, intent)
    (council,) = owed(bench)
    assert isinstance(council, AdvanceCouncil)
    return EntityId(council.council_id)


async def held(bench: Workbench) -> CouncilRecord:
    council_id = await opened(bench)
    await advance_council(bench, AdvanceCouncil(council_id=council_id))
    return bench.state.councils[council_id]


@pytest.mark.rule("LC-77", "CN-13", "CN-50", "CN-20")
async def test_yes_of_the_council_is_the_supporting_fact_of_a_delegated_grant():
    world, bench = await waiting(votes("approve"))
    record = await held(bench)
    assert (record.status, record.verdict, record.winner) == ("DECIDED", "approve", None)
    assert (record.opened.kind, record.opened.quorum, record.is_advice) == ("gate", 3, False)
    assert {r.kind for r in world.agents.requests} == {"vote"}
    shown = world.agents.requests[0].own
    assert "Gate approve_scope of the story waits" in shown
    assert bench.state.content.description in shown
    (decide,) = owed(bench)
    assert isinstance(decide, DecideGate)
    await gates.decide_delegated_gate(bench, decide)
    assert bench.state.state == "DESIGN"
    granted = [p for p in map(decode, await world.events()) if isinstance(p, ApprovalGranted)]
    assert [(g.principal, g.delegated, g.delegation_id) for g in granted] == [
        ("agent:architect-900", True, "dg-scope1"),
    ]
    assert f"approved by council {record.opened.council_id}" in (granted[0].notes or "")
    # The story's decisions are what they were: a gate has an approval.
    assert "DecisionProposed" not in await world.types()


@pytest.mark.rule("LC-77", "LC-72", "CN-50")
async def test_no_of_the_council_decides_nothing_and_a_person_is_waited_for():
    world, bench = await waiting(votes("reject"))
    record = await held(bench)
    assert (record.status, record.verdict) == ("DECIDED", "reject")
    assert owed(bench) == ()
    assert "gate approve_scope waits for role po" in (waiting_for(bench.state, fsm(), now_ms=bench.now_ms) or "")
    assert bench.state.state == "DRAFT"
    assert not {"ApprovalGranted", "ApprovalRejected"} & set(await world.types())


@pytest.mark.rule("LC-77", "CN-56", "CN-129", "LC-72")
async def test_council_without_a_majority_is_escalated_and_grants_nothing():
    world, bench = await waiting(votes("abstain"))
    record = await held(bench)
    assert record.status == "UNDECIDED"
    assert {a.request.gate for a in bench.state.approvals.values()} == {"approve_scope", "council_escalation"}
    assert owed(bench) == ()
    assert "ApprovalGranted" not in await world.types()


@pytest.mark.rule("LC-72", "LC-73", "LC-77")
@pytest.mark.parametrize("vote", ["reject", "abstain"])
async def test_request_that_is_made_again_goes_to_a_person_once_a_council_did_not_say_yes(vote: str):
    world, bench = await waiting(votes(vote))
    record = await held(bench)
    approval_id = record.opened.approval_id
    assert approval_id is not None
    await bench.journal.record("expired", ApprovalExpired(approval_id=approval_id, attempt=1))
    (request,) = owed(bench)
    assert isinstance(request, RequestGate)
    await gates.request_gate(bench, request)
    assert owed(bench) == ()
    assert (await world.types()).count("CouncilOpened") == 1


@pytest.mark.rule("LC-77", "AP-78")
async def test_cancelled_council_leaves_the_gate_to_a_person_and_parks_nothing():
    world, bench = await waiting(votes("approve"))
    council_id = await opened(bench)
    body = {"council_id": council_id, "reason": "I look at it myself"}
    await do(world, bench, "cancel_council", body, key="end")
    assert bench.state.disposition == "active"
    assert owed(bench) == ()
    assert waiting_for(bench.state, fsm(), now_ms=bench.now_ms) == "gate approve_scope waits for role po"


@pytest.mark.rule("LC-74", "LC-77")
async def test_person_who_decides_first_ends_the_council():
    world, bench = await waiting(votes("approve"))
    council_id = await opened(bench)
    (approval_id,) = bench.state.approvals
    await do(world, bench, "reject", {"gate": approval_id, "reason": "it is not wanted this year"}, key="no")
    (end,) = owed(bench)
    assert isinstance(end, EndCouncil)
    assert end.council_id == council_id
    await end_council(bench, end)
    assert bench.state.councils[council_id].status == "CANCELLED"
    assert not world.agents.requests


@pytest.mark.rule("LC-75", "LC-77")
async def test_who_wrote_the_subject_does_not_sit():
    _, bench = await waiting(votes("approve"), author=Principal("agent:architect-001"))
    council_id = await opened(bench)
    assert [m.principal for m in bench.state.councils[council_id].opened.roster] == [
        f"agent:architect-00{n}" for n in (2, 3, 4)
    ]


@pytest.mark.rule("LC-77", "CN-3")
async def test_council_that_nobody_can_hold_is_no_delegate_and_a_person_decides():
    world, bench = await waiting(votes("approve"))
    (intent,) = owed(bench)
    assert isinstance(intent, OpenGateCouncil)
    await gate_councils.open_gate_council(replace(bench, staffed=frozenset({"qa"})), intent)
    (revoked,) = [p for p in map(decode, await world.events()) if isinstance(p, DelegationRevoked)]
    assert (revoked.delegate, "no agent of this fleet serves role architect" in revoked.reason) == (
        "council:architect",
        True,
    )
    assert owed(bench) == ()


@pytest.mark.rule("LC-77")
async def test_delegation_that_is_over_convenes_nobody():
    _, bench = await waiting(votes("approve"), valid_until=1)
    assert owed(bench) == ()
    _, bench = await waiting(votes("approve"), max_rigor="L0")
    assert owed(bench) == ()


@pytest.mark.rule("LC-77", "PL-48", "CN-122")
async def test_council_of_a_request_is_opened_once_whoever_owns_the_story():
    world, bench = await waiting(votes("approve"))
    (intent,) = owed(bench)
    assert isinstance(intent, OpenGateCouncil)
    await gate_councils.open_gate_council(bench, intent)
    await gate_councils.open_gate_council(await world.bench(), intent)
    assert (await world.types()).count("CouncilOpened") == 1


def wanted(world: World, **changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "gate": "approve_scope",
        "delegate": "council:architect",
        "reason": "small changes may begin at once",
        "valid_until": world.clock.now_ms() + 7 * DAY_MS,
        "max_rigor": "L1",
        "projects": [],
    }
    return body | changes


async def told(world: World, body: dict[str, Any], key: str = "key-1") -> Any:
    command = Command(CommandId(f"user:ana/{key}"), PLATFORM, "grant_delegation", Principal("user:ana"), body)
    return await world.platform_owner().handle(command)


@pytest.mark.rule("LC-77", "AP-94")
async def test_standing_delegation_to_a_council_is_taken_in_by_stories_that_start():
    world = World()
    name = (await told(world, wanted(world)))["delegation_id"]
    (known,) = (await world.platform.state()).delegations.values()
    assert known.granted.delegate == "council:architect"
    await story(until="scored").write_to(world.log)
    bench = await world.bench()
    await do(world, bench, "start_story", {"repo": "/srv/text"}, key="start")
    assert bench.state.start is not None
    (taken,) = bench.state.start.delegations
    assert (taken.delegation_id, taken.delegate, taken.council) == (name, "agent:architect-900", "architect")
    assert bench.state.story_id == STORY
