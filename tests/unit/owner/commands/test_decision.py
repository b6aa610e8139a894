"""Decisions that people and agents make and settle themselves (AP-72, GR-70, GR-71)."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.events.codec import decode
from fleet.events.decision import DecisionProposed, DecisionSuperseded
from fleet.events.story import QuestionRaised
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied, VersionConflict
from fleet.kernel.ids import CommandId, Principal, StoryId, StreamId
from fleet.log.port import Command
from fleet.owner.workbench import Workbench
from fleet.story.intents import DerivePlan, Intent, OpenDesignCouncil
from fleet.story.plan import plan
from fleet.story.state import StoryState
from tests.support.bench import World
from tests.support.story_events import DECISION, PLAN, STORY, TASK, story

CHOICE: dict[str, Any] = {
    "title": "Fold letters with the standard library",
    "rationale": "It needs no dependency and covers what editors write.",
    "category": "ARCHITECTURE",
    "alternatives": ["a table of our own"],
}
WHY = "It was measured and it holds."


class At:
    """The bench of one story, and commands on it."""

    def __init__(self, world: World, bench: Workbench) -> None:
        self.world, self.bench, self._keys = world, bench, 0

    @property
    def state(self) -> StoryState:
        return self.bench.state

    async def do(self, name: str, who: str = "user:ana", **body: Any) -> str:
        """Carry out the command; the id of the decision that it is about, or that it made."""
        self._keys += 1
        sent = Command(
            command_id=CommandId(f"{who}/key-{self._keys}"),
            stream=StreamId.of_story(STORY),
            name=name,
            principal=Principal(who),
            body=body,
        )
        await self.world.commands.handle(self.bench, sent)
        return str(body.get("decision_id") or list(self.state.decisions)[-1])

    async def propose(self, who: str = "user:ana", **changes: Any) -> str:
        return await self.do("propose_decision", who, **CHOICE | changes)

    async def types(self) -> list[str]:
        return await self.world.types(STORY)


async def at(until: str = "planned", **changes: Any) -> At:
    world = World()
    await story(until=until, **changes).write_to(world.log)  # pyright: ignore[reportArgumentType]
    return At(world, await world.bench(StoryId(STORY)))


@pytest.mark.rule("AP-72", "GR-70")
async def test_proposed_decision_is_on_record_with_author_plan_and_links():
    front = await at()
    id = await front.propose("user:dev", affects=[TASK], links=[{"rel": "DEPENDS_ON", "decision_id": DECISION}])
    last = decode((await front.world.events(STORY))[-1])
    assert isinstance(last, DecisionProposed)
    assert (last.decision_id, last.author, last.origin_, last.plan_id) == (id, "user:dev", "human", PLAN)
    assert (last.affects, last.links[0].decision_id, front.state.decisions[id].status) == (
        (TASK,),
        DECISION,
        "PROPOSED",
    )


@pytest.mark.rule("GR-70", "AP-36")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rationale": "short"}, "rationale"),
        ({"rationale": "   because   "}, "rationale"),
        ({"category": "TASTE"}, "category"),
        ({"title": ""}, "title"),
        ({"author": "user:root"}, "author"),
        ({"affects": ["tk-nobody"]}, "tk-nobody"),
        ({"links": [{"rel": "DEPENDS_ON", "decision_id": "de-nobody"}]}, "de-nobody"),
        ({"links": [{"rel": "LIKES", "decision_id": DECISION}]}, "links"),
        ({"based_on": [{"kind": "run", "id": "nothing"}]}, "nothing"),
        ({"based_on": [{"kind": "report", "id": "nothing"}]}, "nothing"),
        ({"based_on": [{"kind": "artifact", "id": "nothing"}]}, "nothing"),
    ],
)
async def test_decision_that_lacks_a_reason_or_names_what_is_not_there_records_nothing(
    changes: dict[str, Any], says: str
):
    front = await at()
    before = await front.types()
    with pytest.raises(InvalidInput, match=says):
        await front.propose(**changes)
    assert await front.types() == before


@pytest.mark.rule("AP-72")
async def test_decision_is_based_on_runs_reports_and_trees_of_its_story():
    front = await at("merged")
    state = front.state
    refs = [
        {"kind": "report", "id": str(next(iter(state.reports.values())).report_digest)},
        {"kind": "artifact", "id": str(state.tree)},
        {"kind": "run", "id": next(name for name, s in state.steps.items() if s.started.kind == "model")},
    ]
    id = await front.propose(based_on=refs)
    assert [one.kind for one in front.state.decisions[id].proposed.based_on] == ["report", "artifact", "run"]


@pytest.mark.rule("AP-72", "LC-74")
async def test_first_word_on_a_decision_settles_it():
    front = await at()
    id = await front.propose("user:dev")
    await front.do("accept_decision", decision_id=id, note=WHY)
    found = front.state.decisions[id]
    assert (found.status, found.decided_by, found.as_role) == ("ACCEPTED", "user:ana", "po")
    for name, more in (("accept_decision", {}), ("reject_decision", {"reason": WHY})):
        with pytest.raises(VersionConflict, match="ACCEPTED already by user:ana"):
            await front.do(name, "user:root", decision_id=id, **more)


@pytest.mark.rule("AP-72", "LC-75")
@pytest.mark.parametrize(
    ("who", "category", "takes"),
    [
        ("user:dev", "ARCHITECTURE", False),
        ("user:quinn", "ARCHITECTURE", False),
        ("user:quinn", "TESTING", True),
        ("user:quinn", "DATA", False),
        ("user:root", "INFRASTRUCTURE", True),
        ("user:nobody", "ARCHITECTURE", False),
    ],
)
async def test_category_says_whose_word_settles_a_decision(who: str, category: str, takes: bool):
    front = await at()
    id = await front.propose("user:ana", category=category)
    if takes:
        await front.do("accept_decision", who, decision_id=id)
        assert front.state.decisions[id].status == "ACCEPTED"
        return
    with pytest.raises(PolicyDenied) as refused:
        await front.do("accept_decision", who, decision_id=id)
    assert refused.value.details["rule_id"] == "role_not_held"
    assert front.state.decisions[id].status == "PROPOSED"


@pytest.mark.rule("AP-72")
async def test_who_holds_no_role_proposes_nothing():
    front = await at()
    with pytest.raises(PolicyDenied):
        await front.propose("user:nobody")


@pytest.mark.rule("LC-75")
async def test_at_the_highest_rigor_nobody_settles_a_decision_of_its_own():
    front = await at()
    await front.do("set_rigor", rigor="L3", reason="It touches money, so look twice.")
    id = await front.propose("user:ana")
    with pytest.raises(PolicyDenied) as refused:
        await front.do("accept_decision", decision_id=id)
    assert refused.value.details["rule_id"] == "author_is_approver"
    await front.do("accept_decision", "user:root", decision_id=id)
    assert front.state.decisions[id].decided_by == "user:root"


@pytest.mark.rule("AP-72", "AP-36")
async def test_rejection_needs_a_reason_and_an_author_may_take_a_proposal_back():
    front = await at()
    id = await front.propose("user:dev")
    with pytest.raises(InvalidInput, match="reason"):
        await front.do("reject_decision", decision_id=id, reason="no")
    with pytest.raises(PolicyDenied):
        await front.do("reject_decision", "user:quinn", decision_id=id, reason=WHY)
    await front.do("reject_decision", "user:dev", decision_id=id, reason="A better one was found.")
    assert front.state.decisions[id].status == "REJECTED"


@pytest.mark.rule("GR-71")
async def test_decisions_that_depend_on_each_other_in_a_row_are_all_accepted():
    front = await at()
    first = await front.propose()
    second = await front.propose(links=[{"rel": "DEPENDS_ON", "decision_id": first}])
    third = await front.propose(
        links=[{"rel": "DEPENDS_ON", "decision_id": second}, {"rel": "RELATES_TO", "decision_id": first}]
    )
    for id in (first, second, third):
        await front.do("accept_decision", decision_id=id)
    assert {front.state.decisions[id].status for id in (first, second, third)} == {"ACCEPTED"}


@pytest.mark.rule("GR-71")
async def test_decision_that_would_close_a_circle_is_refused_and_the_circle_is_named():
    world = World()
    log = story(until="planned")
    for id, need in (("de-one", "de-two"), ("de-two", "de-one")):
        log.add(
            DecisionProposed.model_validate(
                {
                    **CHOICE,
                    "decision_id": id,
                    "links": [{"rel": "DEPENDS_ON", "decision_id": need}],
                    "author": "agent:architect-001",
                    "origin": "agent",
                }
            )
        )
    await log.write_to(world.log)
    front = At(world, await world.bench(StoryId(STORY)))
    await front.do("accept_decision", decision_id="de-one")
    with pytest.raises(InvalidInput, match="de-one -> de-two -> de-one"):
        await front.do("accept_decision", decision_id="de-two")
    assert front.state.decisions["de-two"].status == "PROPOSED"


@pytest.mark.rule("AP-72", "GR-50", "PL-5")
async def test_superseded_decision_names_what_came_in_its_place_and_the_plan_is_asked_about():
    front = await at()
    id = await front.propose()
    await front.do("accept_decision", decision_id=id)
    await front.do("supersede_decision", decision_id=DECISION, by_decision_id=id, reason=WHY)
    *_, replaced, question = [decode(e) for e in await front.world.events(STORY)]
    assert isinstance(replaced, DecisionSuperseded)
    assert (replaced.by_decision_id, replaced.by, replaced.as_role, replaced.reason) == (id, "user:ana", "po", WHY)
    assert isinstance(question, QuestionRaised)
    assert (question.severity, question.about.id) == ("blocking", PLAN)
    assert front.state.decisions[DECISION].status == "SUPERSEDED"


@pytest.mark.rule("AP-72", "GR-50", "LC-53")
async def test_what_is_superseded_and_what_takes_its_place_both_hold():
    front = await at()
    id = await front.propose(category="DATA")
    with pytest.raises(InvalidInput, match="does not hold"):
        await front.do("supersede_decision", decision_id=DECISION, by_decision_id=id, reason=WHY)
    with pytest.raises(InvalidTransition, match="is PROPOSED"):
        await front.do("supersede_decision", decision_id=id, by_decision_id=DECISION, reason=WHY)
    await front.do("accept_decision", decision_id=id)
    # Without an accepted decision of this category no design is complete, and the story would stand still.
    with pytest.raises(InvalidInput, match="category ARCHITECTURE"):
        await front.do("supersede_decision", decision_id=DECISION, by_decision_id=id, reason=WHY)
    for same in (DECISION, "de-nobody"):
        with pytest.raises(InvalidInput, match="does not hold"):
            await front.do("supersede_decision", decision_id=DECISION, by_decision_id=same, reason=WHY)
    with pytest.raises(PolicyDenied):
        await front.do("supersede_decision", "user:dev", decision_id=DECISION, by_decision_id=id, reason=WHY)


@pytest.mark.rule("AP-25", "AP-72")
@pytest.mark.parametrize("name", ["accept_decision", "reject_decision", "supersede_decision"])
async def test_unknown_decision_and_story_that_is_over_are_refused(name: str):
    more = {
        "accept_decision": {},
        "reject_decision": {"reason": WHY},
        "supersede_decision": {"reason": WHY, "by_decision_id": DECISION},
    }[name]
    front = await at()
    with pytest.raises(NotFound):
        await front.do(name, decision_id="de-nobody", **more)
    over = await at("closed")
    with pytest.raises(InvalidTransition, match="is over"):
        await over.do(name, decision_id=DECISION, **more)
    with pytest.raises(InvalidTransition, match="is over"):
        await over.propose()


@pytest.mark.rule("AP-72", "PL-24")
async def test_architecture_that_a_person_decided_is_what_the_plan_is_derived_from():
    world = World()
    await story(until="base").write_to(world.log)
    front = At(world, await world.bench(StoryId(STORY)))
    assert isinstance(_owed(front), OpenDesignCouncil)
    id = await front.propose("user:root")
    assert isinstance(_owed(front), OpenDesignCouncil), "a proposal decides nothing"
    await front.do("accept_decision", decision_id=id)
    assert _owed(front) == DerivePlan(decision_id=id)


def _owed(front: At) -> Intent:
    return plan(front.state, front.bench.rules.fsm, now_ms=front.bench.now_ms)[0]
