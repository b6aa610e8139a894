"""The folders of work sessions: kept between their commands, and never more than a cache of the recorded files.

What lies in a folder is known only from the end of one command to the start of the next. A mark beside the folder says
so on the disk: it is there between two commands, and gone before the next one begins. So a supervisor that starts again
takes over what a dead one left clean, and what was dirty is removed, to be laid anew from base and delta. Two commands
of one session at the same time get two folders; where each would hold the whole tree, one that only reads waits for the
folder that is there.

    live/<process>/<number>/mark             what lies in the folder, while that is known
                           /task/workspace   the upper layer, or the whole tree
                                /work        what overlayfs needs beside it

Source: docs/design/engineering_loop.md, section 2.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import math
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple, TypeVar
from weakref import WeakValueDictionary

from fleet.kernel.errors import FleetError, SandboxUnavailable
from fleet.kernel.ids import Digest
from fleet.policy.runs.spec import LiveFolder, RunSpec
from fleet.sandbox.backends.identity import Identity, is_alive, lease_identity
from fleet.sandbox.folders.bases import Base, BaseFolders, BaseTree, read_base
from fleet.sandbox.folders.layer import Layer, Rewrite
from fleet.sandbox.folders.mark import Known, drop_mark, read_mark
from fleet.sandbox.folders.package_layers import LayerLimits
from fleet.sandbox.folders.session_folder import LiveSpace, SessionFolder, StoryUser, is_there, made_folder, taken_over
from fleet.sandbox.folders.tree_reader import is_skipped
from fleet.sandbox.folders.tree_writer import check_tree, write_tree
from fleet.sandbox.folders.workspace import FREE_FLOOR_BYTES, NO_SPACE, free_bytes, no_room, remove_shared_tree
from fleet.trees.delta import Rows, applied
from fleet.trees.port import BlobStore, DiskUse, FolderKind
from fleet.trees.service import rows_over

_BaseKey = tuple[Digest, int]
"""Digest of the tree, and uid of the user to whom its files belong."""
T = TypeVar("T")

_AT_ONCE = 32
_MOVED = 200
"""Paths that are changed one by one; for more of them an upper layer is laid anew."""


class FolderLimits(NamedTuple):
    """What the folders of sessions and the environment layers may take on one node."""

    folders: int = 200
    """Kept between commands; of those that no command uses the oldest go first."""
    stories: int = 48
    """That hold a user of the machine; where the fleet is not root there is one user for all."""
    bases_bytes: int = 20 << 30
    """Base folders, on the disk."""
    folders_bytes: int = 20 << 30
    """Folders of sessions, on the disk, without the bases below them."""
    idle_s: float = 7_200
    """Until a folder that no command uses goes, and with the last one of its story the story's user."""
    layers: LayerLimits = LayerLimits()


class LiveFolders:
    """The folders of one backend. To be used from one event loop.

    Args:
        root: folder that sandbox users can pass; what is below it shows inside, in the table of mounts.
        me: name of this process, as `process_name` gives it.

    Attributes:
        overlays: whether an upper layer over a base is used; else each folder holds its whole tree.
        evicted: how many bases and folders had to make room so far.
    """

    def __init__(self, root: Path, blobs: BlobStore, me: str, *, limits: FolderLimits | None = None) -> None:
        self._all, self._root, self._blobs = root, root / f"{me}-{token_hex(4)}", blobs
        self._limits = limits or FolderLimits()
        self._bases = BaseFolders(root, blobs, me)
        self._idle: list[SessionFolder] = []
        """Those that no command uses, the one that was used last coming last."""
        self._busy: list[SessionFolder] = []
        self._users: dict[str, StoryUser] = {}
        self._trees: dict[Digest, BaseTree] = {}
        self._held: dict[_BaseKey, Base] = {}
        self._pins = Counter[_BaseKey]()
        """How many folders lie over a base, or will in a moment."""
        self._numbers = itertools.count()
        self._laying: WeakValueDictionary[Digest, asyncio.Lock] = WeakValueDictionary()  # one writer of a base
        self._leasing = asyncio.Lock()  # one judge of which story goes
        self._freed = asyncio.Event()
        self.overlays = False
        self.evicted = Counter[FolderKind]()

    @contextlib.asynccontextmanager
    async def opened(self, spec: RunSpec) -> AsyncGenerator[LiveSpace]:
        """The folder of the session with the files of `spec.tree`, for this run alone until the block ends.

        Raises:
            SandboxUnavailable: every user of the machine is taken, or there is no room on the disk.
            InvalidInput: the tree cannot exist on a disk.
            OSError: the folder cannot be used.
        """
        assert spec.folder is not None
        assert spec.tree is not None
        if not spec.keep_tree:
            await self._until_free(spec.folder)
        session, rows = await self.with_room(partial(self._begun, spec.folder, spec.tree))
        try:
            space = LiveSpace(session, rows, self._blobs)
            yield space
            await space.settle()
        finally:
            await self._left(session)

    async def _begun(self, place: LiveFolder, tree: Digest) -> tuple[SessionFolder, Rows]:
        """A folder that holds the tree, in use from now on, and dirty."""
        session = await self._taken(place)
        try:
            drop_mark(session.folder.outer)
            rows = await rows_over(self._blobs, session.base.digest, tree)
            await self._brought(session, rows)
        except BaseException:
            await self._left(session)
            raise
        return session, rows

    async def _left(self, session: SessionFolder) -> None:
        try:
            # One that cannot be marked is dirty for the next supervisor; this one knows it.
            with contextlib.suppress(OSError):
                await asyncio.to_thread(session.leave)
        finally:
            self._busy.remove(session)
            self._idle.append(session)
            session.used_at = time.monotonic()
            self._freed.set()
            self._freed = asyncio.Event()

    async def _until_free(self, place: LiveFolder) -> None:
        """A folder of this session is free, or it has none: to lay another whole tree takes longer than most looks."""
        while not self.overlays and self.holds(place) and all(one.place != place for one in self._idle):
            await self._freed.wait()

    async def forget(self, story: str) -> None:
        """The folders of the story that no run uses are gone."""
        await self._drop(*(one for one in self._idle if one.place.story == story))
        self._release_bases()

    async def sweep(self) -> int:
        """What dead processes left is gone, and what is over the limits; how many folders of dead ones they were."""
        await self._drop(*(one for one in self._idle if time.monotonic() - one.used_at > self._limits.idle_s))
        await self._make_room()
        dead = await asyncio.to_thread(self._dead)
        for outer in [outer for folder in dead for outer in folder.glob("[0-9]*")]:
            with contextlib.suppress(FleetError, OSError):
                await self._take_over(outer)
        return await asyncio.to_thread(lambda: sum(map(remove_shared_tree, dead)) + self._bases.sweep(is_alive))

    def _dead(self) -> list[Path]:
        return [folder for folder in self._all.glob("[0-9]*") if not is_alive("-".join(folder.name.split("-")[:3]))]

    async def usage(self) -> tuple[DiskUse, ...]:
        """What bases and folders take on the disk, and how much of it commands use or lie over."""
        everybody, limits, place = (*self._idle, *self._busy), self._limits, str(self._all)
        unused = await asyncio.to_thread(self._bases.unused)
        held = [self._held[key].size_bytes for key in self._held if self._pins[key] > 0]
        free = [self._held[key].size_bytes for key in self._held if self._pins[key] <= 0] + [size for _, size in unused]
        return (
            DiskUse("bases", sum(held) + sum(free), sum(held), len(held) + len(free), limits.bases_bytes, folder=place),
            DiskUse(
                "folders",
                sum(session.used_bytes for session in everybody),
                sum(session.used_bytes for session in self._busy),
                len(everybody),
                limits.folders_bytes,
                folder=place,
            ),
        )

    def holds(self, place: LiveFolder) -> bool:
        """Whether a folder of this session is here."""
        return any(session.place == place for session in (*self._idle, *self._busy))

    async def _take_over(self, outer: Path) -> None:
        """A folder that a dead process left clean is ours, if its user and base can be had."""
        mark = await asyncio.to_thread(read_mark, outer)
        if mark is None or len(self._idle) + len(self._busy) >= self._limits.folders:
            return
        if mark.is_upper and mark.uid not in self._bases.users_of(mark.base):
            return
        user = await self._user(mark.place.story, [mark.uid], only=True)
        key: _BaseKey | None = None
        try:
            base = await self._tree(mark.base)
            below = None
            if mark.is_upper:
                key = mark.base, mark.uid
                self._pins[key] += 1
                below = await self._below(key, base, user.who)
            new = self._root / str(next(self._numbers))
            session = await asyncio.to_thread(taken_over, outer, new, mark, base, below, user)
        except BaseException:
            self._pins.subtract([key] if key else [])
            self._leave(mark.place.story, user)
            raise
        self._idle.append(session)

    # Which folder.

    async def _taken(self, place: LiveFolder) -> SessionFolder:
        while True:
            session = next((one for one in reversed(self._idle) if one.place == place), None)
            if session is None:
                session = await self._new(place)
            elif is_there(session) and (session.below is not None) == self.overlays:
                self._idle.remove(session)
            else:
                await self._drop(session)
                continue
            self._busy.append(session)
            return session

    async def _new(self, place: LiveFolder) -> SessionFolder:
        await self._make_room()
        # A base that another story left is found again by the user to whom it belongs.
        user = await self._user(place.story, self._bases.users_of(place.root) if self.overlays else ())
        key: _BaseKey | None = None
        try:
            base = await self._tree(place.root)
            below = None
            self._require_limits((base.digest, user.who.uid) if self.overlays else None)
            if self.overlays:
                key = base.digest, user.who.uid
                self._pins[key] += 1
                below = await self._below(key, base, user.who)
            folder = await asyncio.to_thread(made_folder, self._root / str(next(self._numbers)), user.who)
        except BaseException:
            self._pins.subtract([key] if key else [])
            self._leave(place.story, user)
            raise
        return SessionFolder(place, base, below, folder, user)

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

    async def _user(self, story: str, uids: Sequence[int] = (), *, only: bool = False) -> StoryUser:
        """The user of the story, a new one from `uids` if that can be had; with `only` SandboxUnavailable if not."""
        async with self._leasing:
            if only and (user := self._users.get(story)) is not None and user.who.uid not in uids:
                raise SandboxUnavailable("the story has another user by now", missing="uid")
            while (user := self._users.get(story)) is None:
                lease = contextlib.ExitStack()
                try:
                    if only or len(self._users) < self._limits.stories or not await self._drop_a_story():
                        identity = lease.enter_context(lease_identity(first=uids, only=only))
                        self._users[story] = StoryUser(identity, lease)
                except SandboxUnavailable:
                    if only or not await self._drop_a_story():
                        raise
            user.folders += 1
            return user

    async def _drop_a_story(self) -> bool:
        """The story that was idle for longest loses its folders; False when all of them are in use."""
        busy = {session.place.story for session in self._busy}
        oldest = next((one.place.story for one in self._idle if one.place.story not in busy), None)
        await self._drop(*(one for one in self._idle if one.place.story == oldest))
        return oldest is not None

    def _leave(self, story: str, user: StoryUser) -> None:
        user.folders -= 1
        if not user.folders and self._users.get(story) is user:
            del self._users[story]
            user.lease.close()

    # What lies in it.

    async def _brought(self, session: SessionFolder, rows: Rows) -> None:
        """The folder holds the tree with these rows."""
        # A command follows, and whatever it leaves is unknown until it was looked at.
        have, session.rows = session.rows, None
        if have is None or not await self._moved(session, have, rows):
            await self._laid(session, rows)

    async def _moved(self, session: SessionFolder, have: Rows, want: Rows) -> bool:
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

    async def _changes(self, session: SessionFolder, paths: Sequence[str], want: Rows) -> list[Rewrite] | None:
        """What to do at each path; None where it is about a submodule."""
        tree, is_upper = session.base.tree, session.below is not None
        entries = {path: want.get(path, tree.get(path)) for path in paths}
        if any(e is not None and e.mode == "160000" for e in (*entries.values(), *map(tree.get, paths))):
            return None
        written = {p: e for p, e in entries.items() if e is not None and not (is_upper and tree.get(p) == e)}
        contents = await self._blobs.get_many([entry.blob for entry in written.values()])
        given = dict(zip(written, contents, strict=True))
        return [Rewrite(path, entry, given.get(path)) for path, entry in entries.items()]

    async def _laid(self, session: SessionFolder, rows: Rows) -> None:
        """A new folder with these files: the whole tree, or of an upper layer the rows alone."""
        await asyncio.to_thread(session.renew)
        is_upper = session.below is not None
        tree = {p: e for p, e in rows.items() if e is not None} if is_upper else applied(session.base.tree, rows)
        stamps = await write_tree(tree, session.folder.workspace, self._blobs, session.user.who)
        session.known = {path: (stamp, tree[path]) for path, stamp in stamps.items() if not is_skipped(path, ())}
        if is_upper:
            await asyncio.to_thread(session.layer.hide_gone, rows)

    # What goes.

    async def with_room(self, lay: Callable[[], Awaitable[T]]) -> T:
        """What laying gives. On a full disk all that no command uses goes first, and it is tried once more.

        Nothing is lost: bases and folders are caches of what is on record. Raises SandboxUnavailable when there still
        is no room.
        """
        for is_last in (False, True):
            try:
                if free_bytes(self._all) < FREE_FLOOR_BYTES:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return await lay()
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                if is_last:
                    raise no_room(self._all) from error
            await self._make_room(is_full=True)
        raise AssertionError("unreachable")

    async def _make_room(self, *, is_full: bool = False) -> None:
        """The limits hold again, or on a full disk nothing is left that no command uses; the oldest goes first."""
        limits = self._limits
        while self._idle and (
            is_full
            or len(self._idle) + len(self._busy) >= limits.folders
            or self._folders_bytes() > limits.folders_bytes
        ):
            await self._evict(self._idle[0])
        while (over := math.inf if is_full else await self._bases_bytes() - limits.bases_bytes) > 0:
            self._release_bases()
            for place, size in await asyncio.to_thread(self._bases.unused):
                if over > 0 and await asyncio.to_thread(self._bases.remove, place):
                    self.evicted["bases"] += 1
                    over -= size
            oldest = next((session for session in self._idle if session.below is not None), None)
            if over <= 0 or oldest is None:
                return
            await self._evict(oldest)

    def _folders_bytes(self) -> int:
        return sum(session.used_bytes for session in (*self._idle, *self._busy))

    async def _bases_bytes(self) -> int:
        unused = await asyncio.to_thread(self._bases.unused)
        return sum(base.size_bytes for base in self._held.values()) + sum(size for _, size in unused)

    def _require_limits(self, key: _BaseKey | None) -> None:
        """There is room for one more folder. SandboxUnavailable when commands under way have all of it."""
        held, limits = sum(base.size_bytes for base in self._held.values()), self._limits
        for what, used, limit in (
            ("folders", self._folders_bytes(), limits.folders_bytes),
            ("bases", 0 if key is None or key in self._held else held, limits.bases_bytes),
        ):
            if used >= limit:
                raise SandboxUnavailable(
                    f"{what} of work sessions in use on this node take {used:,} bytes of {limit:,}: the command runs "
                    f"when others have ended, or raise sandbox.disk.{what}_bytes in fleet.yaml",
                    missing="disk",
                    queued=True,
                    used_bytes=used,
                    limit_bytes=limit,
                )

    async def _evict(self, session: SessionFolder) -> None:
        self.evicted["folders"] += 1
        await self._drop(session)

    async def _drop(self, *sessions: SessionFolder) -> None:
        """Those of the folders are gone that no command uses when their turn comes."""
        for session in sessions:
            if session not in self._idle:
                continue
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


def _move_all(layer: Layer, changes: Sequence[Rewrite], stamped: Known) -> bool:
    if not all(layer.move(change, stamped) for change in changes):
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
