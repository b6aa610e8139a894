"""One engine with several replicas: affinity, circuits that failures open and probes close, and a safe second try."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass, field

from cachetools import LRUCache

from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError, ModelError, ModelTimeout, ModelUnavailable
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatMessage, ChatReply, ChatRequest, Sampling
from fleet.models.port import ChatModel
from fleet.models.routing.affinity import choose
from fleet.models.routing.circuit import Circuit, CircuitState
from fleet.models.service.queued_model import QueuedModel, QueueStats, closed_after

PROBE = ChatRequest(messages=(ChatMessage(role="user", content="Say yes."),), sampling=Sampling(max_tokens=1))
PROBE_TAG = CallTag(tenant="fleet", priority="person")
_STICKY_KEYS = 10_000
"""Keys whose replica is remembered."""


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """What one replica did since the router began."""

    name: str
    circuit: CircuitState
    in_flight: int
    calls: int
    failures: int
    """Calls that it did not answer."""
    probes: int
    affinity: int
    """Calls that came because their key belongs here."""
    spilled: int
    """Calls that came because the replica of their key was overloaded."""
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    """Prompt tokens that were served from its prefix cache."""
    queue: QueueStats | None
    """The queue in front of it, where that is in this process."""


@dataclass(frozen=True, slots=True)
class RouterStats:
    """A look at the router of one engine."""

    engine: str
    replicas: tuple[ReplicaStats, ...]

    @property
    def open_circuits(self) -> tuple[str, ...]:
        """Replicas that get no calls at present."""
        return tuple(replica.name for replica in self.replicas if replica.circuit != "closed")


@dataclass
class _Replica:
    name: str
    model: ChatModel
    circuit: Circuit = field(default_factory=Circuit)
    last_error: str = ""
    in_flight: int = 0
    calls: int = 0
    failures: int = 0
    probes: int = 0
    affinity: int = 0
    spilled: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0


@dataclass
class _Call:
    """One call, and the replicas that were asked for it."""

    request: ChatRequest
    request_id: str
    tag: CallTag
    deadline_ms: int
    tried: list[str] = field(default_factory=list[str])


@dataclass
class RoutedModel:
    """`ChatModel` over the replicas of one engine.

    Three failures in a row open the circuit of a replica; it gets no calls until a probe in the background is answered
    (MB-13). A call that a replica could not take is given to one other replica, if time is left and no text was given
    on; its error then says `repeated`, so that nobody asks this engine a third time (MB-4). With all circuits open
    ModelUnavailable says when to come again: `retry_after_s`.

    Args:
        replicas: by name; all hold the same model.
        slots: calls that one replica serves at a time.
        spill_factor: a replica with work for all its slots and more than so many times the mean gives keys away. In
            council rounds 1.5 costs a hundredth of the cache hits and takes a fifth off the busiest replica.
        timeout_counts_s: a call that was given less time than this says nothing about the replica when it ends late.
        probe_timeout_s: longest time of each half of a probe.
    """

    replicas: Mapping[str, ChatModel]
    clock: Clock
    engine: str
    slots: int = 16
    spill_factor: float = 1.5
    timeout_counts_s: float = 10.0
    probe_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        self._replicas = {name: _Replica(name, model) for name, model in self.replicas.items()}
        # A key that spilled stays where it went, so that the rest of its round finds its prefix there.
        self._sticky = LRUCache[str, str](_STICKY_KEYS)
        self._places: dict[str, _Replica] = {}
        self._probing: set[asyncio.Task[None]] = set()

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        call = self._call(request, request_id, timeout_s, tag)
        while True:
            replica, left_s = self._next(call)
            try:
                reply = await replica.model.complete(request, request_id=request_id, timeout_s=left_s, tag=tag)
            except ModelError as error:
                self._failed(replica, error, given_s=left_s)
                self._raise_unless_repeatable(call, error)
            else:
                self._answered(replica, reply)
                return reply
            finally:
                self._left(replica, request_id)

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncGenerator[ChatChunk]:
        """See `ChatModel.stream`. Once a piece of text was given on, the call stays with its replica."""
        call = self._call(request, request_id, timeout_s, tag)
        while True:
            replica, left_s = self._next(call)
            has_begun = False
            try:
                chunks = replica.model.stream(request, request_id=request_id, timeout_s=left_s, tag=tag)
                async with closed_after(chunks):
                    async for chunk in chunks:
                        has_begun = True
                        if chunk.reply is not None:
                            self._answered(replica, chunk.reply)
                        yield chunk
                return
            except ModelError as error:
                self._failed(replica, error, given_s=left_s)
                if has_begun:
                    raise
                self._raise_unless_repeatable(call, error)
            finally:
                self._left(replica, request_id)

    async def abort(self, request_id: str) -> None:
        """See `ChatModel.abort`."""
        replica = self._places.get(request_id)
        if replica is not None:
            await replica.model.abort(request_id)

    async def health(self) -> None:
        """See `ChatModel.health`: one replica could answer."""
        error: ModelError | None = None
        for replica in self._replicas.values():
            try:
                return await replica.model.health()
            except ModelError as found:
                error = found
        raise error or self._unavailable()

    def refusal(self) -> ModelUnavailable | None:
        """Why no call would go through now, and when to come again; None when one would."""
        return self._unavailable() if not self._closed() else None

    def stats(self) -> RouterStats:
        """What each replica did so far, and how its circuit is."""
        return RouterStats(self.engine, tuple(self._stats_of(replica) for replica in self._replicas.values()))

    async def close(self) -> None:
        """No probe is under way any more."""
        for task in tuple(self._probing):
            task.cancel()
        await asyncio.gather(*self._probing, return_exceptions=True)

    def _call(self, request: ChatRequest, request_id: str, timeout_s: float, tag: CallTag) -> _Call:
        return _Call(request, request_id, tag, self.clock.monotonic_ms() + round(timeout_s * 1000))

    def _closed(self, besides: Collection[str] = ()) -> dict[str, int]:
        """The loads of the replicas that may be asked."""
        return {
            name: replica.in_flight
            for name, replica in self._replicas.items()
            if name not in besides and not replica.circuit.open_ms
        }

    def _next(self, call: _Call) -> tuple[_Replica, float]:
        """The replica to ask now, with the call noted there, and the seconds that are left."""
        loads = self._closed(besides=call.tried)
        if not loads:
            raise self._unavailable()
        key = call.tag.affinity
        chosen = choose(
            key,
            loads,
            draw=call.request_id,
            slots=self.slots,
            preferred=self._sticky.get(key),
            spill_factor=self.spill_factor,
        )
        if key and len(self._replicas) > 1:
            self._sticky[key] = chosen.replica
        replica = self._replicas[chosen.replica]
        replica.affinity += chosen.why == "affinity"
        replica.spilled += chosen.why == "spilled"
        replica.calls += 1
        replica.in_flight += 1
        call.tried.append(chosen.replica)
        self._places[call.request_id] = replica
        return replica, (call.deadline_ms - self.clock.monotonic_ms()) / 1000

    def _left(self, replica: _Replica, request_id: str) -> None:
        replica.in_flight -= 1
        if self._places.get(request_id) is replica:
            del self._places[request_id]

    def _answered(self, replica: _Replica, reply: ChatReply) -> None:
        replica.circuit = replica.circuit.succeeded()
        replica.tokens_in += reply.usage.tokens_in
        replica.tokens_out += reply.usage.tokens_out
        replica.tokens_cached += reply.usage.tokens_cached

    def _failed(self, replica: _Replica, error: ModelError, *, given_s: float) -> None:
        """The failure counts for the circuit if it tells something about the replica."""
        if error.details.get("queued"):
            return
        replica.failures += 1
        if not isinstance(error, ModelUnavailable | ModelTimeout):
            replica.circuit = replica.circuit.succeeded()
            return
        is_too_short = isinstance(error, ModelTimeout) and given_s < self.timeout_counts_s
        if is_too_short or "request_digest" in error.details:
            return
        was_open = bool(replica.circuit.open_ms)
        replica.last_error = error.message
        replica.circuit = replica.circuit.failed(self.clock.monotonic_ms())
        if replica.circuit.open_ms and not was_open:
            self._start_probing(replica)

    def _raise_unless_repeatable(self, call: _Call, error: ModelError) -> None:
        """Returns when one more replica may be asked for the same call."""
        is_first = len(call.tried) == 1
        has_time = self.clock.monotonic_ms() < call.deadline_ms
        is_of_replica = isinstance(error, ModelUnavailable) and "request_digest" not in error.details
        if is_first and has_time and is_of_replica and self._closed(besides=call.tried):
            return
        if is_first:
            raise error
        raise type(error)(error.message, **{**error.details, "repeated": True, "replicas": call.tried}) from error

    def _unavailable(self) -> ModelUnavailable:
        now_ms = self.clock.monotonic_ms()
        waits = [replica.circuit.until_ms - now_ms for replica in self._replicas.values()]
        retry_after_s = max(1, math.ceil(min(waits, default=0) / 1000))
        last = next(
            (replica.last_error for replica in self._replicas.values() if replica.last_error), "it has no replica"
        )
        return ModelUnavailable(
            f"engine {self.engine!r} is not asked at present, since calls to it failed; it is probed again in "
            f"{retry_after_s} s. The last failure: {last}",
            engine=self.engine,
            circuit="open",
            retry_after_s=retry_after_s,
        )

    def _start_probing(self, replica: _Replica) -> None:
        def over(task: asyncio.Task[None]) -> None:
            self._probing.discard(task)
            # Without a probe under way nothing else would ever close it: calls find out themselves.
            replica.circuit = Circuit()

        task = asyncio.get_running_loop().create_task(self._probe_until_closed(replica))
        self._probing.add(task)
        task.add_done_callback(over)

    async def _probe_until_closed(self, replica: _Replica) -> None:
        """One probe at a time, each after the time that the circuit has to stay open."""
        while replica.circuit.open_ms:
            await self.clock.sleep((replica.circuit.until_ms - self.clock.monotonic_ms()) / 1000)
            if replica.circuit.open_ms:
                await self._probe(replica)

    async def _probe(self, replica: _Replica) -> None:
        replica.probes += 1
        try:
            async with asyncio.timeout(2 * self.probe_timeout_s):
                await replica.model.health()
                name = f"probe-{replica.name}-{replica.probes}"
                await replica.model.complete(PROBE, request_id=name, timeout_s=self.probe_timeout_s, tag=PROBE_TAG)
        except (FleetError, TimeoutError) as error:
            replica.last_error = str(error)
            replica.circuit = replica.circuit.probe_failed(self.clock.monotonic_ms())
        else:
            replica.circuit = replica.circuit.succeeded()

    def _stats_of(self, replica: _Replica) -> ReplicaStats:
        return ReplicaStats(
            name=replica.name,
            circuit=replica.circuit.state(self.clock.monotonic_ms()),
            in_flight=replica.in_flight,
            calls=replica.calls,
            failures=replica.failures,
            probes=replica.probes,
            affinity=replica.affinity,
            spilled=replica.spilled,
            tokens_in=replica.tokens_in,
            tokens_out=replica.tokens_out,
            tokens_cached=replica.tokens_cached,
            queue=replica.model.stats() if isinstance(replica.model, QueuedModel) else None,
        )
