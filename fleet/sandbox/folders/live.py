"""The folders of work sessions: kept between their commands, and never more than a cache of the recorded files.

What lies in a folder is known only to the process that runs its commands, and only from the end of one command to the
start of the next. So nothing on the disk is believed that another process left: a supervisor that starts again lays
every folder anew, from base and delta. Two commands of one session at the same time get two folders.

    live/<process>/<number>/task/workspace   the upper layer, or the whole tree
                                /work        what overlayfs needs beside it

Source: docs/design/engineering_loop.md, section 2.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple
from weakref import WeakValueDictionary

from fleet.kernel.errors import SandboxUnavailable
from fleet.kernel.ids import Digest
from fleet.policy.runs.spec import Artifact, LiveFolder, RunSpec
from fleet.sandbox.backends.identity import Identity, is_alive, lease_identity
from fleet.sandbox.folders.bases import Base, BaseFolders, BaseTree, read_base
from fleet.sandbox.folders.layer import UNREAD, FolderSurvey, Known, Layer, Rewrite, remove_extras, stamped, survey
from fleet.sandbox.folders.run_folder import RunFolder
from fleet.sandbox.folders.tree_reader import WorkspaceFull, is_skipped, read_files
from fleet.sandbox.folders.tree_writer import check_tree, write_tree
from fleet.sandbox.folders.workspace import (
    MAX_ENTRIES,
    MAX_PATH_BYTES,
    NO_ROOM,
    disk_usage,
    has_room,
    remove_shared_tree,
    remove_tree,
    store_artifacts,
)
from fleet.trees.delta import Delta, Rows, applied
from fleet.trees.port import BlobStore
from fleet.trees.service import put_tree, rows_over
from fleet.trees.tree import FileEntry

_BaseKey = tuple[Digest, int]
"""Digest of the tree, and uid of the user to whom its files belong."""
_AT_ONCE = 32
_MOVED = 200
"""Paths that are changed one by one; for more of them an upper layer is laid anew."""
_HASHED_BYTES = 16 << 20
"""Of files that a command left and whose content is not to be recorded; more than that is not read."""


class FolderLimits(NamedTuple):
    """What the folders of sessions may take on one node."""

    folders: int = 200
    """Kept between commands; of those that no command uses the oldest go first."""
    stories: int = 48
    """That hold a user of the machine; where the fleet is not root there is one user for all."""
    size_bytes: int = 20 << 30
    """Bases and folders together, on the disk."""
    idle_s: float = 7_200
    """Until a folder that no command uses goes, and with the last one of its story the story's user."""


@dataclass(eq=False, slots=True)
class _User:
    """The sandbox user of a story on this node, as long as it has folders here."""

    who: Identity
    lease: contextlib.ExitStack
    folders: int = 0


@dataclass(eq=False, slots=True)
class _Session:
    """A folder; `rows` is what lies in it over its base, None when that is not known."""

    place: LiveFolder
    base: BaseTree
    below: Base | None
    folder: RunFolder
    user: _User
    rows: Rows | None = None
    known: Known = field(default_factory=Known)
    used_bytes: int = 0
    used_at: float = 0

    def renew(self) -> None:
        """An empty folder of the same name takes its place."""
        os.close(self.folder.descriptor)
        remove_tree(self.folder.outer)
        self.folder, self.known = _made(self.folder.outer, self.user.who), {}

    @property
    def layer(self) -> Layer:
        return Layer(self.folder.descriptor, self.base, self.user.who, is_upper=self.below is not None)


class LiveFolders:
    """The folders of one backend. To be used from one event loop.

    Args:
        root: folder that sandbox users can pass; what is below it shows inside, in the table of mounts.
        me: name of this process, as `process_name` gives it.

    Attributes:
        overlays: whether an upper layer over a base is used; else each folder holds its whole tree.
    """

    def __init__(self, root: Path, blobs: BlobStore, me: str, *, limits: FolderLimits | None = None) -> None:
        self._all, self._root, self._blobs = root, root / f"{me}-{token_hex(4)}", blobs
        self._limits = limits or FolderLimits()
        self._bases = BaseFolders(root, blobs, me)
        self._idle: list[_Session] = []
        """Those that no command uses, the one that was used last coming last."""
        self._busy: list[_Session] = []
        self._users: dict[str, _User] = {}
        self._trees: dict[Digest, BaseTree] = {}
        self._held: dict[_BaseKey, Base] = {}
        self._pins = Counter[_BaseKey]()
        """How many folders lie over a base, or will in a moment."""
        self._numbers = itertools.count()
        self._laying: WeakValueDictionary[Digest, asyncio.Lock] = WeakValueDictionary()  # one writer of a base
        self._leasing = asyncio.Lock()  # one judge of which story goes
        self.overlays = False

    @contextlib.asynccontextmanager
    async def opened(self, spec: RunSpec) -> AsyncGenerator[LiveSpace]:
        """The folder of the session with the files of `spec.tree`, for this run alone until the block ends.

        Raises:
            SandboxUnavailable: every user of the machine is taken.
            InvalidInput: the tree cannot exist on a disk.
            OSError: the disk is full, or the folder cannot be used.
        """
        assert spec.folder is not None
        assert spec.tree is not None
        session = await self._taken(spec.folder)
        try:
            rows = await rows_over(self._blobs, session.base.digest, spec.tree)
            await self._brought(session, rows)
            space = LiveSpace(session, rows, self._blobs)
            yield space
            await space.settle()
        finally:
            self._busy.remove(session)
            self._idle.append(session)
            session.used_at = time.monotonic()

    async def forget(self, story: str) -> None:
        """The folders of the story that no run uses are gone."""
        for session in [one for one in self._idle if one.place.story == story]:
            await self._drop(session)
        self._release_bases()

    async def sweep(self) -> int:
        """What dead processes left is gone, and what is over the limits; how many folders of dead ones they were."""
        for session in [one for one in self._idle if time.monotonic() - one.used_at > self._limits.idle_s]:
            await self._drop(session)
        await self._make_room()
        return await asyncio.to_thread(self._swept)

    def _swept(self) -> int:
        dead = [folder for folder in self._all.glob("[0-9]*") if not is_alive("-".join(folder.name.split("-")[:3]))]
        return sum(map(remove_shared_tree, dead)) + self._bases.sweep(is_alive)

    # Which folder.

    async def _taken(self, place: LiveFolder) -> _Session:
        while True:
            found = next((one for one in reversed(self._idle) if one.place == place), None)
            if found is None:
                found = await self._new(place)
            elif _is_there(found):
                self._idle.remove(found)
            else:
                await self._drop(found)
                continue
            self._busy.append(found)
            return found

    async def _new(self, place: LiveFolder) -> _Session:
        await self._make_room()
        user = await self._user(place.story)
        key: _BaseKey | None = None
        try:
            base = await self._tree(place.root)
            below = None
            if self.overlays:
                key = base.digest, user.who.uid
                self._pins[key] += 1
                below = await self._below(key, base, user.who)
            folder = await asyncio.to_thread(_made, self._root / str(next(self._numbers)), user.who)
        except BaseException:
            self._pins.subtract([key] if key else [])
            self._leave(place.story, user)
            raise
        return _Session(place, base, below, folder, user)

    async def _tree(self, digest: Digest) -> BaseTree:
        async with self._laying.setdefault(digest, asyncio.Lock()):
            if digest not in self._trees:
                base = await read_base(self._blobs, digest)
                await asyncio.to_thread(check_tree, base.tree)
                self._trees[digest] = base
            return self._trees[digest]

    async def _below(self, key: _BaseKey, base: BaseTree, who: Identity) -> Base:
        async with self._laying.setdefault(base.digest, asyncio.Lock()):
            held = self._held.get(key)
            if held is not None and not held.files.is_dir():
                os.close(self._held.pop(key).lock)
                held = None
            if held is None:
                held = self._held[key] = await self._bases.opened(base, who)
            return held

    async def _user(self, story: str) -> _User:
        async with self._leasing:
            while (user := self._users.get(story)) is None:
                lease = contextlib.ExitStack()
                try:
                    if len(self._users) < self._limits.stories or not await self._drop_a_story():
                        self._users[story] = _User(lease.enter_context(lease_identity()), lease)
                except SandboxUnavailable:
                    if not await self._drop_a_story():
                        raise
            user.folders += 1
            return user

    async def _drop_a_story(self) -> bool:
        """The story that was idle for longest loses its folders; False when all of them are in use."""
        busy = {session.place.story for session in self._busy}
        oldest = next((one.place.story for one in self._idle if one.place.story not in busy), None)
        for session in [one for one in self._idle if one.place.story == oldest]:
            await self._drop(session)
        return oldest is not None

    def _leave(self, story: str, user: _User) -> None:
        user.folders -= 1
        if not user.folders and self._users.get(story) is user:
            del self._users[story]
            user.lease.close()

    # What lies in it.

    async def _brought(self, session: _Session, rows: Rows) -> None:
        """The folder holds the tree with these rows."""
        # A command follows, and whatever it leaves is unknown until it was looked at.
        have, session.rows = session.rows, None
        if have is None or not await self._moved(session, have, rows):
            await self._laid(session, rows)

    async def _moved(self, session: _Session, have: Rows, want: Rows) -> bool:
        tree, layer = session.base.tree, session.layer
        paths = list(dict.fromkeys(path for path, _ in have.items() ^ want.items()))
        paths = [path for path in paths if have.get(path, tree.get(path)) != want.get(path, tree.get(path))]
        if layer.is_upper and (len(paths) > _MOVED or any(_empties(session.base, path, want) for path in paths)):
            return False
        for start in range(0, len(paths), _AT_ONCE):
            some = await self._changes(session, paths[start : start + _AT_ONCE], want)
            if some is None or not await asyncio.to_thread(_move_all, layer, some, session.known):
                return False
        return True

    async def _changes(self, session: _Session, paths: Sequence[str], want: Rows) -> list[Rewrite] | None:
        """What to do at each path; None where it is about a submodule."""
        tree, is_upper = session.base.tree, session.below is not None
        entries = {path: want.get(path, tree.get(path)) for path in paths}
        if any(e is not None and e.mode == "160000" for e in (*entries.values(), *map(tree.get, paths))):
            return None
        written = {p: e for p, e in entries.items() if e is not None and not (is_upper and tree.get(p) == e)}
        contents = await self._blobs.get_many([entry.blob for entry in written.values()])
        given = dict(zip(written, contents, strict=True))
        return [Rewrite(path, entry, given.get(path)) for path, entry in entries.items()]

    async def _laid(self, session: _Session, rows: Rows) -> None:
        """A new folder with these files: the whole tree, or of an upper layer the rows alone."""
        await asyncio.to_thread(session.renew)
        is_upper = session.below is not None
        tree = {p: e for p, e in rows.items() if e is not None} if is_upper else applied(session.base.tree, rows)
        stamps = await write_tree(tree, session.folder.workspace, self._blobs, session.user.who)
        session.known = {path: (stamp, tree[path]) for path, stamp in stamps.items()}
        if is_upper:
            await asyncio.to_thread(session.layer.hide_gone, rows)

    # What goes.

    async def _make_room(self) -> None:
        limits = self._limits
        while len(self._idle) + len(self._busy) >= limits.folders and self._idle:
            await self._drop(self._idle[0])
        unused = await asyncio.to_thread(self._bases.unused)
        left = sum(size for _, size in unused) + sum(base.size_bytes for base in self._held.values())
        left += sum(session.used_bytes for session in (*self._idle, *self._busy)) - limits.size_bytes
        while left > 0 and self._idle:
            left -= self._idle[0].used_bytes
            await self._drop(self._idle[0])
        if left > 0:
            self._release_bases()
            for place, size in await asyncio.to_thread(self._bases.unused):
                if left > 0 and await asyncio.to_thread(self._bases.remove, place):
                    left -= size

    async def _drop(self, session: _Session) -> None:
        self._idle.remove(session)
        os.close(session.folder.descriptor)
        if session.below is not None:
            self._pins[session.base.digest, session.user.who.uid] -= 1
        try:
            await asyncio.to_thread(remove_shared_tree, session.folder.outer)
        finally:
            self._leave(session.place.story, session.user)

    def _release_bases(self) -> None:
        """Bases that no folder lies over stay on the disk, and may be removed from there by anyone."""
        for key in [key for key in self._held if self._pins[key] <= 0]:
            os.close(self._held.pop(key).lock)
        for digest in self._trees.keys() - {session.base.digest for session in (*self._idle, *self._busy)}:
            del self._trees[digest]


def _is_there(session: _Session) -> bool:
    """Whether nobody has removed the folder, or what lies below it."""
    try:
        same = session.folder.workspace.stat().st_ino == os.fstat(session.folder.descriptor).st_ino
    except OSError:
        return False
    return same and (session.below is None or session.below.files.is_dir())


def _made(outer: Path, who: Identity) -> RunFolder:
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


def _move_all(layer: Layer, changes: Sequence[Rewrite], known: Known) -> bool:
    if not all(layer.move(change, known) for change in changes):
        return False
    for folder in dict.fromkeys(change.path.rpartition("/")[0] for change in changes if change.content is None):
        layer.drop_empty(folder)
    return True


def _empties(base: BaseTree, path: str, want: Rows) -> bool:
    """Whether the path was the last of a folder of the base."""
    if want.get(path, base.tree.get(path)) is not None:
        return False
    folder = path.rpartition("/")[0]
    return folder in base.folders and not base.files_below(folder, want)


class LiveSpace:
    """The folder of a session while one run uses it. Implements Space."""

    def __init__(self, session: _Session, rows: Rows, blobs: BlobStore) -> None:
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
        found = await asyncio.to_thread(
            survey,
            self.folder.descriptor,
            session.base,
            self._began,
            session.known,
            is_upper=session.below is not None,
        )
        self._survey, session.used_bytes = found, found.used
        is_over = found.entries >= MAX_ENTRIES or found.longest > MAX_PATH_BYTES
        if is_over or not has_room(self.folder.descriptor):
            self._survey = None
            return NO_ROOM
        return found.used + (session.below.size_bytes if session.below else 0)

    async def artifacts(self, paths: Sequence[str]) -> tuple[Artifact, ...]:
        """See Left."""
        found = await store_artifacts(self.folder.descriptor, paths, self._blobs)
        base, rows = self._session.base, self._survey.rows if self._survey else {}
        if self._session.below is None:
            return found
        return tuple([await self._shown(one, base, rows) for one in found])

    async def _shown(self, artifact: Artifact, base: BaseTree, rows: Rows) -> Artifact:
        """The artifact of the base where the run left none of its own, nor took that away."""
        entry = base.tree.get(artifact.path)
        is_shown = artifact.blob is None and not artifact.truncated and artifact.path not in rows
        if not is_shown or entry is None or entry.mode not in ("100644", "100755"):
            return artifact
        return Artifact(path=artifact.path, blob=entry.blob, size_bytes=len(await self._blobs.get(entry.blob)))

    async def kept(self, spec: RunSpec) -> tuple[Digest, int]:
        """See Left."""
        found = self._survey
        if found is None or found.size > spec.limits.disk_bytes:
            self._survey = None
            raise WorkspaceFull(f"the run left more than {spec.limits.disk_bytes} bytes")
        rows = await self._read(found, self._blobs, max_bytes=spec.limits.disk_bytes)
        kept = rows
        if spec.discard:
            kept = {p: e for p, e in rows.items() if not is_skipped(p, spec.discard)}
            kept |= {p: e for p, e in self._began.items() if is_skipped(p, spec.discard)}
        return await put_tree(self._blobs, Delta(self._session.base.digest, kept)), found.left_out

    async def settle(self) -> None:
        """What lies in the folder is known where it can be, and the next run goes on with it."""
        session, found = self._session, self._survey
        if found is None or found.is_torn:
            return
        if self._rows is None and sum(one.size for one in found.others) <= _HASHED_BYTES:
            await self._read(found, None, max_bytes=_HASHED_BYTES)
        rows = self._rows if self._rows is not None else found.rows | {one.path: UNREAD for one in found.others}
        if found.extras:
            await asyncio.to_thread(remove_extras, self.folder.descriptor, found.extras)
        session.rows = {**rows, **dict.fromkeys(found.linked, UNREAD)}

    async def _read(self, found: FolderSurvey, blobs: BlobStore | None, *, max_bytes: int) -> Rows:
        session, root = self._session, self.folder.descriptor
        read = await read_files(root, found.others, blobs, max_bytes=max_bytes)
        rows = found.rows | {path: entry for path, entry in read.items() if session.base.tree.get(path) != entry}
        for path, entry in read.items():
            session.known.pop(path, None)
            if (known := stamped(root, path, entry)) is not None:
                session.known[path] = known
        self._rows = rows
        return rows
