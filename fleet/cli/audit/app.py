"""`fleet audit`: check what was recorded, prove it, and see who used which secret."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.cli.output import Output, guarded
from fleet.cli.parameters import AsJson, StoryArg

app = typer.Typer(help="Check what was recorded, and prove it to others.", no_args_is_help=True)

KeyFileOption = Annotated[
    Path | None, typer.Option("--key", help="Public key of the notary (notary.pub); that of the home unless given.")
]


@app.command("verify")
def audit_verify(
    checkpoint: Annotated[Path | None, typer.Option(help="Also compare with this exported checkpoint.")] = None,
    key: KeyFileOption = None,
    as_json: AsJson = False,
) -> None:
    """Recompute the whole log from its bytes and compare it with all signed checkpoints; exit code 4 on any finding."""
    from fleet.cli.audit.verify import verify

    output = Output(as_json=as_json)
    guarded(output, lambda: verify(output, checkpoint=checkpoint, key=key))


@app.command("export")
def audit_export(
    out: Annotated[Path, typer.Option(help="Folder to copy to; made when it is not there.")], as_json: AsJson = False
) -> None:
    """Copy all signed checkpoints, accepted losses and the public key to a folder."""
    from fleet.cli.audit.verify import export

    output = Output(as_json=as_json)
    guarded(output, lambda: export(output, out=out))


@app.command("proof")
def audit_proof(
    story_id: StoryArg,
    version: Annotated[int, typer.Argument(help="Version of the event.", metavar="VERSION")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    as_json: AsJson = False,
) -> None:
    """Write the proof that one event was recorded."""
    from fleet.cli.audit.verify import prove

    output = Output(as_json=as_json)
    guarded(output, lambda: prove(output, story_id, version, out=out))


@app.command("check-proof")
def audit_check_proof(
    file: Annotated[Path, typer.Argument(help="Proof from `fleet audit proof`.", metavar="FILE")],
    key: KeyFileOption = None,
    as_json: AsJson = False,
) -> None:
    """Check a proof; needs no fleet, only the public key."""
    from fleet.cli.audit.verify import check

    output = Output(as_json=as_json)
    guarded(output, lambda: check(output, file, key=key))


@app.command("rotate-key")
def audit_rotate_key(as_json: AsJson = False) -> None:
    """Give the notary a new key; the old one is retired by a checkpoint that both sign."""
    from fleet.cli.audit.verify import rotate_key

    output = Output(as_json=as_json)
    guarded(output, lambda: rotate_key(output))


@app.command("access")
def audit_access(
    secret: Annotated[str | None, typer.Option(help="Name of a secret; all of them unless given.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Newest lines that are read.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show who used which secret, the newest first; no line has a value."""
    from fleet.cli.audit.access import accesses

    output = Output(as_json=as_json)
    guarded(output, lambda: accesses(output, secret=secret, limit=limit))
