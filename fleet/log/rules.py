"""What all adapters of the log do alike: checks, the words of refusals, the form of letters (pure)."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from dataclasses import asdict, fields
from typing import Any, cast

from fleet.events.envelope import Head, NewEvent, StoredEvent, event_hash
from fleet.kernel.errors import (
    FleetError,
    IdempotencyMismatch,
    InvalidInput,
    LeaseHeld,
    LogCorrupted,
    LogRegressed,
    NotFound,
    OutcomeUnknown,
    OwnershipLost,
    PayloadTooLarge,
    VersionConflict,
)
from fleet.kernel.ids import CommandId, Digest, Principal, RunKey, StoryId, StreamId
from fleet.log.port import (
    MAX_APPEND_BYTES,
    MAX_BODY_BYTES,
    MAX_EVENTS,
    Answer,
    AppendRequest,
    Command,
    DeadLetter,
    Failure,
    Lease,
)


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
    stored = _named(
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
    )
    stored.remember(event.payload)
    return stored


def _named(**fields: Any) -> StoredEvent:
    """The event of these fields, with the hash over them."""
    return StoredEvent(**fields, hash=event_hash(**fields))


_HASHED = tuple(each.name for each in fields(StoredEvent) if each.init and each.name != "hash")


def hashed_fields(event: StoredEvent) -> dict[str, Any]:
    """The fields that the hash of an event is taken over, by name."""
    return {name: getattr(event, name) for name in _HASHED}


def check_entry(event: StoredEvent, *, expected_version: int, prev_hash: str | None) -> None:
    """The stored event is the next one, follows `prev_hash` (None: not known) and matches its own hash.

    Raises LogCorrupted naming stream and version.
    """
    if event.version != expected_version:
        problem = f"holds version {event.version} where {expected_version} must stand"
    elif prev_hash is not None and event.prev_hash != prev_hash:
        problem = f"version {event.version} does not follow the hash of the version before"
    elif event_hash(**hashed_fields(event)) != event.hash:
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


def shard_of(owner: str) -> str:
    """The shard in `<shard>/<incarnation>`; all of it when there is no slash."""
    return owner.split("/", 1)[0]


def lease_held(stream: StreamId, *, owner: str, expires_in_ms: int) -> LeaseHeld:
    """The error for a claim on a stream whose lease lives."""
    return LeaseHeld(
        f"{stream} is leased to {owner} for another {expires_in_ms} ms: leave it to that owner or try again later",
        stream=stream,
        owner=owner,
        expires_in_ms=expires_in_ms,
    )


def lease_lost(lease: Lease) -> OwnershipLost:
    """The error for a renewal by somebody who is no longer the owner."""
    return OwnershipLost(
        f"{lease.stream} no longer belongs to {lease.owner} under epoch {lease.epoch}: stop this owner",
        stream=lease.stream,
        owner=lease.owner,
        epoch=lease.epoch,
    )


def run_fenced(key: RunKey, *, story: StoryId, epoch: int, seen: int) -> OwnershipLost:
    """The error for a run that an outdated owner asks for."""
    return OwnershipLost(
        f"story {story} is owned under epoch {seen}, run {key[:12]} was asked for under {epoch}: nothing was started",
        story_id=story,
        key=key,
        expected=epoch,
        actual=seen,
    )


def key_reused(key: RunKey, *, spec: Digest, recorded: str) -> IdempotencyMismatch:
    """The error for a key that names another run."""
    return IdempotencyMismatch(
        f"run key {key[:12]} belongs to spec {recorded}, it came with {spec}: use a new key for another run",
        key=key,
        spec=spec,
        known=recorded,
    )


NOWHERE = StreamId("platform:main")
"""Where a command is filed whose own stream cannot be read."""

_LETTER_ID = re.compile(r"dl-(\d{2})-[0-9a-f]{12}")


def letter_id_of(partition: str, *what: str | int) -> str:
    """`dl-NN-<12 hex>`: the same work gets the same id, so that it can never have two letters at once."""
    raw = hashlib.sha256("\x00".join(str(part) for part in what).encode()).hexdigest()
    return f"dl-{partition}-{raw[:12]}"


def partition_in(letter_id: str) -> str | None:
    """NN of a letter's id; None when the text is no such id."""
    match = _LETTER_ID.fullmatch(letter_id)
    return match.group(1) if match else None


def encode_command(command: Command) -> str:
    """The command as JSON, as it lies in the queue."""
    return json.dumps(asdict(command))


def decode_command(raw: str | bytes) -> Command:
    """The command of such JSON. Raises InvalidInput saying why it is none."""
    try:
        document: dict[str, Any] = json.loads(raw)
        return Command(
            command_id=CommandId(document["command_id"]),
            stream=StreamId(document["stream"]),
            name=_of_type(document, "name", str),
            principal=Principal(document["principal"]),
            body=_of_type(document, "body", dict),
            trace_id=str(document.get("trace_id", "")),
        )
    except (ValueError, KeyError, TypeError, FleetError) as error:
        raise InvalidInput(f"this is no command: {type(error).__name__}: {error}", value=str(raw[:100])) from error


def _of_type(document: dict[str, Any], name: str, kind: type) -> Any:
    value = document[name]
    if not isinstance(value, kind):
        raise TypeError(f"{name} is no {kind.__name__}")
    return value


def command_failure(command: Command, *, attempts: int) -> Failure:
    """Why a command that is delivered again and again is set aside."""
    return Failure(
        source="commands",
        stream=command.stream,
        version=0,
        code=OutcomeUnknown.code,
        reason=f"command {command.name} was delivered {attempts} times, and each time its consumer ended or hung "
        "before it had answered",
        raw=encode_command(command),
    )


def malformed_failure(raw: str, error: FleetError) -> Failure:
    """Why an entry of the queue that is no command is set aside."""
    return Failure(source="commands", stream=_stream_in(raw), version=0, code=error.code, reason=error.message, raw=raw)


def _stream_in(raw: str) -> StreamId:
    try:
        return StreamId(json.loads(raw)["stream"])
    except (ValueError, KeyError, TypeError, FleetError):
        return NOWHERE


def set_aside(command: Command, letter_id: str, *, attempts: int) -> Answer:
    """The answer of a command that became a dead letter: nobody knows whether it was carried out (EV-22)."""
    error = OutcomeUnknown(
        f"command {command.name} on {command.stream} was delivered {attempts} times and never answered: it is set "
        f"aside as {letter_id}. Look at the story, then let it run again with `fleet dlq retry {letter_id}`",
        letter_id=letter_id,
        command_id=str(command.command_id),
        attempts=attempts,
    )
    return Answer(ok=False, problem=error.to_wire(), request=command.request)


def set_aside_by(answer: Answer) -> str | None:
    """The letter because of which this answer was given; None for the answer of an owner."""
    details = cast("dict[str, Any]", answer.problem.get("details") or {})
    letter_id = details.get("letter_id")
    return letter_id if isinstance(letter_id, str) else None


def retried_command(letter: DeadLetter) -> Command | None:
    """The command that goes back to the queue when this letter is retried. None when the log has the work itself.

    Raises InvalidInput when what was set aside is no command: no retry can mend it.
    """
    if letter.failure.source != "commands":
        return None
    try:
        return decode_command(letter.failure.raw)
    except InvalidInput as error:
        raise InvalidInput(
            f"dead letter {letter.letter_id} cannot be retried: {error.message}; send a correct command instead",
            letter_id=letter.letter_id,
        ) from error


def standing_still(letters: list[DeadLetter]) -> dict[StreamId, DeadLetter]:
    """For each stream the letter of its lowest version; a command (version 0) holds up nothing behind it."""
    ordered = sorted(letters, key=lambda letter: -letter.failure.version)
    return {letter.failure.stream: letter for letter in ordered if letter.failure.version > 0}


def no_letter(letter_id: str) -> NotFound:
    """The error for a letter that does not exist, or exists no longer."""
    return NotFound(
        f"there is no dead letter {letter_id[:100]!r}; `fleet dlq list` shows those that exist",
        letter_id=letter_id[:100],
    )


MAX_SNAPSHOT_BYTES = 8 * 1024 * 1024
"""A snapshot that is larger when packed is not kept: it would take too much room on the log's server."""
_MAX_UNPACKED = 512 * 1024 * 1024
"""Bytes; what claims to be more was not written by `packed`."""
_QUICK = 1
"""States shrink to a twelfth even so, in a fraction of the time that it takes to write them down."""


def packed(data: bytes, *, max_bytes: int) -> bytes | None:
    """The data as it is kept; None when that is over `max_bytes`."""
    small = zlib.compress(data, _QUICK)
    return small if len(small) <= max_bytes else None


def unpacked(small: bytes) -> bytes | None:
    """What `packed` was given; None for anything else."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(small, _MAX_UNPACKED)
    except zlib.error:
        return None
    return data if stream.eof and not stream.unused_data else None
