"""Members of a council that make a change in one reply, and those who go on from it in a session."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from fleet.kernel.errors import ReplyMalformed
from fleet.kernel.ids import Digest
from fleet.models.port import AgentRequest
from fleet.models.replies.change_reply import change_of
from fleet.owner.duties.members import Sitting
from fleet.owner.engineering import authors
from fleet.owner.engineering.seats import Delivered
from fleet.story.council_facts import council_state
from tests.support.acting import COUNCIL
from tests.support.bench import ScriptedAgents
from tests.support.session_kinds import GONE, SLUG
from tests.support.sessions import FILES, SessionWorld, reply_of, turn_of

SUBMIT = [("submit", {"summary": "done"})]
Answer = Callable[[AgentRequest], dict[str, Any] | BaseException]


def replying(*replies: str, script: Any = ()) -> tuple[ScriptedAgents, list[AgentRequest]]:
    """An engineer who answers with these changes in their order, and in a session with this script."""
    asked: list[AgentRequest] = []

    def answer(request: AgentRequest) -> dict[str, Any] | BaseException:
        if request.kind == "change":
            asked.append(request)
            try:
                return change_of(replies[min(len(asked), len(replies)) - 1])
            except ReplyMalformed as error:
                return error
        assert request.kind == "engineer"
        return reply_of(script[min(turn_of(request), len(script)) - 1], turn_of(request))

    return ScriptedAgents(answer), asked


async def sitting(world: SessionWorld) -> Sitting:
    """The council as an owner finds it that was just started."""
    bench = await world.bench()
    record = bench.state.councils[COUNCIL]
    return Sitting(bench, record, council_state(record.opened, tuple(record.said.values())))


async def begun(agents: ScriptedAgents, strategy: str) -> tuple[SessionWorld, Sitting]:
    world = SessionWorld((), strategy=strategy)
    world.agents = agents
    await world.begin()
    return world, await sitting(world)


def member(council: Sitting, strategy: str | None) -> Any:
    """Its first member, on an engine with this strategy."""
    return council.opened.roster[0].model_copy(update={"strategy": strategy})


async def files_of(world: SessionWorld, found: Delivered | Digest) -> Mapping[str, str]:
    content = found.candidate if isinstance(found, Delivered) else found
    return await world.texts(Digest(json.loads(await world.blobs.get(content))["tree"]))


@pytest.mark.parametrize(
    ("strategy", "paths", "is_tree"),
    [
        (None, ("text/slug.py",), False),
        (None, ("text/slug.py", "text/fold.py"), True),
        (None, ("README.md",), True),
        (None, (), True),
        ("cascade", ("text/slug.py",), True),
        ("session", ("text/slug.py",), True),
        ("assisted", ("text/slug.py",), True),
    ],
)
async def test_one_python_file_is_written_as_definitions_and_all_else_as_a_change(
    strategy: str | None, paths: tuple[str, ...], is_tree: bool
):
    _, council = await begun(replying(SLUG)[0], "draft")
    assert authors.makes_trees(member(council, strategy), paths) is is_tree


async def test_change_in_one_reply_is_a_candidate_over_several_files():
    agents, asked = replying(SLUG)
    world, council = await begun(agents, "draft")
    found = await authors.propose(council, member(council, None), step="draft/x/change")
    tree = await files_of(world, found)
    assert tree["text/slug.py"] == "def slugify(title):\n    return title.lower()\n"
    assert tree["README.md"] == "# Slugs\n"
    assert set(tree) == {*FILES, "README.md", "tests/test_more.py"}
    assert found.tokens == 15
    # It saw the files of the task as they are, and may write as much as its engine gives.
    assert "def slugify(title):\n    raise NotImplementedError" in asked[0].shared
    assert asked[0].sampling.max_tokens == 4_096


async def test_blocks_that_do_not_fit_are_told_once_and_a_second_reply_is_taken():
    agents, asked = replying(GONE, SLUG)
    world, council = await begun(agents, "draft")
    found = await authors.propose(council, member(council, None), step="draft/x/change")
    assert (await files_of(world, found))["README.md"] == "# Slugs\n"
    assert "`old` is not in text/slug.py" in asked[1].own
    assert found.tokens == 30
    # Whoever goes on after a crash asks nobody again.
    again = await authors.propose(await sitting(world), member(council, None), step="draft/x/change")
    assert again == found
    assert len(asked) == 2


async def test_twice_no_change_is_no_candidate():
    world, council = await begun(replying(GONE)[0], "draft")
    with pytest.raises(ReplyMalformed, match="does not fit: .*`old` is not in text/slug.py"):
        await authors.propose(council, member(council, None), step="draft/x/change")


async def test_cascade_goes_on_in_a_session_where_no_reply_fits():
    write = [("write", {"path": "text/new.py", "content": "y = 1\n"})]
    agents, asked = replying("no code at all", script=(write, SUBMIT, SUBMIT))
    world, council = await begun(agents, "cascade")
    found = await authors.propose(council, member(council, "cascade"), step="draft/x/change")
    assert (await files_of(world, found))["text/new.py"] == "y = 1\n"
    assert len(asked) == 1


@pytest.mark.rule("CN-41")
async def test_cascade_mends_its_reply_in_a_session_on_the_files_that_the_reply_made():
    write = [("write", {"path": "text/new.py", "content": "y = 1\n"})]
    agents, asked = replying(SLUG, script=(write, SUBMIT, SUBMIT))
    world, council = await begun(agents, "cascade")
    author = member(council, "cascade")
    first = await authors.propose(council, author, step="draft/x/change")
    new = await authors.mend(
        await sitting(world), author, step="repair/1/x", old=first.candidate, failures="FAILED test_ac_2", draw=1
    )
    assert new is not None
    tree = await files_of(world, new)
    assert tree["text/slug.py"].endswith("return title.lower()\n")
    assert tree["text/new.py"] == "y = 1\n"
    assert "FAILED test_ac_2" in world.agents.requests[-1].own
    assert len(asked) == 1


@pytest.mark.rule("CN-41", "CN-42")
async def test_draft_mends_its_reply_in_another_one_against_its_own_files():
    mend = (
        "file: text/slug.py\n```python\n<<<<<<< SEARCH\n    return title.lower()\n=======\n"
        "    return title.lower().strip()\n>>>>>>> REPLACE\n```"
    )
    agents, asked = replying(SLUG, mend, SLUG)
    world, council = await begun(agents, "draft")
    author = member(council, None)
    first = await authors.propose(council, author, step="draft/x/change")
    new = await authors.mend(
        await sitting(world), author, step="repair/1/x", old=first.candidate, failures="FAILED test_ac_2", draw=1
    )
    assert new is not None
    tree = await files_of(world, new)
    assert tree["text/slug.py"].endswith("return title.lower().strip()\n")
    assert tree["README.md"] == "# Slugs\n"
    assert "File text/slug.py:\ndef slugify(title):\n    return title.lower()" in asked[1].shared
    # A fresh one begins anew, from the base; the same work again is no new version.
    fresh = await authors.mend(
        await sitting(world), author, step="repair/2/x", old=first.candidate, failures=None, draw=2
    )
    assert fresh is None
    assert "raise NotImplementedError" in asked[2].shared


README = "file: README.md\n```markdown\n# Slugs\n```"
BROKEN = SLUG.replace("title.lower()", "title.lower(")


@pytest.mark.rule("MB-46")
async def test_assisted_author_mends_what_its_tests_show_before_it_hands_in():
    agents, asked = replying(README, SLUG)
    world, council = await begun(agents, "assisted")
    found = await authors.propose(council, member(council, "assisted"), step="draft/x/change")
    tree = await files_of(world, found)
    assert tree["text/slug.py"].endswith("return title.lower()\n")
    assert found.tokens == 30
    assert "this fails:" in asked[1].own
    assert "FAILED tests/test_slug.py::test_it" in asked[1].own
    # Its own change is shown, and is there already.
    assert "+# Slugs" in asked[1].own
    # Whoever goes on after a crash asks nobody again, and runs nothing again.
    runs = len(world.backend.runs)
    assert await authors.propose(await sitting(world), member(council, "assisted"), step="draft/x/change") == found
    assert (len(asked), len(world.backend.runs)) == (2, runs)


@pytest.mark.rule("MB-46")
async def test_assisted_author_is_refused_what_is_no_valid_code():
    agents, asked = replying(BROKEN, SLUG)
    world, council = await begun(agents, "assisted")
    found = await authors.propose(council, member(council, "assisted"), step="draft/x/change")
    assert (await files_of(world, found))["text/slug.py"].endswith("return title.lower()\n")
    assert "is no valid Python any more: line 2" in asked[1].own
    assert len(asked) == 2


@pytest.mark.rule("MB-46")
@pytest.mark.parametrize(("replies", "asked_for"), [((README,), 3), ((README, "no code at all"), 2)])
async def test_assisted_author_hands_in_what_it_has_where_it_comes_no_further(replies: Any, asked_for: int):
    agents, asked = replying(*replies)
    world, council = await begun(agents, "assisted")
    found = await authors.propose(council, member(council, "assisted"), step="draft/x/change")
    assert (await files_of(world, found))["README.md"] == "# Slugs\n"
    assert len(asked) == asked_for


@pytest.mark.rule("MB-46")
async def test_assisted_author_mends_four_times_at_most():
    many = tuple(README.replace("# Slugs", f"# Slugs {number}") for number in range(9))
    agents, asked = replying(*many)
    world, council = await begun(agents, "assisted")
    found = await authors.propose(council, member(council, "assisted"), step="draft/x/change")
    assert (await files_of(world, found))["README.md"] == "# Slugs 4\n"
    assert len(asked) == 5


@pytest.mark.rule("MB-46", "CN-28")
async def test_assisted_author_whose_council_is_over_hands_in_what_is_on_record():
    agents, asked = replying(README, SLUG)
    world, council = await begun(agents, "assisted")
    over = replace(council, is_closing=True)
    with pytest.raises(ReplyMalformed, match="the council is over"):
        await authors.propose(over, member(council, "assisted"), step="draft/x/change")
    assert not asked
    found = await authors.propose(council, member(council, "assisted"), step="draft/x/change")
    over = replace(await sitting(world), is_closing=True)
    assert await authors.propose(over, member(council, "assisted"), step="draft/x/change") == found


@pytest.mark.rule("MB-46", "CN-41")
@pytest.mark.parametrize("failures", ["FAILED test_ac_2", None])
async def test_assisted_author_goes_on_with_its_files_or_begins_anew(failures: str | None):
    stripped = SLUG.replace("title.lower()", "title.lower().strip()")
    stripped = stripped.replace("raise NotImplementedError", "return title.lower()")
    agents, asked = replying(SLUG, stripped if failures else SLUG.replace("# Slugs", "# Others"))
    world, council = await begun(agents, "assisted")
    author = member(council, "assisted")
    first = await authors.propose(council, author, step="draft/x/change")
    new = await authors.mend(
        await sitting(world), author, step="repair/1/x", old=first.candidate, failures=failures, draw=1
    )
    assert new is not None
    tree = await files_of(world, new)
    assert tree["text/slug.py"].endswith("title.lower().strip()\n" if failures else "title.lower()\n")
    assert ("FAILED test_ac_2" in asked[1].own) == bool(failures)
    assert ("raise NotImplementedError" in asked[1].shared) == (failures is None)
