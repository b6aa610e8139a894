"""A new story: the defaults of its project, its first score, its first state (LC-12, SC-31)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.events.payload import Payload
from fleet.events.story import (
    AcceptanceCriterion,
    StoryCreated,
    StoryTransitioned,
)
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound
from fleet.kernel.ids import Digest, EntityId
from fleet.owner.workbench import Definitions
from fleet.planning.coach_config import CoachConfig
from fleet.planning.content import content_digest
from fleet.planning.project_state import DEFAULT_EPIC, ProjectState
from fleet.policy.deploy import target_for
from fleet.story.commands.command import Caller
from fleet.story.commands.text import scored_event
from fleet.story.text import StoryText, parse


def parented(data: Any, project: ProjectState) -> Any:
    """The story's fields with the defaults of its project; its parents exist and are open (PL-1, PL-2).

    Raises:
        NotFound: there is no such project, or it has no such epic.
        InvalidTransition: the project is archived, or the epic is closed.
    """
    if not isinstance(data, dict):
        return data  # pyright: ignore[reportUnknownVariableType]
    if not project.exists:
        raise NotFound(f"there is no project {project.project_id}", project_id=project.project_id)
    fields: dict[str, Any] = {"rigor": project.default_rigor, "lifecycle": project.default_lifecycle, **data}
    if fields.get("epic_id", DEFAULT_EPIC) == DEFAULT_EPIC:
        fields["epic_id"] = project.inbox
    epic = project.epics.get(str(fields["epic_id"]))
    if epic is None:
        raise NotFound(
            f"project {project.project_id} has no epic {str(fields['epic_id'])[:80]!r}", project_id=project.project_id
        )
    for name, status in ((project.project_id, project.status), (epic.epic_id, epic.status)):
        if status in ("archived", "cancelled", "completed"):
            raise InvalidTransition(
                f"{name} is {status}: it takes no more stories", state=status, event="create_story", allowed=[]
            )
    return fields


def created_events(
    data: Any, *, caller: Caller, rules: Definitions, coach: CoachConfig, config: Mapping[str, Digest]
) -> tuple[Payload, ...]:
    """The events of a new story; InvalidInput lists every problem of its text."""
    text = parse(data)
    if text.lifecycle not in rules.fsm.lifecycles:
        allowed = sorted(rules.fsm.lifecycles)
        raise InvalidInput(f"there is no lifecycle {text.lifecycle!r}; allowed: {', '.join(allowed)}", allowed=allowed)
    target = target_for(rules.targets, text.project_id) if text.lifecycle == "sdlc" else None
    # Where nothing is deployed the full table would end in a state that nothing leaves (LC-46).
    name = "sdlc-no-deploy" if text.lifecycle == "sdlc" and target is None else text.lifecycle
    criteria = tuple(
        AcceptanceCriterion(ac_id=EntityId(f"ac-{n}"), text=t) for n, t in enumerate(text.acceptance_criteria, 1)
    )
    digest = content_digest(text.title, text.description, text.acceptance_criteria, text.constraints, text.tags)
    created = StoryCreated(
        project_id=EntityId(text.project_id),
        epic_id=EntityId(text.epic_id),
        title=text.title,
        description=text.description,
        acceptance_criteria=criteria,
        constraints=text.constraints,
        tags=text.tags,
        rigor=text.rigor,
        lifecycle=name,
        language=text.language,
        priority=text.priority,
        requester=caller.principal,
        content_digest=digest,
        config=dict(config),
        environment=target.environment if target else None,
    )
    threshold = rules.rigor.level(text.rigor).dor_min
    scored = scored_event(text, digest, threshold=threshold, coach=coach)
    return (created, scored, *_first_transition(text, name))


def _first_transition(text: StoryText, lifecycle: str) -> tuple[Payload, ...]:
    if text.hold or lifecycle != "agile":
        return ()
    return (StoryTransitioned(from_="BACKLOG", event="create_story", to="DRAFT"),)
