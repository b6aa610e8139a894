"""Councils of a trajectory: what members delivered, what running it showed, how they voted, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleet.events.council import (
    BallotCast,
    BallotRefused,
    CouncilCancelled,
    CouncilDecided,
    CouncilOpened,
    CouncilUndecided,
    CritiqueReceived,
    DraftFailed,
    DraftReceived,
    EstimateCast,
    EvidenceRecorded,
    RepairReceived,
    TestsAuthored,
    TestsFiltered,
)
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.kernel.ids import Digest, EntityId
from fleet.report.service.trajectories.rows import (
    BallotRow,
    ContributionRow,
    CouncilRow,
    EvidenceRow,
    GateOutcome,
    PhaseTokens,
    SeatOfCouncil,
    TestDropped,
    VoteOn,
)
from fleet.report.service.trajectories.steps import TrajectoryTexts

Row = CouncilRow | ContributionRow | EvidenceRow | BallotRow
Ended = CouncilDecided | CouncilUndecided | CouncilCancelled


@dataclass(slots=True)
class _Open:
    event: StoredEvent
    opened: CouncilOpened
    tests: TestsFiltered | None = None


class CouncilRows:
    """Takes the events of one story in order; only councils under way are held."""

    def __init__(self, story_id: str, texts: TrajectoryTexts) -> None:
        self._story_id, self._texts = story_id, texts
        self._open: dict[EntityId, _Open] = {}

    async def take(self, event: StoredEvent, payload: Payload) -> list[Row]:
        """The rows that are complete with this event."""
        match payload:
            case CouncilOpened():
                self._open[payload.council_id] = _Open(event, payload)
                return []
            case TestsFiltered():
                if payload.council_id in self._open:
                    self._open[payload.council_id].tests = payload
                return []
            case EvidenceRecorded():
                return [self._evidence(event, payload)]
            case BallotCast():
                return [await self._ballot(event, payload)]
            case BallotRefused():
                return [await self._refused(event, payload)]
            case CouncilDecided() | CouncilUndecided() | CouncilCancelled():
                council = self._open.pop(payload.council_id, None)
                return [] if council is None else [await self._council(council, payload)]
            case _:
                return await self._contributed(event, payload)

    async def end(self) -> list[Row]:
        """The rows of councils that are not over."""
        left = sorted(self._open.values(), key=lambda council: council.event.version)
        return [await self._council(council, None) for council in left]

    async def _contributed(self, event: StoredEvent, payload: Payload) -> list[Row]:
        match payload:
            case DraftReceived():
                who = {"member_id": payload.member_id, "attempt": payload.attempt}
                what = {"candidate_id": payload.candidate_id, "tokens": payload.tokens}
                return [await self._delivered(event, payload, "draft", payload.candidate_digest, **who, **what)]
            case DraftFailed():
                who = {"member_id": payload.member_id, "attempt": payload.attempt, "reason": payload.code}
                return [await self._delivered(event, payload, "draft_failed", None, **who)]
            case TestsAuthored():
                return [await self._delivered(event, payload, "tests", payload.tests_digest, member_id=payload.author)]
            case CritiqueReceived():
                which = {"round": payload.round, "candidate_id": payload.candidate_id, "member_id": payload.critic}
                return [await self._delivered(event, payload, "critique", payload.critique_digest, **which)]
            case RepairReceived():
                which = {"round": payload.round, "candidate_id": payload.candidate_id}
                how = {"kept": payload.kept, "reason": payload.reason}
                return [await self._delivered(event, payload, "repair", payload.new_digest, **which, **how)]
            case EstimateCast():
                which = {"round": payload.round, "member_id": payload.member_id, "value": payload.value}
                return [await self._delivered(event, payload, "estimate", payload.reason_digest, **which)]
            case _:
                return []

    async def _delivered(
        self, event: StoredEvent, payload: Any, kind: str, digest: Digest | None, **fields: Any
    ) -> ContributionRow:
        nothing = dict.fromkeys(
            ("round", "member_id", "candidate_id", "attempt", "kept", "reason", "value", "tokens"), None
        )
        return ContributionRow(
            story_id=self._story_id,
            council_id=payload.council_id,
            version=event.version,
            kind=kind,
            digest=digest,
            content=self._texts.json_or_none(await self._texts.value(digest)),
            **{**nothing, **fields},
        )

    def _evidence(self, event: StoredEvent, payload: EvidenceRecorded) -> EvidenceRow:
        seen = payload.evidence
        return EvidenceRow(
            story_id=self._story_id,
            council_id=payload.council_id,
            version=event.version,
            candidate_id=seen.candidate_id,
            round=payload.round,
            tree=seen.tree_digest,
            gates=tuple(GateOutcome(gate.name, gate.ok, gate.run_id) for gate in seen.gates),
            gates_ok=seen.gates_ok,
            trusted_passed=seen.trusted_passed,
            trusted_total=seen.trusted_total,
            cluster_id=seen.cluster_id,
            cluster_size=seen.cluster_size,
            lint_errors=seen.lint_errors,
            diff_lines=seen.diff_lines,
        )

    async def _ballot(self, event: StoredEvent, cast: BallotCast) -> BallotRow:
        return BallotRow(
            story_id=self._story_id,
            council_id=cast.council_id,
            version=event.version,
            round=cast.round,
            voter=cast.voter,
            attempt=cast.attempt,
            is_counted=True,
            refused_for=None,
            votes=tuple(VoteOn(candidate, vote) for candidate, vote in sorted(cast.votes.items())),
            ranking=tuple(cast.ranking),
            reasons=self._texts.json_or_none(await self._texts.value(cast.reasons_digest)),
            tokens=cast.tokens,
        )

    async def _refused(self, event: StoredEvent, refused: BallotRefused) -> BallotRow:
        return BallotRow(
            story_id=self._story_id,
            council_id=refused.council_id,
            version=event.version,
            round=refused.round,
            voter=refused.voter,
            attempt=refused.attempt,
            is_counted=False,
            refused_for=refused.code,
            votes=(),
            ranking=(),
            reasons=self._texts.json_or_none(await self._texts.value(refused.ballot_digest)),
            tokens=None,
        )

    async def _council(self, council: _Open, ended: Ended | None) -> CouncilRow:
        opened, tests = council.opened, council.tests
        decided = ended if isinstance(ended, CouncilDecided) else None
        voted = ended if isinstance(ended, CouncilDecided | CouncilUndecided) else None
        return CouncilRow(
            story_id=self._story_id,
            council_id=opened.council_id,
            version=council.event.version,
            kind=opened.kind,
            output_kind=opened.output_kind,
            task_id=opened.task_id,
            seats=tuple(
                SeatOfCouncil(m.member_id, m.role, m.weight, m.can_propose, m.can_vote, m.test_author)
                for m in opened.roster
            ),
            quorum=opened.quorum,
            rounds=opened.rounds,
            seed=opened.seed,
            rule_version=opened.rule_version,
            tests_kept=tests.kept if tests else (),
            tests_dropped=tuple(TestDropped(d.test, d.reason) for d in tests.dropped) if tests else (),
            tests_trusted=tests.trusted if tests else None,
            outcome=_outcome(ended),
            decided_in=decided.decided_in if decided else None,
            winner=decided.winner if decided else None,
            verdict=decided.verdict if decided else None,
            estimate=decided.estimate if decided else None,
            reason=ended.reason if isinstance(ended, CouncilUndecided | CouncilCancelled) else None,
            tokens=tuple(PhaseTokens(p, n) for p, n in sorted(decided.tokens.items())) if decided else (),
            tally=self._texts.json_or_none(voted.tally) if voted else None,
            counterfactuals=self._texts.json_or_none(decided.counterfactuals) if decided else None,
            minority_report=await self._texts.text(voted.minority_report_digest) if voted else None,
            decision_hash=voted.decision_hash if voted else None,
        )


def _outcome(ended: Ended | None) -> str:
    match ended:
        case None:
            return "open"
        case CouncilDecided():
            return "decided"
        case CouncilUndecided():
            return "undecided"
        case CouncilCancelled():
            return "cancelled"
