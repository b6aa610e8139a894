"""Proposals of discoveries and reviews of councils, as they are kept (PL-54, PL-67)."""

from __future__ import annotations

import json

from fleet.events.project import CeremonyStoryReviewed
from fleet.kernel.digest import canonical_json
from fleet.kernel.ids import Digest
from fleet.planning.backlog_review import BacklogReview
from fleet.planning.discovery import DiscoveryProposal
from fleet.planning.project_state import Discovery
from fleet.trees.port import BlobStore


async def read_discovery(blobs: BlobStore, discovery: Discovery) -> DiscoveryProposal:
    """The proposal as it is now."""
    return DiscoveryProposal.model_validate(json.loads(await blobs.get(discovery.proposal_digest)))


async def stored_review(blobs: BlobStore, review: BacklogReview) -> Digest:
    """The digest under which the review is kept."""
    return await blobs.put(canonical_json(review.model_dump(mode="json")))


async def read_review(blobs: BlobStore, event: CeremonyStoryReviewed) -> BacklogReview | None:
    """What the council said; None for a review that failed."""
    if event.failed is not None:
        return None
    return BacklogReview.model_validate(json.loads(await blobs.get(event.review_digest)))
