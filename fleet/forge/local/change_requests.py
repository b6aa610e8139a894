"""Change requests without a forge: a patch file and a JSON file for each head branch, beside a local repository."""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from fleet.forge.local.change_text import STATUS_NAME, CheckedChange, checked, checked_commit, checked_link, one_line
from fleet.forge.local.layout import RepositoryLayout, find_repository
from fleet.forge.local.objects import has_object
from fleet.forge.local.records import Records, file_errors, opened_records
from fleet.forge.local.refs import read_ref
from fleet.forge.port import ChangeOutcome, ChangeRequest, CommitState, EndedChange, OpenedChange
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import LogCorrupted, NotFound
from fleet.kernel.types import Frozen

_MAX_RECORD = 1 << 20
_MAX_NAME = 200
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_-]+")


class LocalChange(BaseModel):
    """What `<branch>.json` holds. Whoever merges or turns it down sets `state`; the rest is written here."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    number: int
    state: Literal["open", "closed", "merged"] = "open"
    repository: str
    base: str
    head: str
    commit: str
    """Where the head branch stood."""
    title: str
    text: str
    labels: list[str]
    is_draft: bool
    patch_digest: str | None
    """Digest of `<branch>.patch`; None when no patch was given."""


class LocalStatus(Frozen):
    """What `statuses/<commit>.json` holds."""

    format: Literal[1] = 1
    name: str = STATUS_NAME
    commit: str
    state: CommitState
    description: str
    link: str


class LocalChangeRequests:
    """Files below `<root>/<repository>-<12 hex digits>/`. Implements the port ChangeRequests.

    The files of branch `fleet/st-1` are `fleet%2Fst-1.patch` and `fleet%2Fst-1.json`: a name is quoted as in an
    address, so it can neither leave the folder nor meet another one, and a long one is cut and ends with its digest.
    The repository (bare or not) is only read. The patch is written before the record that names its digest, so after
    a crash a repeated call mends what is missing. No network, no git.

    Args:
        root: folder of the change requests of all repositories; made when missing.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def open_or_update(self, change: ChangeRequest) -> OpenedChange | EndedChange:
        """See `ChangeRequests.open_or_update`."""
        return await asyncio.to_thread(self._open_or_update, checked(change))

    async def set_status(
        self, repository: str, commit: str, *, state: CommitState, description: str, link: str = ""
    ) -> None:
        """See `ChangeRequests.set_status`."""
        status = LocalStatus(
            commit=checked_commit(commit), state=state, description=one_line(description), link=checked_link(link)
        )
        await asyncio.to_thread(self._set_status, repository, status)

    def folder(self, repository: str) -> Path:
        """Where the files of this repository's change requests lie."""
        real = find_repository(repository).common_dir.resolve()
        name = real.parent.name if real.name == ".git" else real.name.removesuffix(".git")
        plain = _NOT_PLAIN.sub("-", name)[:60].strip("-") or "repository"
        return self._root / f"{plain}-{hashlib.sha256(str(real).encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"

    def _open_or_update(self, change: CheckedChange) -> OpenedChange | EndedChange:
        with file_errors(f"the change request of '{change.head}'"):
            layout = find_repository(change.repository)
            commit = _branch_commit(layout, change.repository, change.head)
            _branch_commit(layout, change.repository, change.base)
            folder, name = self.folder(change.repository), _file_name(change.head)
            link = (folder / f"{name}.json").absolute().as_uri()
            with opened_records(folder) as records:
                present = _read(records, f"{name}.json")
                if present is not None and present.state != "open":
                    return EndedChange(present.number, link, is_merged=present.state == "merged")
                outcome = _write(records, name, change, commit, present)
        return OpenedChange(outcome[0], link, outcome[1], is_draft=change.is_draft)

    def _set_status(self, repository: str, status: LocalStatus) -> None:
        with file_errors(f"the status of {status.commit}"):
            layout = find_repository(repository)
            if not has_object(layout.objects, status.commit):
                raise NotFound(f"{repository} has no commit {status.commit}: publish it first", commit=status.commit)
            data = _document(status)
            with opened_records(self.folder(repository) / "statuses") as records:
                if records.read(f"{status.commit}.json", _MAX_RECORD) != data:
                    records.write(f"{status.commit}.json", data)


def _branch_commit(layout: RepositoryLayout, repository: str, branch: str) -> str:
    commit = read_ref(layout, f"refs/heads/{branch}")
    if commit is None:
        raise NotFound(f"{repository} has no branch '{branch}': publish it first", repository=repository, branch=branch)
    return commit


def _file_name(branch: str) -> str:
    # A leading dot would hide the file; git refuses such a branch already.
    name = quote(branch, safe="")
    if len(name) <= _MAX_NAME:
        return name
    # A percent sign alone ends the cut: no quoted name can be the same.
    return f"{name[:120]}%-{hashlib.sha256(branch.encode()).hexdigest()}"


def _write(
    records: Records, name: str, change: CheckedChange, commit: str, present: LocalChange | None
) -> tuple[int, ChangeOutcome]:
    record = LocalChange(
        number=present.number if present else _next_number(records),
        repository=change.repository,
        base=change.base,
        head=change.head,
        commit=commit,
        title=change.title,
        text=change.text,
        labels=list(dict.fromkeys([*(present.labels if present else ()), *change.labels])),
        is_draft=change.is_draft,
        patch_digest=_patch_digest(change, present),
    )
    has_patch = not change.patch or records.read(f"{name}.patch", len(change.patch) + 1) == change.patch
    if record == present and has_patch:
        return record.number, ChangeOutcome.UNCHANGED
    if not has_patch:
        records.write(f"{name}.patch", change.patch)
    records.write(f"{name}.json", _document(record))
    return record.number, ChangeOutcome.UPDATED if present else ChangeOutcome.OPENED


def _patch_digest(change: CheckedChange, present: LocalChange | None) -> str | None:
    if change.patch:
        return str(digest_of(change.patch))
    return present.patch_digest if present else None


def _next_number(records: Records) -> int:
    names = [name for name in records.names() if name.endswith(".json")]
    return 1 + max((change.number for name in names if (change := _read(records, name))), default=0)


def _read(records: Records, name: str) -> LocalChange | None:
    data = records.read(name, _MAX_RECORD)
    if data is None:
        return None
    try:
        return LocalChange.model_validate_json(data)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, e["loc"])) or "(all)" for e in error.errors()}))
        raise LogCorrupted(
            f"{name} is no record of a change request (wrong: {fields}): correct it or remove it", file=name
        ) from error


def _document(model: BaseModel) -> bytes:
    return (model.model_dump_json(indent=2) + "\n").encode()
