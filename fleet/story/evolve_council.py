"""Fold of the council events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fleet.events import (
    BallotCast,
    BallotRefused,
    CouncilCancelled,
    CouncilDecided,
    CouncilOpened,
    CouncilUndecided,
    CritiqueReceived,
    DraftFailed,
    DraftReceived,
    EvidenceRecorded,
    Payload,
    RepairReceived,
    RoundOpened,
    StoredEvent,
    TestsAuthored,
    TestsFiltered,
)
from fleet.story.state import CouncilRecord, Draft, StoryState

__all__ = ["HANDLERS"]


def _opened(s: StoryState, p: CouncilOpened, event: StoredEvent) -> StoryState:
    return _put(s, CouncilRecord(opened=p, opened_version=event.version))


def _put(s: StoryState, record: CouncilRecord) -> StoryState:
    return s.with_(councils={**s.councils, record.opened.council_id: record})


def _draft(r: CouncilRecord, p: DraftReceived) -> CouncilRecord:
    draft = Draft(p.candidate_id, p.member_id, p.candidate_digest, p.tokens)
    return replace(r, drafts={**r.drafts, p.candidate_id: draft})


def _failed(r: CouncilRecord, p: DraftFailed) -> CouncilRecord:
    author = any(m.member_id == p.member_id and m.test_author for m in r.opened.roster)
    return replace(r, failed=(*r.failed, p.member_id), tests_done=r.tests_done or author)


def _tests(r: CouncilRecord, p: TestsAuthored) -> CouncilRecord:
    return replace(r, tests=p.tests_digest, tests_done=True)


def _filtered(r: CouncilRecord, p: TestsFiltered) -> CouncilRecord:
    return replace(r, filtered=p)


def _evidence(r: CouncilRecord, p: EvidenceRecorded) -> CouncilRecord:
    return replace(
        r, evidence={**r.evidence, p.evidence.candidate_id: p.evidence}, rounds_done=max(r.rounds_done, p.round)
    )


def _round(r: CouncilRecord, p: RoundOpened) -> CouncilRecord:
    return replace(r, phase=p.phase, round=p.round)


def _critique(r: CouncilRecord, p: CritiqueReceived) -> CouncilRecord:
    return replace(r, critiques={**r.critiques, p.candidate_id: p.critique_digest})


def _repair(r: CouncilRecord, p: RepairReceived) -> CouncilRecord:
    done = {**r.repairs, p.candidate_id: p.round}
    if p.kept == "old":
        return replace(r, repairs=done)
    draft = replace(r.drafts[p.candidate_id], content=p.new_digest)
    return replace(r, repairs=done, drafts={**r.drafts, p.candidate_id: draft}, last_change=p.round)


def _ballot(r: CouncilRecord, p: BallotCast) -> CouncilRecord:
    # Only the first valid ballot of a voter counts (CN-48).
    return r if p.voter in r.ballots else replace(r, ballots={**r.ballots, p.voter: p})


def _refused(r: CouncilRecord, p: BallotRefused) -> CouncilRecord:
    return replace(r, refused=(*r.refused, p.voter))


def _decided(r: CouncilRecord, p: CouncilDecided) -> CouncilRecord:
    return replace(r, status="DECIDED", winner=p.winner)


def _undecided(r: CouncilRecord, p: CouncilUndecided) -> CouncilRecord:
    return replace(r, status="UNDECIDED", reason=p.reason)


def _cancelled(r: CouncilRecord, p: CouncilCancelled) -> CouncilRecord:
    return replace(r, status="CANCELLED", reason=p.reason)


def _within(
    change: Callable[[CouncilRecord, Any], CouncilRecord],
) -> Callable[[StoryState, Any, StoredEvent], StoryState]:
    def handler(s: StoryState, p: Any, _: StoredEvent) -> StoryState:
        known = s.councils.get(p.council_id)
        return s if known is None else _put(s, change(known, p))

    return handler


HANDLERS: Mapping[type[Payload], Callable[[StoryState, Any, StoredEvent], StoryState]] = {
    CouncilOpened: _opened,
    DraftReceived: _within(_draft),
    DraftFailed: _within(_failed),
    TestsAuthored: _within(_tests),
    TestsFiltered: _within(_filtered),
    EvidenceRecorded: _within(_evidence),
    RoundOpened: _within(_round),
    CritiqueReceived: _within(_critique),
    RepairReceived: _within(_repair),
    BallotCast: _within(_ballot),
    BallotRefused: _within(_refused),
    CouncilDecided: _within(_decided),
    CouncilUndecided: _within(_undecided),
    CouncilCancelled: _within(_cancelled),
}
