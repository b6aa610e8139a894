"""The ports of the sandbox: runs, sessions, ledger, run logs, peers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, Protocol

from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.kernel.plugin import Options, Plugin
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.spec import LiveFolder, RunResult, RunSpec, RunStatus
from fleet.policy.runs.toolchains import LayerName
from fleet.secrets.port import SecretDelivery
from fleet.trees.port import BlobStore, DiskUse


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines in their order; `is_over` when the run ended and these are its last ones."""

    lines: tuple[LogLine, ...]
    is_over: bool


class RunLogs(Protocol):
    """Live lines by run key, for any process. About the last 20,000 of a run, for a day after its last line."""

    async def append(self, key: RunKey, lines: Sequence[LogLine]) -> None:
        """Readers see these lines. A line number that is there already is left out (a run that is joined twice)."""
        ...

    async def end(self, key: RunKey) -> None:
        """Readers see that the run is over."""
        ...

    async def read(self, key: RunKey, *, after: int = 0, limit: int = 500, wait_s: float = 0) -> LogPage:
        """At most `limit` lines with a number above `after`; waits for the first one up to `wait_s` seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Claimed:
    """The caller runs the key now."""


@dataclass(frozen=True, slots=True)
class Running:
    """Another supervisor runs the key until `deadline_ms` of the store's clock.

    `is_cancel_requested`: somebody asked for its end. `is_detached`: nobody waits for it, so whoever finds it without a
    supervisor records that it is lost.
    """

    supervisor: str
    deadline_ms: int
    is_cancel_requested: bool = False
    is_detached: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """A detached run whose deadline has passed without a result."""

    supervisor: str


@dataclass(frozen=True, slots=True)
class Done:
    """The key was run; `result` is the digest of its recorded RunResult."""

    result: Digest


class RunLedger(Protocol):
    """One RUNNING or DONE entry per key. The result is stored before the ledger says DONE."""

    async def claim(
        self,
        key: RunKey,
        *,
        story: StoryId,
        epoch: int,
        spec: Digest,
        supervisor: str,
        ttl_s: int,
        is_detached: bool = False,
    ) -> Claimed | Running | Done:
        """Who runs the key. A RUNNING entry of a dead supervisor is claimed anew once its deadline has passed.

        A new claim knows nothing of a cancel request that an earlier one got.

        Raises OwnershipLost when a higher epoch was seen for the story; IdempotencyMismatch when the key was claimed
        with another spec digest (RC-12).
        """
        ...

    async def finish(self, key: RunKey, *, epoch: int, supervisor: str, result: Digest) -> Digest:
        """The recorded result of the key: the first one stays, and is returned also to a later caller."""
        ...

    async def lookup(self, key: RunKey) -> Running | Lost | Done | None:
        """What the ledger knows of the key. None also for one that a caller waits for and whose deadline has passed."""
        ...

    async def renew(self, key: RunKey, *, supervisor: str, ttl_s: int) -> None:
        """This supervisor's RUNNING entry has a new deadline, `ttl_s` seconds from now; any other entry stays."""
        ...

    async def request_cancel(self, key: RunKey) -> bool:
        """Whoever runs the key finds `is_cancel_requested` at its next lookup; false when nobody does. Idempotent."""
        ...

    async def forget(self, key: RunKey, *, supervisor: str) -> None:
        """Drop this supervisor's RUNNING entry: nothing was started, or it was cancelled before an end."""
        ...

    async def drop(self, key: RunKey, found: Running) -> None:
        """Drop a RUNNING entry whose supervisor is known not to run the key. Another entry than the one found stays.

        One that was claimed or renewed in the meantime stays, whoever holds it: so any number of supervisors may do
        this at the same time, and one of them claims the key next.
        """
        ...


class Peers(Protocol):
    """The other supervisors of a fleet, by the names that they have in the ledger."""

    async def has_dropped(self, supervisor: str, key: RunKey) -> bool:
        """Whether this run surely is not under way with that supervisor, whatever the ledger says.

        So it is when the supervisor is gone for good, with its node, and when it lives and knows nothing of the run,
        which an earlier life of it had claimed. False for one that is just starting again or does not answer, because
        it may take its runs up again, and for a name that is no supervisor's. Raises nothing.
        """
        ...


LogSink = Callable[[LogLine], None]
"""Takes a line as it is read, already redacted; it must not block and not fail."""


SandboxTier = Literal["A", "B", "C"]
_TIERS: Mapping[str, SandboxTier] = {"bubblewrap": "A", "podman": "B", "docker": "B", "kubernetes": "B"}


@dataclass(frozen=True, slots=True)
class SandboxHealth:
    """What a backend enforces here and now, by probes and not by flags. `mend` says what to do about `unmet` items."""

    status: Literal["ok", "degraded", "down"]
    backend: str
    enforced: dict[str, str] = field(default_factory=dict[str, str])
    unmet: tuple[str, ...] = ()
    mend: tuple[str, ...] = ()
    active: int = 0
    """Runs under way or waiting here (RC-25)."""
    total: int = 0
    """Runs that were started here since this supervisor began."""
    capacity: int = 0
    """Runs that are taken at one time, waiting ones included; 0 when a backend is asked directly."""
    program: str = ""
    """Version and origin of the program that builds the sandbox; empty where none is known."""
    disk: tuple[DiskUse, ...] = ()
    """What lies on the disks of the nodes, kind by kind; empty when a backend is asked directly."""

    @property
    def tier(self) -> SandboxTier:
        """What kind of wall it is: A namespaces and seccomp of our own, B a container engine, C none that isolates."""
        return _TIERS.get(self.backend, "C")


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Where a run is; `result` once its status is final."""

    status: RunStatus
    result: RunResult | None = None


class LayerStore(Protocol):
    """Where the environment layers of a node lie."""

    def record(self, name: LayerName, of: str = "record") -> bytes | None:
        """What was written down of the layer; None where it is not here, or nothing was."""
        ...

    def keep(self, name: LayerName, archive: bytes, record: bytes) -> None:
        """The layer is here, whole, with the files of the archive. ToolFailed when it holds what no layer may."""
        ...

    def note(self, name: LayerName, of: str, content: bytes) -> None:
        """Something about the layer is written down beside it."""
        ...


class SandboxBackend(Protocol):
    """One technology that holds a run. Knows nothing of keys and epochs; the supervisor service does."""

    async def run(
        self, spec: RunSpec, *, run_id: str, log: LogSink | None = None, secrets: SecretDelivery | None = None
    ) -> RunResult:
        """Run the command and say how it ended. SandboxUnavailable when nothing could hold it; then nothing started.

        Args:
            log: is told every line while the run goes on.
            secrets: what argv and environment of the specification refer to, resolved; it is put in place inside and
                taken out of everything that is printed. None where the specification has no references.

        Cancelling the awaiting task kills every process of the run before CancelledError leaves this method.
        """
        ...

    async def cancel(self, run_id: str) -> bool:
        """Kill the run if it is running here; it then ends as `cancelled`. False when it is not known."""
        ...

    async def health(self) -> SandboxHealth:
        """Run the probes (about one second the first time, cached afterwards)."""
        ...

    async def sweep(self) -> int:
        """Remove what dead runs left (processes, directories); the number of things removed. Idempotent."""
        ...


class Sandbox(Protocol):
    """What the story engine asks for: runs by key (RC-51, RC-53). One result per key, ever."""

    async def run(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunResult:
        """Run the command once per key and say how it ended. A repeated key is joined, or answered from the record.

        Raises SandboxUnavailable when nothing could hold it, OwnershipLost when a higher epoch was seen; in both
        cases nothing started. IdempotencyMismatch when the key names another spec.
        """
        ...

    async def submit(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunProgress:
        """Start the run, once per key, and return at once (RC-20). Raises like `run`."""
        ...

    async def progress(self, key: RunKey, *, wait_s: float = 0) -> RunProgress:
        """Where the run is, at the latest after `wait_s` seconds (RC-21); by any supervisor of the fleet (RC-26).

        Raises NotFound for a key that nobody ever claimed.
        """
        ...

    async def logs(self, key: RunKey, *, after: int = 0, limit: int = 500, wait_s: float = 0) -> LogPage:
        """Lines of the run with a number above `after` (RC-22), live, or from its log once it is over."""
        ...

    async def cancel(self, key: RunKey) -> bool:
        """End the run of this key wherever it is under way (RC-24); False when there is none."""
        ...

    async def health(self) -> SandboxHealth:
        """What the sandbox of this node enforces."""
        ...


MAX_WRITE_BYTES = 64 << 10
"""Of one write."""


@dataclass(frozen=True, slots=True)
class SessionView:
    """Where a session is; `result` once its status is final."""

    session: RunKey
    status: RunStatus
    lines: tuple[LogLine, ...] = ()
    next_seq: int = 1
    """Number that the next write has to carry; 0 when this node does not hold the session."""
    result: RunResult | None = None


class FolderKeeper(Protocol):
    """A backend that keeps the folders of work sessions between their commands."""

    async def usage(self) -> tuple[DiskUse, ...]:
        """What it has on the disk of this node."""
        ...

    def keeps(self, place: LiveFolder) -> bool:
        """Whether a folder of this session is here."""
        ...


class InteractiveBackend(SandboxBackend, Protocol):
    """A technology that holds runs with `RunSpec.interactive`; all others refuse them with InvalidInput."""

    async def write_stdin(self, run_id: str, data: bytes, *, is_last: bool = False) -> bool:
        """Give the command `data` to read after all that came before. The last write also ends its input.

        Returns at once. What comes after the last one is dropped. False when no interactive run of this id is open
        here (yet, or any more). Raises SandboxUnavailable when the command left too much unread; nothing was taken.
        """
        ...

    async def snapshot(self, run_id: str) -> Digest | None:
        """The run's files as a tree, without those of `RunSpec.discard`; None when no such run is open here.

        The command goes on meanwhile: each file is as it was when it was read. Raises SandboxUnavailable when they
        change too fast.
        """
        ...


class ServingBackend(InteractiveBackend, Protocol):
    """A technology whose interactive runs can be reached while they go on."""

    async def connect(self, run_id: str, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to the socket of this name in the run's workspace; None when there is none that listens."""
        ...


class SandboxSessions(Protocol):
    """Interactive sessions of one node, bounded in number, in time without a user, and in wall time.

    Every method but `start` raises NotFound for a session that nobody ever started.
    """

    async def start(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> SessionView:
        """The session of this key is open, or over: one per key, ever. Returns at once.

        Raises like `Sandbox.submit`; SandboxUnavailable too when as many sessions are open as this node takes.
        """
        ...

    async def poll(self, session: RunKey, *, after_line: int = 0, limit: int = 500, wait_s: float = 0) -> SessionView:
        """Lines with a number above `after_line`, as soon as there is one, at the latest after `wait_s` seconds.

        A line without its newline comes when the command ends. All was read when there is a result and no line.
        """
        ...

    async def write_stdin(self, session: RunKey, data: bytes, *, seq: int, is_last: bool = False) -> SessionView:
        """The command reads `data` next; at most MAX_WRITE_BYTES. Writes are numbered from 1.

        A number that was taken already changes nothing, so a write whose answer was lost is repeated as it was.

        Raises:
            InvalidInput: the number leaves one out, or too much data.
            IdempotencyMismatch: the last write had this number and other data.
            InvalidTransition: the session is over.
            SandboxUnavailable: the command left too much unread; write it again later.
        """
        ...

    async def snapshot(self, session: RunKey) -> Digest:
        """The session's files now, as a tree. Raises InvalidTransition once it is over, SandboxUnavailable."""
        ...

    async def kill(self, session: RunKey) -> bool:
        """End the session: SIGTERM, its grace, SIGKILL (RC-24); False when it was over."""
        ...

    async def close(self, session: RunKey, *, wait_s: float = 5) -> RunResult:
        """End the input, wait for the command to end by itself, end it otherwise; its result. Idempotent."""
        ...

    async def sweep(self) -> int:
        """End the sessions that nobody used for too long; how many. To be called now and then."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendParts:
    """What a sandbox backend is made from."""

    root: Path
    """Folder for what its runs need on this node; repositories lie in `repos` of the fleet's own folder."""
    blobs: BlobStore
    waived: Collection[str]
    """Isolation that may be missing, by name (RC-32)."""
    packaged: Callable[[], SandboxBackend]
    """Makes the backend of kind `bubblewrap` from the same parts: to wrap, or to hand runs on to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxBackendPlugin(Plugin[Options, BackendParts, SandboxBackend], Generic[Options]):
    """What an entry point of the group `swe_fleet.sandbox_backends` leads to."""
