"""Events as short lines for people who watch a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fleet.cli.output import shown
from fleet.events.council import DraftReceived
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.step import SessionEnded, StepFinished, StepStarted
from fleet.kernel.ids import StoryId
from fleet.story.guards import binds_criteria, shown_criteria, words_of_tests
from fleet.story.sessions.steps import session_id_of
from fleet.story.state import StoryState


def narrate(event: StoredEvent, payload: Payload, names: dict[str, str] | None = None) -> tuple[str, ...]:
    """The lines for one event; none for those that say nothing new to a person.

    Args:
        names: candidate id -> author, filled as drafts arrive. A watcher may know who wrote what; a voter may not.
    """
    teller = _TELLERS.get(payload.type)
    if teller is None:
        return ()
    authors = {} if names is None else names
    line = teller(payload)
    if isinstance(payload, DraftReceived):
        authors[payload.candidate_id] = payload.member_id
    for candidate, author in authors.items():
        line = line.replace(candidate, f"the draft of {author}")
    return (shown(line),) if line else ()


def tell_criteria(state: StoryState) -> list[str]:
    """What shows each criterion on the present tree, a line each; none before the tree was measured."""
    if not binds_criteria(state) or state.tree not in state.reports:
        return []
    lines = list[str]()
    for c in shown_criteria(state, state.tree):
        how = f"waived by {c.waiver.by}" if c.waiver else "not shown by any test"
        lines.append(f"{c.ac_id}: {words_of_tests(c.tests) if c.tests else how}")
    return lines


_MOST_CALLS, _MOST_ABOUT, _MOST_SAID = 4, 72, 80


class TurnLines:
    """The turns of work sessions as one line each, once a turn is over: who, which turn, what was called, what came.

    It remembers the turns under way, so one is for one watcher.
    """

    def __init__(self, story_id: StoryId) -> None:
        self._story = story_id
        self._turns: dict[str, tuple[str, dict[str, str]]] = {}
        """By session: the turn under way, and its calls by their steps."""
        self._calls: dict[str, str] = {}
        """By step of a call: its session."""

    def tell(self, payload: Payload) -> tuple[str, ...] | None:
        """The lines for a step of a session or its end; None for any other payload."""
        match payload:
            case StepStarted(about=str(about)) if payload.kind == "model":
                return self._began(payload, about)
            case StepStarted(about=str(about)) if (session := self._session_of(payload.step_id)) is not None:
                self._turns[session][1][payload.step_id] = _cut(about, _MOST_ABOUT)
                self._calls[payload.step_id] = session
                return ()
            case StepFinished() if payload.step_id in self._calls:
                self._ended(payload)
                return ()
            case SessionEnded():
                over = [each for each in self._turns if session_id_of(self._story, each) == payload.session_id]
                lines = [line for each in over for line in self._out(each)]
                why = payload.reason.replace("_", " ")
                return (*lines, shown(f"  session {payload.session_id} is over after {payload.turns} turns: {why}"))
            case _:
                return None

    def _began(self, step: StepStarted, about: str) -> tuple[str, ...]:
        session = step.step_id.rpartition("/")[0]
        lines = self._out(session)
        self._turns[session] = f"{step.principal.partition(':')[2]}, {about}", {}
        return lines

    def _session_of(self, step_id: str) -> str | None:
        session = step_id.partition("/call/")[0].rpartition("/")[0]
        return session if "/call/" in step_id and session in self._turns else None

    def _ended(self, step: StepFinished) -> None:
        session, place = self._calls.pop(step.step_id), step.step_id
        if session not in self._turns:
            return
        calls = self._turns[session][1]
        if step.exit_code is not None or step.reason not in (None, "ok"):
            is_exit = step.exit_code is not None and step.reason in (None, "ok", "exit_nonzero")
            word = "answer" if "__" in calls[place].partition(" ")[0] else "exit"  # a look outside, or a command
            calls[place] += f": {word} {step.exit_code}" if is_exit else f": {step.reason}".replace("_", " ")
        elif step.excerpt and step.reason is None:  # a look outside that came to something says it to the engineer
            calls[place] += f": {_cut(step.excerpt, _MOST_SAID)}"

    def _out(self, session: str) -> tuple[str, ...]:
        if (turn := self._turns.pop(session, None)) is None:
            return ()
        # Looks are made at once, and may have begun in another order than that of the reply.
        who, calls = turn[0], [turn[1][step] for step in sorted(turn[1], key=_number_of)]
        more = [f"{len(calls) - _MOST_CALLS} more"] if len(calls) > _MOST_CALLS else []
        return (shown(f"  {who}: {'; '.join([*calls[:_MOST_CALLS], *more]) or 'no call'}"),)


def _number_of(step_id: str) -> int:
    return int(step_id.partition("/call/")[2].partition("/")[0])


def _cut(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def _steps(p: Any) -> str:
    who, what = p.principal.split(":", 1)[1], p.op or "work"
    if p.about is not None:
        # A step of a work session: its turns, its looks and edits, its commands.
        return f"  {who}, {p.about}" if p.kind == "model" else f"    {who}: {p.about}"
    return "" if p.kind != "model" else f"  {who} is asked: {what}"


def _ended(p: Any) -> str:
    # An environment that could not be made parks the story, which says why.
    is_told = p.step_id.startswith("environment/") and p.outcome == "succeeded"
    return f"    {p.excerpt}" if is_told and p.excerpt else ""


def _grant(p: Any) -> str:
    how = "delegated" if p.delegated else "in person"
    return f"gate approved by {p.principal} as {p.as_role} ({how})"


def _evidence(p: Any) -> str:
    e = p.evidence
    gates = "all gates ok" if e.gates_ok else "fails " + ", ".join(g.name for g in e.gates if not g.ok)
    tests = f", trusted tests {e.trusted_passed}/{e.trusted_total}" if e.trusted_total else ""
    return f"  evidence, round {p.round}: {e.candidate_id}: {gates}{tests}"


def _filtered(p: Any) -> str:
    before = sum(p.on_base.get(test) == "passed" for test in p.kept) if p.on_base else 0
    told = f", {before} pass without a candidate too" if before else ""
    return f"  tests: {len(p.kept)} kept, {len(p.dropped)} dropped{told}" + ("" if p.trusted else " (not trusted)")


def _ballot(p: Any) -> str:
    votes = ", ".join(f"{k} {v}" for k, v in p.votes.items())
    return f"  ballot of {p.voter}{' in reversed order' if p.attempt > 1 else ''}: {votes}"


def _scored(p: Any) -> str:
    return f"quality score {p.score}, verdict {p.verdict}" + (f" (limited by {p.limited_by})" if p.reasons else "")


def _merged(p: Any) -> str:
    restored = f"checkpoint {p.restored_from} restored, " if p.restored_from else ""
    return f"{restored}tree at commit {p.commit[:12]}" + (f", {len(p.files)} files changed" if p.files else "")


def _budget(p: Any) -> str:
    limits = ", ".join(f"{name} {limit}" for name, limit in p.limits.items())
    return f"budget of {p.scope.kind} {p.scope.id} set by {p.by}: {limits}"


_TELLERS: Mapping[str, Callable[[Any], str]] = {
    "StoryTransitioned": lambda p: f"state {p.from_} -> {p.to}",
    "OwnershipTaken": lambda p: f"owned by {p.owner} (epoch {p.epoch}, {p.cause})",
    "RestoreRequested": lambda p: f"checkpoint {p.checkpoint_id} is to be restored: {p.reason}",
    "TreeMerged": _merged,
    "WorkspaceScored": _scored,
    "CouncilOpened": lambda p: f"council on {p.output_kind}: {', '.join(m.member_id for m in p.roster)}",
    "DraftReceived": lambda p: f"  draft of {p.member_id}",
    "DraftFailed": lambda p: f"  no draft of {p.member_id}: {p.code}",
    "TestsAuthored": lambda p: f"  {p.count} tests by {p.author}",
    "TestsFiltered": _filtered,
    "EvidenceRecorded": _evidence,
    "RepairReceived": lambda p: f"  repair of {p.candidate_id}: kept {p.kept} ({p.reason})",
    "CritiqueReceived": lambda p: f"  critique of {p.candidate_id} by {p.critic}",
    "BallotCast": _ballot,
    "BallotRefused": lambda p: f"  ballot of {p.voter} refused: {p.code}",
    "CouncilDecided": lambda p: f"council decided in {p.decided_in}: {p.winner or p.verdict}",
    "CouncilUndecided": lambda p: f"council undecided: {p.reason}",
    "DecisionAccepted": lambda p: f"decision {p.decision_id} accepted by {p.by}",
    "PlanAdopted": lambda p: f"plan version {p.version} adopted",
    "TaskTransitioned": lambda p: f"  task {p.from_} -> {p.to}" + (f": {p.feedback}" if p.feedback else ""),
    "ApprovalRequested": lambda p: f"gate {p.gate} waits for role {p.role}",
    "ApprovalGranted": _grant,
    "ApprovalRejected": lambda p: f"gate rejected by {p.principal}: {p.reason}",
    "StepStarted": _steps,
    "StepFinished": _ended,
    "SessionTold": lambda p: f"  {p.by} told session {p.session_id}: {_cut(p.text, 200)}",
    "SessionStopped": lambda p: f"  {p.by} stopped session {p.session_id}: {p.reason}",
    "SessionForked": lambda p: f"  {p.by} forked session {p.source_id} at turn {p.turn}: {p.session_id}",
    "SessionEnded": lambda p: f"  session {p.session_id} is over after {p.turns} turns: {p.reason.replace('_', ' ')}",
    "StoryParked": lambda p: f"parked ({p.cause}): {p.detail}",
    "CriterionWaived": lambda p: f"criterion {p.ac_id} waived by {p.by}: {p.reason}",
    "DimensionWaived": lambda p: f"{p.dimension} counts in no score for a time, says {p.principal}: {p.reason}",
    "StoryUnparked": lambda p: f"goes on: {p.note}",
    "BudgetWarning": lambda p: f"budget: {p.used} of {p.max} {p.limit} of {p.scope.kind} {p.scope.id} are used",
    "BudgetExhausted": lambda p: f"budget: {p.max} {p.limit} of {p.scope.kind} {p.scope.id} are used up",
    "BudgetSet": _budget,
    "DocsProduced": lambda p: f"{len(p.docs)} documents written",
    "ReportGenerated": lambda p: f"report as of version {p.as_of}",
    "StoryClosed": lambda p: f"closed in state {p.final_state}",
}
