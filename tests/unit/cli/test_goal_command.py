"""`fleet run --goal` without a fleet: bad input is told before anything is made or started (PL-54)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fleet.cli.app import app
from fleet.cli.output import Output
from fleet.cli.project.proposals import parse_answers, show_proposal
from fleet.cli.story.goal import prepare
from fleet.cli.story.run_options import RunOptions
from fleet.config.settings import FleetSettings
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import EntityId
from fleet.planning.coach_config import CoachConfig
from fleet.planning.discovery import discover
from fleet.planning.project_state import Discovery
from tests.support.rules import files
from tests.support.story_events import digest

Fleet = Callable[..., Result]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    environ = {"FLEET_HOME": str(tmp_path / "home"), "FLEET_CONFIG": None, "NO_COLOR": "1", "TERM": "dumb"}
    return lambda *args: CliRunner().invoke(app, list(args), env=environ)


def failed(result: Result, code: int, *, says: str) -> None:
    assert result.exit_code == code, result.output
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert says in result.stderr


@pytest.mark.rule("PL-54")
@pytest.mark.parametrize("goal", ["make something nice", "abc", "two\nlines of it"])
def test_goal_that_names_nothing_makes_no_folder(fleet: Fleet, tmp_path: Path, goal: str):
    new = tmp_path / "new"
    result = fleet("run", "--goal", goal, "--repo", str(new), "--model", f"recorded:{tmp_path}")
    assert result.exit_code == 2
    assert not new.exists()


@pytest.mark.rule("PL-54")
def test_wrong_repository_is_told_before_a_vague_goal(fleet: Fleet, tmp_path: Path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    given = ("run", "make something nice", "--repo", str(tmp_path / "notes"), "--model", f"recorded:{tmp_path}")
    failed(fleet(*given), 2, says="is not a git repository")


@pytest.mark.rule("PL-54")
@pytest.mark.parametrize(("there", "says"), [(False, "new is not there yet"), (True, "new is empty")])
def test_repository_that_is_begun_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, there: bool, says: str
):
    new = tmp_path / "new"
    if there:
        new.mkdir()
    settings = FleetSettings(home=tmp_path / "home")
    options = RunOptions(
        story=None,
        goal="Convert CSV to JSON",
        repo=str(new),
        model=None,
        record=None,
        rigor=None,
        delegate=(),
        toolchain="python",
    )
    prepare(settings, options, Output(as_json=False))
    assert (new / ".git" / "HEAD").is_file()
    assert f"{says}: a repository is begun in it" in " ".join(capsys.readouterr().err.split())


def test_answer_of_the_wrong_form_is_refused_before_anything_is_made(fleet: Fleet, tmp_path: Path):
    new = tmp_path / "new"
    given = ("run", "Convert CSV to JSON", "--repo", str(new), "--model", f"recorded:{tmp_path}")
    failed(fleet(*given, "--answer", "qu-1"), 2, says="write qu-1=TEXT")
    assert not new.exists()


@pytest.mark.rule("LC-77")
@pytest.mark.parametrize(
    ("yes", "says"),
    [
        ("council:po", "'council:po' cannot be delegated to; allowed: po, qa, council:architect"),
        ("admin", "'admin' cannot be delegated to"),
        ("council:qa,council:architect", "a run has one council at gates"),
        ("po,qa,council:architect", "council:architect is left no gate"),
    ],
)
def test_delegate_that_can_hold_no_gate_is_refused_before_anything_is_made(
    fleet: Fleet, tmp_path: Path, yes: str, says: str
):
    new = tmp_path / "new"
    given = ("run", "Convert CSV to JSON", "--repo", str(new), "--model", f"recorded:{tmp_path}")
    failed(fleet(*given, "--yes", yes), 2, says=says)
    assert not new.exists()
    here = ("submit", "--goal", "Convert CSV to JSON", "--repo", "/srv/repo")
    # Which roles councils may be of is known to the cluster alone.
    sent = fleet(*here, "--yes", yes)
    assert (sent.exit_code, says in sent.stderr) == ((2, True) if yes != "council:po" else (sent.exit_code, False))


@pytest.mark.parametrize("group", ["project", "epic", "discovery"])
def test_commands_on_projects_need_a_fleet(fleet: Fleet, group: str):
    failed(fleet(group, "list"), 5, says="fleet up")
    assert fleet(group, "--help").exit_code == 0


def test_answers_are_read_by_question():
    assert parse_answers(("qu-1= a = b ", "qu-2=c")) == {"qu-1": "a = b", "qu-2": "c"}
    for given in (("qu-1",), ("qu-1=a", "qu-1=b"), ("Q=a",)):
        with pytest.raises(InvalidInput):
            parse_answers(given)


def test_proposal_is_shown_with_stories_and_open_questions(capsys: pytest.CaptureFixture[str]):
    coach = files().load("coach.yaml", CoachConfig)
    proposal = discover("A [bold] shop with a cart and a search", language="en", is_empty=True, config=coach)
    found = Discovery(
        EntityId("di-one1"),
        proposal.goal,
        "en",
        True,
        None,
        "user:ana",
        0,
        digest("proposal"),
        status="proposed",
        note="no model is configured",
    )
    show_proposal(Output(as_json=False), found, proposal)
    told = capsys.readouterr()
    assert "A [bold] shop with a cart and a search" in told.out
    assert "3. As a <user>, I want a cart so that <value> (after 1, 2)" in told.out
    assert "? qu-1 (story 2): Who wants this?" in told.out
    assert "no model is configured" in told.err
