"""A story cut to rows: whatever is hidden is in nothing that is shown (CX-16)."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.context.assemble import build_pack
from fleet.context.bundle import role_pack
from fleet.context.row_cut import RowCut, cut_to, ids_of
from fleet.context.row_rules import RowRules
from fleet.context.scope import ContextConfig, scopes_for
from fleet.context.view import StoryView
from fleet.events.codec import decode
from fleet.events.decision import DecisionLink
from fleet.events.envelope import StoredEvent
from fleet.events.plan import TaskDecision
from fleet.events.story import QuestionRaised, Topic
from fleet.events.task import TaskAdded
from fleet.graph.story_graph import story_graph
from fleet.kernel.errors import ContextTooLarge, PolicyDenied
from fleet.kernel.ids import EntityId, Principal
from fleet.policy.roles import load_roles
from fleet.story.state import StoryState
from tests.support.rules import files, fsm
from tests.support.story_events import (
    DECISION,
    DOC_TASK,
    PLAN,
    SYSTEM,
    TASK,
    StoryLog,
    decision_payload,
    story,
    task_of,
)

RULES = RowRules(lambda _: fsm(), load_roles(files().document("roles.yaml")).roles)
CONTEXT = files().load("context.yaml", ContextConfig)
WHO = Principal("user:kim")
ROLES = ("developer", "qa", "devops", "data")
CATEGORIES = ("ARCHITECTURE", "INFRASTRUCTURE", "SECURITY", "QUALITY", "TESTING", "DATA", "SCOPE")


def random_story(seed: int) -> StoryLog:
    """A story with tasks of random roles, decisions of random categories, and questions, steps and reviews of them."""
    rng, log = random.Random(seed), story(until="planned")
    tasks = list[EntityId]()
    for n in range(rng.randint(1, 4)):
        id, kind = EntityId(f"tk-random{n}"), rng.choice(("code", "test", "data"))
        needs = tuple(rng.sample([TASK, *tasks], rng.randint(0, 1 + len(tasks))))
        task = task_of(
            id, title=f"Title of {id}", description="What.", role=rng.choice(ROLES), kind=kind, depends_on=needs
        )
        log.add(TaskAdded(task=task, plan_id=PLAN))
        tasks.append(id)
    every = [TASK, DOC_TASK, *tasks]
    for n in range(rng.randint(1, 4)):
        id = EntityId(f"de-random{n}")
        links = (DecisionLink(rel="DEPENDS_ON", decision_id=DECISION),) if rng.random() < 0.5 else ()
        log.add(
            decision_payload(
                id,
                title=f"Title of {id}",
                rationale=f"Reasons of {id}.",
                category=rng.choice(CATEGORIES),
                affects=tuple(rng.sample(every, 1)),
                links=links,
                council_id=None,
            )
        )
    for n in range(rng.randint(1, 3)):
        about = rng.choice([*every, EntityId("de-random0")])
        log.add(
            QuestionRaised(
                question_id=EntityId(f"qu-random{n}"),
                kind="question",
                text=f"Text of qu-random{n}",
                severity="normal",
                about=Topic(kind="task", id=about),
                asked_by=SYSTEM,
            )
        )
    return log


def cut_for(log: StoryLog, role: str) -> RowCut:
    return RowCut.of(RULES.rows_of(WHO, {role}, log.state), log.events)


def forbidden(state: StoryState, hidden: frozenset[str]) -> set[str]:
    """Ids, titles and reasons of what is hidden."""
    texts = set(hidden)
    for id in hidden & state.tasks.keys():
        texts.add(state.tasks[id].task.title)
    for id in hidden & state.decisions.keys():
        texts |= {state.decisions[id].proposed.title, state.decisions[id].proposed.rationale}
    return texts


def answers(log: StoryLog, cut: RowCut) -> list[str]:
    """Everything that is made of the cut: state, events, graph, packs and bundles, as text."""
    state = cut.state(log.state)
    view = StoryView(state=state)
    found = [repr(state.with_(steps={})), *(repr(decode(event)) for event in log.events if cut.takes(event))]
    found += map(repr, state.steps)
    for phase, rows in CONTEXT.matrix.items():
        for role in rows:
            try:
                found.append(build_pack(view, CONTEXT, role=role, phase=phase).text)
                scopes = scopes_for(CONTEXT, phase, role)
            except (PolicyDenied, ContextTooLarge):
                continue
            found.append(role_pack(view, CONTEXT, role=role, scopes=scopes, recent=()).model_dump_json())
    return found


@pytest.mark.rule("CX-16")
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), role=st.sampled_from(ROLES))
def test_nothing_that_a_row_rule_forbids_is_in_any_answer(seed: int, role: str) -> None:
    log = random_story(seed)
    cut = cut_for(log, role)
    if not cut.rows.hidden:
        return
    secrets = forbidden(log.state, cut.hidden)
    assert cut.rows.shown.isdisjoint(cut.hidden)
    for text in answers(log, cut):
        assert not {secret for secret in secrets if secret in text}, text[:400]


@pytest.mark.rule("CX-16", "CX-12")
def test_random_stories_hide_something_from_each_role_and_show_something_to_it() -> None:
    cuts = {role: [cut_for(random_story(seed), role) for seed in range(12)] for role in ROLES}
    assert all(any(cut.rows.hidden for cut in found) for found in cuts.values())
    assert all(any(cut.rows.shown for cut in found) for found in cuts.values())
    assert any(cut.hidden > cut.rows.hidden for found in cuts.values() for cut in found), "questions go with their rows"


def test_whole_story_is_left_as_it_is() -> None:
    state = random_story(3).state
    assert cut_to(state, ids_of(state)) is state


def test_what_the_cut_does_not_know_is_hidden() -> None:
    log = random_story(5)
    early = RowCut.of(RULES.rows_of(WHO, {"developer"}, log.state), log.events[:-1])
    assert not early.takes(log.events[-1]), "it came after the cut"
    known = ids_of(log.state)
    task = task_of(EntityId("tk-later"), role="developer")
    log.add(TaskAdded(task=task, plan_id=PLAN))
    assert "tk-later" in log.state.tasks
    assert "tk-later" not in cut_to(log.state, known).tasks


@pytest.mark.rule("CX-16")
def test_cut_goes_on_where_it_stopped() -> None:
    log = random_story(8)
    rows = RULES.rows_of(WHO, {"data"}, log.state)
    events: list[StoredEvent] = list(log.events)
    assert RowCut.of(rows, events) == RowCut.of(rows, events[:20]).on(events[20:])


@pytest.mark.rule("CX-16")
def test_no_way_of_the_graph_leads_over_what_is_hidden() -> None:
    events = [(event, decode(event)) for event in story().events]

    def of(**changes: Any) -> set[str]:
        return {node.id for node in story_graph(events, story_id="st-slug7", depth=6, max_nodes=400, **changes).nodes}

    cut = of(shows=lambda id, props: id not in (TASK, DECISION))
    assert {TASK, DECISION} <= of()
    assert cut < of()
    assert not {TASK, DECISION} & cut


@pytest.mark.rule("CX-16")
def test_plan_version_is_cut_to_its_shown_tasks_with_their_deciders() -> None:
    state = story(until="planned").state
    made = state.plans[PLAN].proposal
    told = tuple(
        TaskDecision(
            task_index=n, task_description=task.title, decided_by=SYSTEM, decision_reason="because", decided_at=1
        )
        for n, task in enumerate(made.tasks)
    )
    plan = replace(state.plans[PLAN], proposal=made.model_copy(update={"task_decisions": told}))
    cut = cut_to(state.with_(plans={PLAN: plan}), ids_of(state) - {TASK}).plans[PLAN].proposal
    assert [task.task_id for task in cut.tasks] == [DOC_TASK]
    assert [(one.task_index, one.task_description) for one in cut.task_decisions] == [(0, cut.tasks[0].title)]
    assert cut.dependencies == ()
