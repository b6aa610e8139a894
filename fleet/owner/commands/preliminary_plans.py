"""The plan that a council outlined in a backlog review, as a plan version of the story (PL-67, PL-69)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from fleet.events.payload import Payload
from fleet.events.plan import PlanProposed, Task, TaskDecision
from fleet.events.project import CeremonyStoryReviewed
from fleet.kernel.digest import canonical_json, digest_of_json
from fleet.kernel.errors import InvalidInput, InvalidTransition
from fleet.kernel.ids import Digest, EntityId, StoryId, StreamId, derive_id
from fleet.kernel.types import TaskKind
from fleet.log.port import Command
from fleet.owner.workbench import Workbench, seat
from fleet.planning.backlog_review import REVIEWABLE, BacklogReview, PlanOutlineTask
from fleet.planning.project_state import Ceremony
from fleet.planning.tasks import complexity_of
from fleet.story.commands.command import Caller
from fleet.story.state import StoryState
from fleet.trees.port import BlobStore

_KINDS: Mapping[str, TaskKind] = {
    "architect": "design",
    "data": "data",
    "designer": "design",
    "devops": "infra",
    "qa": "test",
}
"""What the tasks of a role are; those of all others are code."""


async def stored_review(blobs: BlobStore, review: BacklogReview) -> Digest:
    """The digest under which the review is kept."""
    return await blobs.put(canonical_json(review.model_dump(mode="json")))


async def read_review(blobs: BlobStore, event: CeremonyStoryReviewed) -> BacklogReview | None:
    """What the council said; None for a review that failed."""
    if event.failed is not None:
        return None
    return BacklogReview.model_validate(json.loads(await blobs.get(event.review_digest)))


def preliminary_plan_id(ceremony_id: str, story_id: str) -> EntityId:
    """The id of the plan that an approval of this story makes, the same each time (GL-9)."""
    return derive_id("pv", StreamId.of_story(StoryId(story_id)), f"ceremony/{ceremony_id}")


async def chosen_plan(
    blobs: BlobStore, ceremony: Ceremony, story_id: str, council: str | None, *, assignable: Collection[str]
) -> tuple[str, BacklogReview] | None:
    """The council whose outline becomes the plan, and its review; without a choice the first that has a usable one.

    An outline is usable when it has tasks, and every one is for a role that tasks may go to.

    Raises:
        InvalidInput: the outline of the named council is not usable.
    """
    for role in ceremony.councils if council is None else (council,):
        event = ceremony.reviews.get((story_id, role))
        review = await read_review(blobs, event) if event is not None else None
        if review is not None and review.plan and all(task.role in assignable for task in review.plan):
            return role, review
    if council is None:
        return None
    raise InvalidInput(
        f"council {council[:40]!r} outlined no plan of story {story_id} with tasks for {', '.join(assignable)} alone: "
        "name another council, or none",
        field="plan_of",
        allowed=list(ceremony.councils),
    )


def takes_outline(state: StoryState | None) -> bool:
    """Whether an outline can still become a plan version of the story: its work has not begun, and it is not over."""
    return state is not None and state.state in REVIEWABLE and not state.is_over


def propose_plan(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Records the outline as a plan version that is proposed. It binds nobody until a plan is adopted (PL-10)."""
    caller.require("po")
    state, body = bench.state, command.body
    if not takes_outline(state):
        raise InvalidTransition(
            f"story {state.story_id} is {state.state}: an outline comes before the work",
            state=state.state,
            event="propose_plan",
            allowed=sorted(REVIEWABLE),
        )
    plan_id = preliminary_plan_id(str(body["ceremony_id"]), state.story_id)
    outline = tuple(PlanOutlineTask.model_validate(task) for task in body["tasks"])
    tasks = tuple(_task(bench, command, n, task) for n, task in enumerate(outline))
    reason, feedback = str(body["notes"]), str(body["feedback"])
    return (
        PlanProposed(
            plan_id=plan_id,
            version=len(state.plans) + 1,
            previous_plan_id=EntityId(state.plan_id) if state.plan_id else None,
            author=seat(str(body["council"])).principal,
            rationale=feedback,
            tasks=tasks,
            estimated_complexity=complexity_of(len(tasks)),
            task_decisions=tuple(
                TaskDecision(
                    task_index=n,
                    task_description=task.title,
                    decided_by=caller.principal,
                    decision_reason=reason,
                    council_feedback=feedback,
                    decided_at=bench.now_ms,
                )
                for n, task in enumerate(outline)
            ),
            content_digest=state.content.digest,
            plan_digest=digest_of_json([json.loads(task.model_dump_json()) for task in tasks]),
        ),
    )


def _task(bench: Workbench, command: Command, number: int, outlined: PlanOutlineTask) -> Task:
    ceremony_id = str(command.body["ceremony_id"])
    return Task(
        task_id=bench.new_id("tk", f"ceremony/{ceremony_id}", number),
        story_id=bench.journal.story_id,
        plan_id=preliminary_plan_id(ceremony_id, bench.journal.story_id),
        title=outlined.title,
        description=outlined.title,
        role=outlined.role,
        kind=_KINDS.get(outlined.role, "code"),
        # 0 says that nobody estimated it: so it is in reviews that are older than the question.
        estimated_hours=outlined.estimated_hours or 0,
        priority=min(number + 1, 10),
        risk="low",
        author=seat(str(command.body["council"])).principal,
    )


def proposal_of(ceremony_id: str, council: str, review: BacklogReview, notes: str) -> dict[str, Any]:
    """The body of the command that brings an outline to its story."""
    tasks = [task.model_dump(mode="json") for task in review.plan]
    return {
        "ceremony_id": ceremony_id,
        "council": council,
        "feedback": review.feedback,
        "tasks": tasks,
        "notes": notes,
    }
