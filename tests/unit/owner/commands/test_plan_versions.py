"""Plan versions by hand, their adoption and rejection, and edits of tasks (PL-10..PL-13, PL-25, AP-60, AP-62)."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.audit.service.stream_export import read_export
from fleet.events.codec import decode
from fleet.events.decision import DecisionAccepted, DecisionLinked
from fleet.events.plan import Dependency, PlanAdopted, PlanProposed
from fleet.events.story import RigorChanged, StoryArchived, StoryCancelled, StoryParked
from fleet.events.task import RestoreRequested, TaskUpdated
from fleet.kernel.errors import FleetError, InvalidInput, InvalidTransition, NotFound, PolicyDenied, VersionConflict
from fleet.kernel.ids import CommandId, EntityId, Principal, StreamId
from fleet.log.port import Command
from fleet.owner.workbench import Workbench
from fleet.story.coarse import coarse_status
from fleet.story.intents import DerivePlan, StartTask
from fleet.story.plan import plan
from tests.support.bench import World
from tests.support.rules import fsm
from tests.support.story_events import (
    AC_1,
    AC_2,
    ARCHITECT,
    DECISION,
    DEVELOPER,
    DOC_TASK,
    PLAN,
    STAGES,
    STORY,
    SYSTEM,
    T0,
    TASK,
    StoryLog,
    decision_payload,
    digest,
    story,
    task_of,
)

NOW = T0 + 600_000
WHY = "smaller steps are easier to review"
FIRST: dict[str, Any] = {
    "title": "Write slugify",
    "description": "Fold umlauts, lower the case, join words with hyphens.",
    "role": "developer",
    "kind": "code",
    "estimated_hours": 3,
    "priority": 1,
    "keywords": ["slug", "text"],
    "acceptance_refs": [AC_1, AC_2],
    "paths": ["text/slug.py"],
}
SECOND: dict[str, Any] = {
    "title": "Show slugs in the editor",
    "description": "One field below the title.",
    "role": "developer",
    "kind": "code",
    "estimated_hours": 5,
    "priority": 2,
    "keywords": ["editor", "form"],
    "depends_on": [0],
    "acceptance_refs": [AC_1],
    "notes": "ask the designer first",
    "risk": "medium",
    "suggested_tech": ["html"],
}


class Desk:
    """One story's owner, and commands of people on it."""

    def __init__(self, world: World, bench: Workbench) -> None:
        self.world, self.bench, self._keys = world, bench, 0

    async def do(self, name: str, body: dict[str, Any], *, who: str = "user:root") -> Any:
        self._keys += 1
        id_ = CommandId(f"{who}/key-{self._keys}")
        command = Command(id_, StreamId.of_story(STORY), name, Principal(who), body)
        return await self.world.commands.handle(self.bench, command)

    async def refused(self, kind: type[FleetError], name: str, body: dict[str, Any], *, who: str = "user:root") -> Any:
        """The refusal; nothing is recorded by it."""
        before = self.bench.state.version
        with pytest.raises(kind) as found:
            await self.do(name, body, who=who)
        assert self.bench.state.version == before
        return found.value

    async def write(self, *tasks: dict[str, Any], who: str = "user:root", **more: Any) -> PlanProposed:
        """The version that was proposed."""
        await self.do("write_plan", {"rationale": WHY, "tasks": list(tasks), **more}, who=who)
        return list(self.bench.state.plans.values())[-1].proposal

    async def adopt(self, plan_id: str, *, who: str = "user:ana", decision: str = DECISION) -> Any:
        return await self.do("adopt_plan", {"plan_id": plan_id, "decision_id": decision}, who=who)


def building(until: str = "build") -> StoryLog:
    return story(only=STAGES[: STAGES.index(until) + 1])  # pyright: ignore[reportArgumentType]


async def desk_of(log: StoryLog) -> Desk:
    world = World()
    await log.write_to(world.log)
    return Desk(world, await world.bench())


@pytest.mark.rule("PL-12", "PL-25", "AP-60")
async def test_plan_by_hand_is_a_proposed_version_in_which_tasks_that_stay_keep_their_ids():
    at = await desk_of(building())
    proposed = await at.write(FIRST, SECOND)
    first, second = proposed.tasks
    assert (proposed.version, proposed.previous_plan_id, proposed.author) == (2, PLAN, "user:root")
    assert (first.task_id, first.points, first.estimated_hours) == (TASK, 2, 3)
    assert second.task_id not in at.bench.state.tasks
    assert (second.depends_on, second.risk, second.notes) == ((TASK,), "medium", "ask the designer first")
    assert proposed.dependencies == (Dependency(from_=second.task_id, to=TASK),)
    assert proposed.content_digest == at.bench.state.content.digest
    assert at.bench.state.plans[proposed.plan_id].status == "PROPOSED"
    assert at.bench.state.plan_id == PLAN
    assert set(at.bench.state.tasks) == {TASK, DOC_TASK}
    (decided, _) = proposed.task_decisions
    assert (decided.decided_by, decided.decision_reason) == ("user:root", WHY)


@pytest.mark.rule("PL-12")
async def test_task_with_another_title_keeps_its_id_when_it_says_what_it_replaces():
    at = await desk_of(building())
    renamed = FIRST | {"title": "Write slugs", "replaces": TASK}
    assert (await at.write(renamed)).tasks[0].task_id == TASK
    assert (await at.write(FIRST | {"title": "Write slugs"})).tasks[0].task_id != TASK
    error = await at.refused(
        InvalidInput, "write_plan", {"rationale": WHY, "tasks": [renamed, SECOND | {"replaces": TASK}]}
    )
    assert [p["code"] for p in error.details["problems"]] == ["task_replaces"]
    for named in ("tk-none", 7, ["x"]):
        error = await at.refused(InvalidInput, "write_plan", {"rationale": WHY, "tasks": [FIRST | {"replaces": named}]})
        assert [p["pointer"] for p in error.details["problems"]] == ["/tasks/0/replaces"]


@pytest.mark.rule("PL-13", "PL-20", "PL-21", "PL-30")
async def test_plan_by_hand_is_refused_with_every_problem_that_it_has():
    at = await desk_of(building())
    bad = [
        FIRST | {"estimated_hours": 41, "role": "poet", "depends_on": [1], "acceptance_refs": [AC_1], "risk": "huge"},
        SECOND | {"title": "write SLUGIFY", "paths": ["../x"], "colour": "red", "suggested_tech": "html"},
        "no task",
    ]
    error = await at.refused(InvalidInput, "write_plan", {"rationale": WHY, "tasks": bad})
    codes = {p["code"] for p in error.details["problems"]}
    assert codes == {
        "task_hours",
        "task_role",
        "task_risk",
        "task_title",
        "task_paths",
        "task_suggested_tech",
        "reply",
        "ac_uncovered",
        "plan_cycle",
    }
    assert next(p for p in error.details["problems"] if p["code"] == "ac_uncovered")["ids"] == [AC_2]
    assert {p["pointer"] for p in error.details["problems"] if p["code"] == "task_hours"} == {"/tasks/0"}
    await at.refused(InvalidInput, "write_plan", {"rationale": "short", "tasks": [FIRST]})
    await at.refused(InvalidInput, "write_plan", {"rationale": WHY, "tasks": []})
    await at.refused(InvalidInput, "write_plan", {"rationale": WHY})
    await at.refused(NotFound, "write_plan", {"rationale": WHY, "tasks": [FIRST], "previous_plan_id": "pv-none"})


@pytest.mark.rule("AP-60", "LC-11")
@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("write_plan", {"rationale": WHY, "tasks": []}),
        ("adopt_plan", {"plan_id": PLAN, "decision_id": DECISION}),
        ("reject_plan", {"plan_id": PLAN, "reason": WHY}),
        ("update_task", {"task_id": TASK, "changes": {"priority": 2}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("who", ["user:dev", "user:quinn", "user:nobody"])
async def test_plans_and_tasks_are_changed_by_architects_and_pos_alone(name: str, body: dict[str, Any], who: str):
    at = await desk_of(building())
    assert (await at.refused(PolicyDenied, name, body, who=who)).details["rule_id"] == "LC-11"


@pytest.mark.rule("PL-10", "PL-11", "PL-12")
async def test_adoption_supersedes_the_former_plan_and_keeps_adds_and_ends_its_tasks_in_one_append():
    at = await desk_of(building())
    proposed = await at.write(FIRST, SECOND)
    await at.adopt(proposed.plan_id)
    state = at.bench.state
    assert (state.plan_id, state.plans[PLAN].status, state.plans[proposed.plan_id].status) == (
        proposed.plan_id,
        "SUPERSEDED",
        "ADOPTED",
    )
    added = proposed.tasks[1].task_id
    assert {k: t.state for k, t in state.tasks.items()} == {TASK: "todo", DOC_TASK: "cancelled", added: "todo"}
    assert (state.tasks[TASK].task.estimated_hours, state.tasks[TASK].task.plan_id) == (3, proposed.plan_id)
    events = await at.world.events()
    adopted, linked = decode(events[-2]), decode(events[-1])
    assert adopted == PlanAdopted(plan_id=proposed.plan_id, version=2, decision_id=DECISION, supersedes=PLAN)
    assert linked == DecisionLinked(decision_id=DECISION, affects=tuple(t.task_id for t in proposed.tasks))
    assert [e.type for e in events if e.command_id == events[-1].command_id] == [
        "TaskTransitioned",
        "TaskAdded",
        "TaskAdded",
        "PlanAdopted",
        "DecisionLinked",
    ]
    assert plan(state, fsm(), now_ms=NOW) == (StartTask(task_id=TASK),)


@pytest.mark.rule("PL-12")
async def test_finished_task_is_carried_over_and_work_under_way_goes_on():
    log = building()
    log.task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    at = await desk_of(log)
    same = FIRST | {"estimated_hours": 2}
    proposed = await at.write(same, SECOND)
    await at.adopt(proposed.plan_id)
    known = at.bench.state.tasks[TASK]
    assert (known.state, known.attempt, known.task.plan_id, known.task.author) == (
        "implementing",
        1,
        proposed.plan_id,
        ARCHITECT,
    )
    log.task(TASK, "implementing", "COMMIT_CODE", "dev_completed", by=DEVELOPER, evidence=(digest("w"),))
    log.task(TASK, "dev_completed", "DISCARD_TASK", "done")
    done = await desk_of(log)
    error = await done.refused(
        InvalidInput, "write_plan", {"rationale": WHY, "tasks": [same | {"acceptance_refs": [AC_2]}, SECOND]}
    )
    assert [p["pointer"] for p in error.details["problems"]] == ["/tasks/0/acceptance_refs"]
    again = await done.write(same, SECOND)
    await done.adopt(again.plan_id)
    assert done.bench.state.tasks[TASK].state == "done"


@pytest.mark.rule("PL-12")
async def test_plan_that_would_lose_or_change_work_under_way_is_not_adopted():
    log = building()
    log.task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    at = await desk_of(log)
    without = await at.write(SECOND | {"depends_on": [], "acceptance_refs": [AC_1, AC_2]})
    body = {"plan_id": without.plan_id, "decision_id": DECISION}
    assert "discard it" in (await at.refused(InvalidTransition, "adopt_plan", body)).message
    changed = await at.write(FIRST | {"description": "Something else entirely."})
    body = {"plan_id": changed.plan_id, "decision_id": DECISION}
    assert "description" in (await at.refused(InvalidTransition, "adopt_plan", body, who="user:ana")).message


@pytest.mark.rule("PL-12", "PL-46")
async def test_task_that_was_cancelled_is_another_task_when_a_plan_takes_it_up_again():
    log = building()
    at = await desk_of(log)
    early = await at.write(FIRST)
    await at.do("act_on_task", {"task_id": TASK, "action": "DISCARD_TASK", "feedback": WHY})
    body = {"plan_id": early.plan_id, "decision_id": DECISION}
    assert "does not begin again" in (await at.refused(InvalidTransition, "adopt_plan", body, who="user:ana")).message
    assert coarse_status(at.bench.state, at.bench.state.tasks[DOC_TASK]) == "blocked"
    again = await at.write(FIRST)
    assert again.tasks[0].task_id != TASK
    await at.adopt(again.plan_id)
    assert at.bench.state.tasks[again.tasks[0].task_id].state == "todo"


@pytest.mark.rule("PL-11", "LC-75")
async def test_author_of_a_plan_is_not_the_only_one_who_decides_on_it():
    own = EntityId("de-mine1")
    log = building().add(decision_payload(own, origin_="human"))
    log.add(DecisionAccepted(decision_id=own, by=Principal("user:root"), as_role="po"))
    at = await desk_of(log)
    proposed = await at.write(FIRST)
    body = {"plan_id": proposed.plan_id, "decision_id": own}
    error = await at.refused(PolicyDenied, "adopt_plan", body)
    assert error.details["rule_id"] == "author_is_approver"
    await at.do("adopt_plan", body, who="user:ana")
    log.add(RigorChanged(from_="L1", to="L3", reason="it is about money now"))
    at = await desk_of(log)
    proposed = await at.write(FIRST)
    await at.refused(PolicyDenied, "adopt_plan", {"plan_id": proposed.plan_id, "decision_id": DECISION})


@pytest.mark.rule("PL-10", "PL-11")
async def test_plan_is_adopted_on_an_accepted_decision_of_its_story_alone():
    open_ = EntityId("de-open1")
    at = await desk_of(building().add(decision_payload(open_)))
    proposed = await at.write(FIRST)
    await at.refused(NotFound, "adopt_plan", {"plan_id": proposed.plan_id, "decision_id": "de-none"})
    await at.refused(InvalidTransition, "adopt_plan", {"plan_id": proposed.plan_id, "decision_id": open_})
    await at.refused(NotFound, "adopt_plan", {"plan_id": "pv-none", "decision_id": DECISION})
    await at.refused(InvalidInput, "adopt_plan", {"plan_id": proposed.plan_id})
    await at.refused(InvalidTransition, "adopt_plan", {"plan_id": PLAN, "decision_id": DECISION})


@pytest.mark.rule("PL-5", "LC-7")
async def test_plan_for_another_text_is_not_adopted():
    at = await desk_of(building())
    proposed = await at.write(FIRST)
    await at.do("edit_story", {"changes": {"title": "As an editor I want other slugs"}})
    body = {"plan_id": proposed.plan_id, "decision_id": DECISION}
    assert "another text" in (await at.refused(InvalidTransition, "adopt_plan", body)).message


@pytest.mark.rule("PL-13", "PL-67")
async def test_outline_without_criteria_is_proposed_and_never_adopted():
    outline = EntityId("pv-outline1")
    log = building().add(
        PlanProposed(
            plan_id=outline,
            version=2,
            author=ARCHITECT,
            rationale="an outline",
            tasks=(task_of(EntityId("tk-new1"), plan_id=outline, acceptance_refs=(), title="Begin"),),
            estimated_complexity="LOW",
            content_digest=building().state.content.digest,
            plan_digest=digest("outline"),
        )
    )
    at = await desk_of(log)
    error = await at.refused(InvalidInput, "adopt_plan", {"plan_id": outline, "decision_id": DECISION})
    assert [p["code"] for p in error.details["problems"]] == ["task_trace", "ac_uncovered", "ac_uncovered"]


@pytest.mark.rule("LC-93", "PL-23", "PL-46")
async def test_parked_story_takes_a_plan_where_it_lacks_one_and_not_otherwise():
    stalled = building().add(StoryParked(cause="plan_stalled", detail="tasks wait"))
    at = await desk_of(stalled)
    proposed = await at.write(FIRST)
    await at.adopt(proposed.plan_id)
    assert at.bench.state.disposition == "parked"
    other = await desk_of(building().add(StoryParked(cause="operator", detail="wait")))
    assert (
        "unpark it"
        in (await other.refused(InvalidTransition, "write_plan", {"rationale": WHY, "tasks": [FIRST]})).message
    )
    over = await desk_of(building().add(StoryCancelled(reason="nobody wants it")))
    await over.refused(InvalidTransition, "write_plan", {"rationale": WHY, "tasks": [FIRST]})


@pytest.mark.rule("PL-10")
async def test_plan_is_not_adopted_once_the_build_is_over_or_while_the_tree_is_set_back():
    log = building("merged")
    at = await desk_of(log)
    proposed = await at.write(FIRST | {"estimated_hours": 2})
    body = {"plan_id": proposed.plan_id, "decision_id": DECISION}
    assert "send it back" in (await at.refused(InvalidTransition, "adopt_plan", body, who="user:ana")).message
    wanted = RestoreRequested(
        checkpoint_id=EntityId("rp-first1"), tree_digest=digest("x"), by=Principal("user:ana"), reason=WHY
    )
    at = await desk_of(building().add(wanted))
    proposed = await at.write(FIRST)
    body = {"plan_id": proposed.plan_id, "decision_id": DECISION}
    assert "being restored" in (await at.refused(InvalidTransition, "adopt_plan", body, who="user:ana")).message


@pytest.mark.rule("PL-10", "AP-60")
async def test_rejected_plan_is_never_adopted():
    at = await desk_of(building())
    proposed = await at.write(FIRST)
    body = {"plan_id": proposed.plan_id, "reason": WHY}
    await at.refused(InvalidInput, "reject_plan", body | {"reason": "no"})
    await at.refused(NotFound, "reject_plan", body | {"plan_id": "pv-none"})
    await at.do("reject_plan", body, who="user:ana")
    assert at.bench.state.plans[proposed.plan_id].status == "REJECTED"
    await at.refused(InvalidTransition, "reject_plan", body)
    await at.refused(InvalidTransition, "adopt_plan", {"plan_id": proposed.plan_id, "decision_id": DECISION})


@pytest.mark.rule("LC-8", "PL-10")
async def test_derivation_that_a_person_overtook_takes_no_plan_s_place():
    at = await desk_of(building("design"))
    assert plan(at.bench.state, fsm(), now_ms=NOW) == (DerivePlan(decision_id=DECISION),)
    proposed = await at.write(FIRST)
    await at.adopt(proposed.plan_id)
    late = PlanAdopted(plan_id=proposed.plan_id, version=3, decision_id=DECISION, supersedes=None)
    with pytest.raises(VersionConflict, match="does not know of it"):
        await at.bench.journal.record("plan/late", late)
    assert not any(isinstance(i, DerivePlan) for i in plan(at.bench.state, fsm(), now_ms=NOW))


# Fields of a task.


@pytest.mark.rule("AP-62", "PL-12", "PL-20")
async def test_fields_that_the_plan_does_not_fix_change_and_the_order_of_work_follows():
    at = await desk_of(building())
    changes = {
        "priority": 3,
        "estimated_hours": 8,
        "notes": "start with the tests",
        "keywords": ["slug", "fold"],
        "risk": "high",
        "suggested_tech": ["regex"],
    }
    await at.do("update_task", {"task_id": TASK, "changes": changes | {"risk": "low"}}, who="user:ana")
    updated = decode((await at.world.events())[-1])
    assert isinstance(updated, TaskUpdated)
    assert set(updated.changes) == set(changes) - {"risk"}
    task = at.bench.state.tasks[TASK].task
    assert (task.priority, task.estimated_hours, task.notes) == (3, 8, "start with the tests")
    assert (task.keywords, task.suggested_tech, task.title) == (("slug", "fold"), ("regex",), "Write slugify")
    await at.refused(InvalidInput, "update_task", {"task_id": TASK, "changes": {"priority": 3}})


@pytest.mark.rule("PL-12")
@pytest.mark.parametrize("field", ["title", "description", "role", "kind", "depends_on", "acceptance_refs", "paths"])
async def test_what_the_plan_fixes_needs_a_new_version(field: str):
    at = await desk_of(building())
    error = await at.refused(InvalidInput, "update_task", {"task_id": TASK, "changes": {field: "x"}})
    assert error.details["field"] == field
    assert "new plan version" in error.message
    assert "priority" in error.details["allowed"]


@pytest.mark.rule("PL-20", "PL-21")
async def test_edit_is_refused_with_every_value_that_is_out_of_bounds():
    at = await desk_of(building())
    changes = {
        "priority": 11,
        "estimated_hours": 0,
        "keywords": ["One"],
        "risk": "none",
        "notes": "x" * 4001,
        "suggested_tech": ["a", "a"],
    }
    error = await at.refused(InvalidInput, "update_task", {"task_id": TASK, "changes": changes})
    assert {p["code"] for p in error.details["problems"]} == {
        "task_priority",
        "task_hours",
        "task_keywords",
        "task_risk",
        "task_notes",
        "task_suggested_tech",
    }
    await at.refused(InvalidInput, "update_task", {"task_id": TASK, "changes": {"colour": "red"}})
    await at.refused(NotFound, "update_task", {"task_id": "tk-none", "changes": {"priority": 1}})


@pytest.mark.rule("LC-93")
async def test_task_that_is_over_keeps_its_values():
    log = building()
    log.task(DOC_TASK, "todo", "DISCARD_TASK", "cancelled", by=SYSTEM)
    at = await desk_of(log)
    await at.refused(InvalidTransition, "update_task", {"task_id": DOC_TASK, "changes": {"priority": 1}})
    parked = await desk_of(building().add(StoryParked(cause="operator", detail="wait")))
    await parked.refused(InvalidTransition, "update_task", {"task_id": TASK, "changes": {"priority": 2}})


# Laying a story aside.


@pytest.mark.rule("AP-57", "LC-93", "EV-25")
async def test_story_that_is_over_is_archived_once_with_its_bytes():
    open_ = await desk_of(building())
    await open_.refused(InvalidTransition, "archive_story", {"reason": WHY}, who="user:ana")
    for log in (building("closed"), building().add(StoryCancelled(reason="nobody wants it"))):
        at = await desk_of(log)
        await at.refused(PolicyDenied, "archive_story", {"reason": WHY}, who="user:quinn")
        await at.refused(InvalidInput, "archive_story", {"reason": "no"}, who="user:ana")
        await at.do("archive_story", {"reason": WHY}, who="user:ana")
        archived = decode((await at.world.events())[-1])
        assert isinstance(archived, StoryArchived)
        assert archived.reason == WHY
        kept = read_export(await at.world.blobs.get(archived.export_digest))
        assert [e.hash for e in kept.events] == [e.hash for e in log.events]
        assert at.bench.state.disposition == "archived"
        await at.refused(InvalidTransition, "archive_story", {"reason": WHY}, who="user:ana")
