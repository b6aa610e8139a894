"""Keys, entries and whole audits for tests."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.audit.chain import RawEntry, raw_entry
from fleet.audit.files.ed25519 import Ed25519Verifier
from fleet.audit.key_ring import KeyRing
from fleet.audit.memory import MemoryCheckpointExport, MemoryCheckpointStore, MemoryRawLog
from fleet.audit.note import NoteKey
from fleet.audit.port import Signer
from fleet.audit.service.auditor import Auditor, AuditReport
from fleet.audit.service.losses import LossDesk
from fleet.audit.service.notary import Notary
from fleet.events.codec import encode
from fleet.events.envelope import Head, NewEvent
from fleet.events.payload import Payload
from fleet.kernel.clock import MemoryClock
from fleet.kernel.ids import CommandId, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import Appended, AppendRequest
from fleet.log.rules import chain
from fleet.trees.memory import MemoryBlobStore
from tests.support.stores import ACTOR, append_request


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
