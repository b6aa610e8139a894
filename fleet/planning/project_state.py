"""What a project's stream says: the project, its epics, and what was discovered for it (PL-1, PL-2, PL-54)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from fleet.events.codec import decode
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.project import (
    CeremonyCancelled,
    CeremonyCompleted,
    CeremonyOpened,
    CeremonyStarted,
    CeremonyStoryDecided,
    CeremonyStoryEstimated,
    CeremonyStoryReviewed,
    DiscoveryAccepted,
    DiscoveryAnswered,
    DiscoveryProposed,
    DiscoveryRejected,
    DiscoveryRequested,
    EpicCreated,
    EpicUpdated,
    ProjectCreated,
    ProjectUpdated,
)
from fleet.kernel.ids import Digest, EntityId

DEFAULT_PROJECT = EntityId("pr-default")
"""The built-in project, which is there without any event (PL-2)."""
DEFAULT_EPIC = EntityId("ep-inbox")
"""Its built-in epic."""


@dataclass(frozen=True, slots=True)
class Epic:
    """One epic. `status` is what a person made of it; the rest follows from its stories (PL-4)."""

    epic_id: EntityId
    title: str
    description: str = ""
    goal: str = ""
    priority: int = 5
    status: str = "active"
    author: str = ""
    created_ms: int = 0
    is_inbox: bool = False

    @property
    def is_open(self) -> bool:
        """Whether stories may be added to it."""
        return self.status not in ("archived", "cancelled")


DiscoveryStatus = Literal["requested", "proposed", "accepted", "rejected"]


@dataclass(frozen=True, slots=True)
class Discovery:
    """One goal and what came of it; `proposal_digest` names the proposal as it is now."""

    discovery_id: EntityId
    goal: str
    language: str
    is_empty: bool
    model: str | None
    requested_by: str
    requested_ms: int
    proposal_digest: Digest
    status: DiscoveryStatus = "requested"
    source: str = "template"
    note: str | None = None
    reason: str | None = None
    epic_id: EntityId | None = None
    story_ids: tuple[str, ...] = ()
    asked: str = ""
    """Who asked for it, once it is accepted: the stories are created in that name."""


@dataclass(frozen=True, slots=True)
class Ceremony:
    """One backlog review: which councils said what of which story, and what the po decided (PL-60)."""

    ceremony_id: EntityId
    status: str
    story_ids: tuple[str, ...]
    councils: tuple[str, ...]
    opened_ms: int
    reviews: Mapping[tuple[str, str], CeremonyStoryReviewed] = field(
        default_factory=dict[tuple[str, str], CeremonyStoryReviewed]
    )
    """By story and role."""
    decisions: Mapping[str, CeremonyStoryDecided] = field(default_factory=dict[str, CeremonyStoryDecided])
    estimates: Mapping[str, CeremonyStoryEstimated] = field(default_factory=dict[str, CeremonyStoryEstimated])
    reason: str | None = None

    @property
    def missing(self) -> tuple[tuple[str, str], ...]:
        """(story, role) of every review that is still to come, in order."""
        if self.status != "IN_PROGRESS":
            return ()
        return tuple((s, r) for s in self.story_ids for r in self.councils if (s, r) not in self.reviews)

    @property
    def unestimated(self) -> tuple[str, ...]:
        """Stories whose reviews are all in, and whose estimate is still to come."""
        if self.status not in ("IN_PROGRESS", "REVIEWING"):
            return ()
        ready = (s for s in self.story_ids if all((s, r) in self.reviews for r in self.councils))
        return tuple(s for s in ready if s not in self.estimates)


@dataclass(frozen=True, slots=True)
class ProjectState:
    """The fold of a project's stream up to `version`."""

    project_id: EntityId
    version: int = 0
    exists: bool = False
    title: str = ""
    description: str = ""
    status: str = "active"
    author: str = ""
    repo: Mapping[str, Any] | None = None
    default_rigor: str = "L1"
    default_lifecycle: str = "agile"
    languages: tuple[str, ...] = ()
    constraints: Mapping[str, Any] = field(default_factory=dict[str, Any])
    created_ms: int = 0
    epics: Mapping[str, Epic] = field(default_factory=dict[str, Epic])
    discoveries: Mapping[str, Discovery] = field(default_factory=dict[str, Discovery])
    ceremonies: Mapping[str, Ceremony] = field(default_factory=dict[str, Ceremony])

    @property
    def is_open(self) -> bool:
        """Whether epics and stories may be added to it (PL-1)."""
        return self.exists and self.status == "active"

    @property
    def inbox(self) -> EntityId | None:
        """The built-in epic of the project."""
        return next((e.epic_id for e in self.epics.values() if e.is_inbox), None)


def _built_in(project_id: EntityId) -> ProjectState:
    if project_id != DEFAULT_PROJECT:
        return ProjectState(project_id)
    inbox = Epic(DEFAULT_EPIC, "inbox", "Stories that name no epic.", is_inbox=True)
    title, text = "Default project", "Stories that name no project."
    return ProjectState(project_id, exists=True, title=title, description=text, epics={DEFAULT_EPIC: inbox})


def fold_project(project_id: str, events: Iterable[StoredEvent], state: ProjectState | None = None) -> ProjectState:
    """The project after these events, which follow those of `state`; what they do not concern is left as it is."""
    project = state or _built_in(EntityId(project_id))
    for event in events:
        project = replace(_evolved(project, decode(event), event), version=event.version)
    return project


def _evolved(state: ProjectState, payload: Payload, event: StoredEvent) -> ProjectState:
    match payload:
        case ProjectCreated():
            return _created(state, payload, event)
        case ProjectUpdated():
            return replace(state, **_fields(payload.changes, ProjectState))
        case EpicCreated():
            return _with_epic(state, payload, event)
        case EpicUpdated():
            epic = state.epics[payload.epic_id]
            return replace(state, epics={**state.epics, epic.epic_id: replace(epic, **_fields(payload.changes, Epic))})
        case (
            DiscoveryRequested() | DiscoveryProposed() | DiscoveryAnswered() | DiscoveryAccepted() | DiscoveryRejected()
        ):
            discovery = _discovery(state.discoveries.get(payload.discovery_id), payload, event)
            return replace(state, discoveries={**state.discoveries, payload.discovery_id: discovery})
        case _:
            return _ceremonial(state, payload, event)


def _fields(changes: Mapping[str, Any], of: type[Epic | ProjectState]) -> dict[str, Any]:
    names = {f.name for f in fields(of)}
    return {n: tuple(v) if n == "languages" else v for n, v in changes.items() if n in names}


def _created(state: ProjectState, payload: ProjectCreated, event: StoredEvent) -> ProjectState:
    return replace(
        state,
        exists=True,
        title=payload.title,
        description=payload.description,
        status=payload.status,
        author=payload.author,
        repo=payload.repo.model_dump(mode="json") if payload.repo else None,
        default_rigor=payload.default_rigor,
        default_lifecycle=payload.default_lifecycle,
        languages=payload.languages,
        constraints=payload.constraints,
        created_ms=event.ts_ms,
    )


def _with_epic(state: ProjectState, payload: EpicCreated, event: StoredEvent) -> ProjectState:
    epic = Epic(
        payload.epic_id,
        payload.title,
        payload.description,
        payload.goal,
        payload.priority,
        payload.status,
        payload.author,
        event.ts_ms,
        # The first epic of a project is the built-in one: both are recorded in one append (PL-2).
        is_inbox=not state.epics,
    )
    return replace(state, epics={**state.epics, epic.epic_id: epic})


def _discovery(
    discovery: Discovery | None,
    payload: DiscoveryRequested | DiscoveryProposed | DiscoveryAnswered | DiscoveryAccepted | DiscoveryRejected,
    event: StoredEvent,
) -> Discovery:
    if isinstance(payload, DiscoveryRequested):
        return Discovery(
            payload.discovery_id,
            payload.goal,
            payload.language,
            payload.is_empty,
            payload.model,
            event.actor,
            event.ts_ms,
            payload.proposal_digest,
        )
    assert discovery is not None, event.event_id
    match payload:
        case DiscoveryProposed():
            digest, source, note = payload.proposal_digest, payload.source, payload.note
            return replace(discovery, status="proposed", proposal_digest=digest, source=source, note=note)
        case DiscoveryAnswered():
            return replace(discovery, proposal_digest=payload.proposal_digest)
        case DiscoveryAccepted():
            stories = tuple(str(s) for s in payload.story_ids)
            return replace(discovery, status="accepted", epic_id=payload.epic_id, story_ids=stories, asked=event.actor)
        case DiscoveryRejected():
            return replace(discovery, status="rejected", reason=payload.reason)


def _ceremonial(state: ProjectState, payload: Payload, event: StoredEvent) -> ProjectState:
    match payload:
        case CeremonyOpened():
            # It is recorded again whenever other stories are chosen.
            before = state.ceremonies.get(payload.ceremony_id)
            opened = Ceremony(
                payload.ceremony_id,
                "DRAFT",
                tuple(str(s) for s in payload.story_ids),
                tuple(str(c) for c in payload.councils),
                before.opened_ms if before else event.ts_ms,
            )
            return replace(state, ceremonies={**state.ceremonies, payload.ceremony_id: opened})
        case (
            CeremonyStarted()
            | CeremonyStoryReviewed()
            | CeremonyStoryEstimated()
            | CeremonyStoryDecided()
            | CeremonyCompleted()
            | CeremonyCancelled()
        ):
            ceremony = _held(state.ceremonies[payload.ceremony_id], payload)
            return replace(state, ceremonies={**state.ceremonies, payload.ceremony_id: ceremony})
        case _:
            return state


def _held(
    ceremony: Ceremony,
    payload: CeremonyStarted
    | CeremonyStoryReviewed
    | CeremonyStoryEstimated
    | CeremonyStoryDecided
    | CeremonyCompleted
    | CeremonyCancelled,
) -> Ceremony:
    match payload:
        case CeremonyStarted():
            return replace(ceremony, status="IN_PROGRESS", story_ids=tuple(str(s) for s in payload.story_ids))
        case CeremonyStoryReviewed():
            after = replace(ceremony, reviews={**ceremony.reviews, (str(payload.story_id), str(payload.role)): payload})
            # A review that was under way while the ceremony was cancelled changes nothing about that.
            is_whole = ceremony.status == "IN_PROGRESS" and not after.missing
            return replace(after, status="REVIEWING") if is_whole else after
        case CeremonyStoryEstimated():
            return replace(ceremony, estimates={**ceremony.estimates, str(payload.story_id): payload})
        case CeremonyStoryDecided():
            return replace(ceremony, decisions={**ceremony.decisions, str(payload.story_id): payload})
        case CeremonyCompleted():
            return replace(ceremony, status="COMPLETED")
        case CeremonyCancelled():
            return replace(ceremony, status="CANCELLED", reason=payload.reason)
