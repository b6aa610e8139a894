"""What a run came to, for the last screen of `fleet run` and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleet.council.evidence import CandidateEvidence
from fleet.events.codec import decode
from fleet.events.council import BallotCast, DraftReceived
from fleet.events.envelope import StoredEvent
from fleet.events.story import StoryCreated, StoryTransitioned
from fleet.story.state import CouncilRecord, StoryState


def summarise(state: StoryState, events: Sequence[StoredEvent], *, waiting_for: str | None) -> dict[str, Any]:
    """Outcome, branch, commit, tests, votes and time per phase as recorded; `lines` is the same for people."""
    outcome = "done" if state.closed else "waiting" if state.disposition == "active" else state.disposition
    report = state.reports.get(state.tree) if state.tree else None
    unit = report.summary.unit if report else None
    e2e = report.summary.e2e if report else None
    score = state.scores.get(state.tree) if state.tree else None
    cast = [p for p in map(decode, events) if isinstance(p, BallotCast)]
    votes = len({(p.council_id, p.round, p.voter) for p in cast})
    phases = phase_seconds(events)
    published = state.closed and state.commit is not None and state.commit != state.base_commit
    asked = state.steps.get("change_request")
    facts: dict[str, Any] = {
        "story_id": state.story_id,
        "title": state.content.title,
        "outcome": outcome,
        "state": state.state,
        "version": state.version,
        "waiting_for": waiting_for,
        "branch": f"fleet/{state.story_id}" if published else None,
        "commit": state.commit if published else None,
        "change_request": asked.finished.excerpt if asked and asked.finished else None,
        "tests": {
            "unit": unit.model_dump() if unit else None,
            "e2e": e2e.model_dump() if e2e else None,
        },
        "score": score.score if score else None,
        "verdict": score.verdict if score else None,
        "ballots": votes,
        "councils": [_council(c) for c in state.councils.values()],
        "tokens": state.tokens,
        "model_calls": state.calls,
        "phases": phases,
    }
    return facts | {"lines": _lines(facts)}


def _council(record: CouncilRecord) -> dict[str, Any]:
    return {
        "kind": f"advice on {record.opened.output_kind}" if record.is_advice else record.opened.output_kind,
        "status": record.status,
        "winner": record.winner,
        "reason": record.reason,
        "drafts": sum(isinstance(p, DraftReceived) for p in record.said.values()),
        "why": why_chosen(record),
    }


def why_chosen(record: CouncilRecord) -> str | None:
    """Why this work on a task was chosen before the others (CN-53).

    None where nothing was chosen, or what was chosen cannot be executed.
    """
    if record.winner is None or record.opened.output_kind != "code_patch":
        return None
    found = {version.author: version for version in record.deliberation.versions() if version.evidence is not None}
    author, won = record.chosen.author, record.chosen.evidence
    assert won is not None, "only what was measured is chosen"
    others = [version.evidence for name, version in found.items() if name != author and version.evidence is not None]
    told = [f"chose the work of {author}: {_shown(won)}"]
    told += [f"{name}: {_shown(v.evidence)}" for name, v in sorted(found.items()) if name != author and v.evidence]
    if not others:
        return told[0]
    if any((e.gates_ok, e.trusted_passed) != (won.gates_ok, won.trusted_passed) for e in others):
        by = "what was executed decided"
    elif any(e.cluster_id != won.cluster_id for e in others):
        by = "most of them behave like it" if won.cluster_size > 1 else "ballots decided between equals"
    else:
        by = "they behave alike, and the smallest change was taken"
    return f"{'; '.join(told)}; {by}"


def _shown(found: CandidateEvidence) -> str:
    failed = [gate.name for gate in found.gates if not gate.ok]
    gates = f"gate {', '.join(failed)} failed" if failed else "gates passed"
    return f"{gates}, {found.trusted_passed} of {found.trusted_total} independent tests, {found.diff_lines} lines"


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    if facts["branch"]:
        lines += [("branch", facts["branch"]), ("commit", facts["commit"])]
    if facts["change_request"]:
        lines.append(("request", facts["change_request"]))
    for name in ("unit", "e2e"):
        tests = facts["tests"][name]
        if tests:
            lines.append((f"{name}", f"{tests['passed']} passed, {tests['failed'] + tests['errored']} failed"))
    if facts["score"]:
        lines.append(("quality", f"score {facts['score']}, verdict {facts['verdict']}"))
    for council in facts["councils"]:
        left = "open" if council["status"] == "IN_PROGRESS" else "a verdict, in its record"
        what = council["winner"] or council["reason"] or left
        lines.append(("council", f"{council['kind']}: {council['drafts']} drafts, {council['status'].lower()}: {what}"))
        lines += [("why", council["why"])] if council["why"] else []
    lines.append(("votes", f"{facts['ballots']} ballots"))
    lines.append(("model", f"{facts['model_calls']} calls, {facts['tokens']} tokens"))
    lines.append(("phases", ", ".join(f"{k} {v} s" for k, v in facts["phases"].items())))
    if facts["waiting_for"]:
        lines.append(("next", facts["waiting_for"]))
    return lines


def phase_seconds(events: Sequence[StoredEvent]) -> dict[str, float]:
    """Seconds spent in each state of the lifecycle, in the order in which the states were first entered."""
    spent: dict[str, float] = {}
    state, since = "", events[0].ts_ms if events else 0
    for event in events:
        payload = decode(event)
        if isinstance(payload, StoryCreated):
            state = payload.first_state
        elif isinstance(payload, StoryTransitioned):
            spent[state] = spent.get(state, 0) + (event.ts_ms - since) / 1000
            state, since = payload.to, event.ts_ms
    if events:
        spent[state] = spent.get(state, 0) + (events[-1].ts_ms - since) / 1000
    return {k: round(v, 1) for k, v in spent.items() if v >= 0.05}
