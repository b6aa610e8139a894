"""`fleet story archive`: a story that is over leaves the log (EV-25)."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from fleet.cli.endpoints import endpoints_of
from fleet.cli.exit_codes import DONE
from fleet.cli.local.local_principals import local_principal
from fleet.cli.output import Output, shown
from fleet.cli.settings import needed_addresses, settings
from fleet.events.project import StoryTombstoned
from fleet.kernel.errors import NotFound
from fleet.kernel.ids import StoryId
from fleet.story.commands.command import Caller
from fleet.wiring.desk.desk import open_archivist
from fleet.wiring.endpoints import Endpoints, load_principals


def archive_story(output: Output, story_id: str, *, proof: Path | None) -> int:
    """The story is a blob; where it is and where the story ended are printed."""
    story, kept = StoryId(story_id), b"" if proof is None else _read(proof)
    fleet_settings = settings()
    endpoints = endpoints_of(fleet_settings, needed_addresses(fleet_settings))
    done = asyncio.run(_archived(endpoints, story, kept))
    output.say(f"{story_id} is archived: {done.last_version} events, the last one {done.last_hash[:12]}")
    output.say(f"  kept as   {done.export_digest}")
    file = endpoints.blob_root / done.export_digest.hex[:2] / done.export_digest.hex
    if file.exists():
        output.say(f"  read by   fleet replay --from {shown(file)}")
    output.result({**done.model_dump(mode="json"), "file": str(file) if file.exists() else None})
    return DONE


async def _archived(endpoints: Endpoints, story_id: StoryId, proof: bytes) -> StoryTombstoned:
    principal = local_principal()
    caller = Caller(principal=principal, roles=load_principals(endpoints.principals_file).roles_of(principal))
    async with open_archivist(endpoints, owner=f"archive/{secrets.token_hex(4)}") as archivist:
        return await archivist.archive(story_id, caller=caller, proof=proof)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
