"""What an event looks like before and after it is stored (EV-11, EV-12)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from fleet.events.payload import Payload
from fleet.kernel.ids import CommandId, Principal, StreamId

GENESIS_HASH = "0" * 64
"""The previous hash of version 1."""

_DOMAIN = b"swe-fleet/event/1"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """One event to append: `body` is the JSON of payload plus `meta {origin, trace_id}`, at most 64 KiB (EV-13)."""

    type: str
    schema: int
    body: bytes
    causation: str = ""
    payload: Payload | None = field(default=None, init=False, compare=False, repr=False)
    """What `decode` gives for the body, where it is at hand; a copy with changes does not have it."""

    def remember(self, payload: Payload | None) -> None:
        """Whoever decodes this event from here on gets this very payload, which must be what the body says."""
        object.__setattr__(self, "payload", payload)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event as stored. `hash` covers every other field through `event_hash`; `ts_ms` is UTC milliseconds."""

    stream: StreamId
    version: int
    type: str
    schema: int
    body: bytes
    ts_ms: int
    epoch: int
    command_id: CommandId
    actor: Principal
    causation: str
    prev_hash: str
    hash: str
    payload: Payload | None = field(default=None, init=False, compare=False, repr=False)
    """As of `NewEvent`."""

    def remember(self, payload: Payload | None) -> None:
        """As `NewEvent.remember`."""
        object.__setattr__(self, "payload", payload)

    @property
    def event_id(self) -> str:
        """`<stream id>/<version>`: what consumers deduplicate by."""
        return f"{self.stream}/{self.version}"


@dataclass(frozen=True, slots=True)
class Head:
    """Where a stream ends: version 0 and the genesis hash when nothing was appended; `epoch` 0 when nobody owned it."""

    version: int = 0
    hash: str = GENESIS_HASH
    epoch: int = 0


def event_hash(
    *,
    stream: str,
    version: int,
    type: str,
    schema: int,
    body: bytes,
    ts_ms: int,
    epoch: int,
    command_id: str,
    actor: str,
    causation: str,
    prev_hash: str,
) -> str:
    """64 hex digits of SHA-256 over the domain tag and the length-prefixed stored fields (EV-11)."""
    parts = [_DOMAIN]
    for each in (stream, version, type, schema, body, ts_ms, epoch, command_id, actor, causation, prev_hash):
        raw = each if isinstance(each, bytes) else str(each).encode()
        parts += (len(raw).to_bytes(8, "big"), raw)
    return hashlib.sha256(b"".join(parts)).hexdigest()
