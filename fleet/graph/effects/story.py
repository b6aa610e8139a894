"""Graph effects of story, lifecycle and question events (GR-12..GR-14, GR-27, GR-28, GR-40, GR-41, GR-59, GR-65)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fleet.events.story import (
    CriterionWaived,
    MilestoneReached,
    QuestionAnswered,
    QuestionRaised,
    RigorChanged,
    StoryArchived,
    StoryCancelled,
    StoryClosed,
    StoryCreated,
    StoryEdited,
    StoryParked,
    StoryPaused,
    StoryResumed,
    StoryTransitioned,
    StoryUnparked,
)
from fleet.graph.changes import GraphChange, RelationsClosed
from fleet.graph.effects.at import At, Ref, json_text, link, ref_of, texts
from fleet.graph.schema import Label, Rel


def story_created(at: At, e: StoryCreated) -> Iterator[GraphChange]:
    """The story stands under its epic, with its criteria and constraints."""
    yield at.describe(
        Label.STORY,
        at.entity,
        project_id=e.project_id,
        title=e.title,
        disposition="active",
        rigor=e.rigor,
        lifecycle=e.lifecycle,
        content_digest=e.content_digest,
        version=at.version,
        created_at=at.ts_ms,
    )
    yield link(Rel.CONTAINS, (Label.EPIC, e.epic_id), at.ref)
    yield from _criteria(at, [(c.ac_id, c.text) for c in e.acceptance_criteria])
    yield from _constraints(at, e.constraints)


def story_edited(at: At, e: StoryEdited) -> Iterator[GraphChange]:
    """New values; what is no longer listed gets `removed_v`."""
    kept = {name: e.changes[name] for name in ("title", "rigor") if name in e.changes}
    yield at.story(content_digest=e.content_digest, **kept)
    match e.changes.get("acceptance_criteria"):
        case list() as criteria:
            listed: list[dict[str, Any]] = [c for c in criteria if isinstance(c, dict)]
            yield from _criteria(at, [(str(c.get("ac_id")), str(c.get("text"))) for c in listed])
        case _:
            pass
    match e.changes.get("constraints"):
        case dict() as constraints:
            yield from _constraints(at, constraints)
        case _:
            pass


def _criteria(at: At, listed: Sequence[tuple[str, str]]) -> Iterator[GraphChange]:
    ids = [at.scoped(ac_id) for ac_id, _ in listed]
    yield _closed_except(at, Rel.HAS_CRITERION, ids)
    for position, (node_id, (_, text)) in enumerate(zip(ids, listed, strict=True)):
        yield at.describe(Label.CRITERION, node_id, position=position, status="open", **texts(text=text))
        yield link(Rel.HAS_CRITERION, at.ref, (Label.CRITERION, node_id), position=position, removed_v=None)


def _constraints(at: At, listed: Mapping[str, Any]) -> Iterator[GraphChange]:
    ids = {name: at.scoped(name) for name in sorted(listed)}
    yield _closed_except(at, Rel.HAS_CONSTRAINT, list(ids.values()))
    for position, (name, node_id) in enumerate(ids.items()):
        yield at.describe(Label.CONSTRAINT, node_id, key=name, **texts(value=json_text(listed[name])))
        yield link(Rel.HAS_CONSTRAINT, at.ref, (Label.CONSTRAINT, node_id), position=position, removed_v=None)


def _closed_except(at: At, rel: Rel, ids: Sequence[str]) -> RelationsClosed:
    return RelationsClosed(rel, Label.STORY, at.entity, mark="removed_v", value=at.version, keep=tuple(ids))


def story_transitioned(at: At, e: StoryTransitioned) -> Iterator[GraphChange]:
    """The story is in its new state, which is a milestone."""
    yield at.story(state=e.to)
    yield from milestone(at, name=f"state {e.to}", ref=e.event)


def rigor_changed(at: At, e: RigorChanged) -> Iterator[GraphChange]:
    """The story is at another rigor level."""
    yield at.story(rigor=e.to)


def story_parked(at: At, e: StoryParked) -> Iterator[GraphChange]:
    """The story waits for a person."""
    yield at.story(disposition=f"parked:{e.cause}")


def story_unparked(at: At, e: StoryUnparked) -> Iterator[GraphChange]:
    """The story goes on."""
    yield at.story(disposition="active")


def story_paused(at: At, e: StoryPaused) -> Iterator[GraphChange]:
    """The story as a whole starts no step; the pause of a task leaves no trace here."""
    if e.scope == "story":
        yield at.story(disposition="paused")


def story_resumed(at: At, e: StoryResumed) -> Iterator[GraphChange]:
    """The story goes on."""
    if e.scope == "story":
        yield at.story(disposition="active")


def story_cancelled(at: At, e: StoryCancelled) -> Iterator[GraphChange]:
    """The story was given up."""
    yield at.story(disposition="cancelled", closed_at=at.ts_ms)


def story_archived(at: At, e: StoryArchived) -> Iterator[GraphChange]:
    """The story's bytes were exported."""
    yield at.story(disposition="archived")


def story_closed(at: At, e: StoryClosed) -> Iterator[GraphChange]:
    """The story reached a terminal state."""
    yield at.story(state=e.final_state, disposition="closed", closed_at=at.ts_ms)


def criterion_waived(at: At, e: CriterionWaived) -> Iterator[GraphChange]:
    """The criterion may pass without a test, and says who let it."""
    yield at.update(Label.CRITERION, at.scoped(e.ac_id), waived_by=e.by, waived_at=at.ts_ms)


def milestone_reached(at: At, e: MilestoneReached) -> Iterator[GraphChange]:
    """The story reached the milestone."""
    yield from milestone(at, name=e.name, ref=e.ref, node_id=e.milestone_id)


def milestone(at: At, *, name: str, ref: str, node_id: str | None = None) -> Iterator[GraphChange]:
    """Something worth remembering happened at this event (GR-59)."""
    milestone_id = at.scoped(node_id or f"v{at.version}")
    yield at.describe(Label.MILESTONE, milestone_id, name=name, ts=at.ts_ms, ref=ref)
    yield link(Rel.REACHED, at.ref, (Label.MILESTONE, milestone_id), v=at.version)


def question_raised(at: At, e: QuestionRaised) -> Iterator[GraphChange]:
    """The question is open, about a story, task or decision."""
    question: Ref = (Label.QUESTION, e.question_id)
    yield at.describe(
        *question,
        kind=e.kind,
        severity=e.severity,
        status="open",
        asked_at=at.ts_ms,
        about_kind=e.about.kind,
        about_id=e.about.id,
        **texts(text=e.text),
    )
    about = ref_of(e.about.id)
    is_known = about is not None and about[0] in (Label.STORY, Label.TASK, Label.DECISION)
    yield link(Rel.ABOUT, question, about if about and is_known else at.ref)
    yield from at.by(Rel.ASKED_BY, question, e.asked_by, at=at.ts_ms)


def question_answered(at: At, e: QuestionAnswered) -> Iterator[GraphChange]:
    """The question is answered, and blocks nothing any more."""
    question: Ref = (Label.QUESTION, e.question_id)
    yield at.update(*question, status="answered", answered_at=at.ts_ms, **texts(answer=e.answer))
    yield from at.by(Rel.ANSWERED_BY, question, e.answered_by, at=at.ts_ms)
    yield RelationsClosed(Rel.BLOCKED_BY, *question, mark="removed_v", value=at.version, incoming=True)
