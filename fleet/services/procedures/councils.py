"""Procedures of a council: open it, do what its deliberation owes, record what came of it (CN-20..CN-63)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fleet.digest import canonical_json
from fleet.errors import ModelError, Retry
from fleet.events import (
    CouncilBudget,
    CouncilOpened,
    CritiqueReceived,
    DraftFailed,
    DraftReceived,
    Payload,
    RosterMember,
    RoundOpened,
    TestsAuthored,
)
from fleet.ids import EntityId
from fleet.models import critique_schema, proposal_schema
from fleet.services.procedures import ballots, evidence, verdicts
from fleet.services.procedures.members import ask_member, material, task_paths
from fleet.services.procedures.texts import source_paths
from fleet.services.workbench import Workbench, seat, together
from fleet.story import CouncilRecord
from fleet.story import deliberation as due
from fleet.story.intents import AdvanceCouncil, OpenDesignCouncil, OpenTaskCouncil

__all__ = ["advance_council", "open_design_council", "open_task_council"]

_LADDER = ("0.2", "0.6", "0.9")
_DESIGNERS = ("architect", "developer", "devops")


async def open_design_council(bench: Workbench, intent: OpenDesignCouncil) -> None:
    """A council of three roles is convened on the design of the story."""
    roster = tuple(_member(role, 1, n) for n, role in enumerate(_DESIGNERS))
    name = f"council/design/{intent.attempt}"
    await _open(bench, name, roster, output_kind="design", rounds=1, subject=bench.state.content.digest)


async def open_task_council(bench: Workbench, intent: OpenTaskCouncil) -> None:
    """Three developers and a separate test author are convened on one task."""
    task = bench.state.tasks[intent.task_id].task
    size = bench.rules.council.defaults.num_agents
    developers = tuple(_member(task.role, n + 1, n) for n in range(size))
    author = _member("qa", 1, 0).model_copy(
        update={"can_propose": False, "can_vote": False, "test_author": True, "temperature": "0.2"}
    )
    name = f"council/{intent.task_id}/{intent.attempt}"
    assert bench.state.tree is not None
    await _open(
        bench,
        name,
        (*developers, author),
        output_kind="code_patch",
        rounds=2,
        subject=bench.state.tree,
        task_id=task.task_id,
    )


def _member(role: str, number: int, variant: int) -> RosterMember:
    who = seat(role, number)
    return RosterMember(
        member_id=EntityId(f"{role}-{number:03d}"),
        principal=who.principal,
        role=role,
        model_policy="default",
        temperature=_LADDER[variant % len(_LADDER)],
        prompt_variant=variant,
    )


async def _open(
    bench: Workbench,
    name: str,
    roster: tuple[RosterMember, ...],
    *,
    output_kind: Any,
    rounds: int,
    subject: Any,
    task_id: EntityId | None = None,
) -> None:
    council_id = bench.new_id("co", name)
    defaults = bench.rules.council.defaults
    voters = sum(m.can_vote for m in roster)
    rubric = [{"name": "criteria", "text": c.text, "weight": 1} for c in bench.criteria]
    opened = CouncilOpened(
        council_id=council_id,
        kind="selection",
        output_kind=output_kind,
        task_id=task_id,
        subject_digest=subject,
        roster=roster,
        rubric_digest=await bench.blobs.put(canonical_json(rubric)),
        rule_version=bench.rules.council.rule_version,
        quorum=voters // 2 + 1,
        pass_threshold="majority",
        rounds=rounds,
        budget=CouncilBudget(tokens=defaults.tokens, wall_s=defaults.timeout_seconds),
        seed=int(hashlib.sha256(council_id.encode()).hexdigest()[:7], 16),
        deadline_at=bench.now_ms + defaults.timeout_seconds * 1000,
    )
    await bench.journal.record(f"{name}/opened", opened, _phase(council_id, 0, "drafting"))


def _phase(council_id: EntityId, number: int, phase: Any) -> RoundOpened:
    return RoundOpened(council_id=council_id, round=number, phase=phase)


async def advance_council(bench: Workbench, intent: AdvanceCouncil) -> None:
    """The council is decided or undecided; every call on the way is journaled."""
    council_id = intent.council_id
    before = -1
    # A pass that records nothing would repeat for ever; the owner parks a story whose intent changed nothing.
    while (record := bench.state.councils[council_id]).status == "IN_PROGRESS" and bench.state.version > before:
        before = bench.state.version
        owed = due.owed(record)
        if not isinstance(owed, due.OwedDecision) and _is_spent(bench, record):
            await verdicts.decide(bench, record, owed=due.OwedDecision("P6"), is_spent=True)
            continue
        match owed:
            case due.OwedDrafts():
                await _drafts(bench, record, owed)
            case due.OwedEvidence():
                await _announce(bench, record, 0, "evidence")
                await evidence.gather_first(bench, record)
            case due.OwedCritiques():
                await _critiques(bench, record, owed)
            case due.OwedRepairs():
                await _announce(bench, record, owed.round, "repairing")
                await evidence.repair_round(bench, record, owed)
            case due.OwedBallots():
                await _announce(bench, record, record.rounds_done, "balloting")
                await ballots.collect(bench, record, owed)
            case due.OwedDecision():
                await verdicts.decide(bench, record, owed=owed)


async def _announce(bench: Workbench, record: CouncilRecord, number: int, phase: Any) -> None:
    council_id = record.opened.council_id
    await bench.journal.record(f"{council_id}/round/{number}/{phase}", _phase(council_id, number, phase))


def _is_spent(bench: Workbench, record: CouncilRecord) -> bool:
    """Whether the council's tokens are used up: no further call is started then (CN-57)."""
    return sum(verdicts.tokens_by_phase(bench.state, record).values()) >= record.opened.budget.tokens


async def _drafts(bench: Workbench, record: CouncilRecord, owed: due.OwedDrafts) -> None:
    shared = await material(bench, record)
    calls = [_draft(bench, record, member, shared) for member in owed.members]
    if owed.test_author is not None:
        calls.append(_tests(bench, record, owed.test_author, shared))
    await together(calls)


async def _draft(bench: Workbench, record: CouncilRecord, member: RosterMember, shared: str) -> None:
    council_id = record.opened.council_id
    name = f"draft/{member.member_id}"
    is_design = record.opened.output_kind == "design"
    assert bench.state.tree is not None
    payload: Payload
    try:
        answer = await ask_member(
            bench,
            record,
            member,
            "propose" if is_design else "draft",
            step=name,
            shared=shared,
            schema=proposal_schema([c.ac_id for c in bench.criteria], await source_paths(bench, bench.state.tree))
            if is_design
            else None,
            target_paths=() if is_design else await task_paths(bench, record),
        )
        payload = DraftReceived(
            council_id=council_id,
            member_id=member.member_id,
            attempt=1,
            candidate_id=bench.new_id("cd", f"{council_id}/{member.member_id}"),
            candidate_digest=await bench.blobs.put(canonical_json(answer.value)),
            tokens=answer.usage.tokens_in + answer.usage.tokens_out,
        )
    except ModelError as error:
        if error.retry is Retry.LATER:
            raise
        payload = DraftFailed(council_id=council_id, member_id=member.member_id, attempt=1, code=error.code)
    await bench.journal.record(f"{council_id}/{name}/received", payload, actor=member.principal)


async def _tests(bench: Workbench, record: CouncilRecord, member: RosterMember, shared: str) -> None:
    """The test author sees story, interface and the code as it is, never a draft (CN-23)."""
    council_id = record.opened.council_id
    payload: Payload
    try:
        answer = await ask_member(
            bench, record, member, "tests", step="tests", shared=shared, own=await _interface(bench), max_tokens=900
        )
        payload = TestsAuthored(
            council_id=council_id,
            author=member.member_id,
            tests_digest=await bench.blobs.put(canonical_json(answer.value)),
            count=len(answer.value["names"]),
        )
    except ModelError as error:
        if error.retry is Retry.LATER:
            raise
        payload = DraftFailed(council_id=council_id, member_id=member.member_id, attempt=1, code=error.code)
    await bench.journal.record(f"{council_id}/tests/received", payload, actor=member.principal)


async def _interface(bench: Workbench) -> str:
    """Interface and examples that tests are written against."""
    lines: list[str] = []
    for decision in bench.state.decisions.values():
        if decision.proposed.category == "ARCHITECTURE" and decision.status == "ACCEPTED":
            lines = [decision.proposed.rationale]
    examples = bench.state.content.constraints.get("examples")
    if isinstance(examples, dict):
        lines.append(f"Import it with: {examples.get('import')}")  # pyright: ignore[reportUnknownMemberType]
    return "\n".join(lines)


async def _critiques(bench: Workbench, record: CouncilRecord, owed: due.OwedCritiques) -> None:
    shared = await material(bench, record)
    await together(critique(bench, record, c, number=owed.round, shared=shared) for c in owed.candidates)


async def critique(bench: Workbench, record: CouncilRecord, candidate: str, *, number: int, shared: str) -> None:
    """One member that is not the author says what is wrong with the candidate; it never learns who wrote it (CN-41)."""
    council_id = record.opened.council_id
    critic = due.critic_of(record, candidate)
    draft = json.loads(await bench.blobs.get(record.drafts[candidate].content))
    try:
        answer = await ask_member(
            bench,
            record,
            critic,
            "critique",
            step=f"critique/{number}/{candidate}",
            shared=shared,
            own=json.dumps(draft, indent=1, sort_keys=True),
            schema=critique_schema(),
            max_tokens=200,
            temperature="0.2",
        )
        value = answer.value
    except ModelError as error:
        if error.retry is Retry.LATER:
            raise
        value = {"severity": "none", "problem": "the critique could not be read"}
    payload = CritiqueReceived(
        council_id=council_id,
        round=number,
        candidate_id=EntityId(candidate),
        critic=critic.member_id,
        critique_digest=await bench.blobs.put(canonical_json(value)),
    )
    await bench.journal.record(f"{council_id}/critique/{number}/{candidate}/received", payload, actor=critic.principal)
