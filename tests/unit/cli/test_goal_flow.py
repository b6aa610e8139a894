"""From a goal to stories as `fleet run --goal` goes, over the in-memory twins (PL-54)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from fleet.cli.project.proposals import accept_proposal
from fleet.cli.story.goal import AGREED, agreed_here, asked
from fleet.cli.story.run_options import RunOptions
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Principal, StoryId
from fleet.planning.project_state import DEFAULT_PROJECT
from fleet.projects.project_commands import RejectDiscovery
from tests.support.terminal import Terminal
from tests.support.town import Town, running

ANSWERS = ("qu-1=analyst", "qu-2=others read them", "qu-3=a file", "qu-4=I convert it", "qu-5=it holds two objects")


@pytest.fixture(autouse=True)
def _as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "root")


def options(repo: Path, *answers: str) -> RunOptions:
    return RunOptions(
        story=None,
        goal="Convert CSV files to JSON",
        repo=str(repo),
        model=None,
        record=None,
        rigor=None,
        delegate=("po",),
        toolchain="python",
        answers=answers,
    )


async def done(town: Town, work: Coroutine[Any, Any, Any]) -> Any:
    task = asyncio.create_task(work)
    await town.until(task.done)
    return task.result()


@pytest.mark.rule("PL-54")
async def test_goal_asked_again_goes_on_with_the_proposal_and_the_stories_it_has(tmp_path: Path):
    town = Town()
    async with running(town.shard()):
        found, proposal = await done(town, asked(town.projects, options(tmp_path)))
        assert (found.status, found.is_empty, len(proposal.unanswered)) == ("proposed", True, 5)
        (tmp_path / "main.py").write_text("")
        again, filled = await done(town, asked(town.projects, options(tmp_path, *ANSWERS)))
        assert (again.discovery_id, filled.unanswered) == (found.discovery_id, ())
        # The same answers once more change nothing: they are in the text.
        same, _ = await done(town, asked(town.projects, options(tmp_path, *ANSWERS)))
        assert same.proposal_digest == again.proposal_digest
        taken = await done(town, accept_proposal(town.projects, again, rigor="L0"))
        assert (taken.status, len(taken.story_ids)) == ("accepted", 2)
        states = [await town.desk.state(StoryId(s)) for s in taken.story_ids]
        assert [s.rigor for s in states] == ["L0", "L0"]
        assert all(s.score is not None and s.score.dor_ok for s in states)
        later, _ = await done(town, asked(town.projects, options(tmp_path)))
        assert (later.status, later.story_ids) == ("accepted", taken.story_ids)


async def test_goal_for_another_folder_is_another_one(tmp_path: Path):
    town = Town()
    async with running(town.shard()):
        one, _ = await done(town, asked(town.projects, options(tmp_path / "one")))
        two, _ = await done(town, asked(town.projects, options(tmp_path / "two")))
        assert one.discovery_id != two.discovery_id


async def test_proposal_after_a_rejected_one_is_a_new_one(tmp_path: Path):
    town = Town()
    async with running(town.shard()):
        first, _ = await done(town, asked(town.projects, options(tmp_path)))
        sent = RejectDiscovery(discovery_id=first.discovery_id, reason="the goal has changed")
        who = Principal("user:root")
        await done(town, town.projects.require(DEFAULT_PROJECT, sent, principal=who, key="reject-1"))
        second, _ = await done(town, asked(town.projects, options(tmp_path)))
        assert (second.status, second.discovery_id != first.discovery_id) == ("proposed", True)


async def test_answer_to_a_question_that_is_not_asked_is_refused(tmp_path: Path):
    town = Town()
    async with running(town.shard()):
        with pytest.raises(InvalidInput, match="no open question"):
            await done(town, asked(town.projects, options(tmp_path, "qu-9=what")))


@pytest.mark.rule("PL-54")
async def test_questions_are_asked_at_the_terminal_and_the_yes_is_on_record(tmp_path: Path):
    town = Town()
    async with running(town.shard()):
        found, proposal = await done(town, asked(town.projects, options(tmp_path)))
        person = Terminal(
            "analyst", "<oh>", "others read them", "a file", "I convert it", "it holds two objects", "yes"
        )
        taken, note = await done(town, agreed_here(town.projects, found, proposal, options(tmp_path), person))
        assert (taken.status, len(taken.story_ids), note) == ("accepted", 2, AGREED)
        assert len(person.asked) == 7, "an answer that is refused is asked for again"
        assert person.asked[-1] == "Build this? (y/N)"
        state = await town.desk.state(StoryId(taken.story_ids[1]))
        assert "others read them" in state.content.title


@pytest.mark.rule("PL-54")
@pytest.mark.parametrize(
    "lines", [("", "", "", "", ""), ("a", "b", "c", "d", "e", "n"), ()], ids=["open", "no", "gone"]
)
async def test_nothing_is_created_without_answers_or_without_a_yes(tmp_path: Path, lines: tuple[str, ...]):
    town = Town()
    async with running(town.shard()):
        found, proposal = await done(town, asked(town.projects, options(tmp_path)))
        person = Terminal(*lines)
        left, note = await done(town, agreed_here(town.projects, found, proposal, options(tmp_path), person))
        assert (left.status, left.story_ids, note) == ("proposed", (), None)
        assert ("Build this? (y/N)" in person.asked) is ("n" in lines)
