"""A story tree goes back to a checkpoint: what the request records, what it changes, what is owed (PL-47)."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.events.approval import ApprovalRequested
from fleet.events.council import CouncilCancelled, CouncilOpened
from fleet.events.payload import Payload
from fleet.events.plan import CheckpointSaved
from fleet.events.story import (
    StoryCancelled,
    StoryClosed,
    StoryParked,
    StoryPaused,
    StoryResumed,
    StoryTransitioned,
    StoryUnparked,
)
from fleet.events.task import RestoreRequested, TreeMerged
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied
from fleet.kernel.ids import EntityId, Principal
from fleet.story.commands.command import Caller
from fleet.story.commands.gates import decide_gate, fire
from fleet.story.commands.interventions import RestoreStory
from fleet.story.intents import OpenTaskCouncil, RestoreTree, StartTask
from fleet.story.plan import plan
from fleet.story.restoration import follow_restoration
from tests.support.rules import fsm
from tests.support.story_events import (
    BASE,
    DOC_TASK,
    DOCUMENTED,
    MERGED,
    PLAN,
    PO,
    STORY,
    SYSTEM,
    T0,
    TASK,
    TASK_COUNCIL,
    StoryLog,
    digest,
    facts,
    story,
    subject,
)

ANA = Caller(principal=PO, roles=frozenset({"po"}))
AGENT = Caller(principal=Principal("agent:reviewer-001"), roles=frozenset({"po"}))
WHY = "the second step broke the first"
NOW = T0 + 600_000
EARLY, FULL = EntityId("rp-early1"), EntityId("rp-full2")


def saved(checkpoint_id: EntityId, tree: Any, **states: Any) -> CheckpointSaved:
    return CheckpointSaved(
        plan_id=PLAN,
        checkpoint_id=checkpoint_id,
        tree_digest=tree,
        task_states={TASK: "todo", DOC_TASK: "todo"} | {EntityId(k.replace("_", "-")): v for k, v in states.items()},
        note="",
    )


def documented(*, until: Any = "docs") -> StoryLog:
    """A story in DOCS with a checkpoint before its task, and one after it."""
    log = story(until=until)
    return log.add(saved(EARLY, BASE), saved(FULL, MERGED, **{TASK: "done", DOC_TASK: "cancelled"}))


def asked(log: StoryLog, name: str = EARLY, *, caller: Caller = ANA, reason: str = WHY) -> StoryLog:
    (requested,) = RestoreStory(checkpoint=name, reason=reason).decide(log.state, facts(caller))
    assert isinstance(requested, RestoreRequested)
    return log.add(requested, actor=caller.principal)


def restored(log: StoryLog, tree: Any = BASE, name: EntityId = EARLY) -> StoryLog:
    """What the owner records once the commit is made."""
    state = log.state
    assert state.restoration is not None
    assert state.tree is not None
    followed = follow_restoration(state, fsm(), state.restoration, state.checkpoints[name], now_ms=NOW)
    merged = TreeMerged(base_digest=state.tree, result_digest=tree, commit="0d" * 20, restored_from=name)
    return log.add(merged, *followed)


def owed(log: StoryLog) -> tuple[Any, ...]:
    return plan(log.state, fsm(), now_ms=NOW)


@pytest.mark.rule("PL-47")
@pytest.mark.parametrize("by", ["id", "version"])
def test_checkpoint_is_named_by_its_id_or_by_the_version_that_saved_it(by: str):
    log = documented()
    name = EARLY if by == "id" else str(log.version - 1)
    (request,) = RestoreStory(checkpoint=f" {name} ", reason=f"  {WHY} ").decide(log.state, facts(ANA))
    assert request == RestoreRequested(checkpoint_id=EARLY, tree_digest=BASE, by=PO, reason=WHY)


@pytest.mark.rule("PL-47")
def test_unknown_checkpoint_is_refused_with_those_that_there_are():
    with pytest.raises(NotFound, match=r"no checkpoint 'rp-none1'.*rp-early1 \(version \d+\)") as refused:
        asked(documented(), "rp-none1")
    assert refused.value.details["allowed"] == [EARLY, FULL]
    with pytest.raises(NotFound, match="none before its first merge"):
        asked(story(until="build"), "12")


@pytest.mark.rule("PL-47")
def test_only_a_person_with_a_reason_asks_for_it():
    with pytest.raises(PolicyDenied, match="only a person"):
        asked(documented(), caller=AGENT)
    with pytest.raises(InvalidInput, match="10 to 4,000"):
        asked(documented(), reason="too short")


@pytest.mark.rule("PL-47")
def test_tree_that_is_there_already_is_refused_and_what_else_there_is_is_named():
    with pytest.raises(InvalidInput, match="already") as refused:
        asked(documented(until="merged"), FULL)
    assert refused.value.details["allowed"] == [EARLY]


@pytest.mark.rule("PL-47")
@pytest.mark.parametrize(
    ("last", "says"),
    [
        (StoryCancelled(reason="nobody wants it any more"), "is over"),
        (StoryClosed(final_state="DONE", report_id=EntityId("rp-end1")), "is over"),
        (StoryTransitioned(from_="DOCS", event="docs_ready", to="DONE"), "in state DONE"),
    ],
)
def test_story_that_is_over_or_delivered_is_not_restored(last: Payload, says: str):
    with pytest.raises(InvalidTransition, match=says):
        asked(documented().add(last))


@pytest.mark.rule("PL-47", "PL-49")
def test_restoration_is_owed_before_anything_else_and_is_numbered():
    log = asked(documented())
    assert owed(log) == (RestoreTree(checkpoint_id=EARLY, number=1),)
    with pytest.raises(InvalidTransition, match="already"):
        asked(log)
    # Another wish takes the place of the first, with a number of its own: its commit is another one.
    assert owed(asked(log, FULL)) == (RestoreTree(checkpoint_id=FULL, number=2),)


@pytest.mark.rule("PL-47", "PL-50")
@pytest.mark.parametrize(
    "held",
    [
        StoryPaused(scope="story", by=PO, reason="let us look first"),
        StoryParked(cause="stuck", detail="nothing moves"),
    ],
)
def test_story_that_is_held_back_is_restored_as_soon_as_it_goes_on(held: Payload):
    log = asked(documented().add(held))
    assert owed(log) == ()
    if isinstance(held, StoryPaused):
        log.add(StoryResumed(scope="story", by=PO))
    else:
        log.add(StoryUnparked(by=PO, note="go on", cause="stuck"))
    assert owed(log) == (RestoreTree(checkpoint_id=EARLY, number=1),)


@pytest.mark.rule("PL-47")
def test_request_that_came_when_the_story_had_just_been_accepted_changes_nothing():
    log = asked(documented()).add(StoryTransitioned(from_="DOCS", event="docs_ready", to="DONE"))
    assert "RestoreTree" not in {type(intent).__name__ for intent in owed(log)}
    assert owed(log) != ()


@pytest.mark.rule("PL-47")
def test_nothing_is_decided_about_a_tree_that_is_about_to_go():
    log = documented().add(
        ApprovalRequested(
            approval_id=EntityId("ap-docs1"),
            gate="docs_ready",
            role="po",
            actor="human",
            subject=subject("docs", STORY, digest("docs")),
            risk="low",
            expires_at=NOW + 86_400_000,
            attempt=1,
            card_digest=digest("card"),
            requested_by=SYSTEM,
        )
    )
    state = asked(log).state
    with pytest.raises(InvalidTransition, match="is being restored"):
        decide_gate(state, fsm(), "docs_ready", approve=True, caller=ANA, now_ms=NOW)
    with pytest.raises(InvalidTransition, match="is being restored"):
        fire(state, fsm(), "docs_ready", caller=ANA, now_ms=NOW)


@pytest.mark.rule("PL-47", "RC-36")
def test_restored_story_has_the_old_tree_on_a_new_commit_and_its_work_is_open_again():
    before = documented().state
    log = restored(asked(documented()))
    state = log.state
    assert (state.tree, state.commit, state.restoration, state.restored) == (BASE, "0d" * 20, None, 1)
    assert (before.state, state.state) == ("DOCS", "BUILD")
    task = state.tasks[TASK]
    assert (task.state, task.candidate_tree, task.author, task.reviewers) == ("todo", None, None, ())
    assert task.feedback[-1] == WHY
    assert state.tasks[DOC_TASK].state == "cancelled", "what a person discarded stays discarded"
    assert state.tree_authors == before.tree_authors, "who sets a tree back is no author of it"
    assert owed(log) == (StartTask(task_id=TASK),)


@pytest.mark.rule("PL-47", "LC-90")
def test_consents_to_later_trees_hold_no_more_and_those_to_text_and_plan_do():
    state = restored(asked(documented(until="merged"))).state
    assert {a.request.gate: a.voided for a in state.approvals.values()}["task_acceptance"]
    # In its build nothing leads back, and only what is about a tree is asked for again.
    log = documented(until="task")
    log.add(TreeMerged(task_id=TASK, base_digest=BASE, result_digest=MERGED, commit="0b" * 20))
    log.add(
        ApprovalRequested(
            approval_id=EntityId("ap-task1"),
            gate="task_acceptance",
            role="po",
            actor="human",
            subject=subject("tree", TASK, digest("candidate tree")),
            risk="low",
            expires_at=NOW + 86_400_000,
            attempt=1,
            card_digest=digest("card"),
            requested_by=SYSTEM,
        )
    )
    kept = restored(asked(log)).state
    assert kept.state == "BUILD"
    assert {a.request.gate for a in kept.approvals.values() if a.voided} == {"task_acceptance"}


@pytest.mark.rule("PL-47")
def test_score_of_a_later_tree_opens_no_gate_of_the_restored_one():
    state = restored(asked(documented())).state
    assert state.tree is not None
    assert MERGED in state.scores
    assert DOCUMENTED in state.scores
    assert state.tree not in {MERGED, DOCUMENTED}
    assert state.docs is not None
    assert state.docs.tree != state.tree


@pytest.mark.rule("PL-47")
def test_council_that_sits_on_undone_work_ends_and_the_task_gets_another():
    log = story(until="build").task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    opened = next(p for p in story(until="task").decoded_payloads("CouncilOpened") if _of(p) == TASK_COUNCIL)
    log.add(opened, TreeMerged(base_digest=BASE, result_digest=MERGED, commit="0b" * 20), saved(EARLY, BASE))
    restored(asked(log))
    state = log.state
    assert state.councils[TASK_COUNCIL].status == "CANCELLED"
    assert owed(log) == (StartTask(task_id=TASK),)
    log.task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    assert owed(log) == (OpenTaskCouncil(task_id=TASK, attempt=2),)


@pytest.mark.rule("PL-47", "CN-13")
def test_council_that_was_asked_for_ends_with_the_tree_that_its_members_were_shown():
    log = documented()
    opened = next(p for p in story(until="task").decoded_payloads("CouncilOpened") if _of(p) == TASK_COUNCIL)
    advice = EntityId("co-advice1")
    about = {"council_id": advice, "task_id": None, "output_kind": "text", "requested_by": PO}
    log.add(opened.model_copy(update=about))
    assert restored(asked(log)).state.councils[advice].status == "CANCELLED"
    assert owed(log) == (StartTask(task_id=TASK),)


@pytest.mark.rule("PL-47", "CN-13")
def test_attempts_at_a_task_are_counted_without_the_councils_that_were_asked_for():
    log = story(until="build").task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    opened = next(p for p in story(until="task").decoded_payloads("CouncilOpened") if _of(p) == TASK_COUNCIL)
    log.add(opened.model_copy(update={"council_id": EntityId("co-advice1"), "requested_by": PO}))
    log.add(CouncilCancelled(council_id=EntityId("co-advice1"), reason="not needed any more"))
    assert owed(log) == (OpenTaskCouncil(task_id=TASK, attempt=1),)
    log.add(TreeMerged(base_digest=BASE, result_digest=MERGED, commit="0b" * 20), saved(EARLY, BASE))
    restored(asked(log)).task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    assert owed(log) == (OpenTaskCouncil(task_id=TASK, attempt=1),)


@pytest.mark.rule("PL-47")
def test_attempt_that_had_no_council_yet_counts_not():
    log = story(until="build").task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    log.add(TreeMerged(base_digest=BASE, result_digest=MERGED, commit="0b" * 20), saved(EARLY, BASE))
    restored(asked(log)).task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    assert owed(log) == (OpenTaskCouncil(task_id=TASK, attempt=1),)


@pytest.mark.rule("PL-47")
def test_restoration_can_be_taken_back_by_another_one():
    log = restored(asked(documented()))
    restored(asked(log, FULL), MERGED, FULL)
    state = log.state
    assert (state.tree, state.tasks[TASK].state, state.restored) == (MERGED, "done", 2)
    assert state.state == "BUILD"
    assert [type(i).__name__ for i in owed(log)] == ["FireTransition"]


@pytest.mark.rule("PL-47")
def test_newer_wish_outlives_the_older_one_that_was_being_carried_out():
    log = asked(asked(documented()), FULL)
    merged = TreeMerged(base_digest=DOCUMENTED, result_digest=BASE, commit="0d" * 20, restored_from=EARLY)
    assert owed(log.add(merged)) == (RestoreTree(checkpoint_id=FULL, number=2),)


def _of(payload: Payload) -> str:
    assert isinstance(payload, CouncilOpened)
    return payload.council_id
