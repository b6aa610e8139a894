"""A whole story whose developers work in sessions: real wire, real sandbox, from its text to its branch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.engineering.tools import OFFERS
from fleet.models.profiles import ModelsConfig, load_models
from tests.support.demo_run import git_says as git
from tests.support.native_wires import AnthropicWire, OpenAIWire, ResponsesWire
from tests.support.openai_server import served_in_thread
from tests.support.team import team
from tests.support.team_models import demo_repository, demo_story
from tests.support.team_server import (
    engineers_answer,
    hasty_answer,
    several_tasks_answer,
    with_native_calls,
    working_engine,
)

pytestmark = pytest.mark.timeout(600)


def engine_at(url: str, **more: Any) -> ModelsConfig:
    """The packaged models.yaml with one more engine, on which developers work in sessions."""
    document = dict(ConfigFiles(packaged_directory()).document("models.yaml"))
    return load_models({**document, "engines": [*document["engines"], {**working_engine(url), **more}]})


@pytest.mark.rule("CN-22", "RC-36", "MB-14")
async def test_developers_solve_a_task_over_several_files_with_a_test_of_their_own(tmp_path: Path) -> None:
    repo = demo_repository(tmp_path / "stage")
    with served_in_thread() as server:
        server.answer = engineers_answer
        async with team(tmp_path, configured=engine_at(server.base_url)) as t:
            story = demo_story()
            story["constraints"].pop("paths")
            story_id = await t.create(story)
            await t.start(story_id, repo, model="able")
            state = await t.settled(story_id, within_s=400)
            events = await t.desk.events(story_id)
    assert state.closed, state.park
    assert [task.state for task in state.tasks.values()] == ["done"]
    branch = f"fleet/{story_id}"
    changed = git(repo, "diff", "--name-status", "main", branch, "--", "textkit", "tests").splitlines()
    assert {"M\ttextkit/__init__.py", "M\ttextkit/words.py", "A\ttextkit/slugs.py", "A\ttests/test_slugs.py"} <= set(
        changed
    )
    opened = [json.loads(e.body) for e in events if e.type == "CouncilOpened"]
    strategies = {m["member_id"]: m.get("strategy") for o in opened for m in o["roster"]}
    assert set(strategies.values()) == {"session", None}
    assert not [e for e in events if e.type == "DraftFailed"]
    asked = [r for r in server.requests if str(r["messages"][0]["content"]).startswith("Work: engineer")]
    last = [str(m["content"]) for m in asked[-1]["messages"]]
    assert any("exit 3\nchanged: ~textkit/__init__.py" in text for text in last)
    assert all(r["max_tokens"] == 8_000 for r in asked if "max_tokens" in r)


@pytest.mark.rule("CN-22", "LC-100", "PL-41")
async def test_plan_of_several_tasks_is_worked_off_file_by_file_and_a_readme_alone_is_a_task(tmp_path: Path) -> None:
    repo = demo_repository(tmp_path / "stage")
    with served_in_thread() as server:
        server.answer = several_tasks_answer
        async with team(tmp_path, configured=engine_at(server.base_url)) as t:
            story = demo_story()
            story["constraints"].pop("paths")
            story_id = await t.create(story)
            await t.start(story_id, repo, model="able")
            state = await t.settled(story_id, within_s=500)
    assert state.closed, state.park
    assert {task.task.title: task.state for task in state.tasks.values()} == {
        "Add slugify in a module of its own": "done",
        "Describe slugify in the readme": "done",
        "Make file names of titles": "done",
    }
    branch = f"fleet/{story_id}"
    # Each task is a commit of its own that holds what its engineer did, and no work of another task again.
    commits = git(repo, "log", "--reverse", "--format=%H %s", f"main..{branch}").splitlines()
    changed = {
        subject: set(git(repo, "show", "--name-only", "--format=", commit).split())
        for commit, _, subject in (line.partition(" ") for line in commits)
    }
    readme = next(files for subject, files in changed.items() if "readme" in subject)
    names = next(files for subject, files in changed.items() if "file names" in subject)
    assert {path for path in readme if not path.startswith("tests/")} == {"README.md"}
    assert {"textkit/names.py", "tests/test_names.py"} <= names
    assert "textkit/slugs.py" not in names
    assert "`slugify` makes the slug" in git(repo, "show", f"{branch}:README.md")


@pytest.mark.rule("MB-46", "CN-22", "CN-41")
@pytest.mark.parametrize("strategy", ["assisted", "cascade"])
async def test_change_in_one_reply_that_fails_its_tests_is_mended_by_another_reply_or_in_a_session(
    tmp_path: Path, strategy: str
) -> None:
    repo = demo_repository(tmp_path / "stage")
    with served_in_thread() as server:
        server.answer = hasty_answer
        async with team(tmp_path, configured=engine_at(server.base_url, strategy=strategy)) as t:
            story = demo_story()
            story["constraints"].pop("paths")
            story_id = await t.create(story)
            await t.start(story_id, repo, model="able")
            state = await t.settled(story_id, within_s=400)
            events = await t.desk.events(story_id)
            steps = dict(state.steps)
    assert state.closed, state.park
    branch = f"fleet/{story_id}"
    assert "text.lower()" in git(repo, "show", f"{branch}:textkit/slugs.py")
    assert "hello-world" in git(repo, "show", f"{branch}:tests/test_slugs.py")
    opened = [json.loads(e.body) for e in events if e.type == "CouncilOpened"]
    proposing = [m for o in opened if o["output_kind"] == "code_patch" for m in o["roster"] if m["can_propose"]]
    assert {m["strategy"] for m in proposing} == {strategy}
    assert {m["strategy_reason"] for m in proposing} == {"models.yaml says so"}
    mends = [name for name in steps if "/mend/" in name and not name.endswith("/parsed")]
    sessions = [name for name, step in steps.items() if step.started.op == "engineer"]
    kept = [json.loads(e.body)["kept"] for e in events if e.type == "RepairReceived"]
    if strategy == "assisted":
        # The tests of its own change told the author before anybody measured it.
        assert len(mends) == len(proposing)
        assert not sessions
        assert not kept
    else:
        assert not mends
        assert sessions
        assert "new" in kept


@pytest.mark.rule("MB-14", "CN-22")
async def test_engineers_call_tools_natively_and_results_go_back_under_the_ids_of_their_calls(tmp_path: Path) -> None:
    repo = demo_repository(tmp_path / "stage")
    with served_in_thread() as server:
        server.answer = with_native_calls
        async with team(tmp_path, configured=engine_at(server.base_url, capabilities=["tools"])) as t:
            story = demo_story()
            story["constraints"].pop("paths")
            story_id = await t.create(story)
            await t.start(story_id, repo, model="able")
            state = await t.settled(story_id, within_s=400)
    assert state.closed, state.park
    asked = [r for r in server.requests if str(r["messages"][0]["content"]).startswith("Work: engineer")]
    assert {len(r["tools"]) for r in asked} == {len(OFFERS)}
    # The part that an engine keeps in its cache is the same for every turn of every engineer.
    assert len({json.dumps([r["tools"], r["messages"][0]]) for r in asked}) == 1
    last = asked[-1]["messages"]
    called = [use["id"] for message in last for use in message.get("tool_calls") or ()]
    answered = [message["tool_call_id"] for message in last if message["role"] == "tool"]
    assert called == answered
    assert len(called) > 6
    assert "A\ttests/test_slugs.py" in git(repo, "diff", "--name-status", "main", f"fleet/{story_id}").splitlines()


@pytest.mark.rule("MB-14", "MB-45", "CN-22")
@pytest.mark.parametrize("wire", ["anthropic", "responses", "vllm", "llama.cpp"])
async def test_whole_story_goes_over_each_native_wire_with_thoughts_a_cut_reply_and_a_refusal(
    tmp_path: Path, wire: str
) -> None:
    repo = demo_repository(tmp_path / "stage")
    more: dict[str, Any] = {"kind": "vllm"}
    served: AnthropicWire | OpenAIWire | ResponsesWire
    if wire == "anthropic":
        served, more = AnthropicWire(), {"kind": "anthropic", "thinking": 1024}
    elif wire == "responses":
        served, more = ResponsesWire(), {"kind": "openai", "api": "responses"}
    else:
        served = OpenAIWire("reasoning" if wire == "vllm" else "reasoning_content")
    with served_in_thread() as server:
        server.answer = served
        configured = engine_at(server.base_url, capabilities=["tools"], **more)
        async with team(tmp_path, configured=configured) as t:
            story = demo_story()
            story["constraints"].pop("paths")
            story_id = await t.create(story)
            await t.start(story_id, repo, model="able")
            state = await t.settled(story_id, within_s=400)
            steps = dict(state.steps)
    assert state.closed, state.park
    assert served.problems == []
    branch = f"fleet/{story_id}"
    assert "A\ttests/test_slugs.py" in git(repo, "diff", "--name-status", "main", branch).splitlines()
    turns = {name: step for name, step in steps.items() if step.started.op == "engineer" and step.finished}
    refused = [name for name, step in turns.items() if step.finished and step.finished.error_code]
    engineers = {name.rpartition("/")[0] for name in turns}
    # Each engineer was refused once, and thought in each of its other turns; all thoughts came back in each later one.
    assert len(refused) == len(engineers)
    assert served.sent_back > 20 * len(engineers)
    # Engineers begin at the same time, so that the first turn of each may come before anything is cached.
    for engineer in engineers:
        paid = [
            step.finished.cost
            for name, step in turns.items()
            if name.startswith(f"{engineer}/") and step.finished and name not in refused
        ]
        assert all(cost.tokens_cached for cost in paid[1:]), engineer
    if isinstance(served, AnthropicWire):
        assert served.read > 0.8 * served.prompts
