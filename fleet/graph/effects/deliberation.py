"""Graph effects of decision and council events (GR-17..GR-20, GR-47..GR-57)."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.events.council import (
    BallotCast,
    CouncilCancelled,
    CouncilDecided,
    CouncilOpened,
    CouncilUndecided,
    DraftReceived,
    EvidenceRecorded,
    RepairReceived,
)
from fleet.events.decision import (
    DecisionAccepted,
    DecisionLink,
    DecisionLinked,
    DecisionProposed,
    DecisionRejected,
    DecisionSuperseded,
    EvidenceRef,
)
from fleet.graph.changes import GraphChange
from fleet.graph.effects.at import At, Ref, json_text, link, texts
from fleet.graph.effects.work import workspace_report_id
from fleet.graph.schema import Label, Rel


def decision_proposed(at: At, e: DecisionProposed) -> Iterator[GraphChange]:
    """The choice is on record with its author, its evidence and what it affects."""
    decision: Ref = (Label.DECISION, e.decision_id)
    yield at.describe(
        *decision,
        title=e.title,
        category=e.category,
        status="PROPOSED",
        origin=e.origin_,
        alternatives=e.alternatives,
        created_at=at.ts_ms,
        council_id=e.council_id,
        **texts(rationale=e.rationale),
    )
    yield link(Rel.HAS_DECISION, at.ref, decision)
    if e.plan_id is not None:
        yield link(Rel.CONTAINS_DECISION, (Label.PLAN_VERSION, e.plan_id), decision)
    yield from at.by(Rel.AUTHORED_BY, decision, e.author, at=at.ts_ms)
    yield from _linked(decision, e.affects, e.links)
    for evidence in e.based_on:
        yield link(Rel.BASED_ON, decision, _evidence(evidence))


def decision_accepted(at: At, e: DecisionAccepted) -> Iterator[GraphChange]:
    """The choice holds, by whose word, in which role."""
    decision: Ref = (Label.DECISION, e.decision_id)
    how = {"approval_id": e.approval_id} | ({} if e.council_id is None else {"council_id": e.council_id})
    yield at.update(*decision, status="ACCEPTED", decided_at=at.ts_ms, **how)
    yield from at.by(Rel.DECIDED_BY, decision, e.by, at=at.ts_ms, as_role=e.as_role, verdict="accepted")


def decision_rejected(at: At, e: DecisionRejected) -> Iterator[GraphChange]:
    """The choice was turned down, by whom."""
    decision: Ref = (Label.DECISION, e.decision_id)
    yield at.update(*decision, status="REJECTED", decided_at=at.ts_ms)
    yield from at.by(Rel.DECIDED_BY, decision, e.by, at=at.ts_ms, as_role=e.as_role, verdict="rejected")


def decision_superseded(at: At, e: DecisionSuperseded) -> Iterator[GraphChange]:
    """Another decision stands in its place."""
    yield at.update(Label.DECISION, e.decision_id, status="SUPERSEDED")
    ends = (Label.DECISION, e.by_decision_id), (Label.DECISION, e.decision_id)
    yield link(Rel.SUPERSEDES, *ends, at=at.ts_ms)


def decision_linked(at: At, e: DecisionLinked) -> Iterator[GraphChange]:
    """More tasks and decisions hang together with it."""
    yield from _linked((Label.DECISION, e.decision_id), e.affects, e.links)


def _linked(decision: Ref, affects: tuple[str, ...], links: tuple[DecisionLink, ...]) -> Iterator[GraphChange]:
    for task_id in affects:
        yield link(Rel.AFFECTS, decision, (Label.TASK, task_id))
    for other in links:
        yield link(Rel(other.rel), decision, (Label.DECISION, other.decision_id))


def _evidence(ref: EvidenceRef) -> Ref:
    match ref.kind:
        case "run":
            return Label.RUN, ref.id
        case "artifact":
            return Label.ARTIFACT, ref.id
        case "report":
            # The report of a run goes by the id of its run.
            return Label.REPORT, workspace_report_id(ref.id) if ref.id.startswith("rn-") else ref.id


def council_opened(at: At, e: CouncilOpened) -> Iterator[GraphChange]:
    """The council is open, about its task or its story."""
    council: Ref = (Label.COUNCIL, e.council_id)
    facts = {"rule_version": e.rule_version, "seed": e.seed, "quorum": e.quorum}
    yield at.describe(*council, kind=e.kind, status="open", **facts)
    yield link(Rel.ABOUT, council, at.ref if e.task_id is None else (Label.TASK, e.task_id))
    for member in e.roster:
        yield at.actor(member.principal)
    if e.retry_of is not None:
        yield link(Rel.RETRY_OF, council, (Label.COUNCIL, e.retry_of))


def draft_received(at: At, e: DraftReceived) -> Iterator[GraphChange]:
    """The candidate has its author."""
    candidate: Ref = (Label.CANDIDATE, e.candidate_id)
    yield at.describe(*candidate, digest=e.candidate_digest)
    yield link(Rel.CONSIDERED, (Label.COUNCIL, e.council_id), candidate)
    yield from at.by(Rel.AUTHORED_BY, candidate, _member(e.member_id), at=at.ts_ms)


def repair_received(at: At, e: RepairReceived) -> Iterator[GraphChange]:
    """A kept repair is what the candidate is from here on."""
    if e.kept == "new":
        yield at.update(Label.CANDIDATE, e.candidate_id, digest=e.new_digest)


def evidence_recorded(at: At, e: EvidenceRecorded) -> Iterator[GraphChange]:
    """What the latest round measured of the candidate."""
    evidence = e.evidence
    candidate: Ref = (Label.CANDIDATE, evidence.candidate_id)
    for run_id in evidence.run_ids:
        yield at.describe(Label.RUN, run_id, kind="run", tree_in=evidence.tree_digest)
    yield at.describe(
        *candidate,
        round=e.round,
        gates_ok=evidence.gates_ok,
        failed_gates=[gate.name for gate in evidence.gates if not gate.ok],
        trusted_passed=evidence.trusted_passed,
        trusted_total=evidence.trusted_total,
        cluster_size=evidence.cluster_size,
        diff_lines=evidence.diff_lines,
        lint_errors=evidence.lint_errors,
        tree_digest=evidence.tree_digest,
    )
    yield link(Rel.CONSIDERED, (Label.COUNCIL, e.council_id), candidate)


def ballot_cast(at: At, e: BallotCast) -> Iterator[GraphChange]:
    """The voter's valid ballot of this round; the one on the second paper, in reversed order, is another."""
    paper = f"/{e.attempt}" if e.attempt > 1 else ""
    ballot: Ref = (Label.BALLOT, f"{e.council_id}/{e.round}/{e.voter}{paper}")
    votes = json_text(dict(e.votes))
    yield at.describe(*ballot, round=e.round, voter=e.voter, valid=True, ranking=e.ranking, **texts(votes=votes))
    yield link(Rel.HAS_BALLOT, (Label.COUNCIL, e.council_id), ballot, round=e.round)
    yield from at.by(Rel.CAST_BY, ballot, _member(e.voter), round=e.round)


def council_decided(at: At, e: CouncilDecided) -> Iterator[GraphChange]:
    """The council has its outcome, and the decision that records it is its result."""
    council: Ref = (Label.COUNCIL, e.council_id)
    yield at.update(
        *council,
        status="closed",
        outcome=e.outcome,
        decided_in=e.decided_in,
        winner=e.winner,
        verdict=e.verdict,
        estimate=e.estimate,
        tokens_total=sum(e.tokens.values()),
        minority_report_digest=e.minority_report_digest,
        decision_hash=e.decision_hash,
        **texts(tally=json_text(e.tally), counterfactuals=json_text(e.counterfactuals)),
    )
    yield from _places(at, e)
    if e.winner is not None:
        yield link(Rel.CONSIDERED, council, (Label.CANDIDATE, e.winner), winner=True)
    if e.decision_id is not None:
        decision: Ref = (Label.DECISION, e.decision_id)
        yield at.update(*decision, decision_hash=e.decision_hash, council_id=e.council_id)
        yield link(Rel.RESULT_OF, decision, council)


def _places(at: At, e: CouncilDecided) -> Iterator[GraphChange]:
    """Where each candidate came, 1 for the winner, and why ballots took out the others (GR-19)."""
    ranking, removed = e.tally.get("ranking"), e.tally.get("removed")
    for place, name in enumerate(ranking if isinstance(ranking, list) else (), start=1):
        yield at.update(Label.CANDIDATE, str(name), rank=place)
    for one in removed if isinstance(removed, list) else ():
        if isinstance(one, dict) and "candidate_id" in one:
            yield at.update(Label.CANDIDATE, str(one["candidate_id"]), removed=str(one.get("why", "")))


def council_undecided(at: At, e: CouncilUndecided) -> Iterator[GraphChange]:
    """The council has no outcome; a person decides."""
    yield at.update(
        Label.COUNCIL,
        e.council_id,
        status="closed",
        outcome="undecided",
        reason=e.reason,
        minority_report_digest=e.minority_report_digest,
        decision_hash=e.decision_hash,
        approval_id=e.approval_id,
        **texts(tally=json_text(e.tally)),
    )


def council_cancelled(at: At, e: CouncilCancelled) -> Iterator[GraphChange]:
    """The council ended without an outcome."""
    yield at.update(Label.COUNCIL, e.council_id, status="cancelled", reason=e.reason)


def _member(member_id: str) -> str:
    """Members are named by the part of their principal that follows `agent:` (CN-11, GL-10)."""
    return f"agent:{member_id}"
