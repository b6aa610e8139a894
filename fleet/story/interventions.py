"""What a person's word on a story that cannot go on by itself records: let it go on, give it up, say what happened."""

from __future__ import annotations

from fleet.events.payload import Payload
from fleet.events.step import StepResolved
from fleet.events.story import StoryCancelled, StoryPaused, StoryResumed, StoryUnparked
from fleet.kernel.errors import ApprovalRequired, InvalidInput, InvalidTransition, NotFound, OutcomeUnknown
from fleet.story.approvals import check_notes
from fleet.story.commands import Caller
from fleet.story.state import StoryState


def pause(state: StoryState, *, caller: Caller, reason: str) -> StoryPaused:
    """What holding a story back records: no step of it starts from here on (PL-50)."""
    if state.is_over or state.is_paused:
        is_now = "paused already" if state.is_paused and not state.is_over else "over"
        raise InvalidTransition(f"story {state.story_id} is {is_now}", state=state.state, event="pause", allowed=[])
    return StoryPaused(scope="story", by=caller.principal, reason=check_notes(reason, "reason"))


def resume(state: StoryState, *, caller: Caller, note: str) -> StoryResumed:
    """What letting a paused story go on records (PL-50)."""
    if state.is_over or not state.is_paused:
        raise InvalidTransition(f"story {state.story_id} is not paused", state=state.state, event="resume", allowed=[])
    return StoryResumed(scope="story", by=caller.principal, reason=check_notes(note, "note") if note.strip() else None)


def require_unpaused(state: StoryState) -> None:
    """Returns when a new step may start; ApprovalRequired while the story is paused: it waits for a person (PL-50)."""
    if state.is_paused:
        raise ApprovalRequired(f"story {state.story_id} is paused: no step starts until a person resumes it")


def unpark(state: StoryState, *, caller: Caller, note: str) -> tuple[Payload, ...]:
    """What letting a parked story go on records (LC-95); OutcomeUnknown while a step waits to be resolved (RC-52)."""
    if state.disposition != "parked" or state.park is None:
        raise InvalidTransition(f"story {state.story_id} is not parked", state=state.state, event="unpark", allowed=[])
    if state.unresolved_steps:
        step_id = state.unresolved_steps[0]
        raise OutcomeUnknown(
            f"nobody knows whether step {step_id} happened: look at what it was sent to, then run `fleet story resolve "
            f"{state.story_id} {step_id} --outcome happened|not_happened --note ...` before the story goes on",
            step_id=step_id,
            story_id=state.story_id,
        )
    why = check_notes(note, "note")
    return (StoryUnparked(by=caller.principal, note=why, cause=state.park.cause),)  # pyright: ignore[reportArgumentType]


def started_again(state: StoryState, *, repo: str, model: str, caller: Caller) -> tuple[Payload, ...]:
    """What goes with a start: nothing at the first one; of a parked story, which may be started again, that it goes on.

    Raises:
        InvalidTransition: the story is at work or over, or its repository was read and another one is named.
        OutcomeUnknown: a step has to be resolved first.
    """
    if state.start is None and not state.closed and state.disposition == "active":
        return ()
    if state.start is None or state.closed or state.disposition != "parked":
        raise InvalidTransition(
            f"story {state.story_id} was started already; `fleet resume` continues it",
            state=state.state,
            event="start",
            allowed=[],
        )
    if state.base_tree is not None and repo != state.start.repo.url:
        raise InvalidTransition(
            f"story {state.story_id} works on {state.start.repo.url} already: name that again, or create another story",
            state=state.state,
            event="start",
            allowed=[],
        )
    note = f"started again on {repo} with {model or 'the models of the roles'}"
    return unpark(state, caller=caller, note=note[:4000])


def cancel(state: StoryState, *, reason: str) -> tuple[Payload, ...]:
    """What giving up the story records (LC-93)."""
    if state.closed or state.disposition in ("cancelled", "archived"):
        raise InvalidTransition(
            f"story {state.story_id} is over already", state=state.state, event="cancel", allowed=[]
        )
    return (StoryCancelled(reason=check_notes(reason, "reason")),)


def resolve_step(state: StoryState, step_id: str, *, outcome: str, caller: Caller, note: str) -> StepResolved:
    """What a person's word on an unknown step records (RC-52, AP-86); the first word stays.

    Raises:
        NotFound: the story has no such step.
        InvalidTransition: the outcome of the step is known.
        InvalidInput: the outcome or the note is not one.
    """
    step = state.steps.get(step_id)
    if step is None:
        raise NotFound(f"story {state.story_id} has no step {step_id!r}", step_id=step_id)
    if not step.is_unresolved:
        raise InvalidTransition(
            f"step {step_id} of story {state.story_id} does not wait for a word: "
            f"{step.resolution or (step.finished.outcome if step.finished else 'it is under way')}",
            state=state.state,
            event="resolve_step",
            allowed=list(state.unresolved_steps),
        )
    match outcome:
        case "happened" | "not_happened":
            return StepResolved(
                step_id=step.started.step_id, outcome=outcome, by=caller.principal, note=check_notes(note, "note")
            )
        case _:
            raise InvalidInput(
                f"{outcome!r} is no outcome: say happened or not_happened",
                field="outcome",
                allowed=["happened", "not_happened"],
            )
