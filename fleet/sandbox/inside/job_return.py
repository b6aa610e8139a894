# ruff: noqa: PTH100, PTH101, PTH103, PTH115, PTH118, PTH120, PTH123, PTH211
"""What a Job of Kubernetes gives back: frames on standard output, and the changed files of its workspace as a tar.

Standard library alone.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import stat
import sys
import tarfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from job_inputs import ROOTS, mode_of  # noqa: E402  # pyright: ignore

WORKSPACE: str = ROOTS["workspace"]
CACHE_NAMES = frozenset({"__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis", ".coverage"})
_MAX_ENTRIES = 200_000
_MAX_PATH_BYTES = 4_000
_FRAME_BYTES = 9_000


class Frames:
    """The only writer of standard output."""

    def __init__(self) -> None:
        self._count = 0
        self.last_s = time.monotonic()

    def send(self, kind: str, data: bytes) -> None:
        """The data is printed, in as many frames as it needs."""
        for start in range(0, max(len(data), 1), _FRAME_BYTES):
            self._count += 1
            text = base64.b64encode(data[start : start + _FRAME_BYTES]).decode("ascii")
            self._write(f"#{self._count} {kind} {text}\n".encode("ascii"))
        self.last_s = time.monotonic()

    def _write(self, line: bytes) -> None:
        while line:
            line = line[os.write(1, line) :]


class Sending(io.RawIOBase):
    """A file whose bytes go out as frames; it counts and hashes them."""

    def __init__(self, frames: Frames) -> None:
        self._frames, self._held = frames, b""
        self.sha256, self.size = hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._held += bytes(data)
        while len(self._held) >= _FRAME_BYTES:
            self._send(_FRAME_BYTES)
        return len(data)

    def finish(self) -> None:
        if self._held:
            self._send(len(self._held))

    def _send(self, size: int) -> None:
        part, self._held = self._held[:size], self._held[size:]
        self.sha256.update(part)
        self.size += len(part)
        self._frames.send("b", part)


class Found(NamedTuple):
    """A file or link below the workspace."""

    path: str
    status: os.stat_result


def walk(root: str) -> Iterator[Found]:
    """Everything below the root; folders are made readable, links are not followed."""
    waiting, count = [""], 0
    while waiting:
        folder = waiting.pop()
        path = os.path.join(root, folder)
        with contextlib.suppress(OSError):
            os.chmod(path, 0o755)
        with contextlib.suppress(OSError):
            for entry in os.scandir(path):
                count += 1
                if count > _MAX_ENTRIES:
                    return
                inside = f"{folder}/{entry.name}" if folder else entry.name
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(inside)
                yield Found(inside, status)


def disk_usage() -> int:
    """Bytes of the workspace; more than any limit when there are too many entries or too long paths."""
    total = 0
    for count, entry in enumerate(walk(WORKSPACE), 1):
        total += entry.status.st_blocks * 512
        if count >= _MAX_ENTRIES or len(os.fsencode(entry.path)) > _MAX_PATH_BYTES:
            return 1 << 62
    return total


def is_wanted(path: str, request: dict[str, Any]) -> bool:
    """True for a file of the tree that is kept, and for one below a declared output."""
    if any(path == a or path.startswith(f"{a}/") for a in request["artifacts"]):
        return True
    parts = path.split("/")
    is_skipped = parts[0] in request["discard"] or any(p in CACHE_NAMES or p.lower() == ".git" for p in parts)
    return request["keep_tree"] and not is_skipped


def give_back(request: dict[str, Any], before: dict[str, tuple[str, str]], sending: Sending) -> dict[str, Any]:
    """What is left in the workspace is sent: changed files, and the names of those that are as they were."""
    entries, left_out = _wanted(request)
    if sum(f.status.st_size for f in entries) > request["max_return_bytes"]:
        return {"left_out": left_out, "too_large": True}
    with tarfile.open(fileobj=sending, mode="w|gz", format=tarfile.PAX_FORMAT) as archive:
        kept: list[str] = []
        for entry in entries:
            member, content = _member(entry)
            if before.get(entry.path) == (mode_of(member), hashlib.sha256(content).hexdigest()):
                kept.append(entry.path)
            else:
                archive.addfile(member, io.BytesIO(content) if member.isfile() else None)
        listing = json.dumps(kept).encode()
        member = tarfile.TarInfo("kept.json")
        member.size = len(listing)
        archive.addfile(member, io.BytesIO(listing))
    sending.finish()
    return {"left_out": left_out, "too_large": False}


def _wanted(request: dict[str, Any]) -> tuple[list[Found], int]:
    entries, left_out = list[Found](), 0
    for entry in walk(WORKSPACE):
        if stat.S_ISDIR(entry.status.st_mode) or not is_wanted(entry.path, request):
            continue
        is_plain = stat.S_ISREG(entry.status.st_mode) or stat.S_ISLNK(entry.status.st_mode)
        if is_plain and _is_text(entry.path):
            entries.append(entry)
        else:
            left_out += 1
    return sorted(entries), left_out


def _is_text(path: str) -> bool:
    try:
        return len(path.encode()) <= _MAX_PATH_BYTES
    except UnicodeEncodeError:
        return False


def _member(entry: Found) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(f"files/{entry.path}")
    path = os.path.join(WORKSPACE, entry.path)
    if stat.S_ISLNK(entry.status.st_mode):
        member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)
        return member, os.fsencode(member.linkname)
    os.chmod(path, entry.status.st_mode | stat.S_IRUSR)
    with open(path, "rb") as file:
        content = file.read()
    member.mode, member.size = (0o755 if entry.status.st_mode & stat.S_IXUSR else 0o644), len(content)
    return member, content
