"""The one change request of a story and the status of its commit (RC-77, RC-105)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleet.forge.port import ChangeRequest, CommitState, EndedChange, OpenedChange
from fleet.forge.service import ChangeTarget
from fleet.kernel.errors import ApprovalRequired, FleetError, OwnershipError, PolicyDenied, Retry
from fleet.owner.duties.push import push_branch
from fleet.owner.journal.steps import Work
from fleet.owner.workbench import Workbench, seat
from fleet.story.state import StoryState

CHANGE_STEP = "change_request"
"""The step of the change request."""
_STATES = {"pass": CommitState.SUCCESS, "warn": CommitState.SUCCESS, "block": CommitState.FAILURE}
_LONGEST_WAIT_S = 120.0


@dataclass(frozen=True, slots=True)
class ChangeText:
    """What a change request says of a story: also before there is one, and where none is ever opened."""

    head: str
    title: str
    body: str
    verdict: str


def change_text(state: StoryState) -> ChangeText:
    """The branch and the words with which the story's work is offered, as the story is now."""
    return ChangeText(f"fleet/{state.story_id}", state.content.title, _body(state), _verdict(state))


async def open_change_request(bench: Workbench) -> None:
    """The published branch has its change request, and its commit shows the verdict; or the record says why not.

    Verdict and report are on record before this, and nothing that a forge does changes them: one that stays down, or
    refuses, leaves a failed step, which the report names as what is left to do, and the story closes.
    """
    target, state = bench.target, bench.state
    published = state.steps.get("publish")
    if target is None or published is None or published.finished is None or state.commit is None:
        return
    change = _change(state, target)
    # Only what can never be different in a repetition: a forge that is configured anew takes the same step up.
    args = {"branch": change.head, "commit": state.commit}
    work = Work(seat=seat("devops"), tool="git", op="open_change_request", args={**args, "title": change.title})

    is_done = CHANGE_STEP in state.steps and state.steps[CHANGE_STEP].finished is not None
    failed = None if is_done else await push_branch(bench, target, change.head, state.commit)

    async def send() -> dict[str, Any]:
        if failed is not None:
            raise failed
        return await _sent(bench, target, change, args["commit"])

    try:
        await bench.journal.act(CHANGE_STEP, args, work, send, keeps_failure=True)
    except (ApprovalRequired, OwnershipError):
        raise
    except PolicyDenied:
        return  # refused on record, and no reason to keep the story open
    except FleetError:
        step = bench.state.steps.get(CHANGE_STEP)
        if step is None or step.finished is None:
            raise


async def _sent(bench: Workbench, target: ChangeTarget, change: ChangeRequest, commit: str) -> dict[str, Any]:
    """Asked for until it is done or the waits are used up; every call may be repeated."""
    for wait_s in target.waits_s:
        try:
            return await _once(bench, target, change, commit)
        except OwnershipError:
            raise
        except FleetError as error:
            if error.retry is Retry.NEVER:
                raise
            asked = error.details.get("retry_after_s")
            longer = float(asked) if isinstance(asked, int | float) else 0.0
            await bench.clock.sleep(min(max(wait_s, longer), _LONGEST_WAIT_S))
    return await _once(bench, target, change, commit)


async def _once(bench: Workbench, target: ChangeTarget, change: ChangeRequest, commit: str) -> dict[str, Any]:
    bench.journal.admit()
    change_request = await target.changes.open_or_update(change)
    bench.journal.admit()
    score = _score(bench.state)
    await target.changes.set_status(
        change.repository,
        commit,
        state=_STATES.get(score[0], CommitState.ERROR),
        description=_verdict(bench.state),
    )
    return {
        "number": change_request.number,
        "link": change_request.link,
        "outcome": _outcome(change_request),
        "summary": _summary(change_request),
    }


def _outcome(change: OpenedChange | EndedChange) -> str:
    match change:
        case OpenedChange():
            return "open"
        case EndedChange():
            return "merged" if change.is_merged else "closed"


def _summary(change: OpenedChange | EndedChange) -> str:
    match _outcome(change):
        case "open":
            return f"Review change request {change.number}: {change.link}"
        case outcome:
            return f"Change request {change.number} was {outcome} by somebody and stays so: {change.link}"


def _change(state: StoryState, target: ChangeTarget) -> ChangeRequest:
    assert state.start is not None
    text = change_text(state)
    return ChangeRequest(
        repository=target.repository or state.start.repo.url,
        base=target.base,
        head=text.head,
        title=text.title,
        body=text.body,
        verdict=text.verdict,
    )


def _score(state: StoryState) -> tuple[str, str]:
    score = state.scores.get(state.tree) if state.tree else None
    return (score.verdict, score.score) if score else ("", "")


def _verdict(state: StoryState) -> str:
    verdict, score = _score(state)
    return f"{verdict}, score {score} at rigor {state.rigor}" if verdict else "not measured"


def _body(state: StoryState) -> str:
    """What was asked, what was done, and where the evidence is; the same in every repetition."""
    lines = [state.content.description, "", "## Acceptance criteria", ""]
    lines += [f"- **{c.ac_id}** {c.text}" for c in state.content.acceptance_criteria]
    lines += ["", "## Work", ""]
    lines += [f"- {t.task.title} ({t.state})" for t in state.tasks.values()] or ["- none"]
    report = state.reports.get(state.tree) if state.tree else None
    unit = report.summary.unit if report else None
    if unit is not None:
        lines += ["", f"Tests: {unit.passed} passed, {unit.failed + unit.errored} failed, {unit.skipped} skipped."]
    lines += ["", f"Story `{state.story_id}`, commit `{state.commit}`."]
    if state.report_digest is not None:
        lines.append(f"Technical report: `{state.report_digest}`; `fleet report {state.story_id}` shows it.")
    return "\n".join(lines)
