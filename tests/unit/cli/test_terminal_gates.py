"""Gates asked about at the terminal, over the in-memory twins (PL-54)."""

from __future__ import annotations

import asyncio

import pytest

from fleet.cli.story.gates import APPROVED, GateAsker
from fleet.desk.gates import GateDesk
from fleet.events.approval import ApprovalGranted, ApprovalRejected
from fleet.events.codec import decode
from fleet.events.plan import PlanRejected
from fleet.story.approvals import unanswered_gates
from fleet.story.state import StoryState
from tests.support import sim_story
from tests.support.bench import ScriptedAgents
from tests.support.terminal import Terminal
from tests.support.town import ONE, Town, running

GATES = ("approve_scope", "approve_design", "task_acceptance", "qa_passed", "docs_ready")


@pytest.fixture(autouse=True)
def _as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "root")


class Asked(Town):
    """A story that goes on as its gates are answered at a terminal, with the team and toolchain of the simulation."""

    def __init__(self) -> None:
        super().__init__(agents=ScriptedAgents(sim_story.answer), program=sim_story.toolchain)
        self.forge.add_repository(sim_story.REPOSITORY, branches={"main": sim_story.BASE_COMMIT})

    def asker(self, person: Terminal) -> GateAsker:
        return GateAsker(self.desk, GateDesk(planning=self.desk, blobs=self.blobs), person)

    async def state_at(self, gate: str) -> StoryState:
        """The story once this gate waits."""
        state = await self.desk.state(ONE)
        for _ in range(240):
            await self.pass_time(0.5)
            await asyncio.sleep(0.005)
            state = await self.desk.state(ONE)
            if [a for a in unanswered_gates(state) if a.request.gate == gate]:
                return state
        raise AssertionError(f"{gate} is not asked: {state.state}, {state.park}, {self.desk.waiting_for(state)}")

    async def decided(self, asker: GateAsker, state: StoryState) -> bool:
        task = asyncio.create_task(asker.decide(state))
        await self.until(task.done)
        return task.result()


@pytest.mark.rule("PL-54", "LC-97")
async def test_gates_are_shown_and_answered_at_the_terminal_and_a_no_sets_the_team_to_work():
    town = Asked()
    async with running(town.shard()):
        await town.do(ONE, "create_story", {"story": sim_story.story_text(1)})
        await town.do(ONE, "start_story", {"repo": sim_story.REPOSITORY}, key="start")
        person = Terminal("", "y", "n", "no", "too big a step at once", "yes", "n")
        scope = await town.state_at("approve_scope")
        hesitant = town.asker(person)
        assert not await town.decided(hesitant, scope)
        assert not await town.decided(hesitant, scope), "what was left open is not asked again"
        assert person.asked == ["Approve approve_scope? (y/n, empty leaves it waiting)"]
        asker = town.asker(person)
        assert await town.decided(asker, scope)
        assert "  criterion: Given the title" in "\n".join(person.said)
        first = await town.state_at("approve_design")
        person.said.clear()
        assert await town.decided(asker, first)
        assert person.said[0] == "  gate approve_design waits for po"
        assert "  task: Add slugify to the words module (developer, textkit/words.py)" in person.said
        assert person.asked[-2:] == ["Why not? (empty leaves it waiting)"] * 2, "a reason that is too short"
        assert (await town.desk.state(ONE)).state == "DESIGN", "a design is made anew where the story stands"
        assert any(isinstance(p, PlanRejected) for p in map(decode, await town.events(ONE)))
        (no,) = [p for p in map(decode, await town.events(ONE)) if isinstance(p, ApprovalRejected)]
        assert no.reason == "too big a step at once"
        second = await town.state_at("approve_design")
        assert await town.decided(asker, second)
        yes = [p for p in map(decode, await town.events(ONE)) if isinstance(p, ApprovalGranted)]
        assert {p.notes for p in yes} == {APPROVED}
        # Decided by another meanwhile: said, and not taken for an answer.
        assert not await town.decided(town.asker(Terminal("n", "it came too late for this")), second)
        change = await town.state_at("task_acceptance")
        assert not await town.decided(asker, change), "a no without a reason leaves it waiting"
        assert "  M  textkit/words.py" in person.said
        assert any(line.startswith("  tests: ") for line in person.said)
        assert await town.decided(town.asker(Terminal("no", "the name says nothing")), change)
        assert (await town.desk.state(ONE)).state == "BUILD", "a task that is turned down takes no story back"


@pytest.mark.rule("LC-99", "LC-91")
@pytest.mark.parametrize("gate", ["qa_passed", "docs_ready"])
async def test_no_after_the_build_comes_back_as_a_task_and_the_gate_is_asked_again(gate: str):
    town, why = Asked(), "an empty title gives no slug"
    async with running(town.shard()):
        await town.do(ONE, "create_story", {"story": sim_story.story_text(1)})
        await town.do(ONE, "start_story", {"repo": sim_story.REPOSITORY}, key="start")
        asker = town.asker(Terminal(*["y"] * 20))
        for earlier in GATES[: GATES.index(gate)]:
            assert await town.decided(asker, await town.state_at(earlier)), earlier
        assert await town.decided(town.asker(Terminal("n", why)), await town.state_at(gate))
        back = await town.desk.state(ONE)
        assert (back.state, back.gone_back) == ("BUILD", 1)
        mend = list(back.tasks.values())[-1]
        assert (mend.task.title, mend.task.description) == ("Mend the findings of round 1", why)
        for later in GATES[2 : GATES.index(gate) + 1]:
            assert await town.decided(asker, await town.state_at(later)), later
        done = (await town.desk.state(ONE)).tasks[mend.task.task_id]
        assert done.state == "done"
