"""Commands of work sessions in a real sandbox, beside what a folder of their own would show."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

from fleet.kernel.ids import Digest, StoryId
from fleet.policy.runs.spec import LiveFolder, RunResult, RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.bubblewrap.overlays import SESSION_FOLDERS
from fleet.trees.delta import Delta, rows_of
from fleet.trees.port import BlobStore
from fleet.trees.service import put_tree, read_delta, read_tree
from fleet.trees.tree import FileEntry
from tests.support.sandbox import SMALL

STORY = StoryId("st-folders-1")
FILES: dict[str, Any] = {
    "README": b"read me\n",
    "run.sh": ("100755", b"#!/bin/sh\necho ran\n"),
    "link": ("120000", b"src/one.py"),
    "src/one.py": b"one = 1\n",
    "src/two.py": b"two = 2\n",
    "src/deep/er/three.py": b"three = 3\n",
    "docs/a.md": b"# a\n",
    "docs/b.md": b"# b\n",
    "vendor/lib": ("160000", b"commit"),
    "pkg/.coverage": b"committed",
    "pkg/__pycache__/kept.pyc": b"committed",
}
LISTED = (
    r"find . -name __pycache__ -prune -o -name .coverage -o -printf '%y %m %p %l\n' | sort; "
    "cat src/*.py README 2>/dev/null; true"
)
"""Shows all that there is but caches, with modes and targets of links; not how old it is."""


async def made(root: Path, blobs: BlobStore, **how: Any) -> BubblewrapBackend:
    backend = BubblewrapBackend(root, blobs, **how)
    health = await backend.health()
    if health.status == "down":
        pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
    kept = health.enforced[SESSION_FOLDERS]
    if how.get("use_overlays", True) and kept != "overlay":
        pytest.skip(f"this machine refuses overlays: {kept}")
    return backend


class Session:
    """One work session: each command begins with the head, and what it leaves is the next one."""

    def __init__(
        self, backend: BubblewrapBackend, blobs: BlobStore, root: Digest, *, name: str = "", story: str = STORY
    ) -> None:
        self.backend, self.blobs, self.head = backend, blobs, root
        self.folder = LiveFolder(story=StoryId(story), session=name or secrets.token_hex(4), root=root)

    async def run(self, line: str, **fields: Any) -> RunResult:
        """How the command ended; the head is what it left."""
        result = await self.look(line, keep_tree=True, **fields)
        assert result.tree_out is not None
        self.head = result.tree_out
        return result

    async def look(self, line: str, **fields: Any) -> RunResult:
        """How a command ended of which no tree is kept, or that is not to move the head."""
        given = {"tree": self.head, "discard": (), "limits": SMALL, "folder": self.folder, **fields}
        spec = RunSpec.model_validate({"argv": ("bash", "-c", line), **given})
        return await self.backend.run(spec, run_id=f"rn-{secrets.token_hex(6)}")

    async def edit(self, path: str, content: bytes | None) -> None:
        """The owner changes a file of the head, which no sandbox sees."""
        tree, delta = await read_tree(self.blobs, self.head), await read_delta(self.blobs, self.head)
        base = await read_tree(self.blobs, delta.base)
        after = {p: e for p, e in tree.items() if p != path}
        if content is not None:
            after[path] = FileEntry("100644", await self.blobs.put(content))
        self.head = await put_tree(self.blobs, Delta(delta.base, rows_of(base, after)))

    async def shown(self) -> str:
        """All that the next command sees."""
        return (await self.look(LISTED)).stdout.text

    async def shown_anew(self) -> str:
        """All that a command in a folder of its own would see."""
        return (await self.look(LISTED, folder=None)).stdout.text

    async def texts(self) -> dict[str, bytes]:
        """The files of the head."""
        tree = await read_tree(self.blobs, self.head)
        return {p: await self.blobs.get(e.blob) for p, e in tree.items() if e.mode != "160000"}
