"""Keys, entries and whole audits for tests."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.adapters.appending import chain
from fleet.adapters.memory import (
    MemoryBlobStore,
    MemoryCheckpointExport,
    MemoryCheckpointStore,
    MemoryClock,
    MemoryEventLog,
    MemoryRawLog,
)
from fleet.adapters.signing import Ed25519Verifier
from fleet.audit import KeyRing, NoteKey, RawEntry, raw_entry
from fleet.events import Head, NewEvent, Payload, encode
from fleet.ids import CommandId, StreamId
from fleet.ports import Appended, AppendRequest, Signer
from fleet.services.auditor import Auditor, AuditReport
from fleet.services.losses import LossDesk
from fleet.services.notary import Notary
from tests.support.stores import ACTOR, append_request

__all__ = ["OTHER_SIGNER", "SIGNER", "AuditWorld", "KeyInMemory", "entries_of"]


@dataclass(frozen=True)
class KeyInMemory:
    """A `Signer` whose key is made from a number."""

    name: str
    seed: int

    @property
    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed.to_bytes(32, "big"))

    @property
    def key(self) -> NoteKey:
        """See `Signer.key`."""
        return NoteKey(self.name, self._private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """See `Signer.sign`."""
        return self._private.sign(message)

    @property
    def ring(self) -> KeyRing:
        """This key alone, for those who check."""
        return KeyRing.trusting(self.key, check=Ed25519Verifier().check)

    @property
    def handovers(self) -> tuple[str, ...]:
        """See `Signer.handovers`."""
        return ()

    @property
    def successor(self) -> None:
        """See `Signer.successor`."""
        return

    def succeed(self, handover: str) -> None:
        """Never called: it has no successor."""
        raise AssertionError(handover)


SIGNER = KeyInMemory("swe-fleet/log/test", 1)
OTHER_SIGNER = KeyInMemory("swe-fleet/log/other", 2)


def entries_of(stream: StreamId, *bodies: bytes) -> list[RawEntry]:
    """The stored entries of a stream that was written by one append."""
    return [raw_entry(event) for event in chain(append_request(stream, bodies=bodies))]


class AuditWorld:
    """A log in memory with a notary, an auditor and a desk for losses over it."""

    def __init__(self) -> None:
        self.log, self.clock = MemoryEventLog(), MemoryClock()
        self.raw = MemoryRawLog(self.log)
        self.store, self.export = MemoryCheckpointStore(), MemoryCheckpointExport()
        self.blobs = MemoryBlobStore()
        self.announced: list[str] = []

    def notary(self, signer: Signer = SIGNER) -> Notary:
        """A notary as a new process has it."""
        return Notary(
            self.log,
            self.raw,
            self.store,
            self.export,
            signer=signer,
            verifier=Ed25519Verifier(),
            clock=self.clock,
            announce=self.announced.append,
        )

    def auditor(self, key: NoteKey = SIGNER.key) -> Auditor:
        """An auditor that trusts this key."""
        return Auditor(self.raw, self.store, self.export, blobs=self.blobs, key=key, verifier=Ed25519Verifier())

    def desk(self) -> LossDesk:
        """Where losses are accepted."""
        return LossDesk(
            self.log, self.raw, self.store, self.export, signer=SIGNER, verifier=Ed25519Verifier(), clock=self.clock
        )

    async def append(self, stream: StreamId, *events: bytes | Payload) -> Head:
        """The events are at the end of the stream."""
        head = await self.log.head(stream)
        request = AppendRequest(
            stream=stream,
            events=[_event(e) for e in events],
            expected=head,
            command_id=CommandId(f"{stream.entity}/{head.version}"),
            actor=ACTOR,
            ts_ms=1,
        )
        outcome = await self.log.append(request)
        assert isinstance(outcome, Appended)
        return outcome.head

    async def entries(self, stream: StreamId) -> list[RawEntry]:
        """What is stored of the stream."""
        return await self.raw.entries(stream, limit=10_000)

    async def cut(self, stream: StreamId, version: int) -> None:
        """The stream went back to `version`, and its head says so."""
        entries = (await self.entries(stream))[:version]
        self.raw.tampered[stream] = entries
        self.raw.heads[stream] = Head(version, entries[-1].fields["h"].decode()) if entries else None

    async def verify(self) -> AuditReport:
        """What the auditor finds now."""
        return await self.auditor().verify()


def _event(body: bytes | Payload) -> NewEvent:
    return NewEvent(type="MilestoneReached", schema=1, body=body) if isinstance(body, bytes) else encode(body)
