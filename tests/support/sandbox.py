"""Backends for tests: a real one below a folder that every user can pass, and its scripted twin."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fleet.kernel.digest import digest_of
from fleet.kernel.ids import Digest
from fleet.policy.runs.spec import Limits
from fleet.sandbox.backends.identity import is_root
from fleet.sandbox.backends.probes import processes_named
from fleet.sandbox.folders.workspace import free_bytes
from fleet.sandbox.memory import ProgramEnd, ProgramStart
from fleet.trees.port import BlobStore
from fleet.trees.tree import FileEntry, Mode, encode_tree

SMALL = Limits(overall_s=20, idle_s=20, memory_bytes=256 << 20, pids=64, disk_bytes=64 << 20)
"""Limits of most tests: large enough for Python, small enough to be reached."""

_WRITE = """
import os, pathlib
pathlib.Path('made.txt').write_text('new')
pathlib.Path('out').mkdir()
pathlib.Path('out/summary.json').write_text('{}')
os.remove('old.txt')
"""
_CONFIG = """
import sys
sys.stderr.write('{"level": "error", "code": "config", "started": false, "variable": "TASK"}\\n')
sys.exit(2)
"""

PROGRAMS: Mapping[str, tuple[str, Callable[[ProgramStart], ProgramEnd]]] = {
    "hello": ("print('hello')", lambda _: ProgramEnd(stdout=b"hello\n")),
    "fail": ("import sys; sys.stderr.write('no'); sys.exit(3)", lambda _: ProgramEnd(exit_code=3, stderr=b"no")),
    "fail and write": (
        "import sys; open('made.txt', 'w').close(); sys.exit(1)",
        lambda _: ProgramEnd(exit_code=1, written={"made.txt": b""}),
    ),
    "write": (_WRITE, lambda _: ProgramEnd(written={"made.txt": b"new", "out/summary.json": b"{}", "old.txt": None})),
    "read": ("print(open('old.txt').read(), end='')", lambda start: ProgramEnd(stdout=start.files["old.txt"])),
    "input": ("print(open('/inputs/data').read(), end='')", lambda s: ProgramEnd(stdout=s.inputs["/inputs/data"])),
    "variable": ("import os; print(os.environ['TASK'], end='')", lambda s: ProgramEnd(stdout=s.env["TASK"].encode())),
    "flood": ("print('x' * 200_000)", lambda _: ProgramEnd(stdout=b"x" * 200_001)),
    "config": (_CONFIG, lambda _: ProgramEnd(exit_code=2, stderr=b'{"code": "config", "started": false}\n')),
    "killed": ("import os; os.kill(os.getpid(), 9)", lambda _: ProgramEnd(exit_code=137)),
}
"""Name -> the program in Python, and what its twin in memory does."""

FOREVER = "import time; print('here', flush=True); time.sleep(600)"


def argv_of(name: str) -> tuple[str, ...]:
    """The command line of a program; `forever` prints a line and sleeps."""
    return ("python", "-c", FOREVER if name == "forever" else PROGRAMS[name][0])


async def scripted(start: ProgramStart) -> ProgramEnd:
    """The twin of every program by its command line."""
    if start.argv == argv_of("forever"):
        await asyncio.sleep(600)
    known = {argv_of(name): program for name, (_, program) in PROGRAMS.items()}
    program = known.get(start.argv)
    return program(start) if program else ProgramEnd(exit_code=127, stderr=b"twin: failed to execute it\n")


@contextmanager
def state_folder() -> Generator[Path]:
    """A state root that a dropped user can pass; the folders of pytest are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="fleet-test-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        yield folder / "state"
    finally:
        shutil.rmtree(folder)


async def put_tree(blobs: BlobStore, files: Mapping[str, bytes | tuple[Mode, bytes]]) -> Digest:
    """A recorded tree of these files; a plain value is a file of mode 100644."""
    tree: dict[str, FileEntry] = {}
    for path, value in files.items():
        mode, data = value if isinstance(value, tuple) else ("100644", value)
        tree[path] = FileEntry(mode, digest_of(data) if mode == "160000" else await blobs.put(data))
    return await blobs.put(encode_tree(tree))


async def eventually(holds: Callable[[], bool], *, within_s: float = 60.0) -> None:
    """Return once the condition holds; AssertionError when it does not in time."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not holds():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def survivors(token: str) -> list[int]:
    """Pids whose command line holds the token; a zombie has none."""
    return processes_named(token)


@contextmanager
def passable_disk(mebibytes: int) -> Generator[Path]:
    """A folder that is a file system of this size, which dropped users can pass."""
    if not is_root():
        pytest.skip("only root mounts a small disk")
    folder = Path(tempfile.mkdtemp(prefix="fleet-disk-", dir="/tmp"))
    mount = ("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0711", "tmpfs", str(folder))
    if subprocess.run(mount, capture_output=True).returncode != 0:
        folder.rmdir()
        pytest.skip("this machine mounts no small disk")
    try:
        yield folder
    finally:
        subprocess.run(("umount", "-l", str(folder)), check=True)
        folder.rmdir()


@contextmanager
def filled(disk: Path, *, leaving: int) -> Generator[Path]:
    """The disk has no more than so many bytes free while the block lasts, or until the file is gone that is yielded."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        # Others write meanwhile, so that what was free a moment ago may be less now.
        while (free := free_bytes(disk) - leaving) > 0:
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), free)
    try:
        yield filler
    finally:
        filler.unlink(missing_ok=True)
