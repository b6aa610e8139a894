"""Estimates: blind values in rounds, after which members see the median and the reasons alone (CN-70, PL-80..PL-83)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fleet.council.facts import CastEstimate
from fleet.council.roster import Member
from fleet.council.state import CouncilState
from fleet.kernel.digest import digest_of_json
from fleet.kernel.ids import Digest
from fleet.kernel.types import UndecidedReason
from fleet.planning.estimates import (
    AnotherRound,
    Estimated,
    NoEstimate,
    close_estimate_round,
    iqr_on_scale,
    median_on_scale,
)
from fleet.planning.planning_config import EstimateConfig


@dataclass(frozen=True, slots=True)
class OwedEstimate:
    """This voter has not answered in this round; answer with CastEstimate, or RefusedBallot whose attempt is the round.

    `before` is what it is shown of the round before; None in the first.
    """

    member: Member
    round: int
    before: EstimateRound | None


@dataclass(frozen=True, slots=True)
class EstimateRound:
    """One round without names: nothing in it says who gave which value, or whose a reason is."""

    number: int
    """1 for the first."""
    values: tuple[int, ...]
    """On the scale, rising."""
    reasons: tuple[Digest, ...]
    """Sorted, so that their order says nothing of the values."""
    median: int | None
    """None when nobody gave a value."""
    iqr: int | None
    """Upper minus lower quartile, in points."""
    absent: int
    """Voters whose answer does not count, or who gave none (PL-83)."""


@dataclass(frozen=True, slots=True)
class EstimateConclusion:
    """The estimate, or why there is none. The same facts give the same conclusion and hash (CN-108)."""

    result: Estimated | UndecidedReason
    rounds: tuple[EstimateRound, ...]
    decision_hash: Digest


def owed_estimates(state: CouncilState) -> tuple[OwedEstimate, ...]:
    """Whose answer the round that is open waits for, all of them at once. Empty once the estimate can be concluded."""
    before: EstimateRound | None = None
    for number in range(1, _config(state).max_rounds + 1):
        missing = [m for m in state.opened.voters if not _is_answered(state, m, number)]
        if missing:
            return tuple(OwedEstimate(member, number, before) for member in missing)
        if not isinstance(_closed(state, number), AnotherRound):
            return ()
        before = _round(state, number)
    return ()


def estimate_rounds(state: CouncilState, *, with_open: bool = False) -> tuple[EstimateRound, ...]:
    """The rounds in which every voter was heard; with `with_open` also one that was broken off with values in it."""
    return tuple(
        _round(state, number)
        for number in _begun(state)
        if with_open or all(_is_answered(state, m, number) for m in state.opened.voters)
    )


def conclude_estimate(state: CouncilState) -> EstimateConclusion:
    """What the recorded answers come to; after an interruption, those of the last round with enough of them (CN-57)."""
    result = _interrupted(state) if state.interrupted is not None else _finished(state)
    rounds = estimate_rounds(state, with_open=True)
    return EstimateConclusion(result, rounds, _hash(state, result))


def _finished(state: CouncilState) -> Estimated | UndecidedReason:
    last = _closed(state, max(_begun(state), default=1))
    assert not isinstance(last, AnotherRound), "another round is owed before there is a conclusion"
    return "no_quorum" if isinstance(last, NoEstimate) else last


def _interrupted(state: CouncilState) -> Estimated | UndecidedReason:
    assert state.interrupted is not None
    for number in reversed(list(_begun(state))):
        # No further round is held, so that this one is its own cap.
        last = _closed(state, number, is_last=True)
        if isinstance(last, Estimated):
            return last
    return state.interrupted.cause


def _closed(state: CouncilState, number: int, *, is_last: bool = False) -> Estimated | AnotherRound | NoEstimate:
    config = _config(state)
    if is_last:
        config = config.model_copy(update={"max_rounds": number})
    answers = [_value(state, member, number) for member in state.opened.voters]
    return close_estimate_round(answers, round_number=number, config=config)


def _config(state: CouncilState) -> EstimateConfig:
    return EstimateConfig(scale=state.opened.scale, max_rounds=max(1, state.opened.rounds))


def _begun(state: CouncilState) -> Iterator[int]:
    """The numbers of the rounds in which anybody was heard, the first one first."""
    heard = {number for _, number in (*state.estimates, *state.refused)}
    return (number for number in range(1, max(heard, default=0) + 1))


def _value(state: CouncilState, member: Member, number: int) -> int | None:
    said = state.estimates.get((str(member.member_id), number))
    return None if said is None else said.value


def _is_answered(state: CouncilState, member: Member, number: int) -> bool:
    key = (str(member.member_id), number)
    return key in state.estimates or key in state.refused


def _round(state: CouncilState, number: int) -> EstimateRound:
    scale, voters = state.opened.scale, state.opened.voters
    said: list[CastEstimate] = [
        cast for m in voters if (cast := state.estimates.get((str(m.member_id), number))) and cast.value in scale
    ]
    values = sorted(cast.value for cast in said)
    return EstimateRound(
        number=number,
        values=tuple(values),
        reasons=tuple(sorted(cast.reason for cast in said)),
        median=median_on_scale(values) if values else None,
        iqr=iqr_on_scale(values) if values else None,
        absent=len(voters) - len(values),
    )


def _hash(state: CouncilState, result: Estimated | UndecidedReason) -> Digest:
    opened = state.opened
    outcome: dict[str, Any] = {"reason": result} if isinstance(result, str) else {"estimate": result.points}
    return digest_of_json(
        {
            "rule_version": opened.rule_version,
            "rubric": opened.rubric_digest,
            "roster": [[m.member_id, m.role, m.weight, m.can_vote] for m in opened.roster],
            "scale": list(opened.scale),
            "rounds": opened.rounds,
            "answers": sorted([m, number, cast.value] for (m, number), cast in state.estimates.items()),
            "refused": sorted([m, number] for m, number in state.refused),
            "seed": opened.seed,
            "outcome": outcome,
        }
    )
