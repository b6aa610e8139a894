"""Look into a git object store without git: does an object exist, what does it hold, what does a tag point at."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from fleet.kernel.errors import InvalidInput

Kind = Literal["commit", "tree", "blob", "tag", "unknown"]
_KINDS: dict[int, Kind] = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}
_NAMES: dict[str, Kind] = {str(kind): kind for kind in _KINDS.values()}
_MAX_OBJECT = 1 << 20
_MAGIC = b"\xfftOc\x00\x00\x00\x02"
_MAX_WHOLE = 16 << 20
_MAX_CHAIN = 4096
_TAGGED = re.compile(rb"object ([0-9a-f]{40})\n")
_TREE_OF = re.compile(rb"tree ([0-9a-f]{40})\n")
_OFFSET_DELTA, _NAMED_DELTA = 6, 7


class GitObject(NamedTuple):
    """Kind and content of an object; `unknown` for one that is stored as a difference to another."""

    kind: Kind
    data: bytes

    @property
    def tagged(self) -> str | None:
        """The id that a tag object points at."""
        match = _TAGGED.match(self.data) if self.kind == "tag" else None
        return match[1].decode() if match else None

    @property
    def tree(self) -> str | None:
        """The id of the tree of a commit."""
        match = _TREE_OF.match(self.data) if self.kind == "commit" else None
        return match[1].decode() if match else None

    def entries(self) -> Iterator[tuple[str, str, str]]:
        """Mode, name and object id of everything in a tree, in its order."""
        at = 0
        while self.kind == "tree" and (end := self.data.find(b"\0", at)) >= 0:
            mode, _, name = self.data[at:end].partition(b" ")
            yield mode.decode(errors="replace"), os.fsdecode(name), self.data[end + 1 : end + 21].hex()
            at = end + 21


class PackIndex:
    """The index (version 2) of one pack, searched on disk."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        head = file.read(8 + 1024)
        if len(head) != 1032 or not head.startswith(_MAGIC):
            raise InvalidInput("this is no pack index of version 2: run `git repack -a -d` in the repository")
        self._fanout = struct.unpack(">256I", head[8:])

    @property
    def count(self) -> int:
        """Number of objects."""
        return self._fanout[255]

    def offset(self, object_id: str) -> int | None:
        """Where the object starts in the pack; None when it is not there."""
        goal = bytes.fromhex(object_id)
        low, high = (self._fanout[goal[0] - 1] if goal[0] else 0), self._fanout[goal[0]]
        while low < high:
            middle = (low + high) // 2
            candidate = self._read(1032 + 20 * middle, 20)
            if candidate == goal:
                return self._offset_at(middle)
            low, high = (middle + 1, high) if candidate < goal else (low, middle)
        return None

    def _offset_at(self, position: int) -> int:
        (offset,) = struct.unpack(">I", self._read(1032 + 24 * self.count + 4 * position, 4))
        if offset & 0x80000000:
            large = 1032 + 28 * self.count + 8 * (offset & 0x7FFFFFFF)
            (offset,) = struct.unpack(">Q", self._read(large, 8))
        return offset

    def _read(self, at: int, size: int) -> bytes:
        self._file.seek(at)
        data = self._file.read(size)
        if len(data) != size:
            raise InvalidInput("a pack index of the repository is cut off: run `git fsck` there")
        return data


def has_object(objects: Path, object_id: str) -> bool:
    """Whether the store holds the object, loose or packed."""
    if _loose(objects, object_id).is_file():
        return True
    return next(_in_packs(objects, object_id), None) is not None


def read_object(objects: Path, object_id: str) -> GitObject | None:
    """The object when it is a small one (a commit or a tag). None when the store does not hold it."""
    loose = _loose(objects, object_id)
    if loose.is_file():
        return _parse_loose(loose.read_bytes()[:_MAX_OBJECT])
    place = next(_in_packs(objects, object_id), None)
    return _read_packed(*place) if place else None


def read_whole(objects: Path, object_id: str) -> GitObject | None:
    """The object, put together where it is stored as a difference to others. None when the store does not hold it.

    Raises:
        InvalidInput: it is damaged, or too large to be read here.
    """
    loose = _loose(objects, object_id)
    if loose.is_file():
        return _parse_loose(loose.read_bytes(), _MAX_WHOLE)
    place = next(_in_packs(objects, object_id), None)
    deltas: list[bytes] = []
    while place is not None and len(deltas) < _MAX_CHAIN:
        number, data, base = _stored(*place)
        if number in _KINDS:
            for delta in reversed(deltas):
                data = _patched(data, delta)
            return GitObject(_KINDS[number], data)
        deltas.append(data)
        place = (place[0], base) if isinstance(base, int) else next(_in_packs(objects, base), None)
    if deltas:
        raise InvalidInput(f"object {object_id} of the repository is damaged: run `git fsck` there")
    return None


def _stored(pack: Path, offset: int) -> tuple[int, bytes, int | str]:
    """Number of the kind, bytes, and what they are a difference to: a place in this pack, or an object id."""
    with pack.open("rb") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        number = (byte >> 4) & 7
        while byte & 0x80:
            byte = file.read(1)[0]
        base: int | str = 0
        if number == _NAMED_DELTA:
            base = file.read(20).hex()
        elif number == _OFFSET_DELTA:
            byte = file.read(1)[0]
            back = byte & 0x7F
            while byte & 0x80:
                byte = file.read(1)[0]
                back = ((back + 1) << 7) | (byte & 0x7F)
            base = offset - back
        return number, _inflated_from(file), base


def _inflated_from(file: BinaryIO) -> bytes:
    stream, parts, size = zlib.decompressobj(), list[bytes](), 0
    try:
        while not stream.eof and (chunk := file.read(1 << 16)):
            parts.append(stream.decompress(chunk))
            size += len(parts[-1])
            if size > _MAX_WHOLE:
                raise InvalidInput("an object of the repository is larger than 16 MiB: it is not read here")
    except zlib.error as error:
        raise InvalidInput("an object of the repository is damaged: run `git fsck` there") from error
    return b"".join(parts)


def _patched(base: bytes, delta: bytes) -> bytes:
    """What the delta makes of its base (git's pack format, copy and insert instructions)."""
    at = 0
    for _ in range(2):  # the sizes of base and result
        while delta[at] & 0x80:
            at += 1
        at += 1
    parts: list[bytes] = []
    while at < len(delta):
        op, at = delta[at], at + 1
        if not op & 0x80:
            parts.append(delta[at : at + op])
            at += op
            continue
        start = size = 0
        for bit in range(7):
            if op & (1 << bit):
                if bit < 4:
                    start |= delta[at] << (8 * bit)
                else:
                    size |= delta[at] << (8 * (bit - 4))
                at += 1
        parts.append(base[start : start + (size or 0x10000)])
    return b"".join(parts)


def _loose(objects: Path, object_id: str) -> Path:
    return objects / object_id[:2] / object_id[2:]


def _in_packs(objects: Path, object_id: str) -> Iterator[tuple[Path, int]]:
    for index in sorted((objects / "pack").glob("pack-*.idx")):
        with index.open("rb") as file:
            offset = PackIndex(file).offset(object_id)
        if offset is not None:
            yield index.with_suffix(".pack"), offset


def _parse_loose(data: bytes, limit: int = _MAX_OBJECT) -> GitObject:
    head, _, body = _inflate(data, limit).partition(b"\0")
    word = head.split(b" ", 1)[0].decode(errors="replace")
    return GitObject(_NAMES.get(word, "unknown"), body)


def _read_packed(pack: Path, offset: int) -> GitObject:
    with pack.open("rb") as file:
        file.seek(offset)
        data = file.read(_MAX_OBJECT)
    kind = _KINDS.get((data[0] >> 4) & 7, "unknown") if data else "unknown"
    start = next((n + 1 for n, byte in enumerate(data[:10]) if not byte & 0x80), 0)
    return GitObject(kind, _inflate(data[start:]) if kind != "unknown" else b"")


def _inflate(data: bytes, limit: int = _MAX_OBJECT) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, limit)
    except zlib.error as error:
        raise InvalidInput("an object of the repository is damaged: run `git fsck` there") from error


def check_pack(pack: bytes, index: bytes, commit: str) -> str:
    """The name of the pack (its checksum, 40 hex digits) when pack and index belong together and hold the commit.

    Raises:
        InvalidInput: a checksum is wrong, the two do not fit, or the commit is not in them.
    """
    import io

    name = pack[-20:]
    if not pack.startswith(b"PACK") or len(pack) < 32 or _sha1(pack[:-20]) != name:
        raise InvalidInput("the pack is damaged: its checksum does not match")
    if len(index) < 1072 or _sha1(index[:-20]) != index[-20:] or index[-40:-20] != name:
        raise InvalidInput("the pack index is damaged, or belongs to another pack")
    if PackIndex(io.BytesIO(index)).offset(commit) is None:
        raise InvalidInput(f"the pack does not hold commit {commit}", commit=commit)
    return name.hex()


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()
