"""The chain of one stream, recomputed from its stored bytes (EV-11, EV-32)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fleet.audit.finding import LogFinding, Verdict
from fleet.events.envelope import GENESIS_HASH, Head, StoredEvent, event_hash
from fleet.kernel.ids import StreamId

FIELDS = ("t", "s", "b", "ts", "e", "c", "a", "k", "p", "h")
"""The names of the stored fields (EV-11)."""

_VERSION = re.compile(r"([1-9][0-9]{0,15})-0", re.ASCII)
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,18}")
_HASH = re.compile(rb"[0-9a-f]{64}")
_WINDOW = 512
"""How far from its place an entry is looked for before it counts as altered."""
_MAX_FINDINGS = 20
"""A stream with more findings than this is described well enough."""


@dataclass(frozen=True, slots=True)
class RawEntry:
    """One entry of a stream as the store holds it: its id, and its fields as bytes. Nothing in it is trusted."""

    entry_id: str
    fields: Mapping[str, bytes]


def raw_entry(event: StoredEvent) -> RawEntry:
    """The entry as which the event is stored."""
    values: tuple[object, ...] = (
        event.type,
        event.schema,
        event.body,
        event.ts_ms,
        event.epoch,
        event.command_id,
        event.actor,
        event.causation,
        event.prev_hash,
        event.hash,
    )
    plain = (v if isinstance(v, bytes) else str(v).encode() for v in values)
    return RawEntry(f"{event.version}-0", dict(zip(FIELDS, plain, strict=True)))


class _Read(NamedTuple):
    """The fields of an entry that has the form of an event."""

    texts: Mapping[str, str]
    body: bytes
    prev: str
    own: str

    def hash_at(self, stream: StreamId, version: int) -> str:
        t = self.texts
        return event_hash(
            stream=stream,
            version=version,
            type=t["t"],
            schema=int(t["s"]),
            body=self.body,
            ts_ms=int(t["ts"]),
            epoch=int(t["e"]),
            command_id=t["c"],
            actor=t["a"],
            causation=t["k"],
            prev_hash=self.prev,
        )


def _read(entry: RawEntry) -> _Read | None:
    fields = entry.fields
    if set(fields) != set(FIELDS) or not all(_NUMBER.fullmatch(fields[name]) for name in ("s", "ts", "e")):
        return None
    if not all(_HASH.fullmatch(fields[name]) for name in ("p", "h")):
        return None
    try:
        texts = {name: fields[name].decode() for name in FIELDS if name != "b"}
    except UnicodeDecodeError:
        return None
    return _Read(texts, fields["b"], texts["p"], texts["h"])


@dataclass(slots=True)
class ChainCheck:
    """Goes along one stream, entry by entry; says where it stands and what it found.

    Args:
        after: where the check begins; the beginning of the stream when nothing is known.
        is_linked: whether the first entry has to name the hash of `after`.
        kept_versions: versions whose hash `hashes` is to hold afterwards.
    """

    stream: StreamId
    after: Head = field(default_factory=Head)
    is_linked: bool = True
    kept_versions: frozenset[int] = frozenset()
    findings: list[LogFinding] = field(default_factory=list[LogFinding])
    hashes: dict[int, str] = field(default_factory=dict[int, str])
    version: int = field(init=False)
    _prev: str | None = field(init=False)
    _shift: int = 0
    """By how much the entry before was out of its place: what a gap that was closed up moves is one finding."""

    def __post_init__(self) -> None:
        self.version, self._prev = self.after.version, self.after.hash if self.is_linked else None

    @property
    def end(self) -> Head:
        """The last entry that was looked at, with the hash that it claims; `after` when there was none."""
        return Head(self.version, self._prev or self.hashes.get(self.version, GENESIS_HASH))

    def take(self, entries: Sequence[RawEntry], *, following: Sequence[RawEntry] = ()) -> None:
        """The entries that come next are checked.

        Args:
            following: the page after them, where an entry that is out of its place may stand.
        """
        around = [*entries, *following[:_WINDOW]]
        for at, entry in enumerate(entries):
            match = _VERSION.fullmatch(entry.entry_id)
            if match is None or int(match[1]) <= self.version:
                self._record(Verdict.ALTERED, self.version + 1, f"entry {entry.entry_id[:40]!r} is no version")
                continue
            self._pass_gap(int(match[1]))
            self._check(entry, around[at + 1 : at + _WINDOW])

    def _pass_gap(self, version: int) -> None:
        if version > self.version + 1:
            first, last = self.version + 1, version - 1
            detail = "is gone" if first == last else f"to {last} are gone"
            self._record(Verdict.MISSING, first, f"{detail}, while version {version} is there")
            self._prev = None
        self.version = version

    def _check(self, entry: RawEntry, later: Sequence[RawEntry]) -> None:
        read = _read(entry)
        if read is None:
            self._record(Verdict.ALTERED, self.version, "is not an event any more")
            self._prev = None
            return
        if read.hash_at(self.stream, self.version) != read.own:
            self._misfit(read, later)
            return
        self._shift = 0
        if self._prev is not None and read.prev != self._prev:
            self._record(Verdict.FORKED, self.version, "does not follow the version before it")
        self._settle(read)

    def _settle(self, read: _Read) -> None:
        self._prev = read.own
        if self.version in self.kept_versions:
            self.hashes[self.version] = read.own

    def _misfit(self, read: _Read, later: Sequence[RawEntry]) -> None:
        """The entry does not match its own hash at this version: it belongs elsewhere, or was changed."""
        if len(self.findings) >= _MAX_FINDINGS:
            # The search costs a thousand hashes, and its answer would not be told.
            self._settle(read)
            return
        written_for = next(
            (v for v in _around(self.version) if v != self.version and read.hash_at(self.stream, v) == read.own), None
        )
        self._prev = None
        if written_for is None:
            self._record(Verdict.ALTERED, self.version, "its bytes do not match its hash")
            # The hash is what the next entry names: one changed byte is one finding.
            self._settle(read)
        elif written_for < self.version or self._is_among(later):
            self._record(Verdict.REORDERED, self.version, f"holds the entry that was written as version {written_for}")
        elif written_for - self.version != self._shift:
            self._record(Verdict.MISSING, self.version, f"the entry of version {written_for} stands in its place")
        self._shift = 0 if written_for is None else written_for - self.version

    def _is_among(self, later: Sequence[RawEntry]) -> bool:
        reads = (read for entry in later if (read := _read(entry)) is not None)
        return any(read.hash_at(self.stream, self.version) == read.own for read in reads)

    def close(self, head: Head | None) -> None:
        """The stream has no further entry; `head` is what the store says of its end, None when it says nothing."""
        if self.version == self.after.version and head is None:
            return
        if head is not None and head.version > self.version == 0:
            self._record(Verdict.DELETED, None, f"all entries are gone, while the head says version {head.version}")
        elif head is None:
            self._record(
                Verdict.MISSING, None, f"the record of its head is gone; entries end at version {self.version}"
            )
        elif head.version > self.version:
            self._record(
                Verdict.MISSING,
                self.version + 1,
                f"entries end at version {self.version}, while the head says {head.version}",
            )
        elif head.version < self.version or (self._prev is not None and head.hash != self._prev):
            self._record(Verdict.ALTERED, self.version, "the record of its head does not name the last entry")

    def _record(self, verdict: Verdict, version: int | None, detail: str) -> None:
        if len(self.findings) < _MAX_FINDINGS:
            self.findings.append(LogFinding(verdict, str(self.stream), version, detail))


def _around(version: int) -> range:
    return range(max(1, version - _WINDOW), version + _WINDOW + 1)
