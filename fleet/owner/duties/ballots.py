"""Blind ballots: each paper is one question to one voter, with one repair of a broken answer (CN-45..CN-48)."""

from __future__ import annotations

from fleet.council.ballot import Ballot, ballot_schema, read_ballot
from fleet.council.facts import DeliveredCritique
from fleet.council.rounds import OwedBallot
from fleet.events.council import BallotCast, BallotRefused, RosterMember
from fleet.events.payload import Payload
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import ModelError, ReplyMalformed
from fleet.kernel.ids import EntityId
from fleet.owner.duties import gate_councils
from fleet.owner.duties.advice import plan_text
from fleet.owner.duties.members import Sitting, ask_member, unless_final
from fleet.owner.engineering.seats import code_of


async def cast_ballot(sitting: Sitting, duty: OwedBallot) -> None:
    """The voter's answer to this paper is on record, or a refusal that counts for nothing."""
    paper, seat = duty.paper, sitting.seat(str(duty.voter.member_id))
    payload: Payload
    try:
        ballot, tokens = await _ask(sitting, duty)
        payload = BallotCast(
            council_id=sitting.council_id,
            round=paper.round,
            voter=seat.member_id,
            attempt=paper.attempt,
            votes={EntityId(c): v for c, v in ballot.votes.items()},
            ranking=tuple(EntityId(c) for c in ballot.ranking),
            reasons_digest=await sitting.bench.blobs.put(canonical_json(ballot.reasons)),
            order_seed=paper.order_seed,
            tokens=tokens,
        )
    except ModelError as error:
        payload = await no_answer(sitting, seat, error, round=paper.round, attempt=paper.attempt)
    await sitting.say(f"ballot/{seat.member_id}/{paper.attempt}/received", payload, by=seat.principal)


async def no_answer(
    sitting: Sitting, seat: RosterMember, error: ModelError, *, round: int, attempt: int
) -> BallotRefused:
    """The record of a voter that gave nothing that counts, with why. Raises the error where it is not the voter's."""
    unless_final(error)
    return BallotRefused(
        council_id=sitting.council_id,
        round=round,
        voter=seat.member_id,
        attempt=attempt,
        code="invalid",
        ballot_digest=await sitting.bench.blobs.put(canonical_json({"error": error.message})),
    )


async def _ask(sitting: Sitting, duty: OwedBallot) -> tuple[Ballot, int]:
    """The ballot, and the tokens of the calls that it took."""
    paper, seat, spent = duty.paper, sitting.seat(str(duty.voter.member_id)), 0
    texts = [f"Candidate {e.label}:\n{await _candidate_text(sitting, e.candidate_id)}" for e in paper.entries]
    shown, problem = "\n\n".join(texts), ""
    for name in (f"ballot/{seat.member_id}/{paper.attempt}", f"ballot/{seat.member_id}/{paper.attempt}-repair"):
        answer = await ask_member(
            sitting.bench,
            sitting.record,
            seat,
            "vote",
            step=name,
            shared=sitting.asked,
            own=shown + problem,
            schema=ballot_schema(paper.labels),
            temperature="0",
        )
        spent += answer.usage.tokens_in + answer.usage.tokens_out
        try:
            return read_ballot(answer.value, paper), spent
        except ReplyMalformed as error:
            labels = ", ".join(paper.labels)
            problem = f"\n\nName every candidate ({labels}) exactly once in votes and once in ranking. {error.message}."
    raise ReplyMalformed(f"the ballot of {seat.member_id} cannot be counted:{problem}")


async def _candidate_text(sitting: Sitting, candidate: str) -> str:
    """What a voter sees of a candidate: its content and its evidence, never its author."""
    version = sitting.state.version(candidate)
    measured = version.evidence
    assert measured is not None, "only what was measured is on a ballot"
    if sitting.opened.kind == "gate":
        checks = ", ".join(f"{g.name} {'ok' if g.ok else 'failed'}" for g in measured.gates)
        return f"{await gate_councils.text_of(sitting, version.digest)}\nChecks: {checks}"
    value = await sitting.load(version.digest)
    if not sitting.is_code:
        lines = [f"{k}: {value[k]}" for k in ("summary", "interface", "path", "risk", "text") if value.get(k)]
        lines += [plan_text(value)] if sitting.opened.output_kind == "plan" else []
        said = sitting.state.critiques.get((candidate, 1))
        if isinstance(said, DeliveredCritique):
            critique = await sitting.load(said.ref)
            lines.append(f"critique ({critique['severity']}): {critique['problem']}")
        return "\n".join(lines)
    code = await code_of(sitting, version.digest)
    lint = f", {measured.lint_errors} lint errors" if measured.lint_errors else ""
    return f"{code}\nTests passed: {measured.trusted_passed} of {measured.trusted_total}{lint}"
