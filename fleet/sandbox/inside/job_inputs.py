# ruff: noqa: PTH100, PTH101, PTH103, PTH115, PTH118, PTH120, PTH123, PTH211
"""What a Job of Kubernetes starts with: one gzipped tar in parts, unpacked into its folders. Standard library alone."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from typing import IO, Any

ROOTS = {"workspace": "/workspace", "inputs": "/inputs", "repo": "/repo.git"}
_CHUNK = 1 << 16


class Parts(io.RawIOBase):
    """The parts of the request one behind the other."""

    def __init__(self, folder: str) -> None:
        names = sorted(n for n in os.listdir(folder) if n.startswith("part-"))  # noqa: PTH208
        self._paths = [os.path.join(folder, name) for name in names]
        self._file: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while True:
            if self._file is None:
                if not self._paths:
                    return b""
                self._file = open(self._paths.pop(0), "rb")  # noqa: SIM115
            if data := self._file.read(size):
                return data
            self._file.close()
            self._file = None


def check_digest(folder: str, digest: str) -> None:
    """Return when the parts together have the digest; ValueError else."""
    hasher, parts = hashlib.sha256(), Parts(folder)
    while data := parts.read(_CHUNK):
        hasher.update(data)
    if hasher.hexdigest() != digest:
        raise ValueError("the inputs of the run are not complete")


def unpack(folder: str) -> tuple[dict[str, Any], int, dict[str, tuple[str, str]]]:
    """The request, the descriptor of standard input (-1: none), and path -> (mode, digest) of the workspace."""
    request: dict[str, Any] = {}
    stdin, before = -1, dict[str, tuple[str, str]]()
    with tarfile.open(fileobj=Parts(folder), mode="r|gz") as archive:
        for member in archive:
            content = _content(archive, member)
            top, _, path = member.name.partition("/")
            if member.name == "request.json":
                request = json.loads(content)
            elif member.name == "stdin":
                stdin = memory_file(content)
            else:
                put(member, content, os.path.join(ROOTS[top], path))
                if top == "workspace" and not member.isdir():
                    before[path] = mode_of(member), hashlib.sha256(content).hexdigest()
    return request, stdin, before


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.issym():
        return os.fsencode(member.linkname)
    file = archive.extractfile(member) if member.isfile() else None
    return file.read() if file else b""


def mode_of(member: tarfile.TarInfo) -> str:
    if member.issym():
        return "120000"
    return "100755" if member.mode & stat.S_IXUSR else "100644"


def put(member: tarfile.TarInfo, content: bytes, target: str) -> None:
    """The member is at `target`."""
    os.makedirs(target if member.isdir() else os.path.dirname(target), mode=0o755, exist_ok=True)
    if member.issym():
        os.symlink(content, os.fsencode(target))
    elif member.isfile():
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), member.mode & 0o777)


def memory_file(content: bytes) -> int:
    """A descriptor of a file that exists in memory alone."""
    descriptor = os.memfd_create("stdin")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    return descriptor
