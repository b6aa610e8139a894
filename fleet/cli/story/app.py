"""`fleet story`: write, coach, look at and decide stories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.cli.output import Output
from fleet.cli.parameters import (
    Budget,
    Delegates,
    Model,
    NoFetch,
    Note,
    PythonEnvironment,
    Reason,
    Repository,
    StoryArg,
    StoryFile,
    command,
    roles_of,
    toolchain_of,
)

app = typer.Typer(help="Create, list, show and decide stories.", no_args_is_help=True)


@command(app, "create")
def story_create(
    output: Output,
    story_file: StoryFile,
) -> int:
    """Create a story and score its readiness."""
    from fleet.cli.story.stories import create

    return create(output, story_file)


@command(app, "start")
def story_start(
    output: Output,
    story_id: StoryArg,
    repo: Repository = ".",
    model: Model = None,
    yes: Delegates = "",
    python: PythonEnvironment = None,
    no_fetch: NoFetch = False,
    limits: Budget = "",
) -> int:
    """Start the work on a story that was created, and follow it to its end or to a gate."""
    from fleet.cli.settings import absolute_model
    from fleet.cli.story.run_options import RunOptions
    from fleet.cli.story.stories import start_story

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
        fetches=not no_fetch,
    )
    return start_story(output, story_id, options)


@command(app, "list")
def story_list(output: Output) -> int:
    """List all stories."""
    from fleet.cli.story.stories import list_all

    return list_all(output)


@command(app, "show")
def story_show(output: Output, story_id: StoryArg) -> int:
    """Show one story."""
    from fleet.cli.story.stories import show

    return show(output, story_id)


@command(app, "approve")
def story_approve(
    output: Output,
    story_id: StoryArg,
    gate: Annotated[str, typer.Argument(help="Gate or approval id.")],
    notes: Note = "",
) -> int:
    """Approve a pending gate of a story."""
    from fleet.cli.story.stories import decide

    return decide(output, story_id, gate, approve=True, text=notes)


@command(app, "reject")
def story_reject(
    output: Output,
    story_id: StoryArg,
    gate: Annotated[str, typer.Argument(help="Gate or approval id.")],
    reason: Reason = "",
    back: Annotated[
        str | None, typer.Option(help="Event that takes the story back, where several may: rollback, ...")
    ] = None,
) -> int:
    """Reject a pending gate of a story, with a reason."""
    from fleet.cli.story.stories import decide

    return decide(output, story_id, gate, approve=False, text=reason, back=back)


@command(app, "ask")
def story_ask(
    output: Output,
    story_id: StoryArg,
    gate: Annotated[str, typer.Argument(help="Gate: approve_scope, ..., or council_escalation.")],
) -> int:
    """Ask for the approval of a gate again, after nobody answered in time or somebody said no."""
    from fleet.cli.story.stories import ask_again

    return ask_again(output, story_id, gate)


@command(app, "revoke")
def story_revoke(
    output: Output,
    story_id: StoryArg,
    approval: Annotated[str, typer.Argument(help="Id of a granted approval of a tool call.", metavar="APPROVAL")],
    reason: Reason = "",
) -> int:
    """Take back a yes to a tool call before it was used."""
    from fleet.cli.story.stories import revoke

    return revoke(output, story_id, approval, reason=reason)


@command(app, "back")
def story_back(
    output: Output,
    story_id: StoryArg,
    event: Annotated[str, typer.Argument(help="reject_design, reject_build, reject_test or reject_docs.")],
    reason: Reason = "",
) -> int:
    """Take a story back to an earlier state, with a reason."""
    from fleet.cli.story.stories import send_back

    return send_back(output, story_id, event, reason=reason)


@command(app, "pause")
def story_pause(
    output: Output,
    story_id: StoryArg,
    reason: Reason = "",
) -> int:
    """Hold a story back: no step of it starts until it goes on."""
    from fleet.cli.story.stories import pause

    return pause(output, story_id, reason=reason)


@command(app, "unpause")
def story_unpause(
    output: Output,
    story_id: StoryArg,
    note: Annotated[str, typer.Option(help="Why now.")] = "",
) -> int:
    """Let a paused story go on."""
    from fleet.cli.story.stories import unpause

    return unpause(output, story_id, note=note)


@command(app, "cancel")
def story_cancel(
    output: Output,
    story_id: StoryArg,
    reason: Reason = "",
) -> int:
    """Give a story up for good: its running steps are ended, and what it recorded is kept."""
    from fleet.cli.story.stories import cancel

    return cancel(output, story_id, reason=reason)


@command(app, "checkpoints")
def story_checkpoints(output: Output, story_id: StoryArg) -> int:
    """List the trees that a story can be set back to."""
    from fleet.cli.audit.checkpoints import list_checkpoints

    return list_checkpoints(output, story_id)


@command(app, "restore")
def story_restore(
    output: Output,
    story_id: StoryArg,
    to: Annotated[str, typer.Option(help="Id of the checkpoint, or its version.", metavar="CHECKPOINT")],
    reason: Reason = "",
) -> int:
    """Set a story's tree back to a checkpoint: work that came after is open again, and stays on record."""
    from fleet.cli.audit.checkpoints import restore

    return restore(output, story_id, to=to, reason=reason)


@command(app, "waive")
def story_waive(
    output: Output,
    story_id: StoryArg,
    criterion: Annotated[
        str,
        typer.Argument(
            help="Id of a criterion, such as ac-2, or a dimension of the score: unit, static, e2e, coverage, lint.",
            metavar="WHAT",
        ),
    ],
    reason: Reason = "",
    days: Annotated[int | None, typer.Option(min=1, max=365, help="How long a dimension stays waived.")] = None,
) -> int:
    """Let a criterion pass although no test shows it, or take a dimension out of the score for a time."""
    from fleet.cli.story.stories import waive

    return waive(output, story_id, criterion, reason=reason, days=days)


@command(app, "score")
def story_score(
    output: Output,
    story_file: StoryFile,
) -> int:
    """Score how ready a story file is; nothing is recorded, and no fleet is needed."""
    from fleet.cli.story.coach import score_file

    return score_file(output, story_file)


@command(app, "refine")
def story_refine(
    output: Output,
    story_file: StoryFile,
) -> int:
    """Show what would make a story file readier; every word of it stays."""
    from fleet.cli.story.coach import refine_file

    return refine_file(output, story_file)


@command(app, "suggest")
def story_suggest(
    output: Output,
    goal: Annotated[str, typer.Argument(help="One line: what is wanted.")],
    language: Annotated[str, typer.Option(help="en, es, fr, de, pt or it.")] = "en",
) -> int:
    """Write a story from a one-line goal, with a question for what it does not say."""
    from fleet.cli.story.coach import suggest

    return suggest(output, goal, language=language)


@command(app, "resolve")
def story_resolve(
    output: Output,
    story_id: StoryArg,
    step_id: Annotated[str, typer.Argument(help="Id of the step that nobody knows the outcome of.", metavar="STEP")],
    outcome: Annotated[str, typer.Option(help="happened or not_happened; the latter lets it run again.")],
    note: Annotated[str, typer.Option(help="How you know; 10 characters or more.")] = "",
) -> int:
    """Say whether a step with an unknown outcome happened."""
    from fleet.cli.story.stories import resolve

    return resolve(output, story_id, step_id, outcome=outcome, note=note)


@command(app, "archive")
def story_archive(
    output: Output,
    story_id: StoryArg,
    proof: Annotated[Path | None, typer.Option(help="File of `fleet audit proof`, kept with the story.")] = None,
) -> int:
    """Move a closed or cancelled story out of the log, into a blob that replays and verifies."""
    from fleet.cli.audit.archive import archive_story

    return archive_story(output, story_id, proof=proof)


session = typer.Typer(help="See engineers at work, speak to them, stop or fork them.", no_args_is_help=True)
SessionArg = Annotated[str, typer.Argument(help="Id of a work session.", metavar="SESSION")]


@command(session, "list")
def session_list(output: Output, story_id: StoryArg) -> int:
    """List the work sessions of a story: turn, last command, tests, tokens, and what each waits for."""
    from fleet.cli.story.sessions import list_sessions

    return list_sessions(output, story_id)


@command(session, "show")
def session_show(
    output: Output,
    story_id: StoryArg,
    session_id: SessionArg,
    after: Annotated[int, typer.Option(help="Only turns after this one.")] = 0,
    with_diff: Annotated[bool, typer.Option("--diff/--no-diff", help="The diff after each call.")] = True,
) -> int:
    """Read a whole session like a terminal recording: turn by turn, call by call, with the diff after each."""
    from fleet.cli.story.sessions import show_session

    return show_session(output, story_id, session_id, after=after, with_diff=with_diff)


@command(session, "tell")
def session_tell(
    output: Output,
    story_id: StoryArg,
    session_id: SessionArg,
    text: Annotated[str, typer.Argument(help="What the engineer should know.")],
) -> int:
    """Tell an engineer something; it reads it once, before its next reply."""
    from fleet.cli.story.sessions import tell

    return tell(output, story_id, session_id, text)


@command(session, "stop")
def session_stop(
    output: Output,
    story_id: StoryArg,
    session_id: SessionArg,
    reason: Reason,
) -> int:
    """End a session with the files that it has: they are its submission."""
    from fleet.cli.story.sessions import stop

    return stop(output, story_id, session_id, reason=reason)


@command(session, "fork")
def session_fork(
    output: Output,
    story_id: StoryArg,
    session_id: SessionArg,
    turn: Annotated[int | None, typer.Option(help="The last turn to take over; else the last complete one.")] = None,
) -> int:
    """Begin a further session with the records of this one, as another candidate of its council."""
    from fleet.cli.story.sessions import fork

    return fork(output, story_id, session_id, turn=turn)


def init_command(
    output: Output,
    repo: Annotated[Path, typer.Option(help="Folder of the repository.")] = Path(),
    root: Annotated[str | None, typer.Option(help="Folder in it to work on, where there are several.")] = None,
) -> int:
    """Show what was found in a repository, and write .fleet/workspace.toml."""
    from fleet.cli.story.environment import show_environment

    return show_environment(output, repo=repo, root=root)
