"""Decide a council and record everything that led there (CN-50..CN-61)."""

from __future__ import annotations

import json
from typing import Any

from fleet.council.choice import Choice, Contender, VoterBallot, choose
from fleet.digest import canonical_json, digest_of_json
from fleet.events import (
    ApprovalRequested,
    CouncilDecided,
    CouncilUndecided,
    DecisionAccepted,
    DecisionProposed,
    EvidenceRef,
    Payload,
    Subject,
)
from fleet.ids import Digest, EntityId
from fleet.services.journal import SYSTEM
from fleet.services.workbench import Workbench
from fleet.story import CouncilRecord, StoryState
from fleet.story import deliberation as due

__all__ = ["decide", "tokens_by_phase"]

_PHASES = {
    "propose": "draft",
    "draft": "draft",
    "tests": "tests",
    "critique": "critique",
    "repair": "repair",
    "vote": "ballots",
}


async def decide(bench: Workbench, record: CouncilRecord, *, owed: due.OwedDecision, is_spent: bool = False) -> None:
    """The council's outcome is on record, with its tally, minority report and counterfactual winners."""
    contenders, ballots = _contenders(record), _ballots(record)
    weights: dict[str, int] = {m.member_id: m.weight for m in record.opened.roster if m.can_vote}
    exit_ = due.early_exit(record)
    if exit_ is not None:
        choice = Choice(exit_, None, ranking=(exit_,), valid=len(ballots))
    else:
        choice = choose(contenders, ballots, weights=weights, quorum=record.opened.quorum)
    minority = await bench.blobs.put(canonical_json(await _minority(bench, record, choice)))
    tally: dict[str, Any] = {
        "valid": choice.valid,
        "invalid": len(record.refused),
        "ranking": list(choice.ranking),
        "removed": dict(choice.removed),
        "margins": dict(choice.margins),
    }
    digest = _hash(record, choice)
    if choice.winner is None:
        await _undecided(bench, record, choice, tally, digest, minority, is_spent=is_spent)
        return
    await _decided(bench, record, choice.winner, tally, digest, minority, phase="P3" if exit_ else "P6")


def _contenders(record: CouncilRecord) -> list[Contender]:
    return [
        Contender(
            candidate_id=k,
            digest=record.drafts[k].content,
            authors=frozenset({record.author_of(k)}),
            gates_ok=e.gates_ok,
            trusted_passed=e.trusted_passed,
            cluster_size=e.cluster_size,
            diff_lines=e.diff_lines,
        )
        for k, e in record.evidence.items()
    ]


def _ballots(record: CouncilRecord) -> list[VoterBallot]:
    members = {m.member_id: m for m in record.opened.roster}
    return [
        VoterBallot(
            voter=voter,
            votes={str(k): v for k, v in b.votes.items()},
            ranking=tuple(str(c) for c in b.ranking),
            weight=members[EntityId(voter)].weight,
            has_veto=members[EntityId(voter)].veto,
        )
        for voter, b in sorted(record.ballots.items())
    ]


def _hash(record: CouncilRecord, choice: Choice) -> Digest:
    """Digest of everything that the outcome depends on; replaying the events gives it again (CN-59)."""
    return digest_of_json(
        {
            "rule_version": record.opened.rule_version,
            "rubric": record.opened.rubric_digest,
            "roster": [[m.member_id, m.weight] for m in record.opened.roster],
            "candidates": sorted([k, d.content] for k, d in record.drafts.items()),
            "evidence": [json.loads(e.model_dump_json()) for _, e in sorted(record.evidence.items())],
            "ballots": [[b.voter, dict(b.votes), list(b.ranking)] for b in _ballots(record)],
            "seed": record.opened.seed,
            "winner": choice.winner,
            "reason": choice.reason,
        }
    )


async def _minority(bench: Workbench, record: CouncilRecord, choice: Choice) -> dict[str, Any]:
    rejecting: list[dict[str, Any]] = []
    for voter, ballot in sorted(record.ballots.items()):
        reasons = json.loads(await bench.blobs.get(ballot.reasons_digest))
        rejecting += [
            {"voter": voter, "candidate": c, "reasons": reasons.get(c, [])}
            for c, v in ballot.votes.items()
            if v == "reject"
        ]
    dropped = record.filtered.dropped if record.filtered else ()
    best = record.evidence.get(choice.winner or "")
    equals = [
        k
        for k, e in sorted(record.evidence.items())
        if best is not None and k != choice.winner and _key(e) == _key(best)
    ]
    return {
        "rejecting": rejecting,
        "untrusted_tests": [{"test": d.test, "reason": d.reason} for d in dropped],
        "equal_evidence": equals,
    }


def _key(e: Any) -> tuple[Any, ...]:
    return (e.gates_ok, e.trusted_passed, e.cluster_size)


def _counterfactuals(record: CouncilRecord) -> dict[str, Any]:
    """Who would have won by simpler rules, so that everybody sees what the council added (CN-60)."""
    by_member = {d.member_id: k for k, d in record.drafts.items()}
    first = next((by_member[m.member_id] for m in record.opened.roster if m.member_id in by_member), None)
    ranked = sorted(
        record.evidence.values(), key=lambda e: (not e.gates_ok, -e.trusted_passed, *_size(record, e.candidate_id))
    )
    places: dict[str, int] = {}
    for ballot in record.ballots.values():
        for candidate in ballot.ranking[:1]:
            places[candidate] = places.get(candidate, 0) + 1
    plurality = min(places, key=lambda c: (-places[c], *_size(record, c))) if places else None
    return {"first_draft": first, "best_of_n": ranked[0].candidate_id if ranked else None, "plurality": plurality}


def _size(record: CouncilRecord, candidate: str) -> tuple[int, str]:
    return record.evidence[EntityId(candidate)].diff_lines, record.drafts[candidate].content


def tokens_by_phase(state: StoryState, record: CouncilRecord) -> dict[str, int]:
    """Tokens of this council's calls, by phase; their sum is its total (CN-61)."""
    spent: dict[str, int] = {"draft": 0, "tests": 0, "critique": 0, "repair": 0, "ballots": 0}
    for step in state.steps.values():
        if step.started.council_id == record.opened.council_id and step.finished and step.started.kind == "model":
            phase = _PHASES.get(step.started.op or "", "draft")
            spent[phase] += step.finished.cost.tokens_in + step.finished.cost.tokens_out
    return spent


async def _decided(
    bench: Workbench,
    record: CouncilRecord,
    winner: str,
    tally: dict[str, Any],
    digest: Digest,
    minority: Digest,
    *,
    phase: Any,
) -> None:
    council_id = record.opened.council_id
    proposed = await _decision(bench, record, winner)
    accepted = DecisionAccepted(
        decision_id=proposed.decision_id,
        by=SYSTEM,
        as_role="council",
        council_id=council_id,
        note=f"decided in {phase}",
    )
    decided = CouncilDecided(
        council_id=council_id,
        decided_in=phase,
        winner=EntityId(winner),
        tally=tally,
        decision_hash=digest,
        minority_report_digest=minority,
        counterfactuals=_counterfactuals(record),
        tokens=tokens_by_phase(bench.state, record),
        decision_id=proposed.decision_id,
    )
    await bench.journal.record(f"{council_id}/decided", proposed, decided, accepted)


async def _decision(bench: Workbench, record: CouncilRecord, winner: str) -> DecisionProposed:
    council_id, opened = record.opened.council_id, record.opened
    author = next(m for m in opened.roster if m.member_id == record.author_of(winner))
    value = json.loads(await bench.blobs.get(record.drafts[winner].content))
    others = [json.loads(await bench.blobs.get(d.content)) for k, d in sorted(record.drafts.items()) if k != winner]
    found = record.evidence[winner]
    if opened.output_kind == "design":
        title = str(value["summary"])[:200]
        rationale = f"{value['summary']}\nInterface: {value['interface']}\nFile: {value['path']}"
        alternatives = tuple(str(o["summary"])[:300] for o in others)
    else:
        task = bench.state.tasks[opened.task_id or ""]
        title = f"Work chosen for {task.task.title}"[:200]
        rationale = (
            f"It passes {sum(g.ok for g in found.gates)} of {len(found.gates)} gates and {found.trusted_passed} of "
            f"{found.trusted_total} trusted tests; {found.cluster_size} of {len(record.drafts)} drafts behave like it."
        )
        alternatives = tuple(
            f"{k}: {'passes' if e.gates_ok else 'fails'} the gates"
            for k, e in sorted(record.evidence.items())
            if k != winner
        )
    return DecisionProposed(
        decision_id=bench.new_id("de", f"{council_id}/decision"),
        title=title,
        rationale=rationale[:4000],
        category="ARCHITECTURE" if opened.output_kind == "design" else "IMPLEMENTATION",
        alternatives=alternatives,
        affects=(opened.task_id,) if opened.task_id else (),
        based_on=tuple(EvidenceRef(kind="run", id=r) for r in found.run_ids)
        or (EvidenceRef(kind="artifact", id=record.drafts[winner].content),),
        author=author.principal,
        origin_="council",
        council_id=council_id,
    )


async def _undecided(
    bench: Workbench,
    record: CouncilRecord,
    choice: Choice,
    tally: dict[str, Any],
    digest: Digest,
    minority: Digest,
    *,
    is_spent: bool,
) -> None:
    council_id = record.opened.council_id
    approval_id = bench.new_id("ap", f"{council_id}/escalation")
    gate = bench.rules.fsm.gates["council_escalation"]
    undecided = CouncilUndecided(
        council_id=council_id,
        reason="budget_exhausted" if is_spent else choice.reason or "no_majority",
        tally=tally,
        decision_hash=digest,
        minority_report_digest=minority,
        approval_id=approval_id,
    )
    request = ApprovalRequested(
        approval_id=approval_id,
        gate="council_escalation",
        role=gate.role,
        actor=gate.actor,
        subject=Subject(kind="object", id=council_id, digest=minority),
        risk="medium",
        expires_at=bench.now_ms + gate.request_ttl_s * 1000,
        attempt=1,
        card_digest=minority,
        requested_by=SYSTEM,
    )
    payloads: tuple[Payload, ...] = (undecided, request)
    await bench.journal.record(f"{council_id}/undecided", *payloads)
