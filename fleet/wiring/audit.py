"""The notary, and what the command line asks about the audit."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleet.audit.redis import RedisCheckpointStore, RedisRawLog
from fleet.kernel.clock import SystemClock
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.log import RedisEventLog
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.stores.stores import make_blobs

if TYPE_CHECKING:
    from fleet.audit.note import NoteKey
    from fleet.audit.service.auditor import Auditor
    from fleet.audit.service.losses import LossDesk
    from fleet.audit.service.notary import Notary


@dataclass(frozen=True, slots=True)
class NotaryParts:
    """What the actor `notary` holds: both sign with one key."""

    notary: Notary
    losses: LossDesk


def make_notary_parts(endpoints: Endpoints) -> NotaryParts:
    """The services behind actor `notary`."""
    from fleet.audit.files.ed25519 import Ed25519Verifier, KeyFile
    from fleet.audit.files.witness import CheckpointFolder
    from fleet.audit.service.losses import LossDesk
    from fleet.audit.service.notary import Notary

    redis, places = connect_redis(endpoints.redis_url), endpoints.audit
    log, raw, store = RedisEventLog(redis), RedisRawLog(redis), RedisCheckpointStore(redis)
    folder = CheckpointFolder(places.folder, announce=_announce)
    signer, verifier, clock = KeyFile(places.key), Ed25519Verifier(), SystemClock()
    return NotaryParts(
        notary=Notary(
            log,
            raw,
            store,
            folder,
            signer=signer,
            verifier=verifier,
            clock=clock,
            interval_s=endpoints.audit_interval_s,
            announce=_announce,
        ),
        losses=LossDesk(log, raw, store, folder, signer=signer, verifier=verifier, clock=clock),
    )


def _announce(line: str) -> None:
    # Checkpoints leave the machine with the actor's output too, wherever that is collected.
    print(f"audit {line}", flush=True)


@asynccontextmanager
async def open_auditor(endpoints: Endpoints, key: NoteKey | None = None) -> AsyncGenerator[Auditor]:
    """What `fleet audit verify` and `fleet audit proof` run. The key is the one in the home unless one is given."""
    from fleet.audit.files.ed25519 import Ed25519Verifier, read_handovers, read_public_key
    from fleet.audit.files.witness import CheckpointFolder
    from fleet.audit.service.auditor import Auditor

    redis, places = connect_redis(endpoints.redis_url), endpoints.audit
    try:
        yield Auditor(
            RedisRawLog(redis),
            RedisCheckpointStore(redis),
            CheckpointFolder(places.folder),
            blobs=make_blobs(endpoints, redis),
            key=key or read_public_key(places.public),
            verifier=Ed25519Verifier(),
            handovers=read_handovers(places.public.parent),
        )
    finally:
        await redis.aclose()


@asynccontextmanager
async def open_loss_desk(endpoints: Endpoints) -> AsyncGenerator[LossDesk]:
    """What `fleet accept-loss` runs."""
    from fleet.audit.files.ed25519 import Ed25519Verifier, KeyFile
    from fleet.audit.files.witness import CheckpointFolder
    from fleet.audit.service.losses import LossDesk

    redis, places = connect_redis(endpoints.redis_url), endpoints.audit
    try:
        yield LossDesk(
            RedisEventLog(redis),
            RedisRawLog(redis),
            RedisCheckpointStore(redis),
            CheckpointFolder(places.folder),
            signer=KeyFile(places.key),
            verifier=Ed25519Verifier(),
            clock=SystemClock(),
        )
    finally:
        await redis.aclose()
