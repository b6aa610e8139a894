"""A forge: one JSON file for each change request, in a folder that reviewers look into."""

import asyncio
import json
from pathlib import Path
from urllib.parse import quote

from pydantic import BaseModel

from fleet.forge.port import (
    ChangeOutcome,
    ChangeRequest,
    CommitState,
    EndedChange,
    ForgeParts,
    ForgePlugin,
    OpenedChange,
)
from fleet.kernel.errors import StoreUnavailable


class FolderOptions(BaseModel):
    """The options of `forge` in fleet.yaml for kind `folder`."""

    folder: Path
    """Where the files go; made when it is missing."""


class FolderForge:
    """Implements the port ChangeRequests. One process of a fleet writes here, so that a file needs no lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def open_or_update(self, change: ChangeRequest) -> OpenedChange | EndedChange:
        """The one file of this branch says what `change` says; whoever merges sets its `state`."""
        return await asyncio.to_thread(self._open_or_update, change)

    async def set_status(
        self, repository: str, commit: str, *, state: CommitState, description: str, link: str = ""
    ) -> None:
        """The commit has a file of its own with its state."""
        status = {"repository": repository, "state": state, "description": description[:140], "link": link}
        await asyncio.to_thread(self._write, self._folder / f"{quote(commit, safe='')}.status.json", status)

    def _open_or_update(self, change: ChangeRequest) -> OpenedChange | EndedChange:
        path = self._folder / f"{quote(change.head, safe='')}.json"
        present = self._read(path)
        others = [other for other in self._folder.glob("*.json") if not other.name.endswith(".status.json")]
        number = present["number"] if present else 1 + len(others)
        if present and present["state"] != "open":
            return EndedChange(number, path.as_uri(), is_merged=present["state"] == "merged")
        wanted = {
            "number": number,
            "state": "open",
            "repository": change.repository,
            "head": change.head,
            "base": change.base,
            "title": " ".join(change.title.split())[:240],
            "text": f"{change.verdict}\n\n{change.body}"[:60_000],
            "is_draft": change.is_draft,
        }
        if wanted == present:
            return OpenedChange(number, path.as_uri(), ChangeOutcome.UNCHANGED, is_draft=change.is_draft)
        self._write(path, wanted)
        outcome = ChangeOutcome.UPDATED if present else ChangeOutcome.OPENED
        return OpenedChange(number, path.as_uri(), outcome, is_draft=change.is_draft)

    def _read(self, path: Path) -> dict | None:
        try:
            return json.loads(path.read_text()) if path.exists() else None
        except (OSError, ValueError) as error:
            raise StoreUnavailable(f"{path} is no change request: mend or remove it") from error

    def _write(self, path: Path, document: dict) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            whole = path.with_suffix(".new")
            whole.write_text(json.dumps(document, indent=2) + "\n")
            whole.replace(path)
        except OSError as error:
            raise StoreUnavailable(f"{self._folder} cannot be written: {error.strerror}") from error


def make(options: FolderOptions, parts: ForgeParts) -> FolderForge:
    """The forge of one fleet; it needs no token."""
    return FolderForge(parts.home / options.folder)


PLUGIN = ForgePlugin(name="folder", options=FolderOptions, make=make)
