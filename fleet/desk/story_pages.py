"""What people read of a story, as values: offers, runs, councils and packs. `StoryDesk` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleet.context.port import Pack
from fleet.events.story import GuardResult
from fleet.report.councils import CouncilSummary
from fleet.report.model import TimelineRow
from fleet.story.lifecycle import Transition
from fleet.story.state import Step


@dataclass(frozen=True, slots=True)
class Offer:
    """One event that is legal in the story's state: who may fire it, and what each guard says now (LC-9)."""

    row: Transition
    guards: tuple[GuardResult, ...]
    needs_person: bool


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run or tool call of the story; the lines of a run are read by its step."""

    step_id: str
    run_id: str | None
    """Of a run or call that somebody asked for; the story's own procedures have none."""
    kind: str
    what: str
    as_role: str
    principal: str
    task_id: str | None
    council_id: str | None
    started_ms: int
    status: str
    exit_code: int | None
    reason: str | None
    excerpt: str | None


@dataclass(frozen=True, slots=True)
class CouncilView:
    """One council: its summary, what happened in it in order, and its minority report once there is one."""

    summary: CouncilSummary
    timeline: tuple[TimelineRow, ...]
    minority: Any
    asked: Any = None
    """The request with its question, and the story's criteria then; None of the story's own councils."""
    answer: Any = None
    """What the winner wrote."""
    record: Any = None
    """The whole record of the outcome: candidates, evidence, ballots with reasons, tally (CN-58)."""
    reasons: tuple[tuple[str, ...], ...] = ()
    """Of an estimate: what members said in each round of the summary, without names and values (CN-70)."""


@dataclass(frozen=True, slots=True)
class PackView:
    """What one role sees in one phase; `refused` says why it sees nothing."""

    role: str
    phase: str
    pack: Pack | None
    refused: str | None = None


def run_line(step: Step) -> RunLine:
    """The line of this step."""
    started, finished = step.started, step.finished
    head, _, rest = started.step_id.partition("/")
    status = finished.outcome if finished else "unknown" if step.is_unresolved else "running"
    return RunLine(
        step_id=started.step_id,
        run_id=rest if head == "run" else None,
        kind=started.kind,
        what=".".join(part for part in (started.tool, started.op) if part) or started.kind,
        as_role=started.as_role,
        principal=started.principal,
        task_id=started.task_id,
        council_id=started.council_id,
        started_ms=step.started_ms,
        status=status,
        exit_code=finished.exit_code if finished else None,
        reason=finished.reason if finished else None,
        excerpt=finished.excerpt if finished else None,
    )
