"""What a pod prints, read as frames (inside/job_shim.py). All of it is untrusted: a bad frame ends the reading."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import stat
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fleet.kernel.errors import InvalidInput
from fleet.sandbox.folders.workspace import MAX_ENTRIES
from fleet.trees.tree import Mode, Tree, check_path

MAX_LINE_BYTES = 16_384
"""No frame is longer; container runtimes cut a line beyond in two."""
_FRAME = re.compile(rb"#([1-9][0-9]{0,9}) ([seohbr]) ([A-Za-z0-9+/=]*)")
_COMPLAINT_BYTES = 2_000
_HEADER_BYTES = 256 << 20
Kind = Literal["s", "o", "e", "h", "b", "r"]
_PATHS = TypeAdapter(list[str])
Count = Annotated[int, Field(ge=0, le=1 << 60)]


class BadFrame(Exception):  # noqa: N818 - never leaves the backend, which calls the run lost
    """The pod's output is not what the shim prints: something is missing, changed, or too large."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; `o` and `e` carry output."""

    kind: Kind
    data: bytes


class JobResult(BaseModel):
    """The last frame of a run; `refused` alone when the command was never started."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    refused: Annotated[str, Field(max_length=2_000)] | None = None
    exit_code: Annotated[int, Field(ge=0, le=255)] | None = None
    cause: (
        Literal["cancelled", "timeout", "idle_timeout", "oom_killed", "pids_limit", "disk_limit", "output_limit"] | None
    ) = None
    wall_ms: Count = 0
    cpu_ms: Count = 0
    max_memory_bytes: Count = 0
    max_pids: Count = 0
    returned_bytes: Count = 0
    returned_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = hashlib.sha256().hexdigest()
    left_out: Count = 0
    too_large: bool = False


class FrameReader:
    """The frames of one pod in their order, however often its log is read again from its begin.

    Args:
        max_return_bytes: of what the run gives back, packed.
    """

    def __init__(self, *, max_return_bytes: int) -> None:
        self._max_return_bytes = max_return_bytes
        self._next = 1
        self._packed, self._said = bytearray(), bytearray()
        self.has_started = False
        self.result: JobResult | None = None

    @property
    def packed(self) -> bytes:
        """What was given back, packed; whole once there is a result."""
        return bytes(self._packed)

    @property
    def complaint(self) -> str:
        """The end of what was printed beside the frames: what an interpreter or runtime says when it cannot start."""
        return self._said.decode(errors="replace").strip()

    def feed(self, line: bytes) -> Frame | None:
        """The frame on this line; None when it was read before, or is none.

        Raises:
            BadFrame: a frame is missing or cannot be read, more is given back than may be, or the result is wrong.
        """
        match = _FRAME.fullmatch(line)
        if match is None:
            self._said = (self._said + line + b"\n")[-_COMPLAINT_BYTES:]
            return None
        number = int(match[1])
        if number < self._next or self.result is not None:
            return None
        if number > self._next:
            raise BadFrame(f"frame {self._next} is missing: the node threw a part of the pod's log away")
        self._next += 1
        try:
            data = base64.b64decode(match[3], validate=True)
        except binascii.Error as error:
            raise BadFrame(f"frame {number} is no base64") from error
        frame = Frame(_KINDS[match[2]], data)
        self._take(frame)
        return frame

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case "s":
                self.has_started = True
            case "b":
                self._packed += frame.data
                if len(self._packed) > self._max_return_bytes:
                    raise BadFrame(f"the run gives back more than {self._max_return_bytes} bytes")
            case "r":
                self.result = self._result(frame.data)
            case _:
                pass

    def _result(self, data: bytes) -> JobResult:
        try:
            result = JobResult.model_validate_json(data)
        except ValidationError as error:
            raise BadFrame("the result of the run is not what the shim prints") from error
        is_whole = len(self._packed) == result.returned_bytes
        if not is_whole or hashlib.sha256(self._packed).hexdigest() != result.returned_sha256:
            raise BadFrame("what the run gave back is not what the shim sent")
        return result


_KINDS: Mapping[bytes, Kind] = {b"s": "s", b"o": "o", b"e": "e", b"h": "h", b"b": "b", b"r": "r"}


@dataclass(frozen=True, slots=True)
class Returned:
    """What the run left: new and changed files, and the paths of those that are as the run's tree has them."""

    files: dict[str, tuple[Mode, bytes]] = field(default_factory=dict[str, tuple[Mode, bytes]])
    kept: tuple[str, ...] = ()


def unpack_returned(packed: bytes, *, before: Tree, max_bytes: int) -> Returned:
    """The files of a gzipped tar that a stranger made. Nothing is written to a disk.

    Args:
        before: the run's tree; only its paths can be kept.
        max_bytes: of all contents together.

    Raises:
        BadFrame: it is no such archive, holds what no tree holds, or more than may be.
    """
    if not packed:
        return Returned()
    files = dict[str, tuple[Mode, bytes]]()
    kept: tuple[str, ...] = ()
    # Headers need room too: a small archive must not unpack into endless ones.
    stream = _Bounded(packed, max_bytes=max_bytes + _HEADER_BYTES)
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.name == "kept.json":
                    kept = _kept(_content(archive, member, max_bytes), before)
                    continue
                content = _content(archive, member, max_bytes)
                max_bytes -= len(content)
                _add(files, member, content)
    except (tarfile.TarError, zlib.error, ValueError, EOFError, RecursionError, InvalidInput) as error:
        raise BadFrame(f"what the run gave back cannot be unpacked: {str(error)[:200]}") from error
    return Returned(files, kept)


class _Bounded(io.RawIOBase):
    """The bytes of a gzip stream, at most so many."""

    def __init__(self, packed: bytes, *, max_bytes: int) -> None:
        self._unpacker = zlib.decompressobj(wbits=31)
        self._packed, self._left = packed, max_bytes

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            raise ValueError("an archive is read in parts")
        data = b""
        while len(data) < size and (self._packed or not self._unpacker.eof):
            more = self._unpacker.decompress(self._packed, size - len(data))
            self._packed = self._unpacker.unconsumed_tail
            data += more
            if not more and not self._packed:
                break
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("it holds more than the run may leave")
        return data


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, max_bytes: int) -> bytes:
    if member.issym():
        content = member.linkname.encode("utf-8", "surrogateescape")
    elif member.type == tarfile.REGTYPE and 0 <= member.size <= max_bytes:
        file = archive.extractfile(member)
        assert file is not None
        content = file.read()
    else:
        raise ValueError(f"{member.name[:80]!r} is no file or link, or too large")
    if len(content) > max_bytes:
        raise ValueError(f"{member.name[:80]!r} is too large")
    return content


def _kept(text: bytes, before: Tree) -> tuple[str, ...]:
    paths = _PATHS.validate_json(text)
    if not all(path in before for path in paths):
        raise ValueError("it names files that the run did not start with")
    return tuple(paths)


def _add(files: dict[str, tuple[Mode, bytes]], member: tarfile.TarInfo, content: bytes) -> None:
    top, _, path = member.name.partition("/")
    if top != "files" or path in files or len(files) >= MAX_ENTRIES:
        raise ValueError(f"{member.name[:80]!r} is there twice, elsewhere, or one too many")
    mode: Mode = "100755" if member.mode & stat.S_IXUSR else "100644"
    files[check_path(path)] = ("120000" if member.issym() else mode, content)
