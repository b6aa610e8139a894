"""The sandbox of one command, without a fleet: `fleet sandbox exec` and `check`."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fleet.config.environment import config_files
from fleet.config.settings import FleetSettings
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import Digest
from fleet.policy.rules.config import Policy
from fleet.sandbox.folders.local_folder import FolderChanges, folder_tree, write_changes
from fleet.sandbox.memory import MemoryRunLedger, MemoryRunLogs
from fleet.sandbox.port import SandboxBackend
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.trees.files import FileBlobStore
from fleet.trees.port import BlobStore
from fleet.trees.service import read_tree
from fleet.trees.tree import encode_tree
from fleet.wiring.sandbox.backend import make_backend
from fleet.wiring.sandbox.plugins import active_policy

_PREFIX = "fleet-exec-"
_NEW_S = 60
"""A younger folder may be between its making and its lock."""


@dataclass(frozen=True, slots=True)
class LoneSandbox:
    """A supervisor whose memory ends with the command, the policy, and folders of this machine as trees."""

    supervisor: ToolSupervisor
    policy: Policy
    blobs: BlobStore

    async def take_in(self, folder: Path, *, max_bytes: int) -> Digest:
        """The folder's files as a tree. Raises InvalidInput."""
        return await self.blobs.put(encode_tree(await folder_tree(folder, self.blobs, max_bytes=max_bytes)))

    async def give_back(self, folder: Path, before: Digest, after: Digest) -> FolderChanges:
        """The folder has what differs between the trees, as far as that is safe."""
        trees = [await read_tree(self.blobs, tree) for tree in (before, after)]
        return await write_changes(folder, trees[0], trees[1], self.blobs)


@asynccontextmanager
async def open_lone_sandbox(
    settings: FleetSettings, *, backend: SandboxBackend | None = None
) -> AsyncGenerator[LoneSandbox]:
    """The sandbox of this machine under the settings; what it stored is gone at the end of the block.

    Args:
        backend: instead of the one of the settings, below the home.

    Raises:
        ConfigError: roles.yaml or policy.yaml is wrong.
    """
    files = config_files(settings)
    policy = active_policy(files)
    await asyncio.to_thread(_sweep)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, _in_use(Path(folder)):
        blobs = FileBlobStore(Path(folder))
        clock = SystemClock()
        supervisor = ToolSupervisor(
            backend or _backend(settings, blobs, policy),
            MemoryRunLedger(clock),
            blobs,
            clock,
            "sandbox:lone",
            logs=MemoryRunLogs(clock),
        )
        yield LoneSandbox(supervisor, policy, blobs)


@contextmanager
def _in_use(folder: Path) -> Generator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # The kernel frees it with the process, however that ends.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _sweep() -> None:
    """Removes the folders of commands that were killed. Those are ours, old enough, and nobody holds their lock."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            status = folder.lstat()
            is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if not is_ours or status.st_mtime > time.time() - _NEW_S:
                continue
            with _in_use(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # another command is at it


def _backend(settings: FleetSettings, blobs: BlobStore, policy: Policy) -> SandboxBackend:
    from fleet.sandbox.backends.identity import reachable_state_root

    root, sandbox = reachable_state_root(settings.home / "sandbox"), settings.sandbox
    return make_backend(sandbox.backend, root, blobs, policy=policy, waived=sandbox.waived, disk=sandbox.disk)
