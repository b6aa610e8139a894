"""The command line. Names, exit codes and JSON are a contract (docs/design/design.md, section 10)."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fleet import __version__
from fleet.cli.audit.app import app as audit
from fleet.cli.cluster.deploy_app import app as deploy
from fleet.cli.cluster.manifests import app as cluster
from fleet.cli.cluster.submit import submit_command
from fleet.cli.models.app import budget, council, models
from fleet.cli.output import Output
from fleet.cli.parameters import (
    Budget,
    Delegates,
    Model,
    NoFetch,
    PythonEnvironment,
    Reason,
    Repository,
    Rigor,
    StoryArg,
    command,
    roles_of,
    toolchain_of,
)
from fleet.cli.project.app import discovery, epic, project
from fleet.cli.project.ceremony_app import app as ceremony
from fleet.cli.store.app import dlq, graph, sandbox
from fleet.cli.story.app import app as story
from fleet.cli.story.app import init_command, session

_VERSION = f"fleet {__version__}"
_VARIABLE = "FLEET_OBSERVABILITY_LOG_FORM"


def write_json_logs(is_wanted: bool) -> bool:
    """Log records of this process become lines of JSON on standard error; a fleet that it starts does the same."""
    if is_wanted:
        from fleet.config.settings import ObservabilitySettings
        from fleet.telemetry.memory import NoMeter
        from fleet.wiring.telemetry import set_up_logs

        os.environ[_VARIABLE] = "json"
        set_up_logs(ObservabilitySettings(log_form="json"), "command-line", meter=NoMeter())
    return is_wanted


LogJson = Annotated[bool, typer.Option("--log-json", callback=write_json_logs, help="Write log lines as JSON.")]


GROUPS = {
    "story": story,
    "session": session,
    "project": project,
    "epic": epic,
    "discovery": discovery,
    "ceremony": ceremony,
    "cluster": cluster,
    "deploy": deploy,
    "audit": audit,
    "graph": graph,
    "dlq": dlq,
    "sandbox": sandbox,
    "models": models,
    "budget": budget,
    "council": council,
}


def add_groups(app: typer.Typer) -> None:
    """Every group is a command of the application."""
    for name, group in GROUPS.items():
        app.add_typer(group, name=name)


app = typer.Typer(
    name="fleet",
    help="An autonomous software-engineering team on your own Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
add_groups(app)
command(app, "submit")(submit_command)
command(app, "init")(init_command)


def main() -> None:
    """Entry point `fleet`."""
    # What a command imports stays; `guarded` turns the collector on again.
    gc.disable()
    # Typer would load pydantic to read this one flag.
    if sys.argv[1:] == ["--version"]:
        typer.echo(_VERSION)
    else:
        app()


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    log_json: LogJson = False,
) -> None:
    """An autonomous software-engineering team on your own Ray cluster."""
    if version:
        typer.echo(_VERSION)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


@command(app, continued_by="`fleet resume`")
def run(
    output: Output,
    what: Annotated[
        str | None, typer.Argument(help="What you want, in one sentence; or a story file.", metavar="SENTENCE|FILE")
    ] = None,
    repo: Repository = ".",
    goal: Annotated[str | None, typer.Option(help="The sentence, where it looks like a file.")] = None,
    model: Model = None,
    record: Annotated[Path | None, typer.Option(help="Keep every model reply in this folder.")] = None,
    rigor: Rigor = None,
    yes: Delegates = "",
    python: PythonEnvironment = None,
    no_fetch: NoFetch = False,
    answers: Annotated[list[str] | None, typer.Option("--answer", help="qu-1=TEXT, a question about the goal.")] = None,
    limits: Budget = "",
) -> int:
    """Run a sentence or a story to its end or to a gate; the branch fleet/<story> holds the result."""
    from fleet.cli.settings import absolute_model, settings
    from fleet.cli.story.goal import run_goal
    from fleet.cli.story.run import run_story
    from fleet.cli.story.run_options import RunOptions, options_for

    options = RunOptions(
        story=None,
        goal=goal,
        repo=repo,
        model=absolute_model(model),
        record=record,
        rigor=rigor,
        delegate=roles_of(yes),
        toolchain=toolchain_of(python),
        limits=limits,
        answers=tuple(answers or ()),
        fetches=not no_fetch,
    )

    given = options_for(what, options)
    return (run_story if given.goal is None else run_goal)(settings(), given, output)


@command(app)
def up(
    output: Output,
    detach: Annotated[bool, typer.Option("--detach", help="Return once the fleet is ready.")] = False,
) -> int:
    """Start the local fleet: Ray, embedded services, actors and the HTTP front."""
    from fleet.cli.local.lifecycle import start

    return start(output, detach=detach)


@command(app)
def down(output: Output) -> int:
    """Stop the local fleet; nothing of it is left running."""
    from fleet.cli.local.lifecycle import stop

    return stop(output)


@command(app)
def status(output: Output) -> int:
    """Show the running fleet: addresses, actors, memory by process."""
    from fleet.cli.local.lifecycle import show_status

    return show_status(output)


@command(app, "pause")
def pause_fleet(
    output: Output,
    reason: Reason = "",
) -> int:
    """Hold every story back: no step starts until `fleet unpause`; what runs may end."""
    from fleet.cli.local.fleet_pause import pause

    return pause(output, reason=reason)


@command(app, "unpause")
def unpause_fleet(output: Output, note: Annotated[str, typer.Option(help="Why now.")] = "") -> int:
    """Let a paused fleet go on."""
    from fleet.cli.local.fleet_pause import unpause

    return unpause(output, note=note)


@command(app)
def doctor(output: Output) -> int:
    """Say what is wrong on this machine, and the mend."""
    from fleet.cli.local.lifecycle import examine

    return examine(output)


@command(app)
def events(
    output: Output,
    story_id: StoryArg,
    after: Annotated[int, typer.Option(help="Only events after this version.")] = 0,
) -> int:
    """Print the event log of a story."""
    from fleet.cli.story.stories import show_events

    return show_events(output, story_id, after=after)


@command(app)
def report(
    output: Output,
    story_id: StoryArg,
    form: Annotated[str, typer.Option("--format", help="md, html or json.")] = "md",
) -> int:
    """Print the technical report of a story."""
    from fleet.cli.story.stories import show_report

    return show_report(output, story_id, form=form)


@command(app)
def replay(
    output: Output,
    story_id: Annotated[str | None, typer.Argument(help="Id of a story.", metavar="STORY")] = None,
    at: Annotated[int | None, typer.Option(help="Only this version instead of the last one.")] = None,
    every: Annotated[bool, typer.Option("--every", help="Every version, one a line.")] = False,
    archive: Annotated[Path | None, typer.Option("--from", help="An exported stream instead of the log.")] = None,
) -> int:
    """Fold and plan a recorded story again and print the digests; equal on every machine."""
    from fleet.cli.story.replay import replay_story

    return replay_story(output, story_id, at=at, every=every, archive=archive)


@command(app)
def export(
    output: Output,
    parquet: Annotated[Path, typer.Option(help="New or empty folder for the tables.", metavar="DIR")],
    story: Annotated[list[str] | None, typer.Option(help="Only this story; may be given again.", metavar="ID")] = None,
) -> int:
    """Write the trajectories of stories as Parquet: messages, tool calls, evidence, votes, outcomes, tokens."""
    from fleet.cli.audit.export import export_trajectories

    return export_trajectories(output, parquet, story or [])


@command(app)
def resume(
    output: Output,
    story_id: StoryArg,
    note: Annotated[str, typer.Option(help="Why a parked story may go on.")] = "",
) -> int:
    """Continue a story: unpark it if it is parked, and watch it to its end or the next gate."""
    from fleet.cli.story.stories import resume_story

    return resume_story(output, story_id, note=note)


@command(app, "accept-loss")
def accept_loss(
    output: Output,
    stream: Annotated[str, typer.Argument(help="Id of a story, or stream as the audit names it.", metavar="STREAM")],
    reason: Annotated[str, typer.Option(help="Why the loss is accepted; 10 characters or more.")],
) -> int:
    """Let a stream whose end was lost take events again; who accepted it is recorded and signed."""
    from fleet.cli.audit.verify import accept_loss

    return accept_loss(output, stream, reason=reason)
