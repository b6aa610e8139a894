"""Gates delegated for all stories to come: taken in at the start, and no word is theirs once revoked (LC-77, AP-94)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fleet.events.approval import ApprovalGranted
from fleet.events.codec import decode
from fleet.events.platform import DelegationGranted
from fleet.events.task import TreeMerged
from fleet.events.workspace import WorkspaceReported, WorkspaceSummary
from fleet.kernel.errors import FleetError, InvalidInput, InvalidTransition, NotFound, PolicyDenied
from fleet.kernel.ids import CommandId, Principal
from fleet.log.port import Command
from fleet.owner.duties import gates
from fleet.owner.story_owner import StoryOwner
from fleet.owner.workbench import Workbench
from fleet.planning.platform_state import PLATFORM
from fleet.story.intents import DecideGate, Intent, RequestGate
from fleet.story.plan import plan, waiting_for
from tests.support.bench import STORY_TEXT, World
from tests.support.rules import fsm
from tests.support.story_events import STORY

ANA, ROOT = Principal("user:ana"), Principal("user:root")
DAY_MS = 86_400_000


def wanted(world: World, **changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "gate": "approve_scope",
        "delegate": "reviewer",
        "reason": "small changes may begin at once",
        "valid_until": world.clock.now_ms() + 7 * DAY_MS,
        "max_rigor": "L1",
        "projects": [],
    }
    return body | changes


async def told(world: World, name: str, body: dict[str, Any], *, key: str = "key-1", who: Principal = ANA) -> Any:
    command = Command(CommandId(f"{who}/{key}"), PLATFORM, name, who, body)
    return await world.platform_owner().handle(command)


async def grant(world: World, *, key: str = "key-1", **changes: Any) -> str:
    return (await told(world, "grant_delegation", wanted(world, **changes), key=key))["delegation_id"]


async def started(world: World, **text: Any) -> Workbench:
    """A story that is created and started; its base is not looked at."""
    bench = await world.bench(STORY)
    for name, body in (("create_story", {"story": STORY_TEXT | text}), ("start_story", {"repo": "/srv/text"})):
        await world.commands.handle(bench, Command(CommandId(f"{ANA}/{name}"), bench.journal.stream, name, ANA, body))
    return bench


def owed(bench: Workbench) -> tuple[Intent, ...]:
    return plan(bench.state, fsm(), now_ms=bench.now_ms)


async def asked(world: World, bench: Workbench) -> DecideGate:
    """The gate is asked for; what the story owes then."""
    while not isinstance(request := owed(bench)[0], RequestGate):
        raise AssertionError(request)
    await gates.request_gate(bench, request)
    (decide,) = owed(bench)
    assert isinstance(decide, DecideGate)
    return decide


@pytest.mark.rule("LC-77", "AP-2")
async def test_delegation_is_recorded_once_with_everything_that_was_said():
    world = World()
    first = await grant(world, projects=["pr-default"])
    assert await grant(world, projects=["pr-default"]) == first
    (event,) = await world.log.read(PLATFORM)
    assert decode(event) == DelegationGranted(
        delegation_id=first,  # pyright: ignore[reportArgumentType]
        gate="approve_scope",
        delegate="reviewer",
        granted_by=ANA,
        reason="small changes may begin at once",
        valid_until=world.clock.now_ms() + 7 * DAY_MS,
        max_rigor="L1",
        projects=("pr-default",),  # pyright: ignore[reportArgumentType]
    )
    (known,) = (await world.platform.state()).delegations.values()
    assert known.holds(now_ms=world.clock.now_ms())
    assert not known.holds(now_ms=known.granted.valid_until)


@pytest.mark.rule("LC-77", "GL-15")
@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"gate": "approve_deploy"}, PolicyDenied, "can never be delegated"),
        ({"gate": "waive_dimension", "max_rigor": "L0"}, PolicyDenied, "can never be delegated"),
        ({"gate": "approve_scope", "max_rigor": "L3"}, PolicyDenied, "up to L2"),
        ({"gate": "accept_warning", "max_rigor": "L2"}, PolicyDenied, "up to L1"),
        ({"gate": "approve_lunch"}, InvalidInput, "gate 'approve_lunch' is none of"),
        ({"gate": "tool:kubectl.apply"}, InvalidInput, "is none of"),
        ({"max_rigor": "L9"}, InvalidInput, "max_rigor"),
        ({"delegate": "po"}, InvalidInput, "delegate 'po' is none of"),
        ({"delegate": "council:po"}, InvalidInput, "is none of"),
        ({"reason": "short"}, InvalidInput, "reason"),
        ({"valid_until": 1}, InvalidInput, "valid_until"),
        ({"valid_until": "tomorrow"}, InvalidInput, "valid_until"),
        ({"valid_until": True}, InvalidInput, "valid_until"),
        ({"projects": "pr-default"}, InvalidInput, "projects"),
        ({"projects": ["st-one1"]}, InvalidInput, "projects"),
    ],
)
async def test_what_may_not_be_delegated_is_refused_and_not_recorded(
    changes: dict[str, Any], error: type[FleetError], said: str
):
    world = World()
    with pytest.raises(error, match=said):
        await grant(world, **changes)
    assert await world.log.read(PLATFORM) == []


@pytest.mark.rule("LC-77")
async def test_delegation_lasts_thirty_days_at_most():
    world = World()
    now_ms = world.clock.now_ms()
    with pytest.raises(InvalidInput, match="at most 30 days"):
        await grant(world, valid_until=now_ms + 31 * DAY_MS)
    await grant(world, valid_until=now_ms + 30 * DAY_MS)


@pytest.mark.rule("LC-77", "LC-76")
@pytest.mark.parametrize("who", ["user:quinn", "user:dev", "agent:reviewer-001", "system:council"])
async def test_nobody_but_a_person_in_role_admin_or_po_delegates_or_revokes(who: str):
    world = World()
    made = await grant(world)
    for name, body in (("grant_delegation", wanted(world)), ("revoke_delegation", {"delegation_id": made})):
        with pytest.raises(PolicyDenied):
            await told(world, name, body, key="other", who=Principal(who))
    assert len(await world.log.read(PLATFORM)) == 1


async def test_only_a_delegation_that_holds_is_revoked():
    world = World()
    with pytest.raises(NotFound):
        await told(world, "revoke_delegation", {"delegation_id": "dg-none1"})
    made = await grant(world)
    with pytest.raises(InvalidInput, match="reason"):
        await told(world, "revoke_delegation", {"delegation_id": made, "reason": "short"}, key="key-2")
    await told(world, "revoke_delegation", {"delegation_id": made}, key="key-3", who=ROOT)
    with pytest.raises(InvalidTransition, match="revoked already"):
        await told(world, "revoke_delegation", {"delegation_id": made}, key="key-4")
    (known,) = (await world.platform.state()).delegations.values()
    assert (known.revoked_by, known.holds(now_ms=world.clock.now_ms())) == ("user:root", False)


@pytest.mark.rule("LC-77", "LC-75")
async def test_story_takes_in_what_holds_at_its_start_and_its_gate_is_decided_by_the_delegate():
    world = World()
    made = await grant(world)
    bench = await started(world)
    start = bench.state.start
    assert start is not None
    assert [(d.delegation_id, d.delegate, d.granted_by) for d in start.delegations] == [
        (made, "agent:reviewer-900", ANA)
    ]
    await _based(bench)
    await gates.decide_delegated_gate(bench, await asked(world, bench))
    (granted,) = [p for p in map(decode, await world.events()) if isinstance(p, ApprovalGranted)]
    assert (granted.principal, granted.delegated, granted.delegation_id) == ("agent:reviewer-900", True, made)


async def _based(bench: Workbench) -> None:
    """The base tree is pinned and measured, as far as the plan looks at it."""
    tree = await bench.blobs.put(b"tree")
    report = WorkspaceReported(
        run_id="rn-base1",  # pyright: ignore[reportArgumentType]
        tree_digest=tree,
        report_digest=tree,
        complete=True,
        summary=WorkspaceSummary(build_ok=True),
    )
    merged = TreeMerged(base_digest=tree, result_digest=tree, commit="0a" * 20, files=())
    await bench.journal.record("base/merged", merged, report)


@pytest.mark.rule("LC-77")
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"projects": ["pr-shop"]}, {}),
        ({"max_rigor": "L0"}, {}),
        ({"gate": "approve_scope", "max_rigor": "L1"}, {"rigor": "L2"}),
    ],
    ids=["project", "cap", "rigor"],
)
async def test_delegation_of_another_project_or_a_lower_rigor_is_not_taken_in(
    changes: dict[str, Any], text: dict[str, Any]
):
    world = World()
    await grant(world, **changes)
    start = (await started(world, **text)).state.start
    assert start is not None
    assert start.delegations == ()


@pytest.mark.rule("LC-77")
async def test_delegation_that_is_over_or_revoked_is_not_taken_in():
    world = World()
    await told(world, "revoke_delegation", {"delegation_id": await grant(world)}, key="key-2")
    start = (await started(world)).state.start
    assert start is not None
    assert start.delegations == ()


@pytest.mark.rule("LC-77", "LC-72")
async def test_delegation_revoked_after_the_start_decides_nothing_and_the_gate_waits_for_a_person():
    world = World()
    made = await grant(world)
    bench = await started(world)
    await _based(bench)
    decide = await asked(world, bench)
    await told(world, "revoke_delegation", {"delegation_id": made, "reason": "it went wrong twice"}, key="key-2")
    owner = StoryOwner(bench)
    working = asyncio.create_task(owner.run())
    try:
        for _ in range(400):
            await asyncio.sleep(0)
        # It stands still: nothing is owed, nothing is tried again, and a person may decide.
        assert owed(bench) == ()
        types = await world.types()
        assert types[-1] == "DelegationRevoked"
        assert types.count("DelegationRevoked") == 1
        assert not {"ApprovalGranted", "StoryParked"} & {*types}
        waits = waiting_for(bench.state, fsm(), now_ms=bench.now_ms)
        assert waits == "gate approve_scope waits for role po"
        approve = Command(CommandId(f"{ANA}/yes"), bench.journal.stream, "approve", ANA, {"gate": decide.approval_id})
        await world.commands.handle(bench, approve)
        assert bench.state.state == "DESIGN"
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


@pytest.mark.rule("LC-77")
async def test_another_delegation_of_the_same_gate_holds_on_when_one_is_revoked():
    world = World()
    first, second = await grant(world), await grant(world, key="key-2", delegate="qa")
    bench = await started(world)
    await _based(bench)
    decide = await asked(world, bench)
    await told(world, "revoke_delegation", {"delegation_id": first}, key="key-3")
    await gates.decide_delegated_gate(bench, decide)
    (again,) = owed(bench)
    assert again == decide
    await gates.decide_delegated_gate(bench, decide)
    (granted,) = [p for p in map(decode, await world.events()) if isinstance(p, ApprovalGranted)]
    assert (granted.delegation_id, granted.principal) == (second, "agent:qa-900")
