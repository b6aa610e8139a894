"""Commands that start a story, hold it back, let it go on, or end it and what it deployed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from fleet.audit.service.stream_export import commands_of, export_stream
from fleet.events.payload import Payload
from fleet.events.step import Cost, Provenance, StepFinished, StepResolved
from fleet.events.story import (
    RepoSource,
    StoryArchived,
    StoryCancelled,
    StoryParked,
    StoryPaused,
    StoryResumed,
    StoryStarted,
    StoryUnparked,
)
from fleet.events.task import RestoreRequested
from fleet.events.workspace import DeploymentRecorded
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import (
    ApprovalRequired,
    InvalidInput,
    InvalidTransition,
    NotFound,
    OutcomeUnknown,
    PolicyDenied,
)
from fleet.kernel.ids import Digest, EntityId, Principal, RunKey, StepId
from fleet.kernel.types import Frozen, NoteRequest, Reason, ReasonRequest
from fleet.models.profiles import RUN_PROFILE, ModelsConfig
from fleet.planning.platform_state import StandingDelegation
from fleet.policy.commands.git import GitTarget, git_address, require_keys, require_local, require_target
from fleet.story.approvals import check_notes
from fleet.story.commands.budgets import Limits, SetBudget
from fleet.story.commands.command import Attachment, Caller, Facts, Outcome, StoryCommand
from fleet.story.delegation import run_delegations, taken_in
from fleet.story.deployments import Deployment
from fleet.story.restoration import find_checkpoint
from fleet.story.state import StoryState


# Source: PL-47.
class RestoreRequest(Frozen):
    """Go back to an earlier tree of the story."""

    checkpoint: Annotated[str, Field(min_length=1, max_length=80)]
    """Its id, or the version of the event that saved it."""
    reason: Reason


EVIDENCE_RULES = 1
"""Of stories that are started now: each criterion is shown by a test that names it (LC-98)."""


# Source: AP-86.
class ResolveRequest(Frozen):
    """What came of a step that nobody knows the end of."""

    outcome: Literal["happened", "not_happened"]
    note: Reason


# Source: AP-57.
class StartRequest(Frozen):
    """Start the work on a story."""

    repo: Annotated[str, Field(min_length=1, max_length=4096)]
    """Path of a local git repository, or the https address of one that `targets.git` lists."""
    ref: str | None = None
    """Branch, tag or commit; the current branch when left out."""
    model: str | None = None
    """Model profile."""
    delegate: Annotated[
        tuple[Annotated[str, Field(pattern=r"^(po|qa|council:[a-z][a-z0-9_-]{0,59})$")], ...], Field(max_length=3)
    ] = ()
    """Who may decide gates in this run (LC-77): agents those of role `po` or `qa`, and one council, `council:<role>`,
    those of the roles that are not named beside it."""
    fetches: bool = True
    """Whether the packages that the repository's lockfile asks for are fetched first, once for each lockfile."""


Action = Literal["stop", "rollback"]
"""What a person does to a deployment."""


@dataclass(frozen=True, slots=True)
class StartFacts:
    """What the start of a story is decided on."""

    councils: tuple[str, ...]
    """The roles that councils may be of."""
    standing: tuple[StandingDelegation, ...]
    """Delegations of the platform, oldest first."""
    git: Mapping[str, GitTarget]
    """The repositories that the policy lists, by place."""
    local: Mapping[str, tuple[str, ...]] | None
    """The folders with local repositories that the policy lists, by project; None lists none and refuses none."""
    policy_digest: Digest
    models: ModelsConfig | None
    """The models that may be named; None takes any name."""
    absent: frozenset[str]
    """Engines of `models` that nothing stands for in this fleet."""


class StartStory(StartRequest, StoryCommand):
    """The story may be worked on: on which repository, with which model, with which gates delegated.

    A parked story may be started again, with what was wrong set right: it goes on by that.
    """

    command = "start_story"
    sentences = {"repo": "start needs a repository: its path, or its address on another machine"}
    delegate: tuple[str, ...] = ()
    """Checked by `check_delegates`, which knows the councils of this fleet."""
    toolchain: str | None = None
    """The named toolchain; `python` when left out."""
    record: bool = False
    """Whether replies of the model are recorded."""
    budget: Limits | None = None
    """Limits that are set with the start, as `set_budget` takes them."""

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The start, with its delegations and limits.

        Raises:
            PolicyDenied: the caller is no po, the repository is not listed, or a gate may not be delegated.
            InvalidTransition: the story is at work or over, or its repository was read and another one is named.
            InvalidInput: the model, the delegates, the limits or the address of the repository are wrong.
            OutcomeUnknown: a step has to be resolved first.
        """
        caller, gathered = facts.caller, facts.of(StartFacts)
        caller.require("po", rule_id="LC-11")
        again = _started_again(state, repo=self.repo, model=self.model or "", caller=caller)
        address = git_address(self.repo)
        if address is None:
            digest = gathered.policy_digest
            require_local(gathered.local, self.repo, project_id=state.project_id, policy_digest=digest)
        else:
            require_keys(address, require_target(gathered.git, address, policy_digest=gathered.policy_digest))
        if gathered.models is not None:
            _require_profile(gathered.models, self.model, absent=gathered.absent)
        delegations = run_delegations(
            state,
            facts.fsm,
            self.delegate,
            councils=gathered.councils,
            by=caller.principal,
            now_ms=facts.now_ms,
            new_id=facts.new_id,
        )
        started = StoryStarted(
            repo=RepoSource(
                provider="git" if address else "local", url=address.url if address else self.repo, ref=self.ref
            ),
            model=self.model,
            toolchain=self.toolchain or "python",
            delegations=(*delegations, *taken_in(state, facts.fsm, gathered.standing, now_ms=facts.now_ms)),
            record=self.record,
            evidence_rules=EVIDENCE_RULES,
            fetches=None if self.fetches else False,
        )
        return (started, *again, *self._limits(state, facts))

    def _limits(self, state: StoryState, facts: Facts) -> Outcome:
        if not self.budget:
            return ()
        return SetBudget(limits=self.budget, note="set when the run was started").decide(state, facts)


class EndDeployment(StoryCommand):
    """A person ended what the story deployed (LC-49): also of a story that is over.

    The environment was changed before: whoever sends this saw that what is meant runs there no more.
    """

    model_config = ConfigDict(extra="forbid")
    command = "end_deployment"
    environment: Annotated[str, Field(max_length=40)]
    revision: Annotated[str, Field(max_length=64)]
    """The key under which the environment knows it."""
    action: Action
    reason: str

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The end, and by whom; a story that watches the deployment waits for a person.

        Raises:
            PolicyDenied: the caller holds neither role devops nor admin.
            NotFound: the story has no such deployment.
            InvalidTransition: it was rolled back or ended before.
            InvalidInput: the reason has not 10 to 4,000 characters.
        """
        facts.caller.require("devops", "admin", rule_id="LC-11")
        told = ended_words(facts.caller.principal, self.action, check_notes(self.reason, "reason"))
        deployment = deployment_of(state, self.revision)
        if deployment is None or deployment.environment != self.environment:
            raise NotFound(f"story {state.story_id} deployed nothing of this revision to {self.environment}")
        if deployment.status == "rolled_back":
            raise InvalidTransition(
                f"deployment {deployment.deployment_id} was ended before: {deployment.detail}",
                state=state.state,
                event=self.command,
                allowed=[],
            )
        recorded = DeploymentRecorded(
            deployment_id=EntityId(deployment.deployment_id),
            environment=deployment.environment,
            tree_digest=deployment.tree,
            revision=RunKey(deployment.revision),
            status="rolled_back",
            step_id=StepId(f"deployments/{list(state.deployments).index(deployment.deployment_id) + 1}"),
            rollback_ref=deployment.rollback_ref,
            detail=told[:2000],
        )
        if not _is_watched(state, facts, deployment):
            return (recorded,)
        detail = lost_words(state, deployment.environment, told)[:4000]
        return (recorded, StoryParked(cause="operator", detail=detail))


def ended_words(who: Principal, action: Action, reason: str) -> str:
    """Who did what by hand, and why."""
    did = "stopped it" if action == "stop" else "rolled it back"
    return f"{who} {did} by hand: {reason.strip()}"


def lost_words(state: StoryState, environment: str, told: str) -> str:
    """Why a story that watches an environment waits, and what to do."""
    return (
        f"{environment} does not run what this story deployed any more: {told}. Let the story go on with `fleet resume "
        f"{state.story_id}`, and it goes back to build with a task for this; or give it up with `fleet story cancel "
        f"{state.story_id}`"
    )


def deployment_of(state: StoryState, revision: str) -> Deployment | None:
    """The deployment that an environment knows by this key."""
    return next((one for one in state.deployments.values() if one.revision == revision), None)


def _is_watched(state: StoryState, facts: Facts, deployment: Deployment) -> bool:
    """Whether the story waits for this deployment to have been healthy for long enough."""
    if state.closed or state.disposition != "active" or state.deployment != deployment:
        return False
    return any("health_ok" in row.guards for row in facts.fsm.lifecycles[state.lifecycle].legal(state.state))


class PauseStory(ReasonRequest, StoryCommand):
    """The story is held back: no step of it starts from here on (PL-50)."""

    command = "pause_story"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The pause; InvalidTransition for a story that is over or paused."""
        facts.caller.require("po", rule_id="LC-11")
        if state.is_over or state.is_paused:
            is_now = "paused already" if state.is_paused and not state.is_over else "over"
            raise _not_now(state, f"is {is_now}", "pause")
        return (StoryPaused(scope="story", by=facts.caller.principal, reason=check_notes(self.reason, "reason")),)


class ResumeStory(NoteRequest, StoryCommand):
    """A paused story goes on (PL-50)."""

    command = "resume_story"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The end of the pause; InvalidTransition for a story that is not paused."""
        facts.caller.require("po", rule_id="LC-11")
        if state.is_over or not state.is_paused:
            raise _not_now(state, "is not paused", "resume")
        why = check_notes(self.note, "note") if self.note.strip() else None
        return (StoryResumed(scope="story", by=facts.caller.principal, reason=why),)


class Unpark(NoteRequest, StoryCommand):
    """A parked story goes on (LC-95)."""

    command = "unpark"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The end of the park; OutcomeUnknown while a step waits to be resolved (RC-52)."""
        facts.caller.require("po", rule_id="LC-11")
        return unpark(state, caller=facts.caller, note=self.note)


class Cancel(ReasonRequest, StoryCommand):
    """The story is given up (LC-93)."""

    command = "cancel"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The end of the story; InvalidTransition for one that is over."""
        facts.caller.require("po", rule_id="LC-11")
        if state.closed or state.disposition in ("cancelled", "archived"):
            raise _not_now(state, "is over already", "cancel")
        return (StoryCancelled(reason=check_notes(self.reason, "reason")),)


class ArchiveStory(ReasonRequest, StoryCommand):
    """A story that is over is laid aside; its stream stays until an operator takes it out (LC-93, AP-57, EV-25)."""

    command = "archive_story"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The archive, with the bytes of every event before it; InvalidTransition for a story that is not over."""
        facts.caller.require("po", rule_id="LC-11")
        if state.disposition == "archived" or not state.is_over:
            is_now = "archived already" if state.is_over else f"in state {state.state} and {state.disposition}"
            raise _not_now(state, f"is {is_now}: one that is closed or cancelled can be archived", "archive")
        reason = check_notes(self.reason, "reason")
        export = Attachment(export_stream(facts.history, commands_of(facts.history)))
        return (export, StoryArchived(export_digest=export.digest, reason=reason))


class RestoreStory(RestoreRequest, StoryCommand):
    """The story tree goes back to a checkpoint, before anything else is done (PL-47)."""

    command = "restore_story"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The wish to go back; a newer one takes the place of one that still waits.

        Steps under way may end; what they record comes before the restoration, which then undoes it too.

        Raises:
            PolicyDenied: the caller is no person, or no po.
            InvalidTransition: the story is over or delivered, or this very restoration waits already.
            NotFound: the story has no such checkpoint.
            InvalidInput: the tree is that of the checkpoint already, or the reason is none.
        """
        facts.caller.require("po", rule_id="LC-11")
        if not facts.caller.principal.is_human:
            raise PolicyDenied("only a person sets a story tree back to a checkpoint", rule_id="PL-47")
        if state.is_over or facts.fsm.lifecycles[state.lifecycle].states[state.state].terminal:
            is_now = "over" if state.is_over else f"in state {state.state}, its work is accepted"
            raise _not_now(state, f"is {is_now}: write a new story to change what it did", "restore")
        checkpoint = find_checkpoint(state, self.checkpoint)
        if state.restoration is not None and state.restoration.checkpoint_id == checkpoint.checkpoint_id:
            raise _not_now(state, f"is being restored to {checkpoint.checkpoint_id} already", "restore")
        if state.restoration is None and checkpoint.tree == state.tree:
            raise InvalidInput(
                f"the tree of story {state.story_id} is that of checkpoint {checkpoint.checkpoint_id} already",
                field="checkpoint",
                allowed=[c.checkpoint_id for c in state.checkpoints.values() if c.tree != state.tree],
            )
        return (
            RestoreRequested(
                checkpoint_id=EntityId(checkpoint.checkpoint_id),
                tree_digest=checkpoint.tree,
                by=facts.caller.principal,
                reason=check_notes(self.reason, "reason"),
            ),
        )


class ResolveStep(ResolveRequest, StoryCommand):
    """A person says whether an unknown step happened (RC-52, AP-86); the first word stays."""

    command = "resolve_step"
    step_id: str

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The word; a step that happened has its result by that.

        Raises:
            NotFound: the story has no such step.
            InvalidTransition: the outcome of the step is known.
            InvalidInput: the note says too little.
        """
        facts.caller.require("po", "devops", rule_id="LC-11")
        step, by = state.steps.get(self.step_id), facts.caller.principal
        if step is None:
            raise NotFound(f"story {state.story_id} has no step {self.step_id!r}", step_id=self.step_id)
        if not step.is_unresolved:
            raise InvalidTransition(
                f"step {self.step_id} of story {state.story_id} does not wait for a word: "
                f"{step.resolution or (step.finished.outcome if step.finished else 'it is under way')}",
                state=state.state,
                event="resolve_step",
                allowed=list(state.unresolved_steps),
            )
        step_id, note = step.started.step_id, check_notes(self.note, "note")
        resolved = StepResolved(step_id=step_id, outcome=self.outcome, by=by, note=note)
        if self.outcome == "not_happened":
            return (resolved,)
        result = Attachment(canonical_json({"outcome": self.outcome, "by": by, "note": note}))
        finished = StepFinished(
            step_id=step_id,
            outcome="succeeded",
            result_digest=result.digest,
            reason="resolved",
            cost=Cost(priced=True, cost_microusd=0),
            provenance=Provenance(),
        )
        return (result, resolved, finished)


def _not_now(state: StoryState, is_now: str, event: str) -> InvalidTransition:
    return InvalidTransition(f"story {state.story_id} {is_now}", state=state.state, event=event, allowed=[])


def require_unpaused(state: StoryState) -> None:
    """Returns when a new step may start; ApprovalRequired while the story is paused: it waits for a person (PL-50)."""
    if state.is_paused:
        raise ApprovalRequired(f"story {state.story_id} is paused: no step starts until a person resumes it")


def unpark(state: StoryState, *, caller: Caller, note: str) -> tuple[Payload, ...]:
    """What letting a parked story go on records (LC-95); OutcomeUnknown while a step waits to be resolved (RC-52)."""
    if state.disposition != "parked" or state.park is None:
        raise _not_now(state, "is not parked", "unpark")
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


def _started_again(state: StoryState, *, repo: str, model: str, caller: Caller) -> tuple[Payload, ...]:
    """What goes with a start: nothing at the first one; of a parked story, which may be started again, that it goes on.

    Raises:
        InvalidTransition: the story is at work or over, or its repository was read and another one is named.
        OutcomeUnknown: a step has to be resolved first.
    """
    if state.start is None and not state.closed and state.disposition == "active":
        return ()
    if state.start is None or state.closed or state.disposition != "parked":
        raise _not_now(state, "was started already; `fleet resume` continues it", "start")
    if state.base_tree is not None and repo != state.start.repo.url:
        works_on = f"works on {state.start.repo.url} already: name that again, or create another story"
        raise _not_now(state, works_on, "start")
    note = f"started again on {repo} with {model or 'the models of the roles'}"
    return unpark(state, caller=caller, note=note[:4000])


def _require_profile(models: ModelsConfig, profile: str | None, *, absent: Collection[str] = ()) -> None:
    """Returns when some role has an engine; None leaves every role to its policy.

    Args:
        absent: engines of the file that nothing stands for in this fleet.

    Raises:
        InvalidInput: no engine is called so, this fleet does not serve it, or none was named and no policy has one of
            its own (MB-2).
    """
    if profile is not None:
        engine = models.engine(profile)
        if engine.engine_id in absent:
            raise InvalidInput(
                f"this fleet does not serve engine {profile!r}: name it in models.serve of fleet.yaml and start the "
                "fleet again, or choose another model",
                field="model",
                allowed=[name for name in (*models.profiles, "recorded:DIR") if name not in absent],
            )
        return
    if all(entry.engine_id == RUN_PROFILE for policy in models.policies.values() for entry in policy.chain):
        allowed = [*models.profiles, "recorded:DIR"]
        raise InvalidInput(
            f"no model is configured for any role: name one of {', '.join(allowed)}, or give a role an engine of its "
            "own in models.yaml",
            field="model",
            allowed=allowed,
        )
