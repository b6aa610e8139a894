"""The ports of the log: one module each; the docstrings are the contracts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from fleet.events.envelope import Head, NewEvent, StoredEvent
from fleet.kernel.digest import digest_of
from fleet.kernel.ids import CommandId, Digest, Principal, StreamId

MAX_BODY_BYTES = 64 * 1024
MAX_APPEND_BYTES = 512 * 1024
MAX_EVENTS = 100


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """Events to append after `expected`, under its epoch. `closes` takes the stream out of the open set."""

    stream: StreamId
    events: Sequence[NewEvent]
    expected: Head
    command_id: CommandId
    actor: Principal
    ts_ms: int
    closes: bool = False


@dataclass(frozen=True, slots=True)
class Appended:
    """Stored now; `head` is the new end of the stream and `events` is what was written."""

    head: Head
    events: tuple[StoredEvent, ...]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The command id is known; versions `first`..`last` hold its events. Reload: the bytes may differ (EV-15)."""

    first: int
    last: int


class EventLog(Protocol):
    """Append-only streams whose version is gap-free from 1, linked by hashes.

    An acknowledged append is on disk. Duplicate is an outcome, not an error. After a crash nothing is half-written:
    entries, head, command table, open set and feed hint of one append exist together or not at all.
    """

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        """Store all events of the request after `expected`, or nothing.

        Checks in this order (EV-14): command id known -> Duplicate; epoch differs from the head's -> OwnershipLost;
        version or hash differ -> VersionConflict (details: expected, actual); limits -> PayloadTooLarge.
        A stream that is refused (see `refuse`) -> LogRegressed, right after the check of the command id.
        StoreUnavailable: nothing was sent. CommitUnknown: repeat with the same command id. StoreFull: no room.
        """
        ...

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        """Events with versions `after`+1.. in order, at most `limit`; none for an unknown stream."""
        ...

    async def head(self, stream: StreamId) -> Head:
        """Where the stream ends now; `Head()` for an unknown stream."""
        ...

    async def open_streams(self) -> list[StreamId]:
        """Streams that have events and are not closed, sorted."""
        ...

    async def streams(self) -> list[StreamId]:
        """Every stream that has events, sorted."""
        ...

    async def refuse(self, stream: StreamId, *, reason: str) -> None:
        """The stream takes no appends until `accept_loss`; reads go on. The first reason stays (EV-19)."""
        ...

    async def refused(self) -> dict[StreamId, str]:
        """Streams that take no appends, and why."""
        ...

    async def accept_loss(self, stream: StreamId) -> None:
        """The stream takes appends again, from its present head; nothing happens when it was not refused."""
        ...

    async def commands(self, stream: StreamId) -> dict[CommandId, tuple[int, int]]:
        """Every command id of the stream with the first and last version that it wrote."""
        ...

    async def erase(self, stream: StreamId, *, expected: Head) -> None:
        """Entries, commands, lease and snapshot are gone; VersionConflict unless the head is `expected`.

        Of the head the epoch is left, and no epoch of it is ever granted again (EV-3); the stream is in neither list.
        Only for a stream whose bytes were exported (EV-25). Erasing again does nothing.
        """
        ...


@dataclass(frozen=True, slots=True)
class Lease:
    """A granted lease. `owner` is `<shard>/<incarnation>`; `epoch` is new at every claim and never reused."""

    stream: StreamId
    owner: str
    epoch: int
    ttl_s: int


class LeaseStore(Protocol):
    """Leases by the store's own clock. The epoch lives in the stream's head and outlives every lease."""

    async def claim(self, stream: StreamId, owner: str, *, ttl_s: int) -> Lease:
        """The caller owns the stream for `ttl_s`; every claim raises the epoch, also one by the same owner.

        A lease of an earlier incarnation of the same shard (`<shard>/...`) is taken over at once.
        Raises LeaseHeld (details: owner, expires_in_ms) while another shard's lease lives.
        """
        ...

    async def renew(self, lease: Lease) -> None:
        """The lease lives for another `ttl_s`; OwnershipLost when owner or epoch are no longer those of the lease."""
        ...

    async def renew_all(self, leases: Sequence[Lease]) -> frozenset[StreamId]:
        """As `renew` for each of them, in one call; the streams whose lease is lost."""
        ...

    async def release(self, lease: Lease) -> None:
        """The stream is free if the lease still held it; otherwise nothing changes. The epoch stays."""
        ...


@dataclass(frozen=True, slots=True)
class FeedHint:
    """`stream` has reached at least `version`."""

    stream: StreamId
    version: int


class Feed(Protocol):
    """Hints written together with each append; lost, repeated and reordered ones are harmless."""

    async def position(self) -> str:
        """An opaque cursor at the present end of the feed."""
        ...

    async def wait(self, cursor: str, *, timeout_s: float) -> tuple[list[FeedHint], str]:
        """Hints after `cursor` and the next cursor. Returns as soon as there is one, or empty when the time is over."""
        ...


@dataclass(frozen=True, slots=True)
class HintDelivery:
    """A hint handed to one consumer of a group; `receipt` acknowledges it."""

    receipt: str
    hint: FeedHint
    attempts: int


class FeedGroup(Protocol):
    """The hints shared among the consumers of one group, at least once each (EV-7)."""

    async def take(self, consumer: str, *, timeout_s: float) -> list[HintDelivery]:
        """Hints for this consumer, those that a dead one left included; empty when the time is over."""
        ...

    async def acknowledge(self, deliveries: Sequence[HintDelivery]) -> None:
        """These hints are not delivered again."""
        ...


@dataclass(frozen=True, slots=True)
class Command:
    """One command for the owner of `stream`: `name` is imperative (`create_story`), `body` is its JSON arguments."""

    command_id: CommandId
    stream: StreamId
    name: str
    principal: Principal
    body: dict[str, Any] = field(default_factory=dict[str, Any])
    trace_id: str = ""
    """Trace of the caller, which the events that the command records carry (AP-8)."""

    @property
    def request(self) -> Digest:
        """Digest of what is asked, without the id it is asked under; the same before and after the queue (AP-2)."""
        # No canonical JSON: a body may hold what the owner is still to refuse, such as floats.
        return digest_of(json.dumps([self.stream, self.name, self.body], sort_keys=True).encode())


@dataclass(frozen=True, slots=True)
class Delivery:
    """A command handed to one consumer; acknowledge it with `receipt` once its answer is stored."""

    receipt: str
    command: Command
    attempts: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a command: `result`, or the wire form of an error in `problem`."""

    ok: bool
    result: dict[str, Any] = field(default_factory=dict[str, Any])
    problem: dict[str, Any] = field(default_factory=dict[str, Any])
    request: str = ""
    """`Command.request` of the command that was answered."""


class Inbox(Protocol):
    """A durable queue with one group of consumers, the council shards. Delivery is at least once."""

    async def submit(self, command: Command) -> None:
        """The command is queued and will be delivered; a second submit of an answered command id does nothing."""
        ...

    async def take(self, consumer: str, *, timeout_s: float) -> list[Delivery]:
        """Commands for this consumer, those that a dead one left for 30 s included; empty when the time is over.

        A command that comes again comes alone, so that whoever dies of it takes no other command along. One that was
        delivered `MAX_ATTEMPTS` times and never answered is set aside instead: one dead letter, and a problem that
        names it as the answer (EV-22).
        """
        ...

    async def defer(self, delivery: Delivery) -> None:
        """The command comes again soon and this delivery does not count: an outage kept it from being handled (EV-23).

        Nothing happens when the delivery was acknowledged or taken over meanwhile.
        """
        ...

    async def acknowledge(self, delivery: Delivery, answer: Answer) -> None:
        """The answer is stored for 24 h and the command will not be delivered again."""
        ...

    async def answer(self, command_id: CommandId, *, timeout_s: float) -> Answer | None:
        """The stored answer, waiting at most `timeout_s` for it; None when there is none yet."""
        ...


MAX_ATTEMPTS = 5
"""After as many failed attempts the work is set aside."""

LetterSource: TypeAlias = str
"""`projector`, `commands`, or `notifications:<target>`; each target fails by itself."""

_SOURCE = re.compile(r"projector|commands|notifications:[a-z][a-z0-9-]{0,39}")


def is_letter_source(text: str) -> bool:
    """Whether work of this name can be set aside."""
    return _SOURCE.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Failure:
    """One deterministic failure: `version` of `stream` could not be handled by `source` (0 for a command)."""

    source: LetterSource
    stream: StreamId
    version: int
    code: str
    reason: str
    raw: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A failure that happened `MAX_ATTEMPTS` times; `letter_id` is what `retry` takes."""

    letter_id: str
    failure: Failure
    attempts: int
    first_seen_ms: int
    last_seen_ms: int


class DeadLetters(Protocol):
    """Counts of failures and parked work; both outlive every process. Nothing is lost by parking: the log has it."""

    async def failed(self, failure: Failure) -> DeadLetter | None:
        """One more attempt failed. The letter once it is parked: written exactly once, on attempt `MAX_ATTEMPTS`.

        Attempts are counted for each (source, stream, version). Outages are never reported here (EV-23).
        """
        ...

    async def parked(self, source: LetterSource) -> dict[StreamId, DeadLetter]:
        """Streams at which this consumer stands still, at the version before the letter's."""
        ...

    async def letter(self, source: LetterSource, stream: StreamId, version: int) -> DeadLetter | None:
        """The letter of exactly this piece of work; None when there is none, or no longer."""
        ...

    async def letters(self) -> list[DeadLetter]:
        """Every letter, oldest first."""
        ...

    async def retry(self, letter_id: str) -> DeadLetter:
        """The letter and its count are gone and the consumer may go on. NotFound when there is no such letter."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fold of versions 1..`version`. Used only if the log has `hash` there and the reader knows `schema`."""

    version: int
    hash: str
    schema: str
    """Names the form of `data`; a reader with another form folds the whole stream."""
    data: bytes


class SnapshotStore(Protocol):
    """At most one snapshot of each stream. Everything in it may be lost at any moment."""

    async def get(self, stream: StreamId) -> Snapshot | None:
        """The newest snapshot that was put, if it is still there."""
        ...

    async def put(self, stream: StreamId, snapshot: Snapshot) -> None:
        """The snapshot replaces an older one; a newer one stays."""
        ...

    async def drop(self, stream: StreamId) -> None:
        """There is no snapshot of the stream."""
        ...


@dataclass(frozen=True, slots=True)
class Backlog:
    """`pending` entries were not acknowledged yet, delivered or not; the oldest waits for `oldest_ms` (0 if none)."""

    pending: int
    oldest_ms: int


class HasBacklog(Protocol):
    """A queue that can be measured: the inbox and the feed's group."""

    async def backlog(self) -> Backlog:
        """What waits just now, over all partitions. StoreUnavailable."""
        ...
