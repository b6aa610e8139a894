"""Commands of trust: verify, export, proofs, and accepting a loss."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from rich.progress import Progress as RichProgress
from rich.progress import TaskID

from fleet.audit.checkpoint import SignedCheckpoint
from fleet.audit.files.ed25519 import HANDOVERS, Ed25519Verifier, KeyFile, read_handovers, read_public_key
from fleet.audit.files.witness import CheckpointFolder
from fleet.audit.key_ring import KeyRing
from fleet.audit.proof import Proof, check_proof
from fleet.audit.service.auditor import AuditReport, Progress, copy_checkpoints
from fleet.cli.endpoints import endpoints_of
from fleet.cli.exit_codes import DONE, FAILED
from fleet.cli.local.local_principals import local_principal
from fleet.cli.output import Output, shown
from fleet.cli.settings import needed_addresses, settings
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import StreamId
from fleet.wiring.audit import open_auditor, open_loss_desk
from fleet.wiring.endpoints import AuditPlaces, Endpoints, audit_places

T = TypeVar("T")


def _on_fleet(work: Callable[[Endpoints], Awaitable[T]]) -> T:
    async def body() -> T:
        fleet_settings = settings()
        return await work(endpoints_of(fleet_settings, needed_addresses(fleet_settings)))

    return asyncio.run(body())


def _places() -> AuditPlaces:
    fleet_settings = settings()
    return audit_places(fleet_settings.home, fleet_settings.audit.export)


def stream_of(name: str) -> StreamId:
    """The stream of a story, or the one that is named with its kind."""
    return StreamId(name) if ":" in name else StreamId.of_story(name)


def verify(output: Output, *, checkpoint: Path | None, key: Path | None) -> int:
    """Everything that is stored was recomputed; 4 when something differs from what was recorded."""
    public = read_public_key(key) if key else None
    extra = SignedCheckpoint.parse(_bytes(checkpoint)) if checkpoint else None

    async def work(endpoints: Endpoints) -> AuditReport:
        async with open_auditor(endpoints, public) as auditor:
            with _Bars(output) as progress:
                return await auditor.verify(extra=extra, progress=progress)

    return report_of(output, _on_fleet(work))


def report_of(output: Output, report: AuditReport) -> int:
    """The report is printed; the exit code that it stands for."""
    output.say(
        f"{report.streams} streams with {report.events} events, {report.archives} archived stories, "
        f"{report.checkpoints} checkpoints, {report.exported} exported, "
        f"newest signed checkpoint: {report.newest or 'none'}"
    )
    for line in (*(loss.told() for loss in report.accepted), *report.remarks):
        output.say(f"  note: {shown(line)}")
    for finding in report.findings:
        output.say(f"  [bold red]{shown(str(finding))}[/]")
    if report.is_clean:
        output.say("[green]ok[/]: everything is as it was recorded")
    else:
        output.say(f"{len(report.findings)} findings: keep a copy of all data before you change anything")
    output.result(
        {
            "ok": report.is_clean,
            "streams": report.streams,
            "events": report.events,
            "archives": report.archives,
            "checkpoints": report.checkpoints,
            "exported": report.exported,
            "newest": report.newest,
            "findings": [finding.to_json() for finding in report.findings],
            "accepted_losses": [loss.model_dump(mode="json") for loss in report.accepted],
            "remarks": list(report.remarks),
        }
    )
    return DONE if report.is_clean else FAILED


class _Bars:
    """Progress on standard error while something long goes on."""

    def __init__(self, output: Output) -> None:
        self._bars = RichProgress(console=output.console, transient=True, disable=not output.console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Progress:
        self._bars.start()
        return self._tell

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def _tell(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what)
        self._bars.update(self._tasks[what], completed=done, total=total)


def export(output: Output, *, out: Path) -> int:
    """Every exported checkpoint, accepted loss, the public key and its handovers lie there; needs no running fleet."""
    places = _places()
    key = read_public_key(places.public)

    async def work() -> int:
        with _Bars(output) as progress:
            return await copy_checkpoints(CheckpointFolder(places.folder), CheckpointFolder(out), progress=progress)

    count = asyncio.run(work())
    (out / places.public.name).write_text(key.text + "\n")
    if (places.public.parent / HANDOVERS).is_dir():
        shutil.copytree(places.public.parent / HANDOVERS, out / HANDOVERS, dirs_exist_ok=True)
    output.say(f"{count} checkpoints and {places.public.name} are in {shown(str(out))}")
    output.result({"checkpoints": count, "folder": str(out), "key": key.text})
    return DONE


def prove(output: Output, name: str, version: int, *, out: Path) -> int:
    """The proof of one event lies in the file."""
    stream = stream_of(name)

    async def work(endpoints: Endpoints) -> Proof:
        async with open_auditor(endpoints) as auditor:
            return await auditor.proof(stream, version=version)

    proof = _on_fleet(work)
    out.write_text(proof.model_dump_json() + "\n")
    output.say(
        f"{shown(str(out))} proves {stream} version {version}; `fleet audit check-proof` checks it anywhere "
        "with notary.pub"
    )
    output.result({"stream": str(stream), "version": version, "file": str(out)})
    return DONE


def check(output: Output, path: Path, *, key: Path | None) -> int:
    """The proof of the file holds; needs no fleet."""
    place = key or _places().public
    public, check_signature = read_public_key(place), Ed25519Verifier().check
    proof = Proof.parse(_bytes(path))
    keys = KeyRing.trusting(public, read_handovers(place.parent), check=check_signature)
    proven = check_proof(proof, keys, check_signature)
    fields = proven.entry.fields
    told = {name: fields[field].decode() for name, field in (("type", "t"), ("actor", "a"), ("hash", "h"))}
    says = f"{proven.leaf.stream} version {proof.version} is a {told['type']} by {told['actor']}"
    by = f"attested by checkpoint {proven.checkpoint.sequence} of {proven.checkpoint.time}"
    output.say(f"[green]ok[/]: {shown(says)}, {shown(by)}")
    output.result(
        {
            "ok": True,
            "stream": str(proven.leaf.stream),
            "version": proof.version,
            "checkpoint": proven.checkpoint.sequence,
            "time": proven.checkpoint.time,
            "key": public.text,
            **told,
        }
    )
    return DONE


def rotate_key(output: Output) -> int:
    """A new key of the notary lies in the home; the notary changes to it with its next checkpoint."""
    keys = KeyFile(_places().key)
    successor, retiring = keys.prepare_successor(), keys.key
    output.say(f"{retiring.name} will be retired for {successor.name}, with the next checkpoint that the notary signs:")
    output.say(f"  within {settings().audit.interval_s:g} s while the fleet runs, else soon after it starts")
    output.say("  then keep a copy of audit/notary.pub and audit/handovers where the fleet cannot change them:")
    output.say(f"  [bold]{shown(successor.text)}[/]")
    output.result({"retiring": retiring.text, "successor": successor.text})
    return DONE


def accept_loss(output: Output, name: str, *, reason: str) -> int:
    """The loss is recorded under the name of the local user, and the stream takes appends again."""
    stream = stream_of(name)

    async def work(endpoints: Endpoints) -> int:
        async with open_loss_desk(endpoints) as desk:
            accepted = await desk.accept(stream, by=local_principal(), reason=reason)
        output.say(f"{stream}: {shown(accepted.loss.told())}")
        output.say("  it takes appends again; run `fleet graph rebuild`, so that the graph forgets what was lost")
        output.result({**asdict(accepted), "loss": accepted.loss.model_dump(mode="json")})
        return DONE

    return _on_fleet(work)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error}", file=str(path)) from error
