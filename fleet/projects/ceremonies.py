"""Commands on a backlog review (PL-60..PL-70)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from fleet.events.project import (
    CeremonyCancelled,
    CeremonyCompleted,
    CeremonyOpened,
    CeremonyStarted,
    CeremonyStoryDecided,
)
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound
from fleet.kernel.ids import EntityId, StoryId
from fleet.kernel.types import Frozen, PriorityChange, Reason
from fleet.planning.backlog_review import BacklogReview, check_stories, movers, next_move
from fleet.planning.project_state import Ceremony, ProjectState
from fleet.projects.project_commands import FollowUp, ProjectCommand, ProjectFacts, require_open
from fleet.story.commands.command import Outcome, StoryCommand
from fleet.story.commands.gates import Approve
from fleet.story.commands.plan_versions import (
    PLANNERS,
    ProposePlan,
    early_states,
    is_early,
    preliminary_plan_id,
    takes_outline,
)
from fleet.story.commands.request_approval import RequestApproval
from fleet.story.state import StoryState

Ids = Annotated[tuple[Annotated[str, Field(max_length=80)], ...], Field(max_length=50)]


class StoriesRequest(Frozen):
    """The stories of a review that has not begun."""

    story_ids: Ids

    def named(self) -> tuple[StoryId, ...]:
        """Each of them once. InvalidInput for what is no id of a story."""
        return tuple(dict.fromkeys(StoryId(name) for name in self.story_ids))


class OpenCeremony(StoriesRequest, ProjectCommand):
    """A review of these stories is being prepared."""

    command = "open_ceremony"

    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """The review. InvalidInput for stories that cannot be reviewed, all of them named."""
        facts.caller.require(*movers(facts.rules.ceremony, "add_story"))
        require_open(state)
        return (_opened(facts.new_id("ce"), self.named(), facts.rules.ceremony.councils, state, facts),)

    def made(self, state: ProjectState, facts: ProjectFacts) -> dict[str, Any]:
        """The id of the review."""
        return {"ceremony_id": facts.new_id("ce")}


class CeremonyCommand(ProjectCommand):
    """A command on a review that there is."""

    ceremony_id: str

    def made(self, state: ProjectState, facts: ProjectFacts) -> dict[str, Any]:
        """The id of the review."""
        return {"ceremony_id": self.ceremony_id}

    def held(self, state: ProjectState, facts: ProjectFacts, trigger: str) -> Ceremony:
        """The review, in which this may happen now. PolicyDenied, NotFound, InvalidTransition."""
        facts.caller.require(*movers(facts.rules.ceremony, trigger))
        name = self.ceremony_id[:80]
        ceremony = state.ceremonies.get(self.ceremony_id)
        if ceremony is None:
            raise NotFound(f"project {state.project_id} has no ceremony {name!r}", ceremony_id=name)
        facts.caller.require(*next_move(facts.rules.ceremony, ceremony, trigger).roles)
        return ceremony


class ChooseCeremonyStories(StoriesRequest, CeremonyCommand):
    """A review that is being prepared is of other stories."""

    command = "choose_ceremony_stories"

    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """The review with these stories; as for one that is opened."""
        ceremony = self.held(state, facts, "add_story")
        return (_opened(ceremony.ceremony_id, self.named(), ceremony.councils, state, facts),)


class StartCeremony(CeremonyCommand):
    """The councils review the stories from here on."""

    command = "start_ceremony"

    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """The start. InvalidInput when a story went on meanwhile, or when no model can review."""
        ceremony = self.held(state, facts, "start")
        names = tuple(StoryId(name) for name in ceremony.story_ids)
        _check(state, facts)
        if not facts.rules.has_model(None):
            raise InvalidInput(
                "no council can review, for no model policy names an engine: put one in the place of `profile` below "
                "`policies` of models.yaml",
                field="model",
            )
        return (CeremonyStarted(ceremony_id=ceremony.ceremony_id, story_ids=names, councils=ceremony.councils),)


class _StoryDecision(CeremonyCommand):
    """What the product owner said of one story, and why (PL-68)."""

    command = "decide_ceremony_story"
    story_id: StoryId

    def undecided(self, state: ProjectState, facts: ProjectFacts, trigger: str) -> Ceremony:
        """The review, in which the story waits for this. As `held`; NotFound for a story that it is not about."""
        ceremony = self.held(state, facts, trigger)
        if self.story_id not in ceremony.story_ids:
            raise NotFound(f"ceremony {ceremony.ceremony_id} reviews no story {self.story_id}", story_id=self.story_id)
        if self.story_id in ceremony.decisions:
            raise InvalidTransition(
                f"story {self.story_id} is decided already: {ceremony.decisions[self.story_id].result}",
                state=ceremony.status,
                event="decide",
                allowed=[],
            )
        return ceremony


class ApproveCeremonyStory(_StoryDecision):
    """Yes to one story: why, and what is to be minded."""

    approve: Literal[True]
    po_notes: Reason
    po_concerns: Annotated[str, Field(min_length=1, max_length=4000)] | None = None
    priority_adjustment: PriorityChange | None = None
    priority_reason: Reason | None = None
    plan_of: Annotated[str, Field(max_length=40)] | None = None
    """The council whose outline becomes a proposed plan of the story; the first that has a usable one by default."""

    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """The consent, and the id of the plan that the outline of a council becomes.

        Raises:
            PolicyDenied: the caller names a council, and may write no plan.
            InvalidInput: a priority without its reason, or the council that is named has no usable outline.
            InvalidTransition: the story went on, and the approval names the council whose outline is meant.
        """
        ceremony = self.undecided(state, facts, "approve_story")
        if (self.priority_adjustment is None) != (self.priority_reason is None):
            raise InvalidInput(
                "priority_adjustment and priority_reason come together: give both or none", field="priority_reason"
            )
        if self.plan_of is not None:
            facts.caller.require(*PLANNERS, rule_id="LC-11", why="and an outline becomes a plan by these alone")
        may_plan = not facts.caller.roles.isdisjoint(PLANNERS)
        has_plan = self._takes_plan(facts) and may_plan and self._outline(ceremony, facts) is not None
        decided = CeremonyStoryDecided(
            ceremony_id=ceremony.ceremony_id,
            story_id=self.story_id,
            result="APPROVED",
            po_notes=self.po_notes,
            po_concerns=self.po_concerns,
            priority_adjustment=self.priority_adjustment,
            priority_reason=self.priority_reason,
            plan_id=preliminary_plan_id(ceremony.ceremony_id, self.story_id) if has_plan else None,
        )
        return (decided,)

    def follow(self, state: ProjectState, facts: ProjectFacts) -> tuple[FollowUp, ...]:
        """What an approval brings to its story: the outlined plan, and to one that is ready the consent to its scope.

        Of a story that is not ready the notes are kept, and its gate stays closed (PL-69).
        """
        ceremony = state.ceremonies[self.ceremony_id]
        # What is on record decides: the story may have gone on since.
        has_plan = ceremony.decisions[self.story_id].plan_id is not None
        sent: list[StoryCommand] = []
        if has_plan and (outline := self._outline(ceremony, facts)) is not None:
            council, review = outline
            sent.append(
                ProposePlan(
                    ceremony_id=ceremony.ceremony_id,
                    council=council,
                    feedback=review.feedback,
                    tasks=review.plan,
                    notes=self.po_notes,
                )
            )
        story = facts.stories[self.story_id]
        if story is not None and self._waits_for_scope(story, facts) and story.score is not None and story.score.dor_ok:
            # The gate is asked for by the work on a story, which has not begun; a request that waits is answered too.
            sent += [RequestApproval(gate="approve_scope"), Approve(gate="approve_scope", notes=self.po_notes)]
        return tuple(FollowUp(self.story_id, f"{one.command}-by-ceremony-{self.ceremony_id}", one) for one in sent)

    @staticmethod
    def _waits_for_scope(story: StoryState, facts: ProjectFacts) -> bool:
        lifecycle = facts.rules.lifecycles.get(story.lifecycle)
        return (
            # The gate keeps its own role: another that approves in a review leaves it to whoever holds that.
            "po" in facts.caller.roles
            and lifecycle is not None
            and any(row.gate == "approve_scope" for row in lifecycle.legal(story.state))
        )

    def _takes_plan(self, facts: ProjectFacts) -> bool:
        """Whether the story still waits for its work: one that went on meanwhile has, or gets, a plan of its own."""
        story = facts.stories[self.story_id]
        if takes_outline(story, facts.rules.lifecycles):
            return True
        if self.plan_of is None:
            return False
        is_now = "gone" if story is None else story.disposition if story.is_over else story.state
        raise InvalidTransition(
            f"story {self.story_id} is {is_now}: an outline comes before the work, so approve it without plan_of",
            state=is_now,
            event="propose_plan",
            allowed=early_states(story, facts.rules.lifecycles),
        )

    def _outline(self, ceremony: Ceremony, facts: ProjectFacts) -> tuple[str, BacklogReview] | None:
        """The council whose outline becomes the plan, and its review; without a choice the first that has a usable one.

        An outline is usable when it has tasks, and every one is for a role that tasks may go to.
        """
        roles = facts.rules.assignable_roles
        for council in ceremony.councils if self.plan_of is None else (self.plan_of,):
            review = facts.reviews.get(council)
            if review is not None and review.plan and all(task.role in roles for task in review.plan):
                return council, review
        if self.plan_of is None:
            return None
        raise InvalidInput(
            f"council {self.plan_of!r} outlined no plan of story {self.story_id} with tasks for {', '.join(roles)} "
            "alone: name another council, or none",
            field="plan_of",
            allowed=list(ceremony.councils),
        )


class RejectCeremonyStory(_StoryDecision):
    """No to one story, with a reason."""

    approve: Literal[False]
    reason: Reason

    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """The refusal; the reviews of the story stay."""
        ceremony = self.undecided(state, facts, "reject_story")
        return (
            CeremonyStoryDecided(
                ceremony_id=ceremony.ceremony_id, story_id=self.story_id, result="REJECTED", reason=self.reason
            ),
        )


class CompleteCeremony(CeremonyCommand):
    """Every story is decided, and the review is over (PL-65)."""

    command = "complete_ceremony"

    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """The end; InvalidTransition while a story is to be decided."""
        ceremony = self.held(state, facts, "complete")
        if left := [name for name in ceremony.story_ids if name not in ceremony.decisions]:
            raise InvalidTransition(
                f"{len(left)} stories are still to be decided: {', '.join(left[:5])}",
                state=ceremony.status,
                event="complete",
                allowed=["approve_story", "reject_story", "cancel"],
            )
        names = tuple(StoryId(name) for name in ceremony.story_ids)
        return (CeremonyCompleted(ceremony_id=ceremony.ceremony_id, story_ids=names),)


class CancelCeremony(CeremonyCommand):
    """The review is given up; what was said in it stays on record."""

    command = "cancel_ceremony"
    reason: Reason

    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """The end of the review."""
        ceremony = self.held(state, facts, "cancel")
        return (CeremonyCancelled(ceremony_id=ceremony.ceremony_id, reason=self.reason),)


def _opened(
    ceremony_id: EntityId, names: tuple[StoryId, ...], councils: Sequence[str], state: ProjectState, facts: ProjectFacts
) -> CeremonyOpened:
    _check(state, facts)
    return CeremonyOpened(ceremony_id=ceremony_id, story_ids=names, councils=tuple(councils))


def _check(state: ProjectState, facts: ProjectFacts) -> None:
    """Returns when the gathered stories may be reviewed together; a story of another project is none of this one's."""
    own = {n: s if s is not None and s.project_id == state.project_id else None for n, s in facts.stories.items()}
    early = {n for n, s in own.items() if s is not None and is_early(s, facts.rules.lifecycles)}
    states = {str(n): s.state if s is not None else None for n, s in own.items()}
    check_stories(facts.rules.ceremony, states, early=early)
