"""`fleet story`: write, coach, look at and decide stories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.cli.output import Output, guarded
from fleet.cli.parameters import (
    AsJson,
    Budget,
    Delegates,
    Model,
    PythonEnvironment,
    Repository,
    StoryArg,
    roles_of,
    toolchain_of,
)

app = typer.Typer(help="Create, list, show and decide stories.", no_args_is_help=True)


@app.command("create")
def story_create(
    story_file: Annotated[Path, typer.Argument(help="Story as YAML.", metavar="STORY.yaml")], as_json: AsJson = False
) -> None:
    """Create a story and score its readiness."""
    from fleet.cli.story.stories import create

    output = Output(as_json=as_json)
    guarded(output, lambda: create(output, story_file))


@app.command("start")
def story_start(
    story_id: StoryArg,
    repo: Repository = ".",
    model: Model = None,
    yes: Delegates = "",
    python: PythonEnvironment = None,
    limits: Budget = "",
    as_json: AsJson = False,
) -> None:
    """Start the work on a story that was created, and follow it to its end or to a gate."""
    from fleet.cli.settings import absolute_model
    from fleet.cli.story.run_options import RunOptions
    from fleet.cli.story.stories import start_story

    output = Output(as_json=as_json)
    options = RunOptions(
        story=None,
        goal=None,
        repo=repo,
        model=absolute_model(model),
        record=None,
        rigor=None,
        delegate=roles_of(yes),
        toolchain=toolchain_of(python),
        limits=limits,
    )
    guarded(output, lambda: start_story(output, story_id, options))


@app.command("list")
def story_list(as_json: AsJson = False) -> None:
    """List all stories."""
    from fleet.cli.story.stories import list_all

    output = Output(as_json=as_json)
    guarded(output, lambda: list_all(output))


@app.command("show")
def story_show(story_id: StoryArg, as_json: AsJson = False) -> None:
    """Show one story."""
    from fleet.cli.story.stories import show

    output = Output(as_json=as_json)
    guarded(output, lambda: show(output, story_id))


@app.command("approve")
def story_approve(
    story_id: StoryArg,
    gate: Annotated[str, typer.Argument(help="Gate or approval id.")],
    notes: Annotated[str, typer.Option(help="Why.")] = "",
    as_json: AsJson = False,
) -> None:
    """Approve a pending gate of a story."""
    from fleet.cli.story.stories import decide

    output = Output(as_json=as_json)
    guarded(output, lambda: decide(output, story_id, gate, approve=True, text=notes))


@app.command("reject")
def story_reject(
    story_id: StoryArg,
    gate: Annotated[str, typer.Argument(help="Gate or approval id.")],
    reason: Annotated[str, typer.Option(help="Why; 10 characters or more.")] = "",
    back: Annotated[
        str | None, typer.Option(help="Event that takes the story back at once: reject_design, ...")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Reject a pending gate of a story, with a reason."""
    from fleet.cli.story.stories import decide

    output = Output(as_json=as_json)
    guarded(output, lambda: decide(output, story_id, gate, approve=False, text=reason, back=back))


@app.command("ask")
def story_ask(
    story_id: StoryArg,
    gate: Annotated[str, typer.Argument(help="Gate: approve_scope, ..., or council_escalation.")],
    as_json: AsJson = False,
) -> None:
    """Ask for the approval of a gate again, after nobody answered in time or somebody said no."""
    from fleet.cli.story.stories import ask_again

    output = Output(as_json=as_json)
    guarded(output, lambda: ask_again(output, story_id, gate))


@app.command("revoke")
def story_revoke(
    story_id: StoryArg,
    approval: Annotated[str, typer.Argument(help="Id of a granted approval of a tool call.", metavar="APPROVAL")],
    reason: Annotated[str, typer.Option(help="Why; 10 characters or more.")] = "",
    as_json: AsJson = False,
) -> None:
    """Take back a yes to a tool call before it was used."""
    from fleet.cli.story.stories import revoke

    output = Output(as_json=as_json)
    guarded(output, lambda: revoke(output, story_id, approval, reason=reason))


@app.command("back")
def story_back(
    story_id: StoryArg,
    event: Annotated[str, typer.Argument(help="reject_design, reject_build, reject_test or reject_docs.")],
    reason: Annotated[str, typer.Option(help="Why; 10 characters or more.")] = "",
    as_json: AsJson = False,
) -> None:
    """Take a story back to an earlier state, with a reason."""
    from fleet.cli.story.stories import send_back

    output = Output(as_json=as_json)
    guarded(output, lambda: send_back(output, story_id, event, reason=reason))


@app.command("pause")
def story_pause(
    story_id: StoryArg,
    reason: Annotated[str, typer.Option(help="Why; 10 characters or more.")] = "",
    as_json: AsJson = False,
) -> None:
    """Hold a story back: no step of it starts until it goes on."""
    from fleet.cli.story.stories import pause

    output = Output(as_json=as_json)
    guarded(output, lambda: pause(output, story_id, reason=reason))


@app.command("unpause")
def story_unpause(
    story_id: StoryArg, note: Annotated[str, typer.Option(help="Why now.")] = "", as_json: AsJson = False
) -> None:
    """Let a paused story go on."""
    from fleet.cli.story.stories import unpause

    output = Output(as_json=as_json)
    guarded(output, lambda: unpause(output, story_id, note=note))


@app.command("cancel")
def story_cancel(
    story_id: StoryArg,
    reason: Annotated[str, typer.Option(help="Why; 10 characters or more.")] = "",
    as_json: AsJson = False,
) -> None:
    """Give a story up for good: its running steps are ended, and what it recorded is kept."""
    from fleet.cli.story.stories import cancel

    output = Output(as_json=as_json)
    guarded(output, lambda: cancel(output, story_id, reason=reason))


@app.command("checkpoints")
def story_checkpoints(story_id: StoryArg, as_json: AsJson = False) -> None:
    """List the trees that a story can be set back to."""
    from fleet.cli.audit.checkpoints import list_checkpoints

    output = Output(as_json=as_json)
    guarded(output, lambda: list_checkpoints(output, story_id))


@app.command("restore")
def story_restore(
    story_id: StoryArg,
    to: Annotated[str, typer.Option(help="Id of the checkpoint, or its version.", metavar="CHECKPOINT")],
    reason: Annotated[str, typer.Option(help="Why; 10 characters or more.")] = "",
    as_json: AsJson = False,
) -> None:
    """Set a story's tree back to a checkpoint: work that came after is open again, and stays on record."""
    from fleet.cli.audit.checkpoints import restore

    output = Output(as_json=as_json)
    guarded(output, lambda: restore(output, story_id, to=to, reason=reason))


@app.command("score")
def story_score(
    story_file: Annotated[Path, typer.Argument(help="Story as YAML.", metavar="STORY.yaml")], as_json: AsJson = False
) -> None:
    """Score how ready a story file is; nothing is recorded, and no fleet is needed."""
    from fleet.cli.story.coach import score_file

    output = Output(as_json=as_json)
    guarded(output, lambda: score_file(output, story_file))


@app.command("refine")
def story_refine(
    story_file: Annotated[Path, typer.Argument(help="Story as YAML.", metavar="STORY.yaml")], as_json: AsJson = False
) -> None:
    """Show what would make a story file readier; every word of it stays."""
    from fleet.cli.story.coach import refine_file

    output = Output(as_json=as_json)
    guarded(output, lambda: refine_file(output, story_file))


@app.command("suggest")
def story_suggest(
    goal: Annotated[str, typer.Argument(help="One line: what is wanted.")],
    language: Annotated[str, typer.Option(help="en, es, fr, de, pt or it.")] = "en",
    as_json: AsJson = False,
) -> None:
    """Write a story from a one-line goal, with a question for what it does not say."""
    from fleet.cli.story.coach import suggest

    output = Output(as_json=as_json)
    guarded(output, lambda: suggest(output, goal, language=language))


@app.command("resolve")
def story_resolve(
    story_id: StoryArg,
    step_id: Annotated[str, typer.Argument(help="Id of the step that nobody knows the outcome of.", metavar="STEP")],
    outcome: Annotated[str, typer.Option(help="happened or not_happened; the latter lets it run again.")],
    note: Annotated[str, typer.Option(help="How you know; 10 characters or more.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say whether a step with an unknown outcome happened."""
    from fleet.cli.story.stories import resolve

    output = Output(as_json=as_json)
    guarded(output, lambda: resolve(output, story_id, step_id, outcome=outcome, note=note))


@app.command("archive")
def story_archive(
    story_id: StoryArg,
    proof: Annotated[Path | None, typer.Option(help="File of `fleet audit proof`, kept with the story.")] = None,
    as_json: AsJson = False,
) -> None:
    """Move a closed or cancelled story out of the log, into a blob that replays and verifies."""
    from fleet.cli.audit.archive import archive_story

    output = Output(as_json=as_json)
    guarded(output, lambda: archive_story(output, story_id, proof=proof))


session = typer.Typer(help="See engineers at work, speak to them, stop or fork them.", no_args_is_help=True)
SessionArg = Annotated[str, typer.Argument(help="Id of a work session.", metavar="SESSION")]


@session.command("list")
def session_list(story_id: StoryArg, as_json: AsJson = False) -> None:
    """List the work sessions of a story: turn, last command, tests, tokens, and what each waits for."""
    from fleet.cli.story.sessions import list_sessions

    output = Output(as_json=as_json)
    guarded(output, lambda: list_sessions(output, story_id))


@session.command("show")
def session_show(
    story_id: StoryArg,
    session_id: SessionArg,
    after: Annotated[int, typer.Option(help="Only turns after this one.")] = 0,
    with_diff: Annotated[bool, typer.Option("--diff/--no-diff", help="The diff after each call.")] = True,
    as_json: AsJson = False,
) -> None:
    """Read a whole session like a terminal recording: turn by turn, call by call, with the diff after each."""
    from fleet.cli.story.sessions import show_session

    output = Output(as_json=as_json)
    guarded(output, lambda: show_session(output, story_id, session_id, after=after, with_diff=with_diff))


@session.command("tell")
def session_tell(
    story_id: StoryArg,
    session_id: SessionArg,
    text: Annotated[str, typer.Argument(help="What the engineer should know.")],
    as_json: AsJson = False,
) -> None:
    """Tell an engineer something; it reads it once, before its next reply."""
    from fleet.cli.story.sessions import tell

    output = Output(as_json=as_json)
    guarded(output, lambda: tell(output, story_id, session_id, text))


@session.command("stop")
def session_stop(
    story_id: StoryArg,
    session_id: SessionArg,
    reason: Annotated[str, typer.Option(help="Why; 10 characters or more.")],
    as_json: AsJson = False,
) -> None:
    """End a session with the files that it has: they are its submission."""
    from fleet.cli.story.sessions import stop

    output = Output(as_json=as_json)
    guarded(output, lambda: stop(output, story_id, session_id, reason=reason))


@session.command("fork")
def session_fork(
    story_id: StoryArg,
    session_id: SessionArg,
    turn: Annotated[int | None, typer.Option(help="The last turn to take over; else the last complete one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Begin a further session with the records of this one, as another candidate of its council."""
    from fleet.cli.story.sessions import fork

    output = Output(as_json=as_json)
    guarded(output, lambda: fork(output, story_id, session_id, turn=turn))
