"""Commands of the decision graph, the dead letters and the sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.cli.output import Output
from fleet.cli.parameters import command

graph = typer.Typer(help="The decision graph: how far it is, its rebuild, and what it answers.", no_args_is_help=True)
dlq = typer.Typer(help="Work that failed each time it was tried, and was set aside.", no_args_is_help=True)
sandbox = typer.Typer(help="One command in the sandbox, and what the sandbox holds here.", no_args_is_help=True)


@command(graph, "status")
def graph_status(output: Output) -> int:
    """Show how far the decision graph is, and the streams that are set aside."""
    from fleet.cli.store.graph import show_graph

    return show_graph(output)


@command(graph, "ask")
def graph_ask(
    output: Output,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Name of a query, as critical_decisions.")],
    given: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Its parameters.")] = None,
) -> int:
    """Ask the decision graph a named query, as `critical_decisions story_id=st-auth-7`."""
    from fleet.cli.store.graph import ask_graph

    return ask_graph(output, query, given or [])


@command(graph, "rebuild")
def graph_rebuild(output: Output) -> int:
    """Build the decision graph anew from the log, beside the old one, and switch to it."""
    from fleet.cli.store.graph import rebuild_graph

    return rebuild_graph(output)


@command(dlq, "list")
def dlq_list(output: Output) -> int:
    """List the dead letters, the oldest first."""
    from fleet.cli.store.dlq import list_letters

    return list_letters(output)


@command(dlq, "retry")
def dlq_retry(
    output: Output,
    letter_id: Annotated[str, typer.Argument(help="Id of a dead letter.", metavar="ID")],
) -> int:
    """Try the work of a dead letter again, once its cause is mended."""
    from fleet.cli.store.dlq import retry_letter

    return retry_letter(output, letter_id)


@command(sandbox, "exec")
def sandbox_exec(
    output: Output,
    command: Annotated[list[str], typer.Argument(help="Program and arguments, after `--`.", metavar="CMD...")],
    workspace: Annotated[Path | None, typer.Option(help="Folder that the command finds at /workspace.")] = None,
    role: Annotated[str, typer.Option(help="Role whose programs may be run.")] = "developer",
    timeout: Annotated[int | None, typer.Option(min=1, help="Seconds until everything is killed.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory of all processes together: 512Mi, 2Gi.")] = None,
    pids: Annotated[int | None, typer.Option(min=1, help="Processes and threads at one time.")] = None,
    cpu: Annotated[str | None, typer.Option(help="CPUs: 0.5, 2.")] = None,
    disk: Annotated[str | None, typer.Option(help="Bytes below /workspace: 512Mi, 2Gi.")] = None,
    host: Annotated[list[str] | None, typer.Option(help="Host that may be reached, if the policy lists it.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Write changed files back when the command passed.")] = False,
) -> int:
    """Run one command in the sandbox as a role may run it; nothing of the folder changes without --keep."""
    from fleet.cli.store.sandbox import ExecOptions, execute

    options = ExecOptions(
        argv=tuple(command),
        workspace=workspace,
        role=role,
        timeout_s=timeout,
        memory=memory,
        disk=disk,
        pids=pids,
        cpu=cpu,
        hosts=tuple(host or ()),
        keep=keep,
    )
    return execute(output, options)


@command(sandbox, "check")
def sandbox_check(output: Output) -> int:
    """Try what the sandbox holds on this machine, and say how to mend what it does not."""
    from fleet.cli.store.sandbox import check_sandbox

    return check_sandbox(output)
