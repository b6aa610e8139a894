"""A work session on the journal: killed at any append it goes on to the same files and pays for nothing twice."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from fleet.engineering.commands import format_call, formatters_of, lint_call, linters_of
from fleet.events.codec import decode
from fleet.events.step import StepFinished, StepStarted, StuckDetected
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import ReplyMalformed, SandboxUnavailable
from fleet.owner.engineering.seats import terms_of
from fleet.owner.journal.steps import Computed, Seat, Work
from fleet.sandbox.memory import Program, ProgramEnd, ProgramStart
from tests.support.acting import COUNCIL, Crash, MortalLog
from tests.support.sessions import FILES, Script, SessionWorld, shell, told

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
DONE: Script = ([("submit", {"summary": "slugify is there"})],) * 2


UNFORMATTED = "def slugify(title):\n    return title.lower( )\n"
RUFF = b"[project]\nname = 'text'\n\n[tool.ruff]\nline-length = 100\n"


def formatting(installed: bool) -> Program:
    """A shell in which a formatter may be installed, and says what it would change."""

    def program(start: ProgramStart) -> ProgramEnd:
        if start.argv[0] == "bash" and "ruff format" in start.argv[2]:
            return ProgramEnd(exit_code=1, stdout=b"-    return title.lower( )\n") if installed else ProgramEnd()
        if start.argv[0] == "bash" and "ruff check" in start.argv[2]:
            said = b"text/slug.py:2:25: E202 Whitespace before ')'\n"
            return ProgramEnd(exit_code=1, stdout=said) if installed else ProgramEnd()
        return shell(start)

    return program


async def test_engineer_reads_edits_runs_and_submits_and_each_step_is_on_record():
    world = await SessionWorld(SCRIPT).begin()
    found = await world.deliver()
    files = await world.candidate(found)
    assert files["text/slug.py"] == "def slugify(title):\n    return title.lower()\n"
    assert files["docs/slug.md"] == "# Slugs\n"
    assert "notes.txt" not in files
    state = (await world.journal()).state
    named = [name.removeprefix(f"{SEAT}/") for name in state.steps if name.startswith(SEAT)]
    assert [*named[:2], *sorted(named[2:5]), named[5]] == ["begin", "1", "1/call/1", "1/call/2", "1/call/3", "2"]
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
    # With formatter and linter to be asked, so that they are steps among those at which the owner dies.
    given = {**FILES, "pyproject.toml": RUFF}
    plain = await SessionWorld(SCRIPT, program=formatting(True)).begin(given)
    expected = await plain.deliver()
    assert isinstance(plain.log, MortalLog)
    steps = (await plain.journal()).state.steps
    assert all(any(name.endswith(asked) for name in steps) for asked in ("/format", "/lint"))
    appends, commands = plain.log.count, len(plain.backend.runs)
    requests = [request.turns for request in plain.agents.requests]
    for at in range(1, appends + 1):
        world = await SessionWorld(SCRIPT, MortalLog(at=at, stored=stored), program=formatting(True)).begin(given)
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


@pytest.mark.rule("RC-36", "RC-55")
async def test_looks_of_one_reply_are_made_at_once_and_told_in_their_order():
    patterns = ("def ", "TABLE", "import")
    script: Script = ([("search", {"pattern": pattern}) for pattern in patterns], "done", "done", "done")
    world = await SessionWorld(script).begin()
    with pytest.raises(ReplyMalformed):
        await world.deliver()
    searches = [p for p in map(decode, await world.events()) if isinstance(p, StepStarted | StepFinished)]
    searches = [p for p in searches if "/1/call/" in p.step_id]
    # Every one was under way before the first had ended, and each has its start and its end.
    assert [type(p) for p in searches] == [StepStarted] * 3 + [StepFinished] * 3
    assert len({p.step_id for p in searches}) == 3
    found = ("text/slug.py:1:def slugify", "text/fold.py:1:TABLE", "tests/test_slug.py:1:from text.slug import")
    assert all(hit in text for hit, text in zip(found, told(world)[:3], strict=True))


@pytest.mark.rule("RC-36", "RC-55")
async def test_look_that_fails_at_once_with_others_is_made_again_alone():
    down = {"is": True}

    def program(start: ProgramStart) -> ProgramEnd:
        if down["is"] and "TABLE" in start.argv:
            raise SandboxUnavailable("no room", missing="disk")
        return shell(start)

    script: Script = ([("search", {"pattern": p}) for p in ("def ", "TABLE", "import")], [("edit", FIX)], *DONE)
    world = await SessionWorld(script, program=program).begin()
    with pytest.raises(SandboxUnavailable):
        await world.deliver()
    made = len(world.backend.runs)
    down["is"] = False
    files = await world.candidate(await world.deliver())
    assert "return title.lower()" in files["text/slug.py"]
    searched = [argv for argv in (run.argv for run in world.backend.runs[made:]) if argv[0] == "grep"]
    assert [argv[argv.index("-e") + 1] for argv in searched] == ["TABLE"]


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


@pytest.mark.rule("MB-43")
@pytest.mark.parametrize("installed", [True, False])
async def test_first_submission_is_told_once_what_formatter_and_linter_of_the_repository_say(installed: bool):
    write = {**FIX, "new": "    return title.lower( )"}
    script: Script = ([("edit", write)], *([("submit", {"summary": "done"})],) * 2)
    world = await SessionWorld(script, program=formatting(installed)).begin({**FILES, "pyproject.toml": RUFF})
    found = await world.deliver()
    assert (await world.candidate(found))["text/slug.py"] == UNFORMATTED
    shown = "\n".join(told(world))
    assert shown.count("The repository's own formatter would change this; it is no failure: exit 1") == int(installed)
    assert ("-    return title.lower( )" in shown) == installed
    assert shown.count("linters say this of the files you changed, also of old lines; it is no failure") == int(
        installed
    )
    assert ("E202 Whitespace before ')'" in shown) == installed
    assert {f"{SEAT}/2/call/1/format", f"{SEAT}/2/call/1/lint"} <= set((await world.journal()).state.steps)
    # Its review is the tests' too, and the second submission ends the work.
    assert "The tests had not run since your last change; they ran now" in shown


async def test_session_that_began_before_formatters_and_linters_were_asked_is_reviewed_as_it_was():
    script: Script = ([("edit", FIX)], *([("submit", {"summary": "done"})],) * 2)
    world = await SessionWorld(script, program=formatting(True)).begin({**FILES, "pyproject.toml": RUFF})
    bench = await world.bench()
    member = bench.state.councils[COUNCIL].opened.roster[0]
    before = terms_of(bench, member).model_dump(mode="json", exclude={"is_formatted", "is_linted"})

    async def begun() -> Computed:
        return Computed({"terms": before, "base": bench.state.councils[COUNCIL].opened.subject_digest})

    base = bench.state.councils[COUNCIL].opened.subject_digest
    work = Work(seat=Seat(member.principal, member.role), tool="files", op="list", council_id=COUNCIL)
    await bench.journal.compute(f"{SEAT}/begin", digest_of_json({"base": base}), work, begun)
    await world.deliver()
    assert "repository's own" not in "\n".join(told(world))
    assert not {f"{SEAT}/2/call/1/format", f"{SEAT}/2/call/1/lint"} & set((await world.journal()).state.steps)


@pytest.mark.parametrize(
    ("paths", "pyproject", "formatters"),
    [
        (("a.py",), "[tool.pytest]\n", ()),
        (("ruff.toml",), "", ("ruff",)),
        (("pyproject.toml",), "[tool.ruff.lint]\n[tool.black]\n", ("black",)),
        (("go.mod", "Cargo.toml", ".prettierrc.json"), "", ("gofmt", "prettier", "rustfmt")),
    ],
)
def test_formatters_are_those_that_the_repository_configures(
    paths: tuple[str, ...], pyproject: str, formatters: tuple[str, ...]
):
    assert formatters_of(paths, pyproject) == formatters


@pytest.mark.parametrize(
    ("paths", "pyproject", "linters"),
    [
        (("a.py", "lib/ruff.toml"), "[tool.black]\n", ()),
        (("a.py",), "[tool.ruff]\n", ("ruff",)),
        ((".ruff.toml", "eslint.config.mjs"), "[tool.black]\n", ("eslint", "ruff")),
        ((".eslintrc.json",), "", ("eslint",)),
    ],
)
def test_linters_are_those_that_the_repository_configures(
    paths: tuple[str, ...], pyproject: str, linters: tuple[str, ...]
):
    assert linters_of(paths, pyproject) == linters


@pytest.mark.parametrize(("text", "code"), [("import os\n", 1), ("x = 1\n", 0)])
def test_real_linter_says_what_is_wrong_with_changed_files_and_changes_nothing(tmp_path: Path, text: str, code: int):
    path = tmp_path / "it's a.py"
    path.write_text(text)
    (tmp_path / "b.py").write_text("import sys\n")
    call = lint_call(("ruff", "eslint"), ["it's a.py", "README.md"])
    assert call is not None
    tools = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", call.text("command")], cwd=tmp_path, env=tools, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert ("it's a.py:1:8: F401" in done.stdout) == bool(code)
    assert "b.py" not in done.stdout
    assert sorted(one.name for one in tmp_path.iterdir()) == ["b.py", "it's a.py"]
    assert path.read_text() == text


def test_formatter_is_asked_of_changed_files_of_its_kind_alone():
    assert format_call(("gofmt", "ruff"), ["README.md"]) is None
    assert format_call((), ["a.py"]) is None
    assert lint_call(("ruff", "eslint"), ["README.md"]) is None


@pytest.mark.parametrize(("text", "code"), [("x = {  'a':1 }\n", 1), ('x = {"a": 1}\n', 0)])
def test_real_formatter_says_what_it_would_change_and_changes_nothing(tmp_path: Path, text: str, code: int):
    path = tmp_path / "it's a.py"
    path.write_text(text)
    call = format_call(("ruff", "black", "gofmt"), ["it's a.py"])
    assert call is not None
    tools = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", call.text("command")], cwd=tmp_path, env=tools, capture_output=True, text=True, check=False
    )
    assert (done.returncode, bool(done.stdout)) == (code, bool(code))
    assert ("+x = " in done.stdout) == bool(code)
    assert [one.name for one in tmp_path.iterdir()] == ["it's a.py"]
    assert path.read_text() == text
