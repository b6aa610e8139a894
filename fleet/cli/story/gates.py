"""Gates that a person at the terminal is asked about while a story runs, each with what is decided (PL-54)."""

from __future__ import annotations

from fleet.cli.local.local_principals import local_principal
from fleet.cli.output import Output, shown
from fleet.desk.gates import GateCard, GateDesk
from fleet.desk.planning import PlanningDesk
from fleet.kernel.errors import InvalidInput, InvalidTransition, PolicyDenied, VersionConflict
from fleet.kernel.types import is_reason
from fleet.story.approvals import unanswered_gates
from fleet.story.commands.gates import Approve, Reject
from fleet.story.state import Approval, StoryState

APPROVED = "approved at the terminal"
MOST_LINES = 20
_SHOWN = frozenset({"content", "plan", "tree", "docs", "report", "tree+environment"})
"""Subjects that a few lines can show. Others (budgets, undecided councils, parked stories) wait as before."""
_MARKS = {"added": "A", "removed": "D", "modified": "M"}


class GateAsker:
    """Asks about each gate once. One that gets no answer goes on waiting, for this person or for another."""

    def __init__(self, desk: PlanningDesk, gates: GateDesk, output: Output) -> None:
        self._desk, self._gates, self._output = desk, gates, output
        self._asked = set[str]()

    async def decide(self, state: StoryState) -> bool:
        """Whether a gate that waits got an answer here, so that the story may go on."""
        for approval in unanswered_gates(state):
            request = approval.request
            if request.approval_id not in self._asked and request.subject.kind in _SHOWN:
                self._asked.add(request.approval_id)
                if await self._ask(state, approval):
                    return True
        return False

    async def _ask(self, state: StoryState, approval: Approval) -> bool:
        gate, approval_id = approval.request.gate, approval.request.approval_id
        for line in card_lines(await self._gates.card(state, approval)):
            self._output.say(f"  {shown(line)}")
        answer = (await self._output.ask(f"Approve {gate}? (y/n, empty leaves it waiting)")).casefold()
        if answer in ("y", "yes"):
            return await self._send(state, approval, Approve(gate=approval_id, notes=APPROVED))
        if answer not in ("n", "no"):
            return False
        while reason := await self._output.ask("Why not? (empty leaves it waiting)"):
            if is_reason(reason):
                return await self._send(state, approval, Reject(gate=approval_id, reason=reason))
            self._output.note("[yellow]warning[/] say it in at least ten characters: the team works by it")
        return False

    async def _send(self, state: StoryState, approval: Approval, sent: Approve | Reject) -> bool:
        """Whether it was taken; somebody else may have decided meanwhile, or have the right to."""
        key = f"{state.story_id}/terminal/{approval.request.approval_id}/{sent.command}"
        try:
            await self._desk.require(state.story_id, sent, principal=local_principal(), key=key)
        except (InvalidInput, InvalidTransition, PolicyDenied, VersionConflict) as error:
            self._output.note(f"[yellow]warning[/] {shown(error.message)}")
            return False
        return True


def card_lines(card: GateCard) -> list[str]:
    """What is decided about, a line for each thing."""
    request, state = card.approval.request, card.state
    return [
        f"gate {request.gate} waits for {request.role}",
        *_content_lines(card),
        *_plan_lines(state, request.subject.kind),
        *(f"{_MARKS[one.change]}  {one.path}" for one in card.files[:MOST_LINES]),
        *([f"... and {len(card.files) - MOST_LINES} more files"] if len(card.files) > MOST_LINES else []),
        *_evidence_lines(card),
        f"so far: {card.cost.tokens} tokens in {card.cost.calls} calls",
    ]


def _content_lines(card: GateCard) -> list[str]:
    if card.approval.request.subject.kind != "content":
        return []
    content = card.state.content
    criteria = [f"criterion: {one.text}" for one in content.acceptance_criteria]
    return [content.title, *criteria, *(f"{one.field}: {one.message}" for one in card.findings)]


def _plan_lines(state: StoryState, kind: str) -> list[str]:
    if kind != "plan" or state.plan is None:
        return []
    plan = state.plan.proposal
    tasks = [f"task: {one.title} ({one.role}{', ' + ', '.join(one.paths) if one.paths else ''})" for one in plan.tasks]
    return [*plan.rationale.splitlines()[:MOST_LINES], *tasks]


def _evidence_lines(card: GateCard) -> list[str]:
    lines = list[str]()
    if card.report is not None and (unit := card.report.summary.unit) is not None:
        lines.append(f"tests: {unit.passed} passed, {unit.failed} failed")
    if card.score is not None:
        lines.append(f"score: {card.score.score}, {card.score.verdict}")
    return lines
