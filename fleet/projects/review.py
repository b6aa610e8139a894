"""Councils review stories of a backlog and estimate them, by models (PL-63, PL-67, PL-80..PL-83)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from fleet.context.item import fence
from fleet.events.project import CeremonyStoryDecided, CeremonyStoryEstimated, CeremonyStoryReviewed
from fleet.kernel.clock import Clock
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import BudgetExceeded, ModelError, RateLimited, ReplyMalformed, StoryNotFound
from fleet.kernel.ids import Digest, StoryId, StreamId
from fleet.log.port import EventLog
from fleet.models.chat import AS_LONG_AS_FITS, Sampling
from fleet.models.port import AgentRequest
from fleet.owner.workbench import seat
from fleet.planning.backlog_review import BacklogReview, review_form, review_unit
from fleet.planning.estimates import AnotherRound, NoEstimate, close_estimate_round, told_of_round
from fleet.planning.planning_config import Bounds, CeremonyConfig, EstimateConfig
from fleet.planning.project_state import Ceremony
from fleet.projects.documents import read_review, stored_review
from fleet.projects.project_calls import ProjectCalls
from fleet.story.evolve.story import fold
from fleet.story.state import StoryState
from fleet.trees.port import BlobStore

_TASK = """A product owner plans what to work on next. Review this story from the view of your role, before any work \
starts: what you think of it, what could go wrong, what is unclear, the tasks that you would plan, and how much work \
it is in points, by the scale of the form."""


class Reviewer:
    """Makes each review once, and an estimate from the reviews of one story.

    Args:
        ceremony: the table of the review, whose step says how long a council may take.
        estimates: the scale, and how many rounds at most.
        hours: what one task of an outline may take.
    """

    def __init__(
        self,
        calls: ProjectCalls,
        log: EventLog,
        blobs: BlobStore,
        clock: Clock,
        *,
        ceremony: CeremonyConfig,
        estimates: EstimateConfig,
        hours: Bounds,
    ) -> None:
        self._calls, self._log, self._blobs, self._clock = calls, log, blobs, clock
        self._ceremony, self._estimates, self._hours = ceremony, estimates, hours

    async def review(
        self,
        project_id: str,
        ceremony: Ceremony,
        story_id: str,
        role: str,
        *,
        before: Sequence[CeremonyStoryDecided] = (),
    ) -> CeremonyStoryReviewed:
        """What this council says of the story; a review that fails says so, and decides nothing (PL-63, PL-71).

        Args:
            before: what the po decided on the story in earlier ceremonies, which the council reads (PL-70).
        """
        unit = review_unit(ceremony.ceremony_id, story_id, role)
        failed: str | None = None
        try:
            review = await self._tried(project_id, story_id, role, unit, before)
            digest: Digest = await stored_review(self._blobs, review)
        except (ModelError, RateLimited, BudgetExceeded, StoryNotFound) as error:
            digest, failed = digest_of_json({"unit": unit}), f"{error.code}: {error.message}"[:1000]
        return CeremonyStoryReviewed(
            ceremony_id=ceremony.ceremony_id,
            story_id=StoryId(story_id),
            role=role,  # pyright: ignore[reportArgumentType]
            review_unit=unit,
            review_digest=digest,
            failed=failed,
        )

    async def estimate(self, project_id: str, ceremony: Ceremony, story_id: str) -> CeremonyStoryEstimated:
        """The Delphi estimate of the story: after each round members see only the median and the reasons (PL-80)."""
        reviews = {r: await read_review(self._blobs, ceremony.reviews[story_id, r]) for r in ceremony.councils}
        shown, number = "", 1
        while True:
            answers = [review.points if review is not None else None for review in reviews.values()]
            outcome = close_estimate_round(answers, round_number=number, config=self._estimates)
            if not isinstance(outcome, AnotherRound):
                break
            number, shown = number + 1, shown or await self._shown(story_id)
            told = told_of_round(outcome.median, [review.feedback for review in reviews.values() if review is not None])
            reviews = {
                role: await self._again(
                    project_id, shown, role, told, f"{ceremony.ceremony_id}/{story_id}/{role}/round-{number}"
                )
                for role, review in reviews.items()
                if review is not None
            } | {role: None for role, review in reviews.items() if review is None}
        if isinstance(outcome, NoEstimate):
            return CeremonyStoryEstimated(ceremony_id=ceremony.ceremony_id, story_id=StoryId(story_id), rounds=number)
        return CeremonyStoryEstimated(
            ceremony_id=ceremony.ceremony_id,
            story_id=StoryId(story_id),
            rounds=number,
            points=outcome.points,
            iqr=outcome.iqr,
            converged=outcome.converged,
            values=outcome.values,
        )

    async def _tried(
        self, project_id: str, story_id: str, role: str, unit: str, before: Sequence[CeremonyStoryDecided]
    ) -> BacklogReview:
        """The review, after as many tries as the step of the ceremony has (PL-71)."""
        retry = self._ceremony.steps[0].retry
        wait_s = retry.backoff_s
        for attempt in range(1, retry.max_attempts):
            try:
                return await self._ask(
                    project_id, await self._shown(story_id, before), role, request_id=f"{unit}/review-{attempt}"
                )
            except (ModelError, RateLimited):
                await self._clock.sleep(wait_s)
                wait_s *= 2 if retry.exponential else 1
        return await self._ask(
            project_id, await self._shown(story_id, before), role, request_id=f"{unit}/review-{retry.max_attempts}"
        )

    async def _again(self, project_id: str, shown: str, role: str, told: str, request_id: str) -> BacklogReview | None:
        try:
            return await self._ask(project_id, shown, role, request_id=request_id, told=told)
        except (ModelError, RateLimited, BudgetExceeded):
            return None  # counts as absent in this round (PL-83)

    async def _ask(self, project_id: str, shown: str, role: str, *, request_id: str, told: str = "") -> BacklogReview:
        who, step = seat(role), self._ceremony.steps[0]
        request = AgentRequest(
            kind="advise",
            role=who.role,
            principal=who.principal,
            shared=shown,
            own=told,
            sampling=Sampling(max_tokens=AS_LONG_AS_FITS),
            json_schema=review_form(self._estimates.scale, self._hours),
        )
        answer = await self._calls.ask(project_id, request, request_id=request_id, timeout_s=float(step.timeout_s))
        try:
            review = BacklogReview.model_validate(answer.value)
        except ValidationError as error:
            raise ReplyMalformed(f"the review does not fit its form: {error.error_count()} problems") from error
        least, most = self._hours.min, self._hours.max
        if wrong := [t.title for t in review.plan if not least <= (t.estimated_hours or 0) <= most]:
            raise ReplyMalformed(f"task {wrong[0]!r} of the review has no estimate of {least} to {most} hours")
        return review

    async def _shown(self, story_id: str, before: Sequence[CeremonyStoryDecided] = ()) -> str:
        state = fold(await self._log.read(StreamId.of_story(StoryId(story_id))))
        if state is None:
            raise StoryNotFound(f"story {story_id} is not there any more", story_id=story_id)
        told = "".join(f"\n\n{_told_before(decided)}" for decided in before[-_LAST_DECISIONS:])
        return f"{_TASK}\n\n<story>\n{_text(state)}\n</story>{told}"


_LAST_DECISIONS = 3


def _told_before(decided: CeremonyStoryDecided) -> str:
    """One earlier decision with its reason, as data: the council answers what kept the story back."""
    text = "\n".join(filter(None, (decided.reason, decided.po_notes, decided.po_concerns)))
    return f"It was {decided.result.lower()} in an earlier review. " + fence(text, origin="the product owner")


def _text(state: StoryState) -> str:
    criteria = "\n".join(f"- {c.text}" for c in state.content.acceptance_criteria)
    return f"{state.content.title}\n\n{state.content.description}\n\nAcceptance criteria:\n{criteria or '- none'}"
