"""The host folders of one run, and the result that is read out of them when it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest
from fleet.policy.runs.spec import BlobMount, OutputStream, RepoMount, RunReason, RunResult, RunSpec, Usage
from fleet.sandbox.backends.ending import (
    ENDED_BY_COMMAND,
    STATUS_OF,
    UNCHANGED_TREE,
    is_config_error,
    is_missing_program,
)
from fleet.sandbox.backends.identity import Identity, is_root
from fleet.sandbox.backends.output import RunOutput
from fleet.sandbox.backends.request import MAX_STDIN_BYTES
from fleet.sandbox.backends.stamps import NO_STAMPS, Stamps
from fleet.sandbox.folders.beneath import open_beneath
from fleet.sandbox.folders.tree_reader import WorkspaceFull, capture_tree
from fleet.sandbox.folders.workspace import disk_usage, remove_tree, store_artifacts
from fleet.trees.port import BlobStore
from fleet.trees.tree import Tree, encode_tree


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


def without_cwd(spec: RunSpec, folder: RunFolder) -> RunResult | None:
    """The result of a run whose folder is not in its tree, or is reached through a link. None when it is there."""
    try:
        os.close(open_beneath(folder.descriptor, spec.cwd, os.O_RDONLY | os.O_DIRECTORY))
    except OSError:
        return RunResult(
            status="error",
            reason="config",
            exit_code=None,
            stderr=OutputStream(head=f"{spec.cwd!r} is no folder of the tree; nothing was started\n"),
            tree_in=spec.tree,
            tree_out=spec.tree if spec.keep_tree else None,
            limits={"cwd": "bad_cwd"},
        )
    return None


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
    *,
    before: Tree,
    folder: RunFolder,
    blobs: BlobStore,
    stamps: Stamps = NO_STAMPS,
    came_back: bool = True,
) -> RunResult:
    """The result without backend, image and mechanisms: reason, output, artifacts, the tree that was left.

    A command that failed, was killed by a limit or ran out of time left its tree too; one that was cancelled, was never
    started or was lost returns to `before` (RC-36).

    Args:
        stamps: what `write_tree` said when it wrote `before` into the folder.
        came_back: the folder holds what the command left; false where nothing of it reached us, so that it says
            nothing about the tree.
    """
    reason, notes = ended.reason, dict[str, str]()
    tree_out = spec.tree if spec.keep_tree else None
    used = await asyncio.to_thread(disk_usage, folder.descriptor, repair=True)
    artifacts = await store_artifacts(folder.descriptor, spec.artifacts, blobs)
    try:
        if used > spec.limits.disk_bytes:
            raise WorkspaceFull("over the disk limit when the run ended")
        if spec.keep_tree and reason in ENDED_BY_COMMAND and not came_back:
            notes = {"tree": "unchanged: nothing of what the command left came back"}
        elif spec.keep_tree and reason in ENDED_BY_COMMAND:
            tree_out, left_out = await _kept(spec, before, folder, blobs, stamps)
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


async def _kept(spec: RunSpec, before: Tree, folder: RunFolder, blobs: BlobStore, stamps: Stamps) -> tuple[Digest, int]:
    capture = await capture_tree(
        folder.descriptor, blobs, before=before, discard=spec.discard, max_bytes=spec.limits.disk_bytes, stamps=stamps
    )
    return await blobs.put(encode_tree(capture.tree)), capture.left_out


def make_passable(folder: Path) -> None:
    """The folder exists, and when we are root every user can pass those that had to be made for it."""
    if folder.is_dir():
        return
    make_passable(folder.parent)
    folder.mkdir(exist_ok=True)
    if is_root():
        folder.chmod(0o711)
