"""Commands on what a story asks for: create it, edit it, take advice in, change its rigor, ask and answer questions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from fleet.events.approval import ApprovalGranted, ApprovalRequested, Subject
from fleet.events.story import (
    AcceptanceCriterion,
    Finding,
    QuestionAnswered,
    QuestionRaised,
    RigorChanged,
    StoryCreated,
    StoryEdited,
    StoryScored,
    StoryTransitioned,
    Topic,
)
from fleet.kernel.digest import canonical_json, digest_of_json
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied, VersionConflict
from fleet.kernel.ids import Digest, EntityId
from fleet.kernel.types import Frozen, QuestionKind, Reason
from fleet.models.prompts.pack_readers import PACK_READERS, PackReaders
from fleet.planning.coach import score_story
from fleet.planning.coach_config import CoachConfig
from fleet.planning.content import ReadableText, content_digest
from fleet.planning.project_state import DEFAULT_EPIC, DEFAULT_PROJECT, ProjectState
from fleet.planning.refine import RefinedStory, keeps_every_character, refine_story
from fleet.policy.deploy import target_for
from fleet.story.approvals import check_notes
from fleet.story.commands.command import Attachment, Facts, Outcome, StoryCommand, require_not_over
from fleet.story.lifecycle import RIGORS
from fleet.story.state import StoryState
from fleet.story.text import StoryText, parse

_FIELDS = ("title", "description", "acceptance_criteria", "constraints", "tags")


# Source: AP-58.
class RigorRequest(Frozen):
    """Work at another rigor level."""

    rigor: Annotated[str, Field(min_length=2, max_length=20)]
    reason: Reason


# Source: AP-73.
class QuestionRequest(Frozen):
    """A question about a story."""

    text: Annotated[str, Field(min_length=1, max_length=4000)]
    severity: Literal["normal", "blocking"] = "normal"
    kind: QuestionKind = "question"


class AnswerRequest(Frozen):
    """The answer to a question."""

    answer: Annotated[str, Field(min_length=1, max_length=4000)]


class ApplyRequest(Frozen):
    """Proposals to take into the story, by the keys of its advice."""

    proposals: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=80)], ...], Field(min_length=1, max_length=60)
    ]


@dataclass(frozen=True, slots=True)
class CreationFacts:
    """What a new story is created under."""

    project: ProjectState | None
    """The project that its text names; None for a text that is no mapping."""
    config: Mapping[str, Digest]
    """The digests of the configuration files by name (GL-23)."""
    readers: PackReaders | None = None
    """The models that may read its packs; None counts by estimate (CX-20)."""


class CreateStory(StoryCommand):
    """A story begins: with the defaults of its project, its first score, in its first state (LC-12, SC-31)."""

    command = "create_story"
    story: Any = None
    """The fields of `StoryText`, or their other names; they are judged here, so that all problems are listed."""

    @property
    def project_id(self) -> EntityId | None:
        """The project that the text names; None when it is no mapping. InvalidInput for what names none."""
        if not isinstance(self.story, dict):
            return None
        return EntityId(str(self.story.get("project_id", DEFAULT_PROJECT)))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]

    def decide(self, state: StoryState | None, facts: Facts) -> Outcome:
        """The story, its score and its first transition. Unlike for any other command, `state` is None at first.

        Raises:
            PolicyDenied: the caller is no po.
            InvalidTransition: the story exists already, its project is archived or its epic is closed.
            NotFound: there is no such project, or it has no such epic.
            InvalidInput: the text is wrong; all problems are listed. Or there is no such lifecycle.
        """
        caller, gathered = facts.caller, facts.of(CreationFacts)
        caller.require("po", rule_id="LC-11")
        if state is not None:
            raise InvalidTransition(
                f"story {state.story_id} exists already", state=state.state, event=self.command, allowed=[]
            )
        text = parse(_parented(self.story, gathered.project))
        lifecycles = facts.fsm.lifecycles
        if text.lifecycle not in lifecycles:
            allowed = sorted(lifecycles)
            raise InvalidInput(
                f"there is no lifecycle {text.lifecycle!r}; allowed: {', '.join(allowed)}", allowed=allowed
            )
        name, deploys = text.lifecycle, lifecycles[text.lifecycle].deploys
        target = target_for(facts.targets, text.project_id) if deploys else None
        if deploys and target is None:
            # Where nothing is deployed the full table would end in a state that nothing leaves (LC-46).
            name = f"{name}-no-deploy"
        if name not in lifecycles:
            raise InvalidInput(
                f"lifecycle {text.lifecycle!r} deploys, and no target of deploy.targets fits {text.project_id}: "
                f"name one in fleet.yaml, or add a lifecycle {name!r} that ends without a deployment",
                field="lifecycle",
            )
        lifecycle = lifecycles[name]
        digest = content_digest(text.title, text.description, text.acceptance_criteria, text.constraints, text.tags)
        config, kept = gathered.config, tuple[Attachment, ...]()
        if gathered.readers is not None:
            kept = (Attachment(canonical_json(gathered.readers)),)
            config = {**config, PACK_READERS: kept[0].digest}
        created = StoryCreated(
            project_id=EntityId(text.project_id),
            epic_id=EntityId(text.epic_id),
            title=text.title,
            description=text.description,
            acceptance_criteria=tuple(
                AcceptanceCriterion(ac_id=EntityId(f"ac-{n}"), text=t)
                for n, t in enumerate(text.acceptance_criteria, 1)
            ),
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
        if created.first_state != lifecycle.initial:
            created = created.model_copy(update={"initial": lifecycle.initial})
        scored = scored_event(text, digest, threshold=facts.thresholds[text.rigor], coach=facts.coach)
        taken_up = None if text.hold else lifecycle.creation
        first = (StoryTransitioned(from_=taken_up.from_, event=taken_up.event, to=taken_up.to),) if taken_up else ()
        return (*kept, created, scored, *first)


def _parented(data: Any, project: ProjectState | None) -> Any:
    """The story's fields with the defaults of its project; its parents exist and are open (PL-1, PL-2)."""
    if not isinstance(data, dict) or project is None:
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


class EditStory(StoryCommand):
    """The story has another text, and a score for it (PL-5, SC-31)."""

    command = "edit_story"
    changes: dict[str, Any]
    """New values by field, in the form of a story's text, which is read as that of a new story is."""
    reason: str | None = None

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The new text, scored in the same append; a plan that there is is asked about.

        Criteria keep their ids: one that is named by `ac_id`, and one whose text did not change.
        """
        facts.caller.require("po", rule_id="LC-11")
        require_not_over(state, "edit")
        return _edit(state, facts, self.changes, self.reason)


class ApplyAdvice(ApplyRequest, StoryCommand):
    """The story has what the coach proposed, beside every word of its author (SC-40, SC-41)."""

    command = "apply_advice"
    sentences = {"proposals": "name the proposals to apply"}

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The edit that takes the chosen proposals in; every character of the author stays, in order."""
        facts.caller.require("po", rule_id="LC-11")
        require_not_over(state, self.command)
        content, coach = state.content, facts.coach
        before = ReadableText(content.title, content.description, tuple(c.text for c in content.acceptance_criteria))
        offered = sorted({c.proposal for c in _refined(state, before, coach, None).changes if c.kind != "question"})
        names = set(self.proposals)
        if unknown := sorted(names - set(offered)):
            raise InvalidInput(f"the coach proposes no {unknown[0][:80]!r}", field="proposals", allowed=offered)
        refined = _refined(state, before, coach, names)
        after = ReadableText(refined.title, refined.description, refined.acceptance_criteria)
        assert keeps_every_character(before, after), "a refined text keeps every character"
        known = [{"ac_id": c.ac_id, "text": t} for c, t in zip(content.acceptance_criteria, after[2], strict=False)]
        added = [{"text": text} for text in after.acceptance_criteria[len(known) :]]
        changes = {"title": after.title, "description": after.description, "acceptance_criteria": [*known, *added]}
        return _edit(state, facts, changes, f"proposed by the coach: {', '.join(sorted(names))}")


class SetRigor(RigorRequest, StoryCommand):
    """The story is worked on at another level; a lower one is a consent of its own (LC-96)."""

    command = "set_rigor"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The change, with the score of the text by the new level.

        Raises:
            PolicyDenied: the caller is no person, or does not hold the role that may lower the level.
            InvalidInput: there is no such level, or the story has it already.
        """
        require_not_over(state, self.command)
        reason = check_notes(self.reason, "reason")
        if not facts.caller.principal.is_human:
            raise PolicyDenied("only a person changes the rigor", rule_id="LC-96")
        content = state.content
        text = parse(
            {
                "title": content.title,
                "description": content.description,
                "acceptance_criteria": [c.text for c in content.acceptance_criteria],
                "constraints": dict(content.constraints),
                "tags": list(content.tags),
                "rigor": self.rigor,
                "language": state.language,
            }
        )
        if text.rigor == state.rigor:
            raise InvalidInput(f"the story has rigor {state.rigor} already", field="rigor", allowed=list(RIGORS))
        is_lower = RIGORS.index(text.rigor) < RIGORS.index(state.rigor)
        consent = _consent_to_lower(state, facts, to=text.rigor, reason=reason) if is_lower else ()
        changed = RigorChanged.model_validate(
            {
                "from": state.rigor,
                "to": text.rigor,
                "reason": reason,
                "approval_id": consent[1].approval_id if consent else None,
            }
        )
        threshold = facts.thresholds[text.rigor]
        return (*consent, changed, scored_event(text, content.digest, threshold=threshold, coach=facts.coach))


class AskQuestion(QuestionRequest, StoryCommand):
    """A question is on record; a blocking one holds gates until it is answered."""

    command = "ask_question"
    sentences = {"text": "a question has 1 to 4,000 characters"}

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The question, under an id made of the command's."""
        require_not_over(state, self.command)
        text = self.text.strip()
        if not text:
            raise InvalidInput(self.sentences["text"], field="text")
        return (
            QuestionRaised(
                question_id=facts.new_id("qu", facts.command_id),
                kind=self.kind,
                text=text,
                severity=self.severity,
                about=Topic(kind="story", id=EntityId(state.story_id)),
                asked_by=facts.caller.principal,
            ),
        )


class AnswerQuestion(AnswerRequest, StoryCommand):
    """A question has its answer; the first one stays."""

    command = "answer_question"
    sentences = {"answer": "an answer has 1 to 4,000 characters"}
    question_id: str

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The answer; PolicyDenied for a caller who is neither po, architect nor qa."""
        question, caller = state.questions.get(self.question_id), facts.caller
        if question is None:
            raise NotFound(f"story {state.story_id} has no such question", allowed=sorted(state.questions))
        if question.answer is not None:
            raise VersionConflict(f"question {question.question_id} is answered: {question.answer[:200]}")
        text = self.answer.strip()
        if not text:
            raise InvalidInput(self.sentences["answer"], field="answer")
        if not caller.roles & {"po", "architect", "qa"}:
            raise PolicyDenied(f"{caller.principal} may not answer", rule_id="AP-73", allowed="po architect qa")
        question_id = EntityId(question.question_id)
        return (QuestionAnswered(question_id=question_id, answer=text, answered_by=caller.principal),)


def scored_event(text: StoryText, digest: Digest, *, threshold: int, coach: CoachConfig) -> StoryScored:
    """The readiness score of a text, as an event (SC-2); `threshold` is what its rigor asks for."""
    score = score_story(
        text.title,
        text.description,
        text.acceptance_criteria,
        language=text.language,
        threshold=threshold,
        config=coach,
    )
    return StoryScored(
        content_digest=digest,
        score=str(score.score),
        threshold=str(score.threshold),
        dor_ok=score.dor_ok,
        findings=tuple(Finding.model_validate(f.model_dump(exclude_none=True)) for f in score.findings),
        scorer_version=str(score.scorer_version),
    )


def _edit(state: StoryState, facts: Facts, wanted: Mapping[str, Any], reason: str | None) -> Outcome:
    if not wanted:
        raise InvalidInput("name the fields that change", field="changes", allowed=list(_FIELDS))
    changes = dict(wanted)
    if unknown := sorted(set(changes) - set(_FIELDS)):
        raise InvalidInput(f"{unknown[0]!r} is not edited", field=unknown[0], allowed=list(_FIELDS))
    criteria = _criteria(state, changes.pop("acceptance_criteria", None))
    text = _text(state, changes, criteria)
    digest = content_digest(text.title, text.description, text.acceptance_criteria, text.constraints, text.tags)
    if digest == state.content.digest:
        raise InvalidInput("the edit changes nothing", field="changes", problems=[])
    edited = StoryEdited(
        changes=_recorded(state, text, criteria),
        reason=reason,
        content_digest=digest,
        previous_content_digest=state.content.digest,
    )
    scored = scored_event(text, digest, threshold=facts.thresholds[text.rigor], coach=facts.coach)
    return (edited, scored, *_plan_question(state, facts))


def _refined(state: StoryState, text: ReadableText, coach: CoachConfig, only: Collection[str] | None) -> RefinedStory:
    return refine_story(*text, language=state.language, config=coach, only=only)


def _criteria(state: StoryState, wanted: Any) -> tuple[AcceptanceCriterion, ...]:
    known = state.content.acceptance_criteria
    if wanted is None:
        return known
    if not isinstance(wanted, list | tuple):
        raise InvalidInput("acceptance_criteria is a list", field="acceptance_criteria")
    texts = {c.text: c.ac_id for c in known}
    ids = {c.ac_id for c in known}
    used, found, number = set[str](), list[AcceptanceCriterion](), len(known)
    for at, entry in enumerate(wanted):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        text, named = _entry(entry, at)
        ac_id = named or texts.get(text)
        if named is not None and named not in ids:
            raise InvalidInput(
                f"story {state.story_id} has no criterion {named!r}",
                field=f"acceptance_criteria/{at}/ac_id",
                allowed=sorted(ids),
            )
        while ac_id is None or ac_id in used:
            number += 1
            ac_id = EntityId(f"ac-{number}") if f"ac-{number}" not in ids else None
        used.add(ac_id)
        found.append(AcceptanceCriterion(ac_id=EntityId(ac_id), text=text))
    return tuple(found)


def _entry(entry: Any, at: int) -> tuple[str, str | None]:
    text: Any = entry.get("text") if isinstance(entry, Mapping) else entry  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    named: Any = entry.get("ac_id") if isinstance(entry, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(text, str) or not 1 <= len(text.strip()) <= 2000 or not isinstance(named, str | None):
        raise InvalidInput("a criterion has 1 to 2,000 characters", field=f"acceptance_criteria/{at}")
    return text.strip(), named


def _text(state: StoryState, changes: Mapping[str, Any], criteria: tuple[AcceptanceCriterion, ...]) -> StoryText:
    content = state.content
    before = {
        "title": content.title,
        "description": content.description,
        "constraints": dict(content.constraints),
        "tags": list(content.tags),
    }
    kept = {"rigor": state.rigor, "lifecycle": state.lifecycle, "language": state.language, "priority": state.priority}
    return parse({**before, **changes, "acceptance_criteria": [c.text for c in criteria], **kept})


def _recorded(state: StoryState, text: StoryText, criteria: tuple[AcceptanceCriterion, ...]) -> dict[str, Any]:
    """The fields that differ, as they are stored."""
    content = state.content
    found: dict[str, Any] = {}
    if text.title != content.title:
        found["title"] = text.title
    if text.description != content.description:
        found["description"] = text.description
    if dict(text.constraints) != dict(content.constraints):
        found["constraints"] = text.constraints
    if text.tags != content.tags:
        found["tags"] = list(text.tags)
    # `parse` normalises texts, so the stored criteria are those that it gave back.
    stored = [{"ac_id": c.ac_id, "text": t} for c, t in zip(criteria, text.acceptance_criteria, strict=True)]
    if stored != [{"ac_id": c.ac_id, "text": c.text} for c in content.acceptance_criteria]:
        found["acceptance_criteria"] = stored
    return found


def _plan_question(state: StoryState, facts: Facts) -> tuple[QuestionRaised, ...]:
    if state.plan is None:
        return ()
    return (
        QuestionRaised(
            question_id=facts.new_id("qu", f"{facts.command_id}/plan"),
            kind="question",
            text="The story's text changed. Does the plan still fit?",
            severity="blocking",
            about=Topic(kind="plan", id=state.plan.proposal.plan_id),
            asked_by=facts.caller.principal,
        ),
    )


def _consent_to_lower(
    state: StoryState, facts: Facts, *, to: str, reason: str
) -> tuple[Attachment, ApprovalRequested, ApprovalGranted]:
    """Who holds the gate's role says yes by making the change, as at a gate of the lifecycle (LC-78)."""
    gate, caller = facts.fsm.gate(state.lifecycle, "lower_rigor"), facts.caller
    if gate.role not in caller.roles:
        raise PolicyDenied(f"a lower rigor needs a person in role {gate.role!r}", rule_id="LC-96", allowed=gate.role)
    subject = Subject(
        kind="object",
        id=f"rigor:{to}",
        digest=digest_of_json({"story": state.story_id, "from": state.rigor, "to": to, "version": state.version}),
    )
    approval_id = facts.new_id("ap", f"{facts.command_id}/lower_rigor")
    card = Attachment(canonical_json({"gate": "lower_rigor", "from": state.rigor, "to": to, "reason": reason}))
    asked = ApprovalRequested(
        approval_id=approval_id,
        gate="lower_rigor",
        role=gate.role,
        actor=gate.actor,
        subject=subject,
        risk="medium",
        expires_at=facts.now_ms + gate.request_ttl_s * 1000,
        attempt=1,
        card_digest=card.digest,
        requested_by=caller.principal,
    )
    granted = ApprovalGranted(
        approval_id=approval_id,
        principal=caller.principal,
        as_role=gate.role,
        subject_digest=subject.digest,
        notes=reason,
        grant_expires_at=facts.now_ms + gate.grant_ttl_s * 1000,
        delegated=False,
    )
    return card, asked, granted
