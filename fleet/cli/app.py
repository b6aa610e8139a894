"""The command line. Names, exit codes and JSON are a contract (DESIGN.md 10)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet import __version__
from fleet.cli.output import Output, guarded

__all__ = ["app", "main"]

app = typer.Typer(
    name="fleet",
    help="An autonomous software-engineering team on your own Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
story = typer.Typer(help="Create, list, show and decide stories.", no_args_is_help=True)
app.add_typer(story, name="story")
audit = typer.Typer(help="Check what was recorded, and prove it to others.", no_args_is_help=True)
app.add_typer(audit, name="audit")
graph = typer.Typer(help="The decision graph: how far it is, and its rebuild.", no_args_is_help=True)
app.add_typer(graph, name="graph")
dlq = typer.Typer(help="Work that failed each time it was tried, and was set aside.", no_args_is_help=True)
app.add_typer(dlq, name="dlq")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
StoryArg = Annotated[str, typer.Argument(help="Id of a story.", metavar="STORY")]


def main() -> None:
    """Entry point `fleet`."""
    app()


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """An autonomous software-engineering team on your own Ray cluster."""
    if version:
        typer.echo(f"fleet {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


@app.command()
def run(
    story_file: Annotated[Path | None, typer.Argument(help="Story as YAML.", metavar="STORY.yaml")] = None,
    repo: Annotated[Path, typer.Option(help="Local git repository to work on.")] = Path(),
    goal: Annotated[str | None, typer.Option(help="One line instead of a story file.")] = None,
    model: Annotated[str | None, typer.Option(help="Model profile, or recorded:DIR.")] = None,
    record: Annotated[Path | None, typer.Option(help="Keep every model reply in this folder.")] = None,
    rigor: Annotated[str | None, typer.Option(help="L0 to L3; replaces that of the file.")] = None,
    yes: Annotated[str, typer.Option("--yes", help="Roles whose gates agents may decide: po,qa.")] = "",
    python: Annotated[Path | None, typer.Option(help="Python environment of the repository.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run one story to its end or to a gate; the branch fleet/<story> holds the result."""
    from fleet.cli.run import RunOptions, run_story
    from fleet.cli.settings import absolute_model, settings

    output = Output(as_json=as_json)
    options = RunOptions(
        story=story_file,
        goal=goal,
        repo=repo,
        model=absolute_model(model),
        record=record,
        rigor=rigor,
        delegate=tuple(r.strip() for r in yes.split(",") if r.strip()),
        toolchain=f"env:{python.absolute()}" if python else "python",
    )
    guarded(output, lambda: run_story(settings(), options, output))


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", help="Return once the fleet is ready.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start the local fleet: Ray, embedded services, actors and the HTTP front."""
    from fleet.cli.lifecycle import start

    output = Output(as_json=as_json)
    guarded(output, lambda: start(output, detach=detach))


@app.command()
def down(as_json: AsJson = False) -> None:
    """Stop the local fleet; nothing of it is left running."""
    from fleet.cli.lifecycle import stop

    output = Output(as_json=as_json)
    guarded(output, lambda: stop(output))


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show the running fleet: addresses, actors, memory by process."""
    from fleet.cli.lifecycle import show_status

    output = Output(as_json=as_json)
    guarded(output, lambda: show_status(output))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what is wrong on this machine, and the mend."""
    from fleet.cli.lifecycle import examine

    output = Output(as_json=as_json)
    guarded(output, lambda: examine(output))


@app.command()
def events(
    story_id: StoryArg,
    after: Annotated[int, typer.Option(help="Only events after this version.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Print the event log of a story."""
    from fleet.cli.stories import show_events

    output = Output(as_json=as_json)
    guarded(output, lambda: show_events(output, story_id, after=after))


@app.command()
def report(
    story_id: StoryArg,
    form: Annotated[str, typer.Option("--format", help="md, html or json.")] = "md",
    as_json: AsJson = False,
) -> None:
    """Print the technical report of a story."""
    from fleet.cli.stories import show_report

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
    from fleet.cli.replay import replay_story

    output = Output(as_json=as_json)
    guarded(output, lambda: replay_story(output, story_id, at=at, every=every, archive=archive))


@app.command()
def resume(
    story_id: StoryArg,
    note: Annotated[str, typer.Option(help="Why a parked story may go on.")] = "",
    as_json: AsJson = False,
) -> None:
    """Continue a story: unpark it if it is parked, and watch it to its end or the next gate."""
    from fleet.cli.stories import resume_story

    output = Output(as_json=as_json)
    guarded(output, lambda: resume_story(output, story_id, note=note))


@story.command("create")
def story_create(
    story_file: Annotated[Path, typer.Argument(help="Story as YAML.", metavar="STORY.yaml")], as_json: AsJson = False
) -> None:
    """Create a story and score its readiness."""
    from fleet.cli.stories import create

    output = Output(as_json=as_json)
    guarded(output, lambda: create(output, story_file))


@story.command("list")
def story_list(as_json: AsJson = False) -> None:
    """List all stories."""
    from fleet.cli.stories import list_all

    output = Output(as_json=as_json)
    guarded(output, lambda: list_all(output))


@story.command("show")
def story_show(story_id: StoryArg, as_json: AsJson = False) -> None:
    """Show one story."""
    from fleet.cli.stories import show

    output = Output(as_json=as_json)
    guarded(output, lambda: show(output, story_id))


@story.command("approve")
def story_approve(
    story_id: StoryArg,
    gate: Annotated[str, typer.Argument(help="Gate or approval id.")],
    notes: Annotated[str, typer.Option(help="Why.")] = "",
    as_json: AsJson = False,
) -> None:
    """Approve a pending gate of a story."""
    from fleet.cli.stories import decide

    output = Output(as_json=as_json)
    guarded(output, lambda: decide(output, story_id, gate, approve=True, text=notes))


@story.command("reject")
def story_reject(
    story_id: StoryArg,
    gate: Annotated[str, typer.Argument(help="Gate or approval id.")],
    reason: Annotated[str, typer.Option(help="Why; 10 characters or more.")] = "",
    as_json: AsJson = False,
) -> None:
    """Reject a pending gate of a story, with a reason."""
    from fleet.cli.stories import decide

    output = Output(as_json=as_json)
    guarded(output, lambda: decide(output, story_id, gate, approve=False, text=reason))


@story.command("resolve")
def story_resolve(
    story_id: StoryArg,
    step_id: Annotated[str, typer.Argument(help="Id of the step that nobody knows the outcome of.", metavar="STEP")],
    outcome: Annotated[str, typer.Option(help="happened or not_happened; the latter lets it run again.")],
    note: Annotated[str, typer.Option(help="How you know; 10 characters or more.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say whether a step with an unknown outcome happened."""
    from fleet.cli.stories import resolve

    output = Output(as_json=as_json)
    guarded(output, lambda: resolve(output, story_id, step_id, outcome=outcome, note=note))


@story.command("archive")
def story_archive(
    story_id: StoryArg,
    proof: Annotated[Path | None, typer.Option(help="File of `fleet audit proof`, kept with the story.")] = None,
    as_json: AsJson = False,
) -> None:
    """Move a closed or cancelled story out of the log, into a blob that replays and verifies."""
    from fleet.cli.archive import archive_story

    output = Output(as_json=as_json)
    guarded(output, lambda: archive_story(output, story_id, proof=proof))


@graph.command("status")
def graph_status(as_json: AsJson = False) -> None:
    """Show how far the decision graph is, and the streams that are set aside."""
    from fleet.cli.graph import show_graph

    output = Output(as_json=as_json)
    guarded(output, lambda: show_graph(output))


@graph.command("rebuild")
def graph_rebuild(as_json: AsJson = False) -> None:
    """Build the decision graph anew from the log, beside the old one, and switch to it."""
    from fleet.cli.graph import rebuild_graph

    output = Output(as_json=as_json)
    guarded(output, lambda: rebuild_graph(output))


@dlq.command("list")
def dlq_list(as_json: AsJson = False) -> None:
    """List the dead letters, the oldest first."""
    from fleet.cli.dlq import list_letters

    output = Output(as_json=as_json)
    guarded(output, lambda: list_letters(output))


@dlq.command("retry")
def dlq_retry(
    letter_id: Annotated[str, typer.Argument(help="Id of a dead letter.", metavar="ID")], as_json: AsJson = False
) -> None:
    """Try the work of a dead letter again, once its cause is mended."""
    from fleet.cli.dlq import retry_letter

    output = Output(as_json=as_json)
    guarded(output, lambda: retry_letter(output, letter_id))


KeyFileOption = Annotated[
    Path | None, typer.Option("--key", help="Public key of the notary (notary.pub); that of the home unless given.")
]


@audit.command("verify")
def audit_verify(
    checkpoint: Annotated[Path | None, typer.Option(help="Also compare with this exported checkpoint.")] = None,
    key: KeyFileOption = None,
    as_json: AsJson = False,
) -> None:
    """Recompute the whole log from its bytes and compare it with all signed checkpoints; exit code 4 on any finding."""
    from fleet.cli.audit import verify

    output = Output(as_json=as_json)
    guarded(output, lambda: verify(output, checkpoint=checkpoint, key=key))


@audit.command("export")
def audit_export(
    out: Annotated[Path, typer.Option(help="Folder to copy to; made when it is not there.")], as_json: AsJson = False
) -> None:
    """Copy all signed checkpoints, accepted losses and the public key to a folder."""
    from fleet.cli.audit import export

    output = Output(as_json=as_json)
    guarded(output, lambda: export(output, out=out))


@audit.command("proof")
def audit_proof(
    story_id: StoryArg,
    version: Annotated[int, typer.Argument(help="Version of the event.", metavar="VERSION")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    as_json: AsJson = False,
) -> None:
    """Write the proof that one event was recorded."""
    from fleet.cli.audit import prove

    output = Output(as_json=as_json)
    guarded(output, lambda: prove(output, story_id, version, out=out))


@audit.command("check-proof")
def audit_check_proof(
    file: Annotated[Path, typer.Argument(help="Proof from `fleet audit proof`.", metavar="FILE")],
    key: KeyFileOption = None,
    as_json: AsJson = False,
) -> None:
    """Check a proof; needs no fleet, only the public key."""
    from fleet.cli.audit import check

    output = Output(as_json=as_json)
    guarded(output, lambda: check(output, file, key=key))


@app.command("accept-loss")
def accept_loss(
    stream: Annotated[str, typer.Argument(help="Id of a story, or stream as the audit names it.", metavar="STREAM")],
    reason: Annotated[str, typer.Option(help="Why the loss is accepted; 10 characters or more.")],
    as_json: AsJson = False,
) -> None:
    """Let a stream whose end was lost take events again; who accepted it is recorded and signed."""
    from fleet.cli.audit import accept_loss

    output = Output(as_json=as_json)
    guarded(output, lambda: accept_loss(output, stream, reason=reason))
