"""What people do to a story beside its gates and its work: edit it, ask and answer, ask for a gate again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from fleet.events.approval import ApprovalGranted, ApprovalRequested, Subject
from fleet.events.payload import Payload
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
from fleet.log.port import Command
from fleet.owner.workbench import Definitions, Workbench
from fleet.planning.coach import score_story
from fleet.planning.coach_config import CoachConfig
from fleet.planning.content import StoryText as ContentText
from fleet.planning.content import content_digest
from fleet.planning.project_state import DEFAULT_EPIC, ProjectState
from fleet.planning.refine import RefinedStory, keeps_every_character, refine_story
from fleet.policy.deploy import target_for
from fleet.story.approvals import check_notes
from fleet.story.commands.command import Caller
from fleet.story.lifecycle import RIGORS
from fleet.story.state import StoryState
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
    scored = scored_event(text, digest, rules=rules, coach=coach)
    return (created, scored, *_first_transition(text, name))


def _first_transition(text: StoryText, lifecycle: str) -> tuple[Payload, ...]:
    if text.hold or lifecycle != "agile":
        return ()
    return (StoryTransitioned(from_="BACKLOG", event="create_story", to="DRAFT"),)


def scored_event(text: StoryText, digest: Digest, *, rules: Definitions, coach: CoachConfig) -> StoryScored:
    """The readiness score of a text, as an event (SC-2)."""
    threshold = rules.rigor.level(text.rigor).dor_min
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


_FIELDS = ("title", "description", "acceptance_criteria", "constraints", "tags")


def edit_story(bench: Workbench, command: Command, caller: Caller, coach: CoachConfig) -> tuple[Payload, ...]:
    """The story with new text, scored again in the same append (PL-5, SC-31).

    Criteria keep their ids: one that is named by `ac_id`, and one whose text did not change.
    """
    state, raw = _open(bench, "edit"), command.body.get("changes")
    if not isinstance(raw, Mapping) or not raw:
        raise InvalidInput("name the fields that change", field="changes", allowed=list(_FIELDS))
    changes: dict[str, Any] = dict(raw)  # pyright: ignore[reportUnknownArgumentType]
    if unknown := sorted(set(changes) - set(_FIELDS)):
        raise InvalidInput(f"{unknown[0]!r} is not edited", field=unknown[0], allowed=list(_FIELDS))
    criteria = _criteria(state, changes.pop("acceptance_criteria", None))
    text = _text(state, changes, criteria)
    digest = content_digest(text.title, text.description, text.acceptance_criteria, text.constraints, text.tags)
    if digest == state.content.digest:
        raise InvalidInput("the edit changes nothing", field="changes", problems=[])
    edited = StoryEdited(
        changes=_recorded(state, text, criteria),
        reason=command.body.get("reason"),
        content_digest=digest,
        previous_content_digest=state.content.digest,
    )
    return (edited, scored_event(text, digest, rules=bench.rules, coach=coach), *_plan_question(bench, command, caller))


def apply_advice(bench: Workbench, command: Command, caller: Caller, coach: CoachConfig) -> tuple[Payload, ...]:
    """The story with chosen proposals of the coach; every character of its author stays, in order (SC-40, SC-41)."""
    state, wanted = _open(bench, "apply_advice"), command.body.get("proposals")
    if not isinstance(wanted, list) or not wanted:
        raise InvalidInput("name the proposals to apply", field="proposals")
    content = state.content
    before = ContentText(content.title, content.description, tuple(c.text for c in content.acceptance_criteria))
    offered = sorted({c.proposal for c in _refined(state, before, coach, None).changes if c.kind != "question"})
    names = {str(name) for name in wanted}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if unknown := sorted(names - set(offered)):
        raise InvalidInput(f"the coach proposes no {unknown[0][:80]!r}", field="proposals", allowed=offered)
    refined = _refined(state, before, coach, names)
    after = ContentText(refined.title, refined.description, refined.acceptance_criteria)
    assert keeps_every_character(before, after), "a refined text keeps every character"
    known = [{"ac_id": c.ac_id, "text": t} for c, t in zip(content.acceptance_criteria, after[2], strict=False)]
    added = [{"text": text} for text in after.acceptance_criteria[len(known) :]]
    changes = {"title": after.title, "description": after.description, "acceptance_criteria": [*known, *added]}
    edit = replace(command, body={"changes": changes, "reason": f"proposed by the coach: {', '.join(sorted(names))}"})
    return edit_story(bench, edit, caller, coach)


def _refined(state: StoryState, text: ContentText, coach: CoachConfig, only: Collection[str] | None) -> RefinedStory:
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


def _plan_question(bench: Workbench, command: Command, caller: Caller) -> tuple[QuestionRaised, ...]:
    plan = bench.state.plan
    if plan is None:
        return ()
    return (
        QuestionRaised(
            question_id=bench.new_id("qu", f"{command.command_id}/plan"),
            kind="question",
            text="The story's text changed. Does the plan still fit?",
            severity="blocking",
            about=Topic(kind="plan", id=plan.proposal.plan_id),
            asked_by=caller.principal,
        ),
    )


async def set_rigor(bench: Workbench, command: Command, caller: Caller, coach: CoachConfig) -> tuple[Payload, ...]:
    """The story is worked on at another level; a lower one is a consent of its own (LC-96)."""
    state = _open(bench, "set_rigor")
    name, reason = str(command.body.get("rigor") or ""), check_notes(str(command.body.get("reason") or ""), "reason")
    if not caller.principal.is_human:
        raise PolicyDenied("only a person changes the rigor", rule_id="LC-96")
    content = state.content
    text = parse(
        {
            "title": content.title,
            "description": content.description,
            "acceptance_criteria": [c.text for c in content.acceptance_criteria],
            "constraints": dict(content.constraints),
            "tags": list(content.tags),
            "rigor": name,
            "language": state.language,
        }
    )
    if text.rigor == state.rigor:
        raise InvalidInput(f"the story has rigor {state.rigor} already", field="rigor", allowed=list(RIGORS))
    consent = ()
    if RIGORS.index(text.rigor) < RIGORS.index(state.rigor):
        consent = await _lowered(bench, command, caller, to=text.rigor, reason=reason)
    changed = RigorChanged.model_validate(
        {
            "from": state.rigor,
            "to": text.rigor,
            "reason": reason,
            "approval_id": consent[0].approval_id if consent else None,
        }
    )
    return (*consent, changed, scored_event(text, content.digest, rules=bench.rules, coach=coach))


async def _lowered(
    bench: Workbench, command: Command, caller: Caller, *, to: str, reason: str
) -> tuple[ApprovalRequested, ApprovalGranted]:
    """Who holds the gate's role says yes by making the change, as at a gate of the lifecycle (LC-78)."""
    state = bench.state
    gate = bench.rules.fsm.gate(state.lifecycle, "lower_rigor")
    if gate.role not in caller.roles:
        raise PolicyDenied(f"a lower rigor needs a person in role {gate.role!r}", rule_id="LC-96", allowed=gate.role)
    subject = Subject(
        kind="object",
        id=f"rigor:{to}",
        digest=digest_of_json({"story": state.story_id, "from": state.rigor, "to": to, "version": state.version}),
    )
    approval_id = bench.new_id("ap", f"{command.command_id}/lower_rigor")
    card = {"gate": "lower_rigor", "from": state.rigor, "to": to, "reason": reason}
    asked = ApprovalRequested(
        approval_id=approval_id,
        gate="lower_rigor",
        role=gate.role,
        actor=gate.actor,
        subject=subject,
        risk="medium",
        expires_at=bench.now_ms + gate.request_ttl_s * 1000,
        attempt=1,
        card_digest=await bench.blobs.put(canonical_json(card)),
        requested_by=caller.principal,
    )
    granted = ApprovalGranted(
        approval_id=approval_id,
        principal=caller.principal,
        as_role=gate.role,
        subject_digest=subject.digest,
        notes=reason,
        grant_expires_at=bench.now_ms + gate.grant_ttl_s * 1000,
        delegated=False,
    )
    return asked, granted


def ask_question(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """A question is on record; a blocking one holds gates until it is answered."""
    state, body = _open(bench, "ask_question"), command.body
    text = str(body.get("text") or "").strip()
    if not 1 <= len(text) <= 4000:
        raise InvalidInput("a question has 1 to 4,000 characters", field="text")
    return (
        QuestionRaised.model_validate(
            {
                "question_id": bench.new_id("qu", command.command_id),
                "kind": body.get("kind") or "question",
                "text": text,
                "severity": body.get("severity") or "normal",
                "about": {"kind": "story", "id": state.story_id},
                "asked_by": caller.principal,
            }
        ),
    )


def answer_question(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The question has its answer; the first one stays."""
    state = bench.state
    question = state.questions.get(str(command.body.get("question_id")))
    if question is None:
        raise NotFound(f"story {state.story_id} has no such question", allowed=sorted(state.questions))
    if question.answer is not None:
        raise VersionConflict(f"question {question.question_id} is answered: {question.answer[:200]}")
    text = str(command.body.get("answer") or "").strip()
    if not 1 <= len(text) <= 4000:
        raise InvalidInput("an answer has 1 to 4,000 characters", field="answer")
    if not caller.roles & {"po", "architect", "qa"}:
        raise PolicyDenied(f"{caller.principal} may not answer", rule_id="AP-73", allowed="po architect qa")
    return (QuestionAnswered(question_id=EntityId(question.question_id), answer=text, answered_by=caller.principal),)


def _open(bench: Workbench, event: str) -> StoryState:
    state = bench.state
    if state.is_over:
        raise InvalidTransition(f"story {state.story_id} is over", state=state.state, event=event, allowed=[])
    return state
