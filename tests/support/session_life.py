"""A sandbox of work sessions as a process of its own, for tests that kill it. Arguments: state root, blobs, tree.

Prints `clean` and the head of session `clean` after a command that also left a cache; then begins a command in session
`dirty`, which never ends, and prints `begun` once that has begun. With `ends` last it ends before that.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from fleet.kernel.ids import Digest
from fleet.policy.runs.spec import RunSpec
from fleet.trees.files import FileBlobStore
from tests.support.sandbox import SMALL
from tests.support.session_folders import Session, made

LEAVES_CACHE = "mkdir -p {0}/__pycache__; echo kept > {0}/__pycache__/one; echo new > {0}/new; echo more >> README"


async def main(root: Path, blobs: FileBlobStore, tree: Digest, *, use_overlays: bool, ends: bool) -> None:
    backend = await made(root, blobs, use_overlays=use_overlays)
    for name in ("clean", "dirty"):
        session = Session(backend, blobs, tree, name=name)
        await session.run(LEAVES_CACHE.format("src"))
        print(name, session.head, flush=True)
        if ends:
            return
    spec = RunSpec(
        argv=("bash", "-c", "echo half > src/new; echo here; sleep 300"),
        tree=session.head,
        keep_tree=True,
        limits=SMALL.model_copy(update={"overall_s": 300, "idle_s": 300}),
        folder=session.folder,
    )
    await backend.run(spec, run_id="rn-dirty", log=lambda _: print("begun", flush=True))


if __name__ == "__main__":
    place = FileBlobStore(Path(sys.argv[2]))
    way = {"use_overlays": sys.argv[4] == "overlay", "ends": sys.argv[-1] == "ends"}
    asyncio.run(main(Path(sys.argv[1]), place, Digest(sys.argv[3]), **way))
