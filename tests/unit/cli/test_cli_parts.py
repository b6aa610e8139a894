"""What commands print, the story file, and the local token."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest
from rich.text import Text

from fleet.cli.local.local_principals import ensure_principals, local_principal, read_token
from fleet.cli.output import Output, guarded
from fleet.cli.settings import absolute_model
from fleet.cli.story.forecast import Forecast, forecast
from fleet.cli.story.narrate import TurnLines, narrate
from fleet.cli.story.run_options import RunOptions
from fleet.cli.story.story_file import read_story
from fleet.config.environment import load_settings
from fleet.events.codec import decode
from fleet.events.step import StepFinished, StepStarted
from fleet.events.story import StoryParked
from fleet.kernel.errors import GateClosed, InvalidInput, ReplyMalformed
from fleet.wiring.endpoints import load_principals
from tests.support.event_samples import samples
from tests.support.sessions import Script, SessionWorld
from tests.support.story_events import STORY, story

FIX = {"path": "text/slug.py", "old": "    raise NotImplementedError", "new": "    return title.lower()"}


@pytest.mark.parametrize("as_json", [True, False])
def test_only_the_result_is_on_standard_output_with_json(capsys: pytest.CaptureFixture[str], as_json: bool):
    output = Output(as_json=as_json)
    output.note("working ...")
    output.say("for people")
    output.result({"b": 1, "a": Path("x")})
    found = capsys.readouterr()
    assert "working ..." in found.err
    assert ("for people" in found.out) is not as_json
    if as_json:
        assert json.loads(found.out.splitlines()[-1]) == {"a": "x", "b": 1}
        assert len(found.out.splitlines()) == 1


def test_error_is_one_line_whose_markup_is_text(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        Output(as_json=True).fail(GateClosed("gate [bold]closed[/] here", state="DRAFT"))
    found = capsys.readouterr()
    assert ended.value.code == 3
    assert "gate [bold]closed[/] here" in found.err
    assert json.loads(found.out)["error"]["details"] == {"state": "DRAFT"}


def test_command_ends_with_its_code_or_that_of_its_error(capsys: pytest.CaptureFixture[str]):
    def refuse() -> int:
        raise InvalidInput("no")

    def interrupt() -> int:
        raise KeyboardInterrupt

    def cancel() -> int:
        raise asyncio.CancelledError

    for body, code in ((lambda: 3, 3), (refuse, 2), (interrupt, 4), (cancel, 4)):
        with pytest.raises(SystemExit) as ended:
            guarded(Output(as_json=False), body)
        assert ended.value.code == code
    assert "the same command continues it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        guarded(Output(as_json=False), interrupt, continued_by="`fleet resume`")
    assert "`fleet resume` continues it" in capsys.readouterr().err


def test_every_kind_of_event_can_be_told():
    event = story(until="created").events[0]
    told = {name: narrate(event, payload) for name, payload in samples().items()}
    assert told["StoryTransitioned"]
    assert told["ContextPackBuilt"] == ()
    for lines in told.values():
        for line in lines:
            assert "\n" not in Text.from_markup(line).plain.strip()


def test_whole_story_can_be_told_and_its_text_is_no_markup():
    log = story()
    lines = [line for event, payload in log.decoded for line in narrate(event, payload)]
    assert "state DRAFT -> DESIGN" in lines
    (parked,) = narrate(log.events[0], StoryParked(cause="stuck", detail="list[int] [red]no[/]"))
    assert Text.from_markup(parked).plain == "parked (stuck): list[int] [red]no[/]"


def test_turns_edits_and_commands_of_a_session_are_told():
    event, step = story().events[0], samples()["StepStarted"]
    told = [
        narrate(event, step.model_copy(update={"kind": kind, "about": about}))
        for kind, about in (("model", "turn 3 of 60"), ("tool", "edit text/slug.py"), ("run", "run pytest -q [a]"))
    ]
    who = step.model_dump()["principal"].split(":")[1]
    assert [Text.from_markup(line).plain for (line,) in told] == [
        f"  {who}, turn 3 of 60",
        f"    {who}: edit text/slug.py",
        f"    {who}: run pytest -q [a]",
    ]


async def test_turn_of_a_session_is_one_line_with_what_came_of_its_calls():
    script: Script = (
        [("edit", {**FIX, "old": "nowhere"}), ("edit", FIX), ("run", {"command": "say [b]; fail"})],
        [("read", {"path": "text/slug.py", "from": line}) for line in range(1, 7)],
        "I would like to help.",
        [("submit", {"summary": "s"})],
        [("submit", {"summary": "s"})],
    )
    world = await SessionWorld(script).begin()
    await world.deliver()
    turns, lines = TurnLines(STORY), list[str]()
    for event in await world.events():
        lines += [Text.from_markup(line).plain for line in turns.tell(decode(event)) or ()]
    refused = "edit text/slug.py: `old` is not in text/slug.py"
    assert lines[0].startswith(f"  developer-001, turn 1 of 60: {refused}")
    assert lines[0].endswith("; edit text/slug.py; run say [b]; fail: exit 1")
    assert lines[1].startswith("  developer-001, turn 2 of 60: read text/slug.py; ")
    assert lines[1].endswith("; 2 more")
    assert lines[2] == "  developer-001, turn 3 of 60: no call"
    assert lines[4] == "  developer-001, turn 5 of 60: submit"
    assert lines[5].endswith(" is over after 5 turns: submitted")
    assert len(lines) == 6


async def test_looks_that_began_in_another_order_are_told_in_that_of_the_reply():
    calls = [("search", {"pattern": "def"}), ("read", {"path": "text/fold.py"}), ("files", {})]
    script: Script = (calls, [("submit", {"summary": "s"})], [("submit", {"summary": "s"})])
    world = await SessionWorld(script).begin()
    with pytest.raises(ReplyMalformed):
        await world.deliver()
    events = [decode(event) for event in await world.events()]
    steps = [(at, p) for at, p in enumerate(events) if isinstance(p, StepStarted | StepFinished)]
    calls_of = [at for at, p in steps if "/1/call/" in p.step_id]
    starts = [events[at] for at in calls_of if isinstance(events[at], StepStarted)]
    turns, lines = TurnLines(STORY), list[str]()
    for payload in (*events[: calls_of[0]], *reversed(starts), *events[calls_of[-1] + 1 :]):
        lines += turns.tell(payload) or ()
    assert lines[0].endswith(": search def; read text/fold.py; files")


def test_goal_becomes_a_story_and_rigor_replaces_that_of_the_file(tmp_path: Path):
    assert read_story(None, "make slugs") == {"title": "make slugs", "description": "make slugs"}
    path = tmp_path / "s.yaml"
    path.write_text("title: x\nrigor: L1\n")
    assert read_story(path, None, rigor="L2") == {"title": "x", "rigor": "L2"}
    with pytest.raises(InvalidInput, match="the goal: "):
        read_story(None, "")


@pytest.mark.rule("AP-1")
def test_local_token_is_made_once_for_the_user_alone_and_stored_as_a_hash(tmp_path: Path):
    path = tmp_path / "home" / "principals.json"
    token_file = ensure_principals(path)
    token = read_token(path.parent)
    assert token_file.read_text().strip() == token
    assert token not in path.read_text()
    assert {stat.S_IMODE(f.stat().st_mode) for f in (path, token_file)} == {0o600}
    registry = load_principals(path)
    assert registry.authenticate(f"Bearer {token}") == local_principal()
    assert "po" in registry.roles_of(local_principal())
    ensure_principals(path)
    assert read_token(path.parent) == token


def test_registry_without_a_file_knows_nobody(tmp_path: Path):
    assert load_principals(tmp_path / "none.json").roles_of(local_principal()) == frozenset()


def test_recording_is_named_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_model("recorded:replies") == f"recorded:{tmp_path / 'replies'}"
    assert (absolute_model("qwen"), absolute_model(None)) == ("qwen", None)


@pytest.mark.rule("PL-54")
def test_forecast_says_who_answers_how_within_what_and_what_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLEET_HOME", str(tmp_path / "home"))
    environ = {
        "FLEET_OPENAI_BASE_URL": "https://models.example.com/v1",
        "FLEET_VLLM_BASE_URL": "http://10.0.0.7:8000/v1",
    }

    def told(model: str, repo: str = ".", limits: str = "") -> Forecast:
        asked = RunOptions(None, "Add a list", repo, model, None, None, (), "python", limits)
        return forecast(load_settings(dict(os.environ)), asked, environ)

    outside = told("openai", "https://git.example.com/a/b.git", "tokens=50000,cost_usd=1.5")
    assert outside.engine == "openai (auto, at https://models.example.com/v1)"
    assert outside.works_by == "draft: it was never probed"
    assert outside.budget == "50,000 tokens, 2.0 h of GPU, 8.0 h, 1.50 USD a story"
    assert outside.estimate == "20,000 to 60,000 tokens a story, no price is configured for it (`price` in models.yaml)"
    assert outside.leaves == (
        "story, parts of files and outputs of commands to models.example.com, outside your machines (engine openai)",
        "the repository is fetched from https://git.example.com/a/b.git, and the branch is pushed there",
    )
    assert [line.partition(" to ")[2] for line in told("vllm").leaves] == [
        "10.0.0.7, a machine of yours, as models.yaml says (engine vllm)"
    ]
    assert told("local").leaves == ("nothing leaves this machine",)
    assert told(f"recorded:{tmp_path}?strategy=session&max_context=9000&max_output=900").works_by.startswith("session")
