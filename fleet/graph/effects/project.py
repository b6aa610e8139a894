"""Graph effects of the streams of projects and of the platform (GR-10, GR-11, GR-21, GR-31, GR-40, GR-68)."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.events.platform import AgentRegistered
from fleet.events.project import (
    CeremonyCancelled,
    CeremonyCompleted,
    CeremonyOpened,
    CeremonyStarted,
    CeremonyStoryDecided,
    CeremonyStoryReviewed,
    EpicCreated,
    EpicUpdated,
    ProjectCreated,
    ProjectUpdated,
)
from fleet.graph.changes import GraphChange, NodeChange
from fleet.graph.effects.at import At, Ref, link
from fleet.graph.schema import Label, Rel
from fleet.kernel.digest import digest_of


def project_created(at: At, e: ProjectCreated) -> Iterator[GraphChange]:
    """The project exists."""
    yield at.describe(
        Label.PROJECT,
        e.project_id,
        project_id=e.project_id,
        name=e.title,
        status=e.status,
        default_rigor=e.default_rigor,
        created_at=at.ts_ms,
    )


def project_updated(at: At, e: ProjectUpdated) -> Iterator[GraphChange]:
    """Fields of the project have new values."""
    kept = {n: e.changes[n] for n in ("status", "default_rigor") if n in e.changes}
    name = {"name": e.changes["title"]} if "title" in e.changes else {}
    yield at.update(Label.PROJECT, e.project_id, **kept, **name)


def epic_created(at: At, e: EpicCreated) -> Iterator[GraphChange]:
    """The epic stands under its project."""
    facts = {"title": e.title, "status": e.status, "priority": e.priority}
    yield at.describe(Label.EPIC, e.epic_id, project_id=e.project_id, **facts)
    yield link(Rel.CONTAINS, (Label.PROJECT, e.project_id), (Label.EPIC, e.epic_id))


def epic_updated(at: At, e: EpicUpdated) -> Iterator[GraphChange]:
    """Fields of the epic have new values."""
    kept = {n: e.changes[n] for n in ("title", "status", "priority") if n in e.changes}
    yield at.update(Label.EPIC, e.epic_id, **kept)


def ceremony_opened(at: At, e: CeremonyOpened) -> Iterator[GraphChange]:
    """The ceremony is being prepared."""
    yield at.describe(Label.CEREMONY, e.ceremony_id, project_id=at.entity, status="open", opened_at=at.ts_ms)


def ceremony_started(at: At, e: CeremonyStarted) -> Iterator[GraphChange]:
    """The councils review the stories."""
    yield at.update(Label.CEREMONY, e.ceremony_id, status="reviewing")


def ceremony_completed(at: At, e: CeremonyCompleted) -> Iterator[GraphChange]:
    """Every story is decided."""
    yield at.update(Label.CEREMONY, e.ceremony_id, status="completed", completed_at=at.ts_ms)


def ceremony_cancelled(at: At, e: CeremonyCancelled) -> Iterator[GraphChange]:
    """The ceremony was given up."""
    yield at.update(Label.CEREMONY, e.ceremony_id, status="cancelled", completed_at=at.ts_ms)


def ceremony_story_reviewed(at: At, e: CeremonyStoryReviewed) -> Iterator[GraphChange]:
    """One council reviewed the story, or says why it could not."""
    ends: tuple[Ref, Ref] = (Label.CEREMONY, e.ceremony_id), (Label.STORY, e.story_id)
    key = {"as_role": str(e.role)}
    yield link(Rel.REVIEWED, *ends, key, review_digest=e.review_digest, failed=e.failed)


def ceremony_story_decided(at: At, e: CeremonyStoryDecided) -> Iterator[GraphChange]:
    """The po decided on the story."""
    ends: tuple[Ref, Ref] = (Label.CEREMONY, e.ceremony_id), (Label.STORY, e.story_id)
    notes = None if e.po_notes is None else digest_of(e.po_notes.encode())
    yield link(Rel.REVIEWED, *ends, {"as_role": "po"}, result=e.result, po_notes_digest=notes)


def agent_registered(at: At, e: AgentRegistered) -> Iterator[GraphChange]:
    """The agent runs on this engine; its id is the part of its principal after `agent:`."""
    yield at.actor(f"agent:{e.agent_id}")
    yield NodeChange(Label.ACTOR, f"agent:{e.agent_id}", {"model": e.engine, "v": at.version})
