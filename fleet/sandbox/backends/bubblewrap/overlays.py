"""Whether overlays work on this machine, found by trying them with two sessions on one base.

Source: docs/design/engineering_loop.md, section 2.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fleet.kernel.errors import FleetError
from fleet.kernel.ids import Digest, StoryId
from fleet.policy.runs.spec import LiveFolder, RunResult, RunSpec
from fleet.sandbox.backends.probes import PROBE_LIMITS
from fleet.trees.delta import Delta
from fleet.trees.port import BlobStore
from fleet.trees.service import put_tree
from fleet.trees.tree import FileEntry, Mode, encode_tree

PROBE_STORY = StoryId("st-overlay-probe")
SESSION_FOLDERS = "session_folders"
"""Name under which the findings say how the folders of sessions are kept."""
_FILES: Mapping[str, tuple[Mode, bytes]] = {
    "kept/one": ("100644", b"one\n"),
    "kept/two": ("100644", b"two\n"),
    "mode": ("100644", b"text\n"),
    "renewed/old": ("100644", b"old\n"),
    "removed/last": ("100644", b"last\n"),
}
_CHANGE = (
    "printf 'ONE\\n' > kept/one && chmod 755 mode && rm -r renewed && mkdir renewed && printf 'new\\n' > renewed/new "
    "&& rm -r removed && mv kept/two kept/three"
)
_CHANGED: Mapping[str, tuple[Mode, bytes] | None] = {
    "kept/one": ("100644", b"ONE\n"),
    "kept/two": None,
    "kept/three": ("100644", b"two\n"),
    "mode": ("100755", b"text\n"),
    "renewed/old": None,
    "renewed/new": ("100644", b"new\n"),
    "removed/last": None,
}
_SEEN = "cat kept/one kept/three renewed/new mode && ls && ls renewed && rm mode"
_UNTOUCHED = "cat kept/one kept/two renewed/old removed/last mode && test ! -x mode && rm kept/one"
RunIn = Callable[[RunSpec], Awaitable[RunResult]]


async def problem_of(run: RunIn, blobs: BlobStore) -> str:
    """Why overlays do not serve here; "" when they do.

    Args:
        run: carries a run out in the folder that its specification names, by overlay.
    """
    try:
        return await _Probe(run, blobs).problem()
    except FleetError as error:
        return error.message
    except OSError as error:
        return str(error)


class _Probe:
    def __init__(self, run: RunIn, blobs: BlobStore) -> None:
        self._run, self._blobs = run, blobs

    async def problem(self) -> str:
        base = await self._blobs.put(encode_tree({path: await self._entry(*file) for path, file in _FILES.items()}))
        after = await self._over(base, _CHANGED)
        first = await self._command(base, base, 1, _CHANGE)
        if first.tree_out != after:
            return f"a command's changes were not read back as it made them: {_told(first)}"
        other = await self._command(base, base, 2, _UNTOUCHED)
        if other.tree_out != await self._over(base, {"kept/one": None}):
            return f"one session saw what another one changed: {_told(other)}"
        again = await self._command(base, after, 1, _SEEN)
        if again.tree_out != await self._over(base, {**_CHANGED, "mode": None}):
            return f"a session did not find what it left: {_told(again)}"
        if again.stdout.text != "ONE\ntwo\nnew\ntext\nkept\nmode\nrenewed\nnew\n":
            return f"a session found otherwise than it left: {again.stdout.text[:200]!r}"
        return ""

    async def _command(self, base: Digest, tree: Digest, session: int, line: str) -> RunResult:
        folder = LiveFolder(story=PROBE_STORY, session=f"probe/{session}", root=base)
        argv = ("/bin/sh", "-c", line)
        spec = RunSpec(argv=argv, tree=tree, keep_tree=True, discard=(), limits=PROBE_LIMITS, folder=folder)
        return await self._run(spec)

    async def _over(self, base: Digest, files: Mapping[str, tuple[Mode, bytes] | None]) -> Digest:
        rows = {path: await self._entry(*file) if file else None for path, file in files.items()}
        return await put_tree(self._blobs, Delta(base, rows))

    async def _entry(self, mode: Mode, content: bytes) -> FileEntry:
        return FileEntry(mode, await self._blobs.put(content))


def _told(result: RunResult) -> str:
    said = (result.stderr.text or result.stdout.text).strip()[:300]
    return f"it ended as {result.reason}" + (f": {said}" if said else "")
