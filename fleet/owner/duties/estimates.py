"""Estimates by a council: blind values in rounds, and what comes of them on record (CN-70, PL-80..PL-83)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fleet.council.delphi import EstimateConclusion, EstimateRound, OwedEstimate, conclude_estimate
from fleet.events.council import CouncilDecided, CouncilUndecided, EstimateCast, RosterMember
from fleet.events.payload import Payload
from fleet.events.task import TaskEstimated
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import ModelError, ReplyMalformed
from fleet.kernel.ids import SYSTEM
from fleet.owner.duties.ballots import no_answer
from fleet.owner.duties.members import Sitting, ask_member
from fleet.owner.duties.verdicts import tokens_by_phase
from fleet.planning.estimates import Estimated, estimate_form, read_estimate, told_of_round


async def cast_estimate(sitting: Sitting, duty: OwedEstimate) -> None:
    """The member's value of this round is on record, or that it is absent in it (PL-83)."""
    seat, name = sitting.seat(str(duty.member.member_id)), f"estimate/{duty.round}/{duty.member.member_id}"
    payload: Payload
    try:
        value, reason = await _ask(sitting, duty, seat, name)
        payload = EstimateCast(
            council_id=sitting.council_id,
            round=duty.round,
            member_id=seat.member_id,
            value=value,
            reason_digest=await sitting.bench.blobs.put(canonical_json({"reason": reason})),
        )
    except ModelError as error:
        payload = await no_answer(sitting, seat, error, round=duty.round, attempt=duty.round)
    await sitting.say(f"{name}/received", payload, by=seat.principal)


async def _ask(sitting: Sitting, duty: OwedEstimate, seat: RosterMember, name: str) -> tuple[int, str]:
    """Value and reason, after one repair request where the first answer cannot be used."""
    scale, problem = sitting.state.opened.scale, ""
    points = ", ".join(map(str, scale))
    told = f"Say how much work this is: one of {points} points, and why.\n\n{await _told(sitting, duty.before)}".strip()
    for step in (name, f"{name}-repair"):
        answer = await ask_member(
            sitting.bench,
            sitting.record,
            seat,
            "advise",
            step=step,
            shared=sitting.shared,
            own=told + problem,
            schema=estimate_form(scale),
        )
        try:
            return read_estimate(answer.value, scale)
        except ReplyMalformed as error:
            problem = f"\n\nYour estimate cannot be used: {error.message}. Answer again."
    raise ReplyMalformed(f"the estimate of {seat.member_id} cannot be used:{problem}")


async def _told(sitting: Sitting, before: EstimateRound | None) -> str:
    if before is None:
        return ""
    assert before.median is not None, "a round that too few answered is the last one"
    return told_of_round(before.median, await _reasons(sitting, before))


async def _reasons(sitting: Sitting, round: EstimateRound) -> list[str]:
    return sorted([str((await sitting.load(digest))["reason"]) for digest in round.reasons])


async def decide(sitting: Sitting) -> None:
    """The estimate is on record with its rounds, and with its task; or why there is none, which escalates nothing."""
    conclusion = conclude_estimate(sitting.state)
    tokens = tokens_by_phase(sitting.bench.state, sitting.record)
    tally, blobs = _tally(sitting, conclusion), sitting.bench.blobs
    reasons = [{"round": r.number, "reasons": await _reasons(sitting, r)} for r in conclusion.rounds]
    minority = _minority(conclusion)
    record = _record(sitting, conclusion) | {"tally": tally, "reasons": reasons, "tokens": tokens}
    facts: dict[str, Any] = {
        "council_id": sitting.council_id,
        "tally": tally,
        "decision_hash": conclusion.decision_hash,
        "minority_report_digest": await blobs.put(canonical_json(minority)),
        "record_digest": await blobs.put(canonical_json(record | {"minority_report": minority})),
    }
    if isinstance(conclusion.result, str):
        await sitting.say("undecided", CouncilUndecided(**facts, reason=conclusion.result), by=SYSTEM)
        return
    decided = CouncilDecided(
        **facts, decided_in="P6", estimate=conclusion.result.points, counterfactuals={}, tokens=tokens
    )
    await sitting.say("decided", decided, *_of_task(sitting, conclusion.result), by=SYSTEM)


def _of_task(sitting: Sitting, estimated: Estimated) -> tuple[TaskEstimated, ...]:
    """What the task's own record says; a council on a whole story has none."""
    task_id = sitting.opened.task_id
    if task_id is None:
        return ()
    return (
        TaskEstimated(
            task_id=task_id,
            points=estimated.points,
            method="delphi",
            median=estimated.points,
            iqr=str(estimated.iqr),
            rounds=estimated.rounds,
            converged=estimated.converged,
            values=estimated.values,
            council_id=sitting.council_id,
        ),
    )


def _tally(sitting: Sitting, conclusion: EstimateConclusion) -> dict[str, Any]:
    """The numbers of every round, without names."""
    result = conclusion.result
    return {
        "scale": list(sitting.state.opened.scale),
        "rounds": [
            {"round": r.number, "values": list(r.values), "median": r.median, "iqr": r.iqr, "absent": r.absent}
            for r in conclusion.rounds
        ],
        "estimate": None if isinstance(result, str) else asdict(result) | {"values": list(result.values)},
    }


def _minority(conclusion: EstimateConclusion) -> dict[str, Any]:
    """What speaks against the estimate: that the values never came together, and which of them lie elsewhere."""
    if isinstance(conclusion.result, str):
        return {"converged": False, "others": []}
    others = [value for value in conclusion.result.values if value != conclusion.result.points]
    return {"converged": conclusion.result.converged, "others": others}


def _record(sitting: Sitting, conclusion: EstimateConclusion) -> dict[str, Any]:
    """The outcome with what it stands on, for whoever reads it without the log (CN-58)."""
    opened, result = sitting.opened, conclusion.result
    return {
        "council_id": opened.council_id,
        "outcome": "no_decision" if isinstance(result, str) else "decided",
        "winner_or_reason": result if isinstance(result, str) else result.points,
        "decision_hash": conclusion.decision_hash,
        "rule_version": opened.rule_version,
        "seed": opened.seed,
        "roster": [m.model_dump(mode="json") for m in opened.roster],
        "quorum": opened.quorum,
    }
