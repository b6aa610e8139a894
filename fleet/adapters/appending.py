"""What every event log does alike: size limits, the chain of hashes, and the words of its refusals (EV-11..EV-14)."""

from __future__ import annotations

from fleet.errors import InvalidInput, LogCorrupted, LogRegressed, OwnershipLost, PayloadTooLarge, VersionConflict
from fleet.events import Head, NewEvent, StoredEvent, event_hash
from fleet.ids import StreamId
from fleet.ports import MAX_APPEND_BYTES, MAX_BODY_BYTES, MAX_EVENTS, AppendRequest

__all__ = [
    "chain",
    "check_entry",
    "corrupted",
    "fenced",
    "moved",
    "not_erased",
    "oversize",
    "regressed",
    "require_events",
    "require_reason",
    "too_large",
]


def require_events(request: AppendRequest) -> None:
    """The request holds at least one event. Raises InvalidInput."""
    if not request.events:
        raise InvalidInput(f"the append to {request.stream} holds no event: send at least one", stream=request.stream)


def require_reason(stream: StreamId, reason: str) -> None:
    """A stream is refused for a reason that an operator can read. Raises InvalidInput."""
    if not reason.strip():
        raise InvalidInput(f"{stream} was to be refused without a reason: say what went back", stream=stream)


def oversize(request: AppendRequest) -> str | None:
    """What is over a limit of EV-13, in words; None when all limits hold."""
    sizes = [len(event.body) for event in request.events]
    if len(sizes) > MAX_EVENTS:
        return f"{len(sizes)} events, at most {MAX_EVENTS} are allowed"
    for ordinal, size in enumerate(sizes, start=1):
        if size > MAX_BODY_BYTES:
            return f"a body of {size} bytes in event {ordinal}, at most {MAX_BODY_BYTES} are allowed"
    if sum(sizes) > MAX_APPEND_BYTES:
        return f"{sum(sizes)} bytes in all bodies, at most {MAX_APPEND_BYTES} are allowed"
    return None


def chain(request: AppendRequest) -> tuple[StoredEvent, ...]:
    """The events as they are stored after `expected`: numbered, and each linked to the one before by its hash."""
    stored: list[StoredEvent] = []
    prev = request.expected.hash
    for version, event in enumerate(request.events, start=request.expected.version + 1):
        stored.append(_link(request, event, version=version, prev=prev))
        prev = stored[-1].hash
    return tuple(stored)


def _link(request: AppendRequest, event: NewEvent, *, version: int, prev: str) -> StoredEvent:
    unsigned = StoredEvent(
        stream=request.stream,
        version=version,
        type=event.type,
        schema=event.schema,
        body=event.body,
        ts_ms=request.ts_ms,
        epoch=request.expected.epoch,
        command_id=request.command_id,
        actor=request.actor,
        causation=event.causation,
        prev_hash=prev,
        hash="",
    )
    return _with_hash(unsigned)


def _with_hash(event: StoredEvent) -> StoredEvent:
    fields = {name: getattr(event, name) for name in StoredEvent.__slots__ if name != "hash"}
    return StoredEvent(**fields, hash=event_hash(**fields))


def check_entry(event: StoredEvent, *, expected_version: int, prev_hash: str | None) -> None:
    """The stored event is the next one, follows `prev_hash` (None: not known) and matches its own hash.

    Raises LogCorrupted naming stream and version.
    """
    if event.version != expected_version:
        problem = f"holds version {event.version} where {expected_version} must stand"
    elif prev_hash is not None and event.prev_hash != prev_hash:
        problem = f"version {event.version} does not follow the hash of the version before"
    elif _with_hash(event).hash != event.hash:
        problem = f"version {event.version} does not match its own hash"
    else:
        return
    raise corrupted(event.stream, expected_version, problem)


def corrupted(stream: StreamId, version: int, problem: str) -> LogCorrupted:
    """The error for a stream that does not verify."""
    return LogCorrupted(
        f"{stream} is damaged: it {problem}; run `fleet audit verify` and restore the log",
        stream=stream,
        version=version,
    )


def regressed(stream: StreamId, reason: str) -> LogRegressed:
    """The error for an append to a stream that is refused (EV-19)."""
    return LogRegressed(
        f"{stream} takes no appends: {reason}; restore the log, or accept what is lost with "
        f"`fleet accept-loss {stream}`",
        stream=stream,
        reason=reason,
    )


def fenced(request: AppendRequest, *, epoch: int) -> OwnershipLost:
    """The error for an append under an epoch that the head does not have."""
    return OwnershipLost(
        f"{request.stream} is owned under epoch {epoch}, this append came under {request.expected.epoch}: "
        "stop this owner and write nothing more",
        stream=request.stream,
        expected=request.expected.epoch,
        actual=epoch,
    )


def moved(request: AppendRequest, actual: Head) -> VersionConflict:
    """The error for an append that was decided on another end of the stream."""
    return VersionConflict(
        f"{request.stream} is at version {actual.version}, this command was decided at {request.expected.version}; "
        "reload it and decide again",
        stream=request.stream,
        expected=request.expected.version,
        actual=actual.version,
        expected_hash=request.expected.hash,
        actual_hash=actual.hash,
    )


def not_erased(stream: StreamId, *, expected: Head, actual: Head) -> VersionConflict:
    """The error for erasing a stream that ends elsewhere than what was exported."""
    return VersionConflict(
        f"{stream} is at version {actual.version} under epoch {actual.epoch}, it was to be erased at version "
        f"{expected.version} under epoch {expected.epoch}: nothing was erased; export it anew",
        stream=stream,
        expected=expected.version,
        actual=actual.version,
        expected_hash=expected.hash,
        actual_hash=actual.hash,
        expected_epoch=expected.epoch,
        actual_epoch=actual.epoch,
    )


def too_large(request: AppendRequest, finding: str) -> PayloadTooLarge:
    """The error for an append over a limit of EV-13."""
    return PayloadTooLarge(
        f"the append to {request.stream} has {finding}: store large content as a blob and name its digest",
        stream=request.stream,
    )
