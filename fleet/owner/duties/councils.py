"""Procedures of a council: open it, do what its deliberation owes, record what came of it (CN-20..CN-63)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any, NamedTuple

from fleet.council.delphi import OwedEstimate
from fleet.council.facts import Interrupted
from fleet.council.roster import Member, build_roster, derive_seed, quorum_of, seated
from fleet.council.roster import seats as seats_of
from fleet.council.rounds import (
    Owed,
    OwedBallot,
    OwedCritique,
    OwedDecision,
    OwedDraft,
    OwedEvidence,
    OwedRepair,
    OwedTests,
    owed,
    owed_evidence,
    progress,
)
from fleet.council.state import CouncilState, evolve
from fleet.events.budget import BudgetScope
from fleet.events.council import (
    CouncilCancelled,
    CouncilOpened,
    CritiqueReceived,
    DraftFailed,
    DraftReceived,
    RosterMember,
    RoundOpened,
    TestsAuthored,
)
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import BudgetExceeded, ModelError
from fleet.kernel.ids import Digest, EntityId
from fleet.models.port import WorkKind
from fleet.models.replies.replies import critique_schema, proposal_schema
from fleet.models.routing.budget import BudgetLimits, BudgetTotals, spent_out
from fleet.owner.council_pools import council_rules
from fleet.owner.duties import advice, ballots, estimates, evidence, verdicts
from fleet.owner.duties.members import Sitting, ask_member, ask_tester, material, task_paths, unless_final
from fleet.owner.duties.summaries import keep_summaries
from fleet.owner.duties.texts import SittingPacks, source_paths
from fleet.owner.engineering import authors
from fleet.owner.workbench import Workbench, together
from fleet.story.allowance import limits_of
from fleet.story.intents import AdvanceCouncil, EndCouncil, OpenDesignCouncil, OpenTaskCouncil, ReopenTaskCouncil
from fleet.story.plan_tasks import is_orphaned
from fleet.story.state import CouncilRecord

_FREE = (OwedEvidence, OwedDecision)
"""Duties that call no model; runs have limits of their own, and what they measure is paid for."""
_DESIGNERS = ("architect", "developer", "devops")


async def open_design_council(bench: Workbench, intent: OpenDesignCouncil) -> None:
    """Three roles are convened on the design of the story; where rigor asks for no council, the architect alone."""
    config = await council_rules(bench)
    designers = _DESIGNERS if config.is_used(bench.state.rigor, "architecture") else _DESIGNERS[:1]
    # Its members are shown the story as it stands when the council opens.
    await keep_summaries(bench, designers, "DESIGN")
    await _open(
        bench,
        f"council/design/{intent.attempt}",
        seats_of(designers, config=config),
        output_kind="design",
        rounds=1,
        subject=bench.state.content.digest,
    )


async def open_task_council(bench: Workbench, intent: OpenTaskCouncil) -> None:
    """Developers and a separate test author are convened on one task; without a council, one developer (CN-13)."""
    await _open_on_task(bench, intent.task_id, f"council/{intent.task_id}/{intent.attempt}")


async def reopen_task_council(bench: Workbench, intent: ReopenTaskCouncil) -> None:
    """The same members are convened on the task again: a person ended their council, or asks again (AP-78, CN-56)."""
    name = f"council/{intent.task_id}/{intent.attempt}/after/{intent.after}"
    await _open_on_task(bench, intent.task_id, name, retry_of=EntityId(intent.after))


async def _open_on_task(bench: Workbench, task_id: str, name: str, *, retry_of: EntityId | None = None) -> None:
    task, config = bench.state.tasks[task_id].task, await council_rules(bench)
    size = config.voters_of(task.role) if config.is_used(bench.state.rigor, "code") else 1
    assert bench.state.tree is not None
    await _open(
        bench,
        name,
        build_roster("selection", "code_patch", proposer_role=task.role, num_agents=size, config=config),
        output_kind="code_patch",
        rounds=2,
        subject=bench.state.tree,
        task_id=task.task_id,
        retry_of=retry_of,
    )


async def _open(
    bench: Workbench,
    name: str,
    roster: tuple[Member, ...],
    *,
    output_kind: Any,
    rounds: int,
    subject: Any,
    task_id: EntityId | None = None,
    retry_of: EntityId | None = None,
) -> None:
    council_id = bench.new_id("co", name)
    defaults = bench.rules.council.defaults
    rubric = [{"name": "criteria", "text": c.text, "weight": 1} for c in bench.criteria]
    members = seated(roster, await council_rules(bench))
    members = authors.with_strategies(bench, members) if output_kind == "code_patch" else members
    budget = authors.budget_of(bench, members, rounds=rounds)
    opened = CouncilOpened(
        council_id=council_id,
        kind="selection",
        output_kind=output_kind,
        task_id=task_id,
        subject_digest=subject,
        roster=members,
        rubric_digest=await bench.blobs.put(canonical_json(rubric)),
        rule_version=bench.rules.council.rule_version,
        quorum=quorum_of("selection", sum(m.can_vote for m in roster)),
        pass_threshold="majority",
        rounds=rounds,
        budget=budget,
        seed=derive_seed(council_id),
        deadline_at=bench.now_ms + budget.wall_s * 1000,
        double_ballot=defaults.double_ballot,
        max_on_ballot=defaults.max_on_ballot,
        retry_of=retry_of,
    )
    await bench.journal.record(f"{name}/opened", opened, _phase(council_id, 0, "drafting"))


def _phase(council_id: EntityId, number: int, phase: Any) -> RoundOpened:
    return RoundOpened(council_id=council_id, round=number, phase=phase)


async def end_council(bench: Workbench, intent: EndCouncil) -> None:
    """The council has ended without a decision: its task was given up, or its work came another way."""
    council_id = EntityId(intent.council_id)
    opened = bench.state.councils[council_id].opened
    reason = f"task {opened.task_id} is no longer being implemented"
    if opened.approval_id is not None:
        reason = "the gate that it was to decide does not wait any more"
    await bench.journal.record(f"council/{council_id}/ended", CouncilCancelled(council_id=council_id, reason=reason))


async def advance_council(bench: Workbench, intent: AdvanceCouncil) -> None:
    """The council is decided or undecided; every call on the way is journaled."""
    bench = replace(bench, packs=SittingPacks(bench.packs))
    before, is_late = -1, False

    def goes_on() -> bool:
        # A restoration comes first, and may end this council, as the end of its task does; what was answered so far
        # stays on record.
        if bench.state.restoration is not None or is_orphaned(bench.state, bench.state.councils[intent.council_id]):
            return False
        return bench.state.version > before or is_late

    # A pass that records nothing would repeat for ever; the owner parks a story whose intent changed nothing.
    while (record := bench.state.councils[intent.council_id]).status == "IN_PROGRESS" and goes_on():
        before, state = bench.state.version, record.deliberation
        if not isinstance(owed(state)[0], _FREE):
            cause = Interrupted("deadline") if is_late else _interruption(bench, record)
            if cause is not None and await _handed_in(Sitting(bench, record, state, is_closing=True)):
                continue
            state = evolve(state, cause) if cause is not None else state
        duties = owed(state)
        if isinstance(duties[0], OwedDecision):
            decide = estimates.decide if record.opened.kind == "estimate" else verdicts.decide
            await decide(Sitting(bench, record, state))
        else:
            is_late = await _do(bench, record, state, duties)


async def _handed_in(sitting: Sitting) -> bool:
    """Whether sessions that are cut off handed in what they have, or what they handed in was measured (CN-28).

    Each pass records one kind of answer and is looked at again, so whoever goes on after a crash comes to the same.
    """
    bench, works = sitting.bench, {m.member_id: m.strategy for m in sitting.opened.roster if m.strategy is not None}
    if not works:
        return False
    under_way: list[OwedDraft | OwedRepair] = []
    for duty in owed(sitting.state):
        if isinstance(duty, OwedDraft) and duty.member.member_id in works:
            name = f"draft/{duty.member.member_id}"
            name = name if works[duty.member.member_id] == "session" else f"{name}/change/session"
        elif isinstance(duty, OwedRepair) and duty.author.member_id in works:
            name = f"repair/{duty.round}/{duty.candidate_id}"
        else:
            continue
        under_way += [duty] if f"{sitting.council_id}/{name}/begin" in bench.state.steps else []
    if under_way:
        await together(_answer(sitting, duty) for duty in under_way)
        return True
    unmeasured = owed_evidence(sitting.state)
    if unmeasured is not None:
        await evidence.measure_candidates(sitting, unmeasured)
    return unmeasured is not None


async def _do(bench: Workbench, record: CouncilRecord, state: CouncilState, duties: tuple[Owed, ...]) -> bool:
    """Everything owed now is answered, all of it at once; whether the deadline came before the last answer (CN-57)."""
    asked = await advice.kept_request(bench, record)
    text = advice.question(asked) if asked is not None else ""
    shared = await material(bench, record)
    sitting = Sitting(bench, record, state, f"{text}\n\n{shared}" if text else shared, text)
    await _announce(sitting, duties)
    limit = asyncio.timeout(None if isinstance(duties[0], _FREE) else _left_s(bench, record))

    def look() -> None:
        """A council that a person ended waits for no call; runs in the sandbox have ends of their own."""
        is_over = bench.state.councils[record.opened.council_id].status != "IN_PROGRESS"
        if is_over and not isinstance(duties[0], _FREE) and not limit.expired():
            limit.reschedule(asyncio.get_running_loop().time())

    try:
        async with limit:
            with bench.journal.watched(look):
                await together(_answer(sitting, duty) for duty in duties)
    except TimeoutError:
        if not limit.expired():
            raise
        return True
    except BudgetExceeded as error:
        # What the others answered is on record; the council decides on that (CN-57).
        if (error.details.get("kind"), error.details.get("id")) != ("council", sitting.council_id):
            raise
    return False


async def _answer(sitting: Sitting, duty: Owed) -> None:
    match duty:
        case OwedDraft(member):
            await _draft(sitting, sitting.seat(str(member.member_id)))
        case OwedTests(member):
            await _tests(sitting, sitting.seat(str(member.member_id)))
        case OwedEvidence():
            await evidence.measure_candidates(sitting, duty)
        case OwedCritique():
            await _critique(sitting, duty)
        case OwedRepair():
            await evidence.repair(sitting, duty)
        case OwedBallot():
            await ballots.cast_ballot(sitting, duty)
        case OwedEstimate():
            await estimates.cast_estimate(sitting, duty)
        case OwedDecision():
            raise AssertionError("decided before")


async def _announce(sitting: Sitting, duties: tuple[Owed, ...]) -> None:
    if isinstance(duties[0], OwedDraft | OwedTests | OwedCritique):
        return
    where = progress(sitting.state)
    if isinstance(duties[0], OwedEstimate) and where.round == 1:
        return
    name = f"{sitting.council_id}/round/{where.round}/{where.phase}"
    await sitting.bench.journal.record(name, _phase(sitting.council_id, where.round, where.phase))


def _usage(bench: Workbench, record: CouncilRecord) -> tuple[BudgetTotals, BudgetLimits, set[str]]:
    """What the council has used, its limits, and those of them that stopped a call: a raised one stops nothing more."""
    scope = BudgetScope(kind="council", id=record.opened.council_id)
    usage = bench.state.budgets.usage(scope)
    limits = limits_of(bench.state, bench.journal.budgeting.limits, scope)
    stopped = {name for name, limit in usage.exhausted.items() if limits.of(name) == limit}
    return usage.totals(now_ms=bench.now_ms), limits, stopped


def _interruption(bench: Workbench, record: CouncilRecord) -> Interrupted | None:
    """Why no further call is started, if so (CN-57).

    The deadline is reached when the council has worked for so long. Time in which nobody worked, because the owner was
    down or a person was asked, does not count: else each restart would end the councils under way.
    """
    totals, limits, stopped = _usage(bench, record)
    stopped.add(spent_out(totals, limits) or "")
    if "wall_ms" in stopped:
        return Interrupted("deadline")
    return Interrupted("budget_exhausted") if stopped - {""} else None


def _left_s(bench: Workbench, record: CouncilRecord) -> float | None:
    totals, limits, _ = _usage(bench, record)
    return None if limits.wall_ms is None else (limits.wall_ms - totals.used.wall_ms) / 1000


class _Form(NamedTuple):
    """How members propose."""

    kind: WorkKind
    schema: dict[str, Any] | None
    max_tokens: int | None = None


async def _form(sitting: Sitting) -> _Form:
    bench = sitting.bench
    assert bench.state.tree is not None
    if sitting.is_code:
        return _Form("draft", None)
    asked = await advice.kept_request(bench, sitting.record)
    if asked is not None and sitting.opened.output_kind == "text":
        return _Form("advise", advice.draft_form(asked))
    if asked is not None and sitting.opened.output_kind == "plan":
        most = bench.rules.planning.derivation.max_output_tokens
        return _Form("derive", advice.plan_form(bench, asked), max_tokens=most)
    return _Form(
        "propose", proposal_schema([c.ac_id for c in bench.criteria], await source_paths(bench, bench.state.tree))
    )


async def _draft(sitting: Sitting, member: RosterMember) -> None:
    bench, name = sitting.bench, f"draft/{member.member_id}"
    payload: DraftReceived | DraftFailed
    try:
        paths = await task_paths(bench, sitting.record) if sitting.is_code else ()
        if sitting.is_code and authors.makes_trees(member, paths):
            payload = await _worked(sitting, member, name)
            await sitting.say(f"{name}/received", payload, by=member.principal)
            return
        form = await _form(sitting)
        answer = await ask_member(
            bench,
            sitting.record,
            member,
            form.kind,
            step=name,
            shared=sitting.shared,
            schema=form.schema,
            target_paths=paths,
            max_tokens=form.max_tokens,
        )
        tokens = answer.usage.tokens_in + answer.usage.tokens_out
        payload = _received(sitting, member, await bench.blobs.put(canonical_json(answer.value)), tokens=tokens)
    except ModelError as error:
        payload = _failed(sitting, member, error)
    await sitting.say(f"{name}/received", payload, by=member.principal)


async def _worked(sitting: Sitting, member: RosterMember, name: str) -> DraftReceived:
    """The candidate of a member whose work is a tree."""
    # A session has always had the name of the draft; a reply of this form is another step than one of definitions.
    step = name if member.strategy == "session" else f"{name}/change"
    proposal = await authors.propose(sitting, member, step=step)
    return _received(sitting, member, proposal.candidate, tokens=proposal.tokens)


def _received(sitting: Sitting, member: RosterMember, candidate: Digest, *, tokens: int) -> DraftReceived:
    return DraftReceived(
        council_id=sitting.council_id,
        member_id=member.member_id,
        attempt=1,
        candidate_id=sitting.bench.new_id("cd", f"{sitting.council_id}/{member.member_id}"),
        candidate_digest=candidate,
        tokens=tokens,
    )


def _failed(sitting: Sitting, member: RosterMember, error: ModelError) -> DraftFailed:
    unless_final(error)
    return DraftFailed(council_id=sitting.council_id, member_id=member.member_id, attempt=1, code=error.code)


async def _tests(sitting: Sitting, member: RosterMember) -> None:
    """The test author sees story, interface and the code as it is, never a draft (CN-23)."""
    bench = sitting.bench
    payload: TestsAuthored | DraftFailed
    try:
        answer = await ask_tester(sitting, member)
        payload = TestsAuthored(
            council_id=sitting.council_id,
            author=member.member_id,
            tests_digest=await bench.blobs.put(canonical_json(answer.value)),
            count=len(answer.value["names"]),
        )
    except ModelError as error:
        payload = _failed(sitting, member, error)
    await sitting.say("tests/received", payload, by=member.principal)


async def _critique(sitting: Sitting, duty: OwedCritique) -> None:
    """One member that is not the author says what is wrong with the candidate. It never learns who wrote it (CN-41)."""
    critic = sitting.seat(str(duty.critic.member_id))
    name = f"critique/{duty.round}/{duty.candidate_id}"
    draft = await sitting.load(sitting.state.version(duty.candidate_id).digest)
    try:
        answer = await ask_member(
            sitting.bench,
            sitting.record,
            critic,
            "critique",
            step=name,
            shared=sitting.shared,
            own=json.dumps(draft, indent=1, sort_keys=True),
            schema=critique_schema(),
            temperature="0.2",
        )
        value = answer.value
    except ModelError as error:
        unless_final(error)
        value = {"severity": "none", "problem": "the critique could not be read"}
    payload = CritiqueReceived(
        council_id=sitting.council_id,
        round=duty.round,
        candidate_id=EntityId(duty.candidate_id),
        critic=critic.member_id,
        critique_digest=await sitting.bench.blobs.put(canonical_json(value)),
    )
    await sitting.say(f"{name}/received", payload, by=critic.principal)
