"""The folder of one work session: who owns it, what is known of it, and what a run that uses it is given.

Source: docs/design/engineering_loop.md, section 2.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fleet.kernel.ids import Digest
from fleet.policy.runs.spec import Artifact, LiveFolder, RunSpec
from fleet.sandbox.backends.identity import Identity
from fleet.sandbox.folders.bases import Base, BaseTree
from fleet.sandbox.folders.layer import UNREAD, FolderSurvey, Layer, remove_extras, stamped, survey
from fleet.sandbox.folders.mark import Known, Mark, drop_mark, put_laid, put_mark
from fleet.sandbox.folders.run_folder import RunFolder
from fleet.sandbox.folders.tree_reader import WorkspaceFull, is_skipped, read_files
from fleet.sandbox.folders.workspace import (
    FREE_FLOOR_BYTES,
    MAX_ENTRIES,
    MAX_PATH_BYTES,
    NO_ROOM,
    disk_usage,
    has_room,
    no_room,
    remove_tree,
    store_artifacts,
)
from fleet.trees.delta import Delta, Rows
from fleet.trees.port import BlobStore
from fleet.trees.service import put_tree
from fleet.trees.tree import FileEntry

_HASHED_BYTES = 16 << 20
"""Of files that a command left and whose content is not to be recorded; more than that is not read."""


@dataclass(eq=False, slots=True)
class StoryUser:
    """The sandbox user of a story on this node, as long as it has folders here."""

    who: Identity
    lease: contextlib.ExitStack
    folders: int = 0


@dataclass(eq=False, slots=True)
class SessionFolder:
    """A folder; `rows` is what lies in it over its base, None when that is not known."""

    place: LiveFolder
    base: BaseTree
    below: Base | None
    folder: RunFolder
    user: StoryUser
    rows: Rows | None = None
    known: Known = field(default_factory=Known)
    laid: Known | None = None
    """What was known when the folder was laid, once that is written beside it."""
    used_bytes: int = 0
    used_at: float = 0

    def renew(self) -> None:
        """An empty folder of the same name takes its place."""
        remove_tree(self.folder.outer)
        descriptor = self.folder.descriptor
        self.folder, self.known, self.used_bytes = made_folder(self.folder.outer, self.user.who), {}, 0
        self.laid = None
        os.close(descriptor)

    def leave(self) -> None:
        """Nobody uses the folder for now: it is marked clean, or emptied where nobody knows what lies in it."""
        if self.rows is None:
            # It is laid anew in any case: until then it would only take room.
            self.renew()
            return
        is_upper, uid = self.below is not None, self.user.who.uid
        if self.laid is None:
            self.laid = dict(self.known)
            put_laid(self.folder.outer, self.laid)
        mark = Mark(self.place, self.base.digest, uid, is_upper, self.rows, self.known)
        put_mark(self.folder.outer, mark, self.laid)

    @property
    def layer(self) -> Layer:
        return Layer(self.folder.descriptor, self.base, self.user.who, is_upper=self.below is not None)


def is_there(session: SessionFolder) -> bool:
    """Whether nobody has removed the folder, or what lies below it."""
    try:
        same = session.folder.workspace.stat().st_ino == os.fstat(session.folder.descriptor).st_ino
    except OSError:
        return False
    return same and (session.below is None or session.below.files.is_dir())


def made_folder(outer: Path, who: Identity) -> RunFolder:
    home, workspace = outer / "task", outer / "task" / "workspace"
    workspace.mkdir(parents=True)
    (home / "work").mkdir()
    for folder in (outer.parent, outer):
        folder.chmod(0o711)
    home.chmod(0o700)
    workspace.chmod(0o755)
    if who.is_dropped:
        for folder in (home, home / "work", workspace):
            os.chown(folder, who.uid, who.gid)
    descriptor = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return RunFolder(outer, home, workspace, descriptor)


def taken_over(
    outer: Path, new: Path, mark: Mark, base: BaseTree, below: Base | None, user: StoryUser
) -> SessionFolder:
    """The folder of a dead process under its new name; emptied when it is not what its mark says."""
    new.parent.mkdir(exist_ok=True)
    new.parent.chmod(0o711)
    # One of several supervisors gets it.
    outer.rename(new)
    drop_mark(new)
    home, workspace = new / "task", new / "task" / "workspace"
    descriptor = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    folder = RunFolder(new, home, workspace, descriptor)
    session = SessionFolder(mark.place, base, below, folder, user, known=mark.known, used_at=time.monotonic())
    seen = survey(descriptor, base, mark.rows, mark.known, is_upper=mark.is_upper)
    session.used_bytes = seen.used
    if not seen.is_torn and not seen.extras:
        session.rows = {**seen.rows, **dict.fromkeys([*(one.path for one in seen.others), *seen.linked], UNREAD)}
    session.leave()
    return session


class LiveSpace:
    """The folder of a session while one run uses it. Implements Space."""

    def __init__(self, session: SessionFolder, rows: Rows, blobs: BlobStore) -> None:
        self._session, self._began, self._blobs = session, rows, blobs
        self._survey: FolderSurvey | None = None
        self._rows: dict[str, FileEntry | None] | None = None

    @property
    def who(self) -> Identity:
        """The user of the run."""
        return self._session.user.who

    @property
    def folder(self) -> RunFolder:
        """Its host folders."""
        return self._session.folder

    @property
    def overlay(self) -> tuple[Path, Path] | None:
        """What lies below the folder, and what overlayfs needs beside it; None where it holds the whole tree."""
        below = self._session.below
        return None if below is None else (below.files, self.folder.home / "work")

    def has_folder(self, path: str) -> bool:
        """Whether the run's tree has files in this folder."""
        return path == "." or self._session.base.files_below(path, self._began) > 0

    def disk_usage(self) -> int:
        """As the function of this name, of what the run sees. Called in a thread while it goes on."""
        below = self._session.below
        return disk_usage(self.folder.descriptor) + (below.size_bytes if below else 0)

    async def usage(self) -> int:
        """See Left."""
        session = self._session
        surveyed = await asyncio.to_thread(
            survey,
            self.folder.descriptor,
            session.base,
            self._began,
            session.known,
            is_upper=session.below is not None,
        )
        self._survey, session.used_bytes = surveyed, surveyed.used
        is_over = surveyed.entries >= MAX_ENTRIES or surveyed.longest > MAX_PATH_BYTES
        is_full = not has_room(self.folder.descriptor)
        if is_over or is_full:
            self._survey = None
            if is_full and not is_over and surveyed.used < FREE_FLOOR_BYTES:
                # Others have filled the disk: that says nothing of the command.
                raise no_room(self.folder.outer)
            return NO_ROOM
        return surveyed.used + (session.below.size_bytes if session.below else 0)

    async def artifacts(self, paths: Sequence[str]) -> tuple[Artifact, ...]:
        """See Left."""
        artifacts = await store_artifacts(self.folder.descriptor, paths, self._blobs)
        base, rows = self._session.base, self._survey.rows if self._survey else {}
        if self._session.below is None:
            return artifacts
        return tuple([await self._shown(one, base, rows) for one in artifacts])

    async def _shown(self, artifact: Artifact, base: BaseTree, rows: Rows) -> Artifact:
        """The artifact of the base where the run left none of its own, nor took that away."""
        entry = base.tree.get(artifact.path)
        is_shown = artifact.blob is None and not artifact.truncated and artifact.path not in rows
        if not is_shown or entry is None or entry.mode not in ("100644", "100755"):
            return artifact
        return Artifact(path=artifact.path, blob=entry.blob, size_bytes=len(await self._blobs.get(entry.blob)))

    async def kept(self, spec: RunSpec) -> tuple[Digest, int]:
        """See Left."""
        left = self._survey
        if left is None or left.size > spec.limits.disk_bytes:
            self._survey = None
            raise WorkspaceFull(f"the run left more than {spec.limits.disk_bytes} bytes")
        rows = await self._read(left, self._blobs, max_bytes=spec.limits.disk_bytes)
        kept = rows
        if spec.discard:
            kept = {p: e for p, e in rows.items() if not is_skipped(p, spec.discard)}
            kept |= {p: e for p, e in self._began.items() if is_skipped(p, spec.discard)}
        return await put_tree(self._blobs, Delta(self._session.base.digest, kept)), left.left_out

    async def settle(self) -> None:
        """What lies in the folder is known where it can be, and the next run goes on with it."""
        session, left = self._session, self._survey
        if left is None or left.is_torn:
            return
        if self._rows is None and sum(one.size for one in left.others) <= _HASHED_BYTES:
            await self._read(left, None, max_bytes=_HASHED_BYTES)
        rows = self._rows if self._rows is not None else left.rows | {one.path: UNREAD for one in left.others}
        if left.extras:
            await asyncio.to_thread(remove_extras, self.folder.descriptor, left.extras)
        session.rows = {**rows, **dict.fromkeys(left.linked, UNREAD)}

    async def _read(self, left: FolderSurvey, blobs: BlobStore | None, *, max_bytes: int) -> Rows:
        session, root = self._session, self.folder.descriptor
        read = await read_files(root, left.others, blobs, max_bytes=max_bytes)
        rows = left.rows | {path: entry for path, entry in read.items() if session.base.tree.get(path) != entry}
        for path, entry in read.items():
            session.known.pop(path, None)
            if (stamp := stamped(root, path, entry)) is not None:
                session.known[path] = stamp
        self._rows = rows
        return rows
