"""Decide a council and record everything that led there (CN-50..CN-61)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fleet.council.ballot import Ballot
from fleet.council.conclusion import CandidateResult, Conclusion, MinorityReport, conclude
from fleet.council.counterfactuals import Counterfactual
from fleet.council.tally import Decided, NoDecision
from fleet.events.approval import ApprovalRequested, Subject
from fleet.events.council import BallotCast, CouncilDecided, CouncilUndecided, TestsFiltered
from fleet.events.decision import DecisionAccepted, DecisionProposed, EvidenceRef
from fleet.kernel.digest import canonical_json
from fleet.kernel.ids import SYSTEM, Digest, EntityId
from fleet.owner.duties.members import Sitting
from fleet.story.state import CouncilRecord, StoryState

_PHASES = {
    "propose": "draft",
    "draft": "draft",
    "tests": "tests",
    "critique": "critique",
    "repair": "repair",
    "vote": "ballots",
}
Reasons = dict[tuple[str, str], list[str]]
"""(voter, candidate) -> what the voter said of it, on each of its papers."""


async def decide(sitting: Sitting) -> None:
    """The council's outcome is on record, with its tally, minority report, counterfactual winners and whole record."""
    conclusion = conclude(sitting.state)
    tokens = tokens_by_phase(sitting.bench.state, sitting.record)
    reasons = await _reasons(sitting)
    minority = _minority(conclusion.minority, reasons)
    record = _whole_record(sitting, conclusion) | {
        "ballots": [_ballot(cast.ballot, reasons) for _, cast in sorted(sitting.state.ballots.items())],
        "minority_report": minority,
        "tokens": tokens,
    }
    blobs = sitting.bench.blobs
    facts: dict[str, Any] = {
        "council_id": sitting.council_id,
        "tally": conclusion.result.tally.model_dump(mode="json"),
        "decision_hash": conclusion.decision_hash,
        "minority_report_digest": await blobs.put(canonical_json(minority)),
        "record_digest": await blobs.put(canonical_json(record)),
    }
    if isinstance(conclusion.result, NoDecision):
        await _undecided(sitting, conclusion.result, facts)
    else:
        await _decided(sitting, conclusion, conclusion.result, facts | {"tokens": tokens})


async def _reasons(sitting: Sitting) -> Reasons:
    said: Reasons = {}
    for cast in (p for p in sitting.record.said.values() if isinstance(p, BallotCast)):
        for candidate, text in (await sitting.load(cast.reasons_digest)).items():
            # One ballot stood for both papers of a voter once; its reasons are lists.
            said.setdefault((cast.voter, candidate), []).extend([text] if isinstance(text, str) else text)
    return said


def _ballot(ballot: Ballot, reasons: Reasons) -> dict[str, Any]:
    said = {c: reasons.get((ballot.voter, c), []) for c in ballot.votes}
    return ballot.model_dump(mode="json") | {"reasons": said}


def _minority(report: MinorityReport, reasons: Reasons) -> dict[str, Any]:
    rejecting = [
        {"voter": r.voter, "candidate": r.candidate_id, "reasons": reasons.get((r.voter, r.candidate_id), [])}
        for r in report.rejections
    ]
    return {
        "rejecting": rejecting,
        "untrusted_tests": [t._asdict() for t in report.untrusted_tests],
        "questions": list(report.questions),
        "equal_evidence": list(report.equals),
    }


def _whole_record(sitting: Sitting, conclusion: Conclusion) -> dict[str, Any]:
    """The decision with what it stands on, for whoever reads it without the log (CN-58)."""
    opened, result = sitting.opened, conclusion.result
    on_base = next((p.on_base for p in sitting.record.said.values() if isinstance(p, TestsFiltered)), None)
    outcome = result.reason if isinstance(result, NoDecision) else result.winner or result.verdict
    return {
        "council_id": opened.council_id,
        "outcome": "decided" if isinstance(result, Decided) else "no_decision",
        "winner_or_reason": outcome,
        "decision_hash": conclusion.decision_hash,
        "rule_version": opened.rule_version,
        "seed": opened.seed,
        "roster": [m.model_dump(mode="json") for m in opened.roster],
        "quorum": opened.quorum,
        "tally": result.tally.model_dump(mode="json"),
        "candidates": [_candidate(c) for c in conclusion.results],
        "evidence": [e.model_dump(mode="json") for _, e in sorted(sitting.state.evidence.items())],
        "counterfactuals": _counterfactuals(conclusion),
        **({"tests_on_base": on_base} if on_base is not None else {}),
    }


def _candidate(c: CandidateResult) -> dict[str, Any]:
    return {
        "candidate_id": c.candidate_id,
        "digest": c.digest,
        "authors": list(c.authors),
        "rank": c.rank,
        "score": list(c.score) if c.score else None,
        "checks": asdict(c.checks) | {"all_passed": c.checks.all_passed},
    }


def _counterfactuals(conclusion: Conclusion) -> dict[str, Any]:
    """Who would have won by simpler rules, with the evidence, so that everybody sees what the council added (CN-60)."""
    return {rule: _counterfactual(c) if c is not None else None for rule, c in conclusion.counterfactuals.items()}


def _counterfactual(counterfactual: Counterfactual) -> dict[str, Any]:
    e = counterfactual.evidence
    shown = {"gates_ok": e.gates_ok, "trusted_passed": e.trusted_passed, "trusted_total": e.trusted_total} if e else {}
    return {"candidate_id": counterfactual.candidate_id, **shown}


def tokens_by_phase(state: StoryState, record: CouncilRecord) -> dict[str, int]:
    """Tokens of this council's calls, by phase; their sum is its total (CN-61)."""
    is_estimate = record.opened.kind == "estimate"
    spent = {"estimates": 0} if is_estimate else dict.fromkeys(dict.fromkeys(_PHASES.values()), 0)
    for step in state.steps.values():
        if step.started.council_id == record.opened.council_id and step.finished and step.started.kind == "model":
            phase = "estimates" if is_estimate else _PHASES.get(step.started.op or "", "draft")
            spent[phase] += step.finished.cost.tokens_in + step.finished.cost.tokens_out
    return spent


async def _decided(sitting: Sitting, conclusion: Conclusion, result: Decided, facts: dict[str, Any]) -> None:
    if sitting.record.is_advice or sitting.opened.kind == "gate":
        # A decision would be one of the story; advice is what it is, and a gate has an approval, each with its record.
        advised = CouncilDecided(
            **facts,
            decided_in=result.decided_in,
            winner=EntityId(result.winner) if result.winner else None,
            verdict=result.verdict,
            counterfactuals=_counterfactuals(conclusion),
        )
        await sitting.say("decided", advised, by=SYSTEM)
        return
    assert result.winner is not None, "only a gate is decided without a winner"
    proposed = await _decision(sitting, result.winner)
    accepted = DecisionAccepted(
        decision_id=proposed.decision_id,
        by=SYSTEM,
        as_role="council",
        council_id=sitting.council_id,
        note=f"decided in {result.decided_in}",
    )
    decided = CouncilDecided(
        **facts,
        decided_in=result.decided_in,
        winner=EntityId(result.winner),
        counterfactuals=_counterfactuals(conclusion),
        decision_id=proposed.decision_id,
    )
    await sitting.say("decided", proposed, decided, accepted, by=SYSTEM)


async def _decision(sitting: Sitting, winner: str) -> DecisionProposed:
    bench, opened, state = sitting.bench, sitting.opened, sitting.state
    chosen = state.version(winner)
    evidence = chosen.evidence
    assert evidence is not None, "only what was measured can win"
    value = await sitting.load(chosen.digest)
    others = sorted((v for v in state.versions() if v.candidate_id != winner), key=lambda v: v.candidate_id)
    if opened.task_id is None:
        title = str(value["summary"])[:200]
        rationale = f"{value['summary']}\nInterface: {value['interface']}\nFile: {value['path']}"
        alternatives = tuple([str((await sitting.load(o.digest))["summary"])[:300] for o in others])
    else:
        title = f"Work chosen for {bench.state.tasks[opened.task_id].task.title}"[:200]
        alike = next(c.cluster_size for c in state.contenders() if c.candidate_id == winner)
        rationale = (
            f"It passes {sum(g.ok for g in evidence.gates)} of {len(evidence.gates)} gates and "
            f"{evidence.trusted_passed} of {evidence.trusted_total} trusted tests; "
            f"{alike} of {len(state.versions())} drafts behave like it."
        )
        passes = {o.candidate_id: o.evidence is not None and o.evidence.gates_ok for o in others}
        alternatives = tuple(f"{name}: {'passes' if ok else 'fails'} the gates" for name, ok in passes.items())
    return DecisionProposed(
        decision_id=bench.new_id("de", f"{sitting.council_id}/decision"),
        title=title,
        rationale=rationale[:4000],
        category="ARCHITECTURE" if opened.output_kind == "design" else "IMPLEMENTATION",
        alternatives=alternatives,
        affects=(opened.task_id,) if opened.task_id else (),
        plan_id=EntityId(bench.state.plan_id) if opened.task_id and bench.state.plan_id else None,
        based_on=tuple(EvidenceRef(kind="run", id=r) for r in evidence.run_ids)
        or (EvidenceRef(kind="artifact", id=chosen.digest),),
        author=sitting.seat(chosen.author).principal,
        origin_="council",
        council_id=sitting.council_id,
    )


async def _undecided(sitting: Sitting, result: NoDecision, facts: dict[str, Any]) -> None:
    bench, minority = sitting.bench, Digest(facts["minority_report_digest"])
    approval_id = bench.new_id("ap", f"{sitting.council_id}/escalation")
    gate = bench.rules.fsm.gates["council_escalation"]
    request = ApprovalRequested(
        approval_id=approval_id,
        gate="council_escalation",
        role=gate.role,
        actor=gate.actor,
        subject=Subject(kind="object", id=sitting.council_id, digest=minority),
        risk="medium",
        expires_at=bench.now_ms + gate.request_ttl_s * 1000,
        attempt=1,
        card_digest=minority,
        requested_by=SYSTEM,
    )
    undecided = CouncilUndecided(**facts, reason=result.reason, approval_id=approval_id)
    await sitting.say("undecided", undecided, request, by=SYSTEM)
