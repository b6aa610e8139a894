"""Which members of a council work in sessions, on which terms, and what of their work is judged."""

from __future__ import annotations

import json

import pytest

from fleet.council.roster import build_roster, seated
from fleet.events.council import RosterMember
from fleet.kernel.digest import canonical_json
from fleet.kernel.ids import Digest, Principal
from fleet.owner.duties.members import Sitting
from fleet.owner.duties.procedure import workspace_of
from fleet.owner.engineering import authors, seats
from fleet.owner.journal.steps import Seat, Work
from fleet.owner.workbench import Workbench
from fleet.story.council_facts import council_state
from fleet.trees.service import read_tree
from tests.support.acting import COUNCIL, written
from tests.support.bench import World, definitions
from tests.support.sessions import FILES, SessionWorld


async def roster(world: World) -> tuple[Workbench, tuple[RosterMember, ...]]:
    """A council on code as it would open now."""
    bench, config = await world.bench(), definitions().council
    members = build_roster("selection", "code_patch", proposer_role="developer", num_agents=3, config=config)
    return bench, authors.with_strategies(bench, seated(members, config))


async def test_members_that_propose_work_as_their_engine_says():
    world = await SessionWorld(()).begin()
    bench, members = await roster(world)
    assert {member.strategy for member in members if member.can_propose} == {"session"}
    assert {member.strategy_reason for member in members if member.can_propose} == {"models.yaml says so"}
    assert {member.strategy for member in members if not member.can_propose} == {None}
    bench, members = await roster(await SessionWorld((), strategy="draft").begin())
    assert {member.strategy for member in members} == {None}
    assert authors.budget_of(bench, members, rounds=2).tokens == definitions().council.defaults.tokens


@pytest.mark.rule("MB-21", "MB-43")
async def test_council_gets_the_terms_of_its_sessions_and_of_their_repairs():
    bench, members = await roster(await SessionWorld(()).begin())
    working = sum(member.strategy == "session" for member in members)
    assert working == 3
    budget = authors.budget_of(bench, members, rounds=2)
    defaults = definitions().council.defaults
    assert budget.tokens == defaults.tokens + 3 * working * 2_060_000
    assert budget.wall_s == defaults.timeout_seconds + 3 * 2_700


async def test_unknown_engine_is_no_reason_to_stop_a_council_here():
    world = await SessionWorld(()).begin()
    world.budgeting = None
    _, members = await roster(world)
    assert {member.strategy for member in members} == {None}


async def judged(world: SessionWorld, tree: dict[str, bytes], onto: dict[str, bytes] | None = None):
    """What is measured of a session's tree, and the problems where there is nothing to measure."""
    bench = await world.bench()
    record = bench.state.councils[COUNCIL]
    sitting = Sitting(bench, record, council_state(record.opened, ()))
    base = await written(world.blobs, FILES)
    value = {"tree": await written(world.blobs, tree), "base": base, "diff": "+ the change"}
    content = await world.blobs.put(canonical_json(value))
    space = workspace_of(bench, "x", Work(Seat(Principal("agent:qa-001"), "qa"), "tests", "pytest"))
    assert await seats.code_of(sitting, content) == "+ the change"
    found = await seats.applied(sitting, space, content, await written(world.blobs, onto) if onto else base)
    return found, dict(await read_tree(world.blobs, found.tree)) if found.tree else {}


@pytest.mark.rule("CN-30")
async def test_session_is_judged_by_the_tests_that_were_there_and_its_new_ones():
    world = await SessionWorld(()).begin()
    changed = {
        "text/slug.py": b"def slugify(title):\n    return title\n",
        "tests/test_slug.py": b"def test_nothing():\n    pass\n",
        "tests/test_new.py": b"def test_new():\n    pass\n",
        "tests/conftest.py": b"collect_ignore = ['test_slug.py']\n",
    }
    found, tree = await judged(world, {**FILES, **changed})
    assert found.files == ("tests/test_new.py", "text/slug.py")
    assert await world.blobs.get(tree["tests/test_slug.py"].blob) == FILES["tests/test_slug.py"]
    assert "tests/conftest.py" not in tree
    assert (found.added, found.removed, found.diff_lines) == (3, 1, 4)
    same, _ = await judged(world, {**FILES, **changed, "tests/test_slug.py": b"# other\n"})
    assert same.normal_digest == found.normal_digest


async def test_session_that_changed_tests_alone_has_nothing_to_judge():
    found, _ = await judged(await SessionWorld(()).begin(), {**FILES, "tests/test_slug.py": b"pass\n"})
    assert found.problems == ("nothing is changed but what its author is judged by",)


async def test_work_on_another_tree_is_moved_or_named_where_both_changed_the_same():
    world = await SessionWorld(()).begin()
    mine, theirs = {**FILES, "text/slug.py": b"mine\n"}, {**FILES, "text/fold.py": b"theirs\n"}
    found, tree = await judged(world, mine, theirs)
    assert [await world.blobs.get(tree[p].blob) for p in ("text/slug.py", "text/fold.py")] == [b"mine\n", b"theirs\n"]
    found, _ = await judged(world, mine, {**FILES, "text/slug.py": b"theirs\n"})
    assert found.problems == ("changed meanwhile by other work: text/slug.py",)


@pytest.mark.rule("CN-41", "CN-42")
async def test_repair_goes_on_from_the_authors_own_files_and_a_fresh_one_from_the_base():
    add = [("write", {"path": "text/more.py", "content": "y = 1\n"})]
    world = await SessionWorld((add, [("submit", {"summary": "s"})], [("submit", {"summary": "s"})])).begin()
    bench = await world.bench()
    record = bench.state.councils[COUNCIL]
    sitting = Sitting(bench, record, council_state(record.opened, ()))
    base = record.opened.subject_digest
    assert base is not None
    before = {**FILES, "text/slug.py": b"half\n"}
    value = {"tree": await written(world.blobs, before), "base": base, "diff": "-old\n+half"}
    old = await world.blobs.put(canonical_json(value))
    author = record.opened.roster[0]
    new = await authors.mend(sitting, author, step="repair/1/cd", old=old, failures="FAILED test_ac_1", draw=1)
    assert new is not None
    tree = Digest(json.loads(await world.blobs.get(new))["tree"])
    assert await world.texts(tree) == {
        path: text.decode() for path, text in {**before, "text/more.py": b"y = 1\n"}.items()
    }
    told = world.agents.requests[-1].own
    assert "-old\n+half" in told
    assert "FAILED test_ac_1" in told
    fresh = await authors.mend(sitting, author, step="repair/2/cd", old=old, failures=None, draw=2)
    assert fresh is not None
    tree = Digest(json.loads(await world.blobs.get(fresh))["tree"])
    assert "raise NotImplementedError" in (await world.texts(tree))["text/slug.py"]
    assert world.agents.requests[-1].own == ""
