"""A work session on the journal: killed at any append it goes on to the same files and pays for nothing twice."""

from __future__ import annotations

from collections import Counter

import pytest

from fleet.events.codec import decode
from fleet.events.step import StuckDetected
from fleet.kernel.errors import ReplyMalformed
from tests.support.acting import COUNCIL, Crash, MortalLog
from tests.support.sessions import Script, SessionWorld, told

SEAT = f"{COUNCIL}/draft/developer-001"
FIX = {"path": "text/slug.py", "old": "    raise NotImplementedError", "new": "    return title.lower()"}
SCRIPT: Script = (
    [("files", {}), ("read", {"path": "text/slug.py"}), ("search", {"pattern": "def "})],
    [("tests", {})],
    [("edit", FIX), ("write", {"path": "docs/slug.md", "content": "# Slugs\n"}), ("note", {"text": "now the tests"})],
    [("run", {"command": "put notes.txt half; fail"}), ("run", {"command": "rm notes.txt; say done"})],
    [("tests", {})],
    [("submit", {"summary": "slugify is there"})],
    [("submit", {"summary": "slugify is there"})],
)


async def test_engineer_reads_edits_runs_and_submits_and_each_step_is_on_record():
    world = await SessionWorld(SCRIPT).begin()
    found = await world.deliver()
    files = await world.candidate(found)
    assert files["text/slug.py"] == "def slugify(title):\n    return title.lower()\n"
    assert files["docs/slug.md"] == "# Slugs\n"
    assert "notes.txt" not in files
    state = (await world.journal()).state
    named = [name.removeprefix(f"{SEAT}/") for name in state.steps if name.startswith(SEAT)]
    assert named[:6] == ["begin", "1", "1/call/1", "1/call/2", "1/call/3", "2"]
    assert found.tokens == 7 * 15
    edit, failed = state.steps[f"{SEAT}/3/call/1"], state.steps[f"{SEAT}/4/call/1"]  # type: ignore[index]
    assert (edit.started.effect, edit.started.tool, edit.started.op) == ("PURE", "files", "edit")
    assert (failed.started.effect, failed.started.tool, failed.started.op) == ("KEYED", "exec", "run")
    assert failed.finished is not None
    assert failed.finished.exit_code == 1
    shown = "\n".join(told(world))
    assert "FAILED tests/test_slug.py::test_it" in shown
    assert "exit 1\nchanged: +notes.txt" in shown
    assert "Review of what you changed:\n+ docs/slug.md\n~ text/slug.py" in shown
    assert "[turn 6 of 60;" in shown


@pytest.mark.rule("RC-50", "RC-51", "RC-36", "GL-19")
@pytest.mark.parametrize("stored", [True, False], ids=["after", "before"])
async def test_owner_killed_at_any_append_comes_to_the_same_files_and_pays_for_nothing_twice(stored: bool):
    plain = await SessionWorld(SCRIPT).begin()
    expected = await plain.deliver()
    assert isinstance(plain.log, MortalLog)
    appends, commands = plain.log.count, len(plain.backend.runs)
    requests = [request.turns for request in plain.agents.requests]
    for at in range(1, appends + 1):
        world = await SessionWorld(SCRIPT, MortalLog(at=at, stored=stored)).begin()
        with pytest.raises(Crash):
            await world.deliver()
        done = {name for name, step in (await world.journal()).state.steps.items() if step.finished}
        asked = len(world.agents.asked)
        assert await world.deliver() == expected, at
        again = {name.removeprefix("st-slug7/") for name in world.agents.asked[asked:]}
        assert not again & done, at
        # Asked again, the engine is asked the very same.
        assert {request.turns for request in world.agents.requests} == set(requests), at
        # The supervisor has what it ran by key: no command runs a second time.
        assert len(world.backend.runs) == commands, at
        counted = Counter(step.started.key for step in (await world.journal()).state.steps.values())
        assert max(counted.values()) == 1


@pytest.mark.rule("RC-58")
async def test_session_keeps_the_terms_that_it_began_with():
    world = await SessionWorld(SCRIPT, MortalLog(at=9)).begin()
    with pytest.raises(Crash):
        await world.deliver()
    before = {request.sampling.max_tokens for request in world.agents.requests}
    other = SessionWorld(SCRIPT, max_context=200_000, max_output=50_000)
    world.budgeting = other.budgeting
    await world.deliver()
    assert {request.sampling.max_tokens for request in world.agents.requests} == before == {4096}


@pytest.mark.rule("MB-41")
async def test_engineer_that_goes_in_circles_is_told_once_and_its_files_are_submitted():
    script: Script = ([("edit", FIX)], [("read", {"path": "text/fold.py"})])
    world = await SessionWorld(script).begin()
    files = await world.candidate(await world.deliver())
    assert "return title.lower()" in files["text/slug.py"]
    assert len(world.agents.requests) == 6
    assert sum("You made this very call in turn 2" in text for text in told(world)) == 2
    (stuck,) = [p for p in map(decode, await world.events()) if isinstance(p, StuckDetected)]
    assert stuck.pattern == "repeated_result"


async def test_submission_of_an_untested_change_runs_the_tests_itself():
    script: Script = ([("edit", FIX)], [("submit", {"summary": "s"})], [("submit", {"summary": "s"})])
    world = await SessionWorld(script).begin()
    await world.deliver()
    assert "The tests had not run since your last change; they ran now: exit 0" in told(world)[1]
    assert f"{SEAT}/2/call/1/tests" in (await world.journal()).state.steps
    assert len(world.backend.runs) == 1


async def test_engineer_that_changes_nothing_leaves_no_candidate():
    script: Script = ([("submit", {"summary": "there is no such module"})],) * 2
    world = await SessionWorld(script).begin()
    with pytest.raises(ReplyMalformed, match="changed nothing: there is no such module"):
        await world.deliver()
    assert "You changed nothing" in told(world)[0]


async def test_engineer_that_never_calls_a_tool_ends_after_three_replies():
    world = await SessionWorld(("I would like to help.",)).begin()
    with pytest.raises(ReplyMalformed, match="no_usable_reply"):
        await world.deliver()
    assert len(world.agents.requests) == 3
    assert "Your reply called no tool. Call one of run, read" in told(world)[0]


@pytest.mark.rule("MB-22")
async def test_budget_of_the_council_ends_the_session_with_what_it_has():
    script: Script = ([("edit", FIX)], *[[("read", {"path": "text/fold.py", "from": n})] for n in range(1, 50)])
    world = await SessionWorld(script).begin()
    assert world.budgeting is not None
    limits = world.budgeting.limits
    tight = limits.model_copy(update={"council": limits.council.model_copy(update={"tokens": 9_000})})
    world.budgeting = type(world.budgeting)(limits=tight, models=world.budgeting.models)
    files = await world.candidate(await world.deliver())
    assert "return title.lower()" in files["text/slug.py"]
    assert 1 < len(world.agents.requests) < 50
