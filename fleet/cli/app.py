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
from fleet.cli.project.app import discovery, epic, project
from fleet.cli.project.ceremony_app import app as ceremony
from fleet.cli.store.app import dlq, graph, sandbox
from fleet.cli.story.app import app as story
from fleet.cli.story.app import session

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
app.command("submit")(submit_command)


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


@app.command()
def run(
    story_file: Annotated[Path | None, typer.Argument(help="Story as YAML.", metavar="STORY.yaml")] = None,
    repo: Repository = ".",
    goal: Annotated[str | None, typer.Option(help="One line instead of a story file.")] = None,
    model: Model = None,
    record: Annotated[Path | None, typer.Option(help="Keep every model reply in this folder.")] = None,
    rigor: Annotated[str | None, typer.Option(help="L0 to L3; replaces that of the file.")] = None,
    yes: Delegates = "",
    python: PythonEnvironment = None,
    answers: Annotated[list[str] | None, typer.Option("--answer", help="qu-1=TEXT, a question about the goal.")] = None,
    limits: Budget = "",
    as_json: AsJson = False,
) -> None:
    """Run one story to its end or to a gate; the branch fleet/<story> holds the result."""
    from fleet.cli.settings import absolute_model, settings
    from fleet.cli.story.goal import run_goal
    from fleet.cli.story.run import run_story
    from fleet.cli.story.run_options import RunOptions

    output = Output(as_json=as_json)
    options = RunOptions(
        story=story_file,
        goal=goal,
        repo=repo,
        model=absolute_model(model),
        record=record,
        rigor=rigor,
        delegate=roles_of(yes),
        toolchain=toolchain_of(python),
        limits=limits,
        answers=tuple(answers or ()),
    )
    begin = run_story if goal is None else run_goal
    guarded(output, lambda: begin(settings(), options, output), continued_by="`fleet resume`")


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", help="Return once the fleet is ready.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start the local fleet: Ray, embedded services, actors and the HTTP front."""
    from fleet.cli.local.lifecycle import start

    output = Output(as_json=as_json)
    guarded(output, lambda: start(output, detach=detach))


@app.command()
def down(as_json: AsJson = False) -> None:
    """Stop the local fleet; nothing of it is left running."""
    from fleet.cli.local.lifecycle import stop

    output = Output(as_json=as_json)
    guarded(output, lambda: stop(output))


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show the running fleet: addresses, actors, memory by process."""
    from fleet.cli.local.lifecycle import show_status

    output = Output(as_json=as_json)
    guarded(output, lambda: show_status(output))


@app.command("pause")
def pause_fleet(
    reason: Annotated[str, typer.Option(help="Why; 10 characters or more.")] = "", as_json: AsJson = False
) -> None:
    """Hold every story back: no step starts until `fleet unpause`; what runs may end."""
    from fleet.cli.local.fleet_pause import pause

    output = Output(as_json=as_json)
    guarded(output, lambda: pause(output, reason=reason))


@app.command("unpause")
def unpause_fleet(note: Annotated[str, typer.Option(help="Why now.")] = "", as_json: AsJson = False) -> None:
    """Let a paused fleet go on."""
    from fleet.cli.local.fleet_pause import unpause

    output = Output(as_json=as_json)
    guarded(output, lambda: unpause(output, note=note))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what is wrong on this machine, and the mend."""
    from fleet.cli.local.lifecycle import examine

    output = Output(as_json=as_json)
    guarded(output, lambda: examine(output))


@app.command()
def events(
    story_id: StoryArg,
    after: Annotated[int, typer.Option(help="Only events after this version.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Print the event log of a story."""
    from fleet.cli.story.stories import show_events

    output = Output(as_json=as_json)
    guarded(output, lambda: show_events(output, story_id, after=after))


@app.command()
def report(
    story_id: StoryArg,
    form: Annotated[str, typer.Option("--format", help="md, html or json.")] = "md",
    as_json: AsJson = False,
) -> None:
    """Print the technical report of a story."""
    from fleet.cli.story.stories import show_report

    output = Output(as_json=as_json)
    guarded(output, lambda: show_report(output, story_id, form=form))


@app.command()
def replay(
    story_id: Annotated[str | None, typer.Argument(help="Id of a story.", metavar="STORY")] = None,
    at: Annotated[int | None, typer.Option(help="Only this version instead of the last one.")] = None,
    every: Annotated[bool, typer.Option("--every", help="Every version, one a line.")] = False,
    archive: Annotated[Path | None, typer.Option("--from", help="An exported stream instead of the log.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fold and plan a recorded story again and print the digests; equal on every machine."""
    from fleet.cli.story.replay import replay_story

    output = Output(as_json=as_json)
    guarded(output, lambda: replay_story(output, story_id, at=at, every=every, archive=archive))


@app.command()
def export(
    parquet: Annotated[Path, typer.Option(help="New or empty folder for the tables.", metavar="DIR")],
    story: Annotated[list[str] | None, typer.Option(help="Only this story; may be given again.", metavar="ID")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the trajectories of stories as Parquet: messages, tool calls, evidence, votes, outcomes, tokens."""
    from fleet.cli.audit.export import export_trajectories

    output = Output(as_json=as_json)
    guarded(output, lambda: export_trajectories(output, parquet, story or []))


@app.command()
def resume(
    story_id: StoryArg,
    note: Annotated[str, typer.Option(help="Why a parked story may go on.")] = "",
    as_json: AsJson = False,
) -> None:
    """Continue a story: unpark it if it is parked, and watch it to its end or the next gate."""
    from fleet.cli.story.stories import resume_story

    output = Output(as_json=as_json)
    guarded(output, lambda: resume_story(output, story_id, note=note))


@app.command("accept-loss")
def accept_loss(
    stream: Annotated[str, typer.Argument(help="Id of a story, or stream as the audit names it.", metavar="STREAM")],
    reason: Annotated[str, typer.Option(help="Why the loss is accepted; 10 characters or more.")],
    as_json: AsJson = False,
) -> None:
    """Let a stream whose end was lost take events again; who accepted it is recorded and signed."""
    from fleet.cli.audit.verify import accept_loss

    output = Output(as_json=as_json)
    guarded(output, lambda: accept_loss(output, stream, reason=reason))
