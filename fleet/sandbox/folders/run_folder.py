"""The host folders of one run, and the result that is read out of them when it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest
from fleet.policy.runs.spec import Artifact, BlobMount, OutputStream, RepoMount, RunReason, RunResult, RunSpec, Usage
from fleet.sandbox.backends.identity import Identity, is_root, lease_identity
from fleet.sandbox.backends.output import RunOutput
from fleet.sandbox.backends.request import MAX_STDIN_BYTES
from fleet.sandbox.backends.run_end import (
    ENDED_BY_COMMAND,
    STATUS_OF,
    UNCHANGED_TREE,
    is_config_error,
    is_missing_program,
)
from fleet.sandbox.backends.stamps import Stamp, Stamps
from fleet.sandbox.folders.beneath import open_beneath
from fleet.sandbox.folders.tree_reader import WorkspaceFull, capture_tree
from fleet.sandbox.folders.tree_writer import write_tree
from fleet.sandbox.folders.workspace import NO_ROOM, disk_usage, is_small, no_room, remove_tree, store_artifacts
from fleet.trees.port import BlobStore
from fleet.trees.service import put_kept, read_tree
from fleet.trees.tree import Tree


class HowEnded(Protocol):
    """What a backend knows of a run that is over; all its processes are dead."""

    @property
    def reason(self) -> RunReason:
        """Why it ended, before its folder was looked at."""
        ...

    @property
    def exit_code(self) -> int | None:
        """As in RunResult."""
        ...

    @property
    def usage(self) -> Usage:
        """What it used."""
        ...


class Left(Protocol):
    """What a run left in its folder; all its processes are dead."""

    async def usage(self) -> int:
        """Bytes on the disk, or NO_ROOM. Asked first. SandboxUnavailable when others have filled the disk."""
        ...

    async def artifacts(self, paths: Sequence[str]) -> tuple[Artifact, ...]:
        """The declared outputs (RC-23, RC-33)."""
        ...

    async def kept(self, spec: RunSpec) -> tuple[Digest, int]:
        """The recorded tree, and how many entries no tree can hold. WorkspaceFull over the disk limit."""
        ...


@dataclass(frozen=True, slots=True)
class RunFolder:
    """`home` belongs to the run's user alone; `outer` to us."""

    outer: Path
    home: Path
    workspace: Path
    descriptor: int


@contextlib.asynccontextmanager
async def opened_folder(runs: Path, who: Identity) -> AsyncGenerator[RunFolder]:
    """An empty folder below `runs` until the block ends."""
    outer = runs / secrets.token_hex(6)
    home, workspace = outer / "task", outer / "task" / "workspace"
    workspace.mkdir(parents=True, mode=0o755)
    for folder in (runs.parent, runs, outer):
        folder.chmod(0o711)
    home.chmod(0o700)
    os.chown(home, who.uid, who.gid)
    descriptor = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield RunFolder(outer, home, workspace, descriptor)
    finally:
        os.close(descriptor)
        await asyncio.to_thread(remove_tree, outer)


@contextlib.asynccontextmanager
async def laid_folder(runs: Path, who: Identity, tree: Tree, blobs: BlobStore) -> AsyncGenerator[WholeFolder]:
    """A folder below `runs` with the whole tree, until the block ends."""
    async with opened_folder(runs, who) as folder:
        stamps = await write_tree(tree, folder.workspace, blobs, who)
        yield WholeFolder(folder, who, tree, blobs, stamps)


@contextlib.asynccontextmanager
async def leased_folder(runs: Path, spec: RunSpec, blobs: BlobStore) -> AsyncGenerator[WholeFolder]:
    """As `laid_folder` with the run's tree, for a user that no other run has meanwhile."""
    files = await tree_of(spec, blobs)
    with lease_identity() as who:
        async with laid_folder(runs, who, files, blobs) as folder:
            yield folder


async def tree_of(spec: RunSpec, blobs: BlobStore) -> Tree:
    """The files that the run begins with."""
    return await read_tree(blobs, spec.tree) if spec.tree else {}


async def put_inputs(spec: RunSpec, folder: RunFolder, blobs: BlobStore) -> Path | None:
    """Folder of the mounted blobs; None when there are none."""
    mounts = [m for m in spec.mounts if isinstance(m, BlobMount)]
    if not mounts:
        return None
    inputs = folder.home / "inputs"
    inputs.mkdir(mode=0o755)
    for mount in mounts:
        _put(inputs / mount.target.rpartition("/")[2], await blobs.get(mount.blob))
    return inputs


async def put_stdin(spec: RunSpec, folder: RunFolder, blobs: BlobStore) -> Path | None:
    """The file that the command reads; None for an empty input. InvalidInput over 10 MB."""
    if spec.stdin is None:
        return None
    content = await blobs.get(spec.stdin)
    if len(content) > MAX_STDIN_BYTES:
        raise InvalidInput(
            f"stdin of the run has {len(content)} bytes, over {MAX_STDIN_BYTES}: put it into a file of the tree",
            field="stdin",
        )
    _put(path := folder.home / "stdin", content)
    return path


def without_cwd(spec: RunSpec) -> RunResult:
    """The result of a run whose folder is not in its tree, or is reached through a link."""
    return RunResult(
        status="error",
        reason="config",
        exit_code=None,
        stderr=OutputStream(head=f"{spec.cwd!r} is no folder of the tree; nothing was started\n"),
        tree_in=spec.tree,
        tree_out=spec.tree if spec.keep_tree else None,
        limits={"cwd": "bad_cwd"},
    )


def without_repo(spec: RunSpec, repos: Path) -> RunResult | None:
    """The result of a run whose repository is not staged below `repos`; None when nothing is missing (RC-19)."""
    for mount in spec.mounts:
        if isinstance(mount, RepoMount) and not (repos / mount.repo).is_dir():
            return RunResult(
                status="error",
                reason="mount_refused",
                exit_code=None,
                tree_in=spec.tree,
                limits={"mount": f"no staged repository {mount.repo} on this node"},
            )
    return None


def _put(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o444)


async def read_result(
    spec: RunSpec,
    ended: HowEnded,
    output: RunOutput,
    left: Left,
    blobs: BlobStore,
    *,
    came_back: bool = True,
) -> RunResult:
    """The result without backend, image and mechanisms: reason, output, artifacts, the tree that was left.

    A command that failed, was killed by a limit or ran out of time left its tree too; one that was cancelled, was never
    started or was lost returns to the tree that it began with (RC-36).

    Args:
        came_back: the folder holds what the command left; false where nothing of it reached us, so that it says
            nothing about the tree.
    """
    reason, notes = ended.reason, dict[str, str]()
    tree_out = spec.tree if spec.keep_tree else None
    used = await left.usage()
    artifacts = await left.artifacts(spec.artifacts)
    try:
        if used > spec.limits.disk_bytes:
            raise WorkspaceFull("over the disk limit when the run ended")
        if spec.keep_tree and reason in ENDED_BY_COMMAND and not came_back:
            notes = {"tree": "unchanged: nothing of what the command left came back"}
        elif spec.keep_tree and reason in ENDED_BY_COMMAND:
            tree_out, left_out = await left.kept(spec)
            notes = {"tree": f"{left_out} entries that no tree can hold were left out"} if left_out else {}
    except WorkspaceFull:
        reason = "disk_limit" if reason in ("ok", "exit_nonzero", "signal") else reason
        notes = {"tree": UNCHANGED_TREE} if spec.keep_tree else {}
    if reason == "exit_nonzero" and is_config_error(ended.exit_code, output.stderr.last_line):
        reason = "config"
    if reason == "exit_nonzero" and is_missing_program(ended.exit_code, output):
        reason, notes["program"] = "config", "not_found"
    return RunResult(
        status=STATUS_OF[reason],
        reason=reason,
        exit_code=ended.exit_code,
        stdout=await output.stdout.store(blobs),
        stderr=await output.stderr.store(blobs),
        log=await output.store_log(blobs),
        artifacts=artifacts,
        tree_in=spec.tree,
        tree_out=tree_out,
        usage=ended.usage,
        limits=notes,
    )


class Space(Left, Protocol):
    """The folder of a run with its tree, from before the run until what it left was read."""

    @property
    def folder(self) -> RunFolder:
        """Its host folders; `workspace` is what the command writes to."""
        ...

    @property
    def who(self) -> Identity:
        """The user of the run."""
        ...

    @property
    def overlay(self) -> tuple[Path, Path] | None:
        """What lies read-only below the folder, and what overlayfs needs beside it; None where nothing lies below."""
        ...

    def has_folder(self, path: str) -> bool:
        """Whether the run's tree has this folder."""
        ...

    def disk_usage(self) -> int:
        """As the function of this name, of all that the run sees. Called in a thread while it goes on."""
        ...


@dataclass(frozen=True, slots=True)
class WholeFolder:
    """A folder of one run, into which the whole tree `before` was written. Implements Space.

    Attributes:
        stamps: what `write_tree` said when it did.
    """

    folder: RunFolder
    who: Identity
    before: Tree
    blobs: BlobStore
    stamps: Stamps = field(default_factory=dict[str, Stamp])

    @property
    def overlay(self) -> None:
        """None: everything lies in the folder itself."""
        return

    def has_folder(self, path: str) -> bool:
        """Whether this folder is in the tree, and not reached through a link."""
        try:
            os.close(open_beneath(self.folder.descriptor, path, os.O_RDONLY | os.O_DIRECTORY))
        except OSError:
            return False
        return True

    def disk_usage(self) -> int:
        """As the function of this name. Called in a thread while the run goes on."""
        return disk_usage(self.folder.descriptor)

    async def usage(self) -> int:
        """See Left."""
        used = await asyncio.to_thread(disk_usage, self.folder.descriptor, repair=True)
        if used >= NO_ROOM and await asyncio.to_thread(is_small, self.folder.descriptor):
            # Others have filled the disk: that says nothing of the command.
            raise no_room(self.folder.outer)
        return used

    async def artifacts(self, paths: Sequence[str]) -> tuple[Artifact, ...]:
        """See Left."""
        return await store_artifacts(self.folder.descriptor, paths, self.blobs)

    async def kept(self, spec: RunSpec) -> tuple[Digest, int]:
        """See Left."""
        capture = await capture_tree(
            self.folder.descriptor,
            self.blobs,
            before=self.before,
            discard=spec.discard,
            max_bytes=spec.limits.disk_bytes,
            stamps=self.stamps,
        )
        tree = await put_kept(self.blobs, capture.tree, root=spec.folder and spec.folder.root)
        return tree, capture.left_out


def make_passable(folder: Path) -> None:
    """The folder exists, and when we are root every user can pass those that had to be made for it."""
    if folder.is_dir():
        return
    make_passable(folder.parent)
    folder.mkdir(exist_ok=True)
    if is_root():
        folder.chmod(0o711)
