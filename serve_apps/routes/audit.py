"""The audit over HTTP: raw envelopes with hashes, checkpoints, proofs, and a verification (AP-90)."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from fleet.audit.checkpoint import parse_checkpoint
from fleet.audit.note import note_text
from fleet.audit.port import StoredNote
from fleet.audit.proof import Proof
from fleet.desk.audit import AuditDesk, EventChoice, Verification
from fleet.desk.principals import PrincipalRegistry
from fleet.events.envelope import StoredEvent
from fleet.kernel.errors import InvalidInput, PolicyDenied, StoreUnavailable
from fleet.kernel.ids import Principal, StoryId, StreamId
from serve_apps.requests import Caller, require_one_of
from serve_apps.sight import require_sight, sight_of
from serve_apps.wire.story import Wire
from serve_apps.wire.times import at

audit_router = APIRouter(prefix="/api/audit")

_WAIT_S = 10.0


class Envelope(Wire):
    """One event exactly as it is stored: its hash covers all other fields."""

    id: str
    stream: str
    version: int
    type: str
    schema_: int
    ts: str
    epoch: int
    command_id: str
    actor: str
    causation: str
    body: Any
    """The stored JSON."""
    body_base64: str
    """Its bytes, which the hash is over."""
    prev_hash: str
    hash: str


class EnvelopeList(Wire):
    """Envelopes of one stream; `next_from` is the version to go on from."""

    items: tuple[Envelope, ...]
    next_from: int | None


class KeyView(Wire):
    """A notary's key, as the published line names it."""

    name: str
    id: str
    """The first 4 bytes of its digest, in hex."""


class CheckpointView(Wire):
    """One signed checkpoint: a note whose signature anybody can check, and what it says; null where it is damaged."""

    sequence: int
    note: str
    time: str | None
    streams: int | None
    events: int | None
    successor: KeyView | None
    """The key that signs from the next one on: this checkpoint retired its own key, and both signed it."""


class CheckpointList(Wire):
    """Checkpoints in order; `next_after` is the number to go on from."""

    items: tuple[CheckpointView, ...]
    next_after: int | None


class AuditFindingView(Wire):
    """One difference between what is stored and what was recorded."""

    verdict: str
    subject: str
    version: int | None
    detail: str


class AuditStatus(Wire):
    """The last verification by this replica; without one, null."""

    is_running: bool
    ended_at: str | None
    took_ms: int | None
    is_clean: bool | None
    streams: int | None
    events: int | None
    checkpoints: int | None
    exported: int | None
    newest: int | None
    """The highest checkpoint whose signature holds."""
    findings: tuple[AuditFindingView, ...]
    accepted: tuple[str, ...]
    remarks: tuple[str, ...]


def _audit(request: Request, who: Caller) -> AuditDesk:
    require_one_of(request, who, "admin", "po", rule_id="AP-90", listed=True)
    desk: AuditDesk | None = request.app.state.audit
    if desk is None:
        raise StoreUnavailable("this front has no audit wired")
    return desk


Audit = Annotated[AuditDesk, Depends(_audit)]


@audit_router.get("/events", response_model=EnvelopeList, operation_id="events_api_audit_events_get")
async def events(
    request: Request,
    audit: Audit,
    who: Caller,
    stream: Annotated[str, Query(min_length=3, max_length=100)],
    first: Annotated[int, Query(alias="from", ge=1, le=10**9)] = 1,
    last: Annotated[int | None, Query(alias="to", ge=1, le=10**9)] = None,
    type: Annotated[str | None, Query(max_length=60)] = None,
    actor: Annotated[str | None, Query(max_length=120)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> EnvelopeList:
    """Envelopes of a stream as they are stored, hashes included."""
    named = await _stream(request, who, stream)
    choice = EventChoice(first=first, last=last, type=type, actor=actor)
    events, following = await audit.events(named, choice, limit=limit)
    return EnvelopeList(items=tuple(_envelope(event) for event in events), next_from=following)


async def _stream(request: Request, who: Principal, text: str) -> StreamId:
    """The stream; a bare story id is that of its stream. What is no story is for role admin alone."""
    stream = StreamId(text if ":" in text else f"story:{text}")
    if stream.startswith("story:"):
        story = await require_sight(request, who, StoryId(stream.entity))
        await sight_of(request).require_whole(who, story, "envelopes", action="read_envelopes")
        return stream
    registry: PrincipalRegistry = request.app.state.registry
    if "admin" not in registry.roles_of(who):
        raise PolicyDenied(f"stream {stream} is for role 'admin'", rule_id="AP-90", allowed="admin")
    return stream


def _envelope(event: StoredEvent) -> Envelope:
    return Envelope(
        id=event.event_id,
        stream=event.stream,
        version=event.version,
        type=event.type,
        schema_=event.schema,
        ts=at(event.ts_ms),
        epoch=event.epoch,
        command_id=event.command_id,
        actor=event.actor,
        causation=event.causation,
        body=json.loads(event.body),
        body_base64=base64.b64encode(event.body).decode(),
        prev_hash=event.prev_hash,
        hash=event.hash,
    )


@audit_router.get("/checkpoints", response_model=CheckpointList, operation_id="checkpoints_api_audit_checkpoints_get")
async def checkpoints(
    audit: Audit,
    who: Caller,
    after: Annotated[int, Query(ge=0, le=10**9)] = 0,
    before: Annotated[int | None, Query(ge=1, le=10**9)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> CheckpointList:
    """Signed checkpoints in order; with `before` the last ones below that number."""
    if before is not None:
        if after:
            raise InvalidInput("after and before exclude each other: name one of them", field="before", problems=[])
        checkpoints = await audit.checkpoints_before(before, limit=limit)
        return CheckpointList(items=tuple(_checkpoint(note) for note in checkpoints), next_after=None)
    checkpoints = await audit.checkpoints(after=after, limit=limit)
    items = tuple(_checkpoint(note) for note in checkpoints)
    return CheckpointList(items=items, next_after=checkpoints[-1].sequence if len(checkpoints) == limit else None)


def _checkpoint(kept: StoredNote) -> CheckpointView:
    try:
        said = parse_checkpoint(note_text(kept.note))
    except InvalidInput:
        # A verification names what is wrong with it.
        said = None
    key = said.handover.successor if said and said.handover else None
    return CheckpointView(
        sequence=kept.sequence,
        note=kept.note,
        time=said.time if said else None,
        streams=said.size if said else None,
        events=said.versions if said else None,
        successor=KeyView(name=key.name, id=key.id.hex()) if key else None,
    )


@audit_router.get(
    "/proof/{story_id}/{version}", response_model=Proof, operation_id="proof_api_audit_proof__story_id___version__get"
)
async def proof(
    request: Request, audit: Audit, who: Caller, story_id: str, version: Annotated[int, Path(ge=1, le=10**9)]
) -> Proof:
    """A proof that an event of a story was recorded, to be checked without this fleet."""
    story = await require_sight(request, who, StoryId(story_id))
    await sight_of(request).require_whole(who, story, "proofs", action="read_proof")
    return await audit.proof(StreamId.of_story(story), version)


@audit_router.get("/status", response_model=AuditStatus, operation_id="status_api_audit_status_get")
async def status(audit: Audit, who: Caller) -> AuditStatus:
    """What the last verification by this replica found."""
    return _status(audit, audit.last)


@audit_router.post("/verify", response_model=AuditStatus, operation_id="verify_api_audit_verify_post")
async def verify(request: Request, audit: Audit, who: Caller) -> Response:
    """Read everything again and check it: 200 with what was found, or 202 while it runs. It records nothing."""
    if await request.body() not in (b"", b"{}"):
        raise InvalidInput("a verification takes no body", field="/", problems=[])
    verification = await audit.verify(wait_s=_WAIT_S)
    return JSONResponse(
        _status(audit, verification).model_dump(mode="json"), status_code=202 if verification is None else 200
    )


def _status(audit: AuditDesk, verification: Verification | None) -> AuditStatus:
    report = verification.report if verification else None
    return AuditStatus(
        is_running=audit.is_running,
        ended_at=at(verification.ended_ms) if verification else None,
        took_ms=verification.took_ms if verification else None,
        is_clean=report.is_clean if report else None,
        streams=report.streams if report else None,
        events=report.events if report else None,
        checkpoints=report.checkpoints if report else None,
        exported=report.exported if report else None,
        newest=report.newest if report else None,
        findings=tuple(AuditFindingView(**f.to_json()) for f in report.findings) if report else (),
        accepted=tuple(str(loss) for loss in report.accepted) if report else (),
        remarks=report.remarks if report else (),
    )
