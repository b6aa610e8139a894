"""Reviews of councils as they are kept, and the outline that an approval brings to its story (PL-67, PL-69)."""

from __future__ import annotations

import json
from collections.abc import Collection

from fleet.events.project import CeremonyStoryReviewed
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest
from fleet.planning.backlog_review import BacklogReview
from fleet.planning.project_state import Ceremony
from fleet.trees.port import BlobStore


async def stored_review(blobs: BlobStore, review: BacklogReview) -> Digest:
    """The digest under which the review is kept."""
    return await blobs.put(canonical_json(review.model_dump(mode="json")))


async def read_review(blobs: BlobStore, event: CeremonyStoryReviewed) -> BacklogReview | None:
    """What the council said; None for a review that failed."""
    if event.failed is not None:
        return None
    return BacklogReview.model_validate(json.loads(await blobs.get(event.review_digest)))


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
