"""`fleet audit`: check what was recorded, prove it, and see who used which secret."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.cli.output import Output
from fleet.cli.parameters import StoryArg, command

app = typer.Typer(help="Check what was recorded, and prove it to others.", no_args_is_help=True)

KeyFileOption = Annotated[
    Path | None, typer.Option("--key", help="Public key of the notary (notary.pub); that of the home unless given.")
]


@command(app, "verify")
def audit_verify(
    output: Output,
    checkpoint: Annotated[Path | None, typer.Option(help="Also compare with this exported checkpoint.")] = None,
    key: KeyFileOption = None,
) -> int:
    """Recompute the whole log from its bytes and compare it with all signed checkpoints; exit code 4 on any finding."""
    from fleet.cli.audit.verify import verify

    return verify(output, checkpoint=checkpoint, key=key)


@command(app, "export")
def audit_export(
    output: Output,
    out: Annotated[Path, typer.Option(help="Folder to copy to; made when it is not there.")],
) -> int:
    """Copy all signed checkpoints, accepted losses and the public key to a folder."""
    from fleet.cli.audit.verify import export

    return export(output, out=out)


@command(app, "proof")
def audit_proof(
    output: Output,
    story_id: StoryArg,
    version: Annotated[int, typer.Argument(help="Version of the event.", metavar="VERSION")],
    out: Annotated[Path, typer.Option(help="File to write.")],
) -> int:
    """Write the proof that one event was recorded."""
    from fleet.cli.audit.verify import prove

    return prove(output, story_id, version, out=out)


@command(app, "check-proof")
def audit_check_proof(
    output: Output,
    file: Annotated[Path, typer.Argument(help="Proof from `fleet audit proof`.", metavar="FILE")],
    key: KeyFileOption = None,
) -> int:
    """Check a proof; needs no fleet, only the public key."""
    from fleet.cli.audit.verify import check

    return check(output, file, key=key)


@command(app, "rotate-key")
def audit_rotate_key(output: Output) -> int:
    """Give the notary a new key; the old one is retired by a checkpoint that both sign."""
    from fleet.cli.audit.verify import rotate_key

    return rotate_key(output)


@command(app, "access")
def audit_access(
    output: Output,
    secret: Annotated[str | None, typer.Option(help="Name of a secret; all of them unless given.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Newest lines that are read.")] = 100,
) -> int:
    """Show who used which secret, the newest first; no line has a value."""
    from fleet.cli.audit.access import accesses

    return accesses(output, secret=secret, limit=limit)
