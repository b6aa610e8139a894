"""Commands of work sessions on a repository of 10,000 files, by overlay and with a whole folder for each session.

| figure | what is timed | yardstick |
|---|---|---|
| call, p50 and p95 | all of a call but its command (see below) | bare bubblewrap with that command |
| first engineer | the same of the first command on a base, which writes all files | `git checkout-index` |
| second to fifth engineer | the same of the first command of each further one | bare bubblewrap |

A call: start and end on record in the log, the run by key with its ledger, the files brought to the head, the sandbox,
what was left read back and stored, and the change as the owner reads it.

A command changes three files; between two commands the owner edits one. Every put, append and claim is on the disk
before the next step. The calls of both ways and the yardstick come in turn. `FOLDERS_FILES` sets the number of files.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from redis.asyncio import Redis

from benchmarks.figures import Figure, percentile
from benchmarks.stores import append_one, log_store, question
from fleet.events.envelope import Head
from fleet.kernel.clock import SystemClock
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import SandboxUnavailable
from fleet.kernel.ids import Digest, RunKey, StoryId, StreamId
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.log import RedisEventLog
from fleet.policy.runs.spec import LiveFolder, RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.bubblewrap.overlays import SESSION_FOLDERS
from fleet.sandbox.backends.identity import is_root
from fleet.sandbox.folders.stage import build_stage
from fleet.sandbox.redis import RedisRunLedger
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.trees.delta import Delta, with_row
from fleet.trees.files import FileBlobStore
from fleet.trees.service import put_tree, read_changes, read_delta
from fleet.trees.tree import FileEntry, Tree, encode_tree

FILES, CALLS, ENGINEERS = int(os.environ.get("FOLDERS_FILES", "10000")), 40, 5
STORY = StoryId("st-folders-bench")
LINE = "echo {0} > package_1/new_{0}.py; echo {0} >> package_0/part_0/module_1.py; rm -f package_0/part_0/module_2.py"
NOBODY = 65_534


async def measure(folder: Path) -> list[Figure]:
    """Both ways in turn, beside the yardstick; where overlays are refused, the whole folder alone."""
    # The folder of the benchmark is closed to the user that a root supervisor drops to.
    place = Path(tempfile.mkdtemp(prefix="fleet-bench-", dir="/tmp"))
    place.chmod(0o711)
    try:
        async with log_store(folder) as url, connected(url) as client:
            return await _measured(place, client)
    finally:
        shutil.rmtree(place)


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Redis]:
    """A client of the log's server."""
    client = connect_redis(url)
    try:
        yield client
    finally:
        await client.aclose()


async def _measured(place: Path, client: Redis) -> list[Figure]:
    blobs = FileBlobStore(place / "blobs")
    checkout_ms = await asyncio.to_thread(_checked_out, place)
    tree = await _tree(blobs)
    root = await blobs.put(encode_tree(tree))
    ways: list[_Way] = []
    for name, use_overlays in (("overlay", True), ("whole folder", False)):
        backend = BubblewrapBackend(place / name.split()[0], blobs, use_overlays=use_overlays)
        health = await backend.health()
        if health.status == "down":
            raise SandboxUnavailable("; ".join((*health.unmet, *health.mend)), missing="bubblewrap")
        if not use_overlays or health.enforced[SESSION_FOLDERS] == "overlay":
            ways.append(_Way(name, backend, blobs, client, tree, root))
    bare = _Bare(place)
    firsts = {way.name: [await way.engineer(number).call() for number in range(ENGINEERS)] for way in ways}
    took: dict[str, list[float]] = {way.name: [] for way in ways}
    bares: list[float] = []
    sessions = {way.name: way.engineer(0) for way in ways}
    for _ in range(CALLS):
        bares.append(await asyncio.to_thread(bare.run))
        for name, session in sessions.items():
            await session.edit()
            took[name].append(await session.call())
    return [
        figure for way in ways for figure in _figures(way.name, took[way.name], firsts[way.name], bares, checkout_ms)
    ]


def _figures(way: str, took: list[float], firsts: list[float], bares: list[float], checkout_ms: float) -> list[Figure]:
    size, bare = f"{FILES:,} files", "bare bubblewrap"
    return [
        Figure(f"call beyond its command, {way}, {size}, p50", percentile(took, 50), "ms", bare, percentile(bares, 50)),
        Figure(f"call beyond its command, {way}, {size}, p95", percentile(took, 95), "ms", bare, percentile(bares, 95)),
        Figure(f"first engineer on a base, {way}, {size}", firsts[0], "ms", "git checkout-index", checkout_ms),
        Figure(f"second to fifth engineer, {way}, {size}", median(firsts[1:]), "ms", bare, median(bares)),
    ]


class _Way:
    def __init__(
        self, name: str, backend: BubblewrapBackend, blobs: FileBlobStore, client: Redis, tree: Tree, root: Digest
    ) -> None:
        self.name, self.blobs, self.tree, self.root = name, blobs, tree, root
        self.supervisor = ToolSupervisor(backend, RedisRunLedger(client), blobs, SystemClock(), f"sandbox:{name[:4]}")
        self.log = RedisEventLog(client)
        self._engineers: dict[int, _Engineer] = {}

    def engineer(self, number: int) -> _Engineer:
        """The one of this number, who goes on where he stood."""
        return self._engineers.setdefault(number, _Engineer(self, number))


class _Engineer:
    """A work session: commands by key, edits, and both on record."""

    def __init__(self, way: _Way, number: int) -> None:
        self._way, self._head, self._calls = way, way.root, 0
        self._name = f"{way.name.split()[0]}-{number}"
        self._folder = LiveFolder(story=STORY, session=self._name, root=way.root)
        self._stream, self._log_head = StreamId.of_story(StoryId(f"st-bench-{self._name}")), Head()

    async def call(self) -> float:
        """Milliseconds of a call beyond those of its command."""
        self._calls += 1
        argv = ("bash", "-c", LINE.format(self._calls))
        spec = RunSpec(argv=argv, tree=self._head, keep_tree=True, discard=(), folder=self._folder)
        begun = time.perf_counter()
        await self._record()
        key = RunKey(digest_of_json({"by": self._name, "call": self._calls}).hex)
        result = await self._way.supervisor.run(spec, story=self._folder.story, key=key, epoch=0)
        assert result.reason == "ok", result
        assert result.tree_out is not None
        changed = await read_changes(self._way.blobs, self._head, result.tree_out)
        await self._record()
        took = (time.perf_counter() - begun) * 1e3 - result.usage.wall_ms
        assert set(changed[1]) == {f"package_1/new_{self._calls}.py", "package_0/part_0/module_1.py"}, changed
        self._head = result.tree_out
        return took

    async def edit(self) -> None:
        """A file of the head is another one."""
        way = self._way
        delta = await read_delta(way.blobs, self._head)
        entry = FileEntry("100644", await way.blobs.put(f"edited = {self._calls}\n".encode()))
        rows = with_row(way.tree, delta.rows, "package_2/part_0/module_800.py", entry)
        self._head = await put_tree(way.blobs, Delta(way.root, rows))

    async def _record(self) -> None:
        number = self._log_head.version
        self._log_head = await append_one(self._way.log, self._stream, self._log_head, question(number), ts_ms=number)


class _Bare:
    """The command alone in bubblewrap, over a small folder."""

    def __init__(self, place: Path) -> None:
        self._folder = place / "bare-workspace"
        for name in ("package_0/part_0", "package_1"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        for path in (self._folder, *self._folder.rglob("*")):
            path.chmod(0o777)
        self._bwrap, self._calls = build_stage(place / "bare", is_dropped=is_root()).bwrap, 0

    def run(self) -> float:
        """Milliseconds."""
        self._calls += 1
        who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if is_root() else {}
        command = (
            *(self._bwrap, "--unshare-all", "--disable-userns", "--unshare-user", "--cap-drop", "ALL"),
            *("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--bind", str(self._folder), "/mnt"),
            *("--chdir", "/mnt", "--", "bash", "-c", LINE.format(self._calls)),
        )
        begun = time.perf_counter()
        subprocess.run(command, check=True, env={}, cwd="/", **who)  # pyright: ignore[reportArgumentType, reportCallIssue]
        return (time.perf_counter() - begun) * 1e3


def _contents() -> dict[str, bytes]:
    return {
        f"package_{number // 400}/part_{number % 400 // 20}/module_{number}.py": (
            f'"""Module {number}."""\n' + "".join(f"VALUE_{n} = {number * n}\n" for n in range(40))
        ).encode()
        for number in range(FILES)
    }


async def _tree(blobs: FileBlobStore) -> Tree:
    contents = list(_contents().items())
    tree: dict[str, FileEntry] = {}
    for start in range(0, len(contents), 32):
        some = contents[start : start + 32]
        digests = await asyncio.gather(*(blobs.put(content) for _, content in some))
        tree |= {path: FileEntry("100644", digest) for (path, _), digest in zip(some, digests, strict=True)}
    return tree


def _checked_out(place: Path) -> float:
    """Milliseconds of git for writing as many files of the same size."""
    repository = place / "repository"
    for path, content in _contents().items():
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_bytes(content)
    for command in (("init", "-q"), ("add", "-A")):
        subprocess.run(("git", "-C", str(repository), *command), check=True, capture_output=True)
    begun = time.perf_counter()
    subprocess.run(("git", "-C", str(repository), "checkout-index", "-a", f"--prefix={place}/checkout/"), check=True)
    return (time.perf_counter() - begun) * 1e3
