"""Every port as one process sees it over a bad line: calls that crash the caller, freeze it, get lost, or never arrive.

A `Wire` belongs to one process. What goes wrong is decided by its `Faults`, call by call, so that the same wrappers
serve the seeded simulation (drawn from a seed) and the enumeration of crash points (the k-th call).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeVar, cast

from fleet.events.envelope import StoredEvent
from fleet.kernel.errors import CommitUnknown, FleetError, ModelUnavailable, SandboxUnavailable, StoreUnavailable
from fleet.log.port import Appended, AppendRequest, Duplicate, EventLog, Inbox, LeaseStore
from fleet.models.port import Agents
from fleet.sandbox.port import Done, RunLedger, Sandbox
from fleet.trees.port import BlobStore
from tests.support.simulation import Crashed, Process

T = TypeVar("T")


class Fault(StrEnum):
    """What can happen to one call."""

    CRASH_BEFORE = "crash before"
    CRASH_AFTER = "crash after"
    LOST_REPLY = "lost reply"
    UNAVAILABLE = "unavailable"
    FREEZE_BEFORE = "freeze before"
    FREEZE_AFTER = "freeze after"


class Faults(Protocol):
    """Decides what happens to each call, and how long it takes."""

    seen: Counter[str]

    def at(self, process: Process, port: str, op: str) -> Fault | None:
        """The fault of this call, None for a good one. A freeze sets `Process.freeze` itself."""
        ...

    def delays(self, process: Process, port: str) -> tuple[float, float]:
        """Seconds until the call arrives, and until its answer is back."""
        ...


class Wire:
    """One process's line to the stores.

    Args:
        process: who calls. Once it is dead no call of it arrives anywhere.
    """

    def __init__(self, process: Process, faults: Faults) -> None:
        self.process, self.faults = process, faults

    async def call(
        self,
        port: str,
        op: str,
        effect: Callable[[], Awaitable[T]],
        *,
        down: type[FleetError] = StoreUnavailable,
        lost: type[FleetError] = StoreUnavailable,
        about: str = "",
    ) -> T:
        """What `effect` returns or raises, if the call arrives and the answer comes back.

        Raises `down` when the call never arrived and `lost` when the answer did not; Crashed in a dead process.
        """
        process, faults = self.process, self.faults
        await process.pass_gate()
        fault = faults.at(process, port, op)
        go, back = faults.delays(process, port)
        if fault is not None:
            faults.seen[f"fault: {fault}"] += 1
            self._note(port, op, about, fault)
        match fault:
            case Fault.CRASH_BEFORE:
                process.kill()
            case Fault.UNAVAILABLE:
                await asyncio.sleep(go)
                raise down(f"{port} does not answer {op} (injected)")
            case _:
                pass
        await process.pass_gate()
        if go:
            await asyncio.sleep(go)
        outcome = await self._arrived(port, op, effect, about)
        match fault:
            case Fault.CRASH_AFTER:
                process.kill()
            case Fault.LOST_REPLY:
                raise lost(f"the answer of {port} to {op} was lost (injected)")
            case _:
                pass
        if back:
            await asyncio.sleep(back)
        await process.pass_gate()
        if isinstance(outcome, FleetError):
            raise outcome
        return outcome

    async def _arrived(self, port: str, op: str, effect: Callable[[], Awaitable[T]], about: str) -> T | FleetError:
        try:
            result = await effect()
        except FleetError as error:
            self._note(port, op, about, error.code)
            return error
        self._note(port, op, about, "ok")
        return result

    def _note(self, port: str, op: str, about: str, outcome: str) -> None:
        loop = self.process.loop
        loop.trace.add(f"{loop.time():.6f} {self.process.name} {port}.{op} {about}: {outcome}")


async def remote(process: Process, work: Callable[[], Awaitable[T]], *, gone: type[FleetError]) -> T:
    """What `work` returns when it is done in another process, which goes on when the caller is gone.

    Raises `gone` when that process is dead or dies meanwhile.
    """
    if not process.is_alive:
        raise gone(f"{process.name} cannot be reached")

    async def carry_out() -> T:
        return await work()

    task, current = process.spawn(carry_out()), asyncio.current_task()
    before = current.cancelling() if current is not None else 0
    # The caller may be gone when it ends; then nobody else looks at its error.
    task.add_done_callback(lambda done: None if done.cancelled() else done.exception())
    try:
        return await asyncio.shield(task)
    except Crashed:
        raise gone(f"{process.name} died during the call") from None
    except asyncio.CancelledError:
        if task.cancelled() and current is not None and current.cancelling() == before:
            raise gone(f"{process.name} died during the call") from None
        raise


class FaultyPort:
    """Any port whose methods are all async, over a wire: methods that a port grows later are faulty at once.

    Args:
        name: of the port, in traces and fault lists.
        down: error of a call that never arrived; `lost` when the answer did not, by method.
        watch: told of every outcome that the caller gets, a result or an error.
        about: names the object of a call in the trace.
    """

    def __init__(
        self,
        inner: Any,
        wire: Wire,
        name: str,
        *,
        down: type[FleetError] = StoreUnavailable,
        lost: Mapping[str, type[FleetError]] = {},
        watch: Callable[[str, Any], Awaitable[Any]] | None = None,
        about: Callable[..., str] = lambda *args, **kwargs: "",
    ) -> None:
        self._inner, self._wire, self._name = inner, wire, name
        self._down, self._lost, self._watch, self._about = down, lost, watch, about

    def __getattr__(self, op: str) -> Any:
        """The method, over the wire."""
        inner = getattr(self._inner, op)

        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                outcome = await self._wire.call(
                    self._name,
                    op,
                    lambda: inner(*args, **kwargs),
                    down=self._down,
                    lost=self._lost.get(op, self._down),
                    about=self._about(*args, **kwargs),
                )
            except FleetError as error:
                if self._watch is not None:
                    await self._watch(op, error)
                raise
            return outcome if self._watch is None else await self._watch(op, outcome)

        return call


def faulty_port(inner: T, wire: Wire, name: str) -> T:
    """The port over the wire; calls that fail raise StoreUnavailable."""
    return cast("T", FaultyPort(inner, wire, name))


def faulty_log(inner: EventLog, wire: Wire, acknowledged: list[StoredEvent]) -> EventLog:
    """The log over the wire. A lost append is CommitUnknown; what callers are told is stored goes to `acknowledged`."""

    def about(*args: Any, **kwargs: Any) -> str:
        if args and isinstance(args[0], AppendRequest):
            return f"{args[0].command_id} at {args[0].expected.version}/{args[0].expected.epoch}"
        return str(args[0]) if args else ""

    async def watch(op: str, outcome: Any) -> Any:
        match outcome:
            case Appended():
                acknowledged.extend(outcome.events)
            case FleetError() if op == "append" and outcome.code == "ownership_lost":
                wire.faults.seen["fenced"] += 1
            case _:
                pass
        return outcome

    class Log(FaultyPort):
        async def append(self, request: AppendRequest) -> Appended | Duplicate:
            outcome: Appended | Duplicate = await FaultyPort.__getattr__(self, "append")(request)
            if isinstance(outcome, Duplicate):
                # Told "it is there": the recorded versions are acknowledged as much as new ones.
                wire.faults.seen["duplicate returned"] += 1
                limit = outcome.last - outcome.first + 1
                acknowledged.extend(await inner.read(request.stream, after=outcome.first - 1, limit=limit))
            return outcome

    return cast("EventLog", Log(inner, wire, "log", lost={"append": CommitUnknown}, watch=watch, about=about))


def faulty_leases(inner: LeaseStore, wire: Wire) -> LeaseStore:
    """The lease store over the wire; a lost answer is CommitUnknown."""

    async def watch(op: str, outcome: Any) -> Any:
        if isinstance(outcome, FleetError) and outcome.code in ("lease_held", "ownership_lost"):
            wire.faults.seen["claim lost" if op == "claim" else "lease lost"] += 1
        return outcome

    lost: dict[str, type[FleetError]] = dict.fromkeys(("claim", "renew", "release"), CommitUnknown)
    return cast("LeaseStore", FaultyPort(inner, wire, "lease", lost=lost, watch=watch, about=_first))


def faulty_inbox(inner: Inbox, wire: Wire) -> Inbox:
    """The inbox over the wire."""

    async def watch(op: str, outcome: Any) -> Any:
        if op == "take" and isinstance(outcome, list):
            again = any(delivery.attempts > 1 for delivery in cast("list[Any]", outcome))
            wire.faults.seen["command delivered again"] += again
        return cast("Any", outcome)

    return cast("Inbox", FaultyPort(inner, wire, "inbox", watch=watch, about=_first))


def faulty_ledger(inner: RunLedger, wire: Wire) -> RunLedger:
    """The run ledger over the wire."""

    async def watch(op: str, outcome: Any) -> Any:
        if op == "claim" and isinstance(outcome, Done):
            wire.faults.seen["run answered from the record"] += 1
        if isinstance(outcome, FleetError) and outcome.code == "ownership_lost":
            wire.faults.seen["run fenced"] += 1
        return outcome

    return cast("RunLedger", FaultyPort(inner, wire, "ledger", watch=watch, about=_first))


def faulty_blobs(inner: BlobStore, wire: Wire) -> BlobStore:
    """The blob store over the wire."""
    return cast("BlobStore", FaultyPort(inner, wire, "blobs"))


def faulty_agents(inner: Agents, wire: Wire) -> Agents:
    """The role agents over the wire; calls that fail raise ModelUnavailable."""
    about = lambda request, request_id, timeout_s: request_id  # noqa: E731
    return cast("Agents", FaultyPort(inner, wire, "agents", down=ModelUnavailable, about=about))


def faulty_sandbox(there: Callable[[], tuple[Process, Sandbox]], wire: Wire) -> Sandbox:
    """The sandbox in another process, over the wire. `there` says where it lives now."""

    class There:
        def __getattr__(self, op: str) -> Any:
            async def call(*args: Any, **kwargs: Any) -> Any:
                process, sandbox = there()
                return await remote(process, lambda: getattr(sandbox, op)(*args, **kwargs), gone=SandboxUnavailable)

            return call

    about = lambda *args, **kwargs: f"{str(kwargs.get('key'))[:8]}/{kwargs.get('epoch')}"  # noqa: E731
    return cast("Sandbox", FaultyPort(There(), wire, "sandbox", down=SandboxUnavailable, about=about))


def faulty_feed(inner: T, wire: Wire, chance: random.Random, *, lose: float, repeat: float) -> T:
    """A feed or feed group over a wire that also loses, repeats and shuffles hints, with these chances."""

    async def watch(op: str, outcome: Any) -> Any:
        match outcome:
            case (list() as hints, cursor):
                return damaged(cast("list[Any]", hints), chance, wire.faults.seen, lose=lose, repeat=repeat), cursor
            case list():
                return damaged(cast("list[Any]", outcome), chance, wire.faults.seen, lose=lose, repeat=repeat)
            case _:
                return outcome

    return cast("T", FaultyPort(inner, wire, "feed", watch=watch))


def damaged(items: Sequence[T], chance: random.Random, seen: Counter[str], *, lose: float, repeat: float) -> list[T]:
    """The items after a bad line: some lost, some repeated, in another order."""
    found: list[T] = []
    for item in items:
        if chance.random() < lose:
            seen["hint lost"] += 1
            continue
        found.append(item)
        if chance.random() < repeat:
            seen["hint repeated"] += 1
            found.append(item)
    before = list(found)
    chance.shuffle(found)
    seen["hints reordered"] += before != found
    return found


def _first(*args: Any, **kwargs: Any) -> str:
    """The first argument, or what it is about."""
    if not args:
        return ""
    named = getattr(args[0], "stream", None) or getattr(args[0], "command_id", None) or args[0]
    return str(named)[:60]
