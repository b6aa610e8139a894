"""Blind ballots: seeded labels, both orders, one repair, merged into one ballot per voter (CN-45..CN-48)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fleet.digest import canonical_json
from fleet.errors import ModelError, ReplyMalformed, Retry
from fleet.events import BallotCast, BallotRefused, Payload, RosterMember
from fleet.ids import EntityId
from fleet.services.procedures.members import ask_member
from fleet.services.workbench import Workbench, together
from fleet.story import CouncilRecord
from fleet.story import deliberation as due

__all__ = ["collect", "label_order", "merge_rankings"]

_LABELS = "ABCDE"


async def collect(bench: Workbench, record: CouncilRecord, owed: due.OwedBallots) -> None:
    """Every voter has a ballot on record, or a refusal that counts for nothing."""
    texts = {c: await _candidate_text(bench, record, c) for c in owed.candidates}
    await together(_vote(bench, record, voter, owed.candidates, texts) for voter in owed.voters)


async def _candidate_text(bench: Workbench, record: CouncilRecord, candidate: str) -> str:
    """What a voter sees of a candidate: its content and its evidence, never its author."""
    value = json.loads(await bench.blobs.get(record.drafts[candidate].content))
    found = record.evidence[candidate]
    if record.opened.output_kind != "code_patch":
        lines = [f"{k}: {value[k]}" for k in ("summary", "interface", "path", "risk") if value.get(k)]
        if candidate in record.critiques:
            critique = json.loads(await bench.blobs.get(record.critiques[candidate]))
            lines.append(f"critique ({critique['severity']}): {critique['problem']}")
        return "\n".join(lines)
    code = "\n".join(str(e["content"]).rstrip() for e in value["edits"])
    lint = f", {found.lint_errors} lint errors" if found.lint_errors else ""
    return f"{code}\nTests passed: {found.trusted_passed} of {found.trusted_total}{lint}"


def label_order(candidates: tuple[str, ...], *, seed: int, voter: str) -> tuple[str, ...]:
    """The candidates in the order in which this voter sees them: a shuffle by seed and voter (CN-45)."""
    return tuple(sorted(candidates, key=lambda c: hashlib.sha256(f"{seed}/{voter}/{c}".encode()).digest()))


async def _vote(
    bench: Workbench,
    record: CouncilRecord,
    voter: RosterMember,
    candidates: tuple[str, ...],
    texts: dict[str, str],
) -> None:
    mine = tuple(c for c in candidates if record.author_of(c) != voter.member_id)
    order = label_order(mine, seed=record.opened.seed, voter=voter.member_id)
    payload: Payload
    try:
        first = await _ask(bench, record, voter, order, texts, attempt=1)
        second = await _ask(bench, record, voter, tuple(reversed(order)), texts, attempt=2) if len(order) > 1 else first
        payload = await _merged(bench, record, voter, order, first, second)
    except ModelError as error:
        if error.retry is Retry.LATER:
            raise
        payload = BallotRefused(
            council_id=record.opened.council_id,
            round=record.rounds_done,
            voter=voter.member_id,
            attempt=1,
            code="invalid",
            ballot_digest=await bench.blobs.put(canonical_json({"error": error.message})),
        )
    name = f"{record.opened.council_id}/ballot/{voter.member_id}/received"
    await bench.journal.record(name, payload, actor=voter.principal)


async def _ask(
    bench: Workbench,
    record: CouncilRecord,
    voter: RosterMember,
    order: tuple[str, ...],
    texts: dict[str, str],
    *,
    attempt: int,
) -> dict[str, Any]:
    labels = _LABELS[: len(order)]
    shown = "\n\n".join(f"Candidate {label}:\n{texts[c]}" for label, c in zip(labels, order, strict=True))
    problem = ""
    for repair in (0, 1):
        answer = await ask_member(
            bench,
            record,
            voter,
            "vote",
            step=f"ballot/{voter.member_id}/{attempt}" + ("-repair" if repair else ""),
            shared="",
            own=shown + problem,
            schema=_schema(labels),
            max_tokens=400,
            temperature="0",
        )
        ballot = _by_candidate(answer.value, labels, order)
        if ballot is not None:
            return ballot | {"tokens": answer.usage.tokens_in + answer.usage.tokens_out}
        problem = f"\n\nName every candidate ({', '.join(labels)}) exactly once in votes and once in ranking."
    raise ReplyMalformed(f"the ballot of {voter.member_id} does not name every candidate once")


def _schema(labels: str) -> dict[str, Any]:
    count, label = len(labels), {"type": "string", "enum": list(labels)}
    vote = {
        "type": "object",
        "properties": {
            "label": label,
            "vote": {"type": "string", "enum": ["approve", "reject", "abstain"]},
            "reason": {"type": "string", "minLength": 1, "maxLength": 400},
        },
        "required": ["label", "vote", "reason"],
        "additionalProperties": False,
    }
    properties: dict[str, Any] = {"votes": {"type": "array", "minItems": count, "maxItems": count, "items": vote}}
    if count > 1:  # asked to rank a single label, a small model that rejects it invents another one to put first
        properties["ranking"] = {"type": "array", "minItems": count, "maxItems": count, "items": label}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _by_candidate(value: dict[str, Any], labels: str, order: tuple[str, ...]) -> dict[str, Any] | None:
    names = dict(zip(labels, order, strict=True))
    voted = {names[v["label"]]: (v["vote"], v["reason"]) for v in value["votes"] if v["label"] in names}
    ranking = value.get("ranking", labels)
    if set(voted) != set(order) or sorted(ranking) != sorted(labels):
        return None
    return {
        "votes": {c: v for c, (v, _) in voted.items()},
        "reasons": {c: r for c, (_, r) in voted.items()},
        "ranking": tuple(names[label] for label in ranking),
    }


async def _merged(
    bench: Workbench,
    record: CouncilRecord,
    voter: RosterMember,
    order: tuple[str, ...],
    first: dict[str, Any],
    second: dict[str, Any],
) -> BallotCast:
    votes: dict[EntityId, Any] = {
        EntityId(c): first["votes"][c] if first["votes"][c] == second["votes"][c] else "abstain" for c in order
    }
    reasons = {c: [first["reasons"][c], second["reasons"][c]] for c in order}
    return BallotCast(
        council_id=record.opened.council_id,
        round=record.rounds_done,
        voter=voter.member_id,
        attempt=1,
        votes=votes,
        ranking=tuple(EntityId(c) for c in merge_rankings(first["ranking"], second["ranking"])),
        reasons_digest=await bench.blobs.put(canonical_json(reasons)),
        order_seed=record.opened.seed,
        tokens=first["tokens"] + second["tokens"],
    )


def merge_rankings(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """The longest part of a ranking that both answers agree on; the rest counts as abstention (CN-46)."""
    best: dict[str, tuple[str, ...]] = {}
    for item in first:
        before = [best[o] for o in best if second.index(o) < second.index(item)]
        best[item] = (*max(before, key=len, default=()), item)
    longest = max(best.values(), key=len, default=())
    return longest if len(longest) > 1 or len(first) == 1 else ()
