"""Ports as the process that serves them sees them: each call is timed, counted, and one span."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import contextmanager

from fleet.context.port import CountRequest, Pack, PackRequest, Packs
from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest
from fleet.models.port import ChatModel
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.port import LogSink, SandboxBackend
from fleet.sandbox.port import SandboxHealth as Health
from fleet.secrets.port import SecretDelivery
from fleet.telemetry.otlp import Attribute
from fleet.telemetry.port import Meter
from fleet.telemetry.service import OpenSpan, Tracer


@contextmanager
def spanned(tracer: Tracer | None, name: str, attributes: Mapping[str, Attribute]) -> Generator[OpenSpan | None]:
    """A span where spans are made."""
    if tracer is None:
        yield None
        return
    with tracer.span(name, kind="client", attributes=attributes) as span:
        yield span


class TimedModel:
    """Port ChatModel over one engine."""

    def __init__(
        self, model: ChatModel, engine_id: str, *, meter: Meter, clock: Clock, tracer: Tracer | None = None
    ) -> None:
        self._model, self._engine = model, engine_id
        self._meter, self._clock, self._tracer = meter, clock, tracer

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        with self._timed(tag) as span:
            reply = await self._model.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
            _describe(span, reply)
            return reply

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncGenerator[ChatChunk]:
        """See `ChatModel.stream`. Timed until its last piece; without a span, since it may outlive its caller."""
        since_ms, outcome = self._clock.monotonic_ms(), "closed"
        chunks = self._model.stream(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        try:
            async for chunk in chunks:
                outcome = "ok" if chunk.reply is not None else outcome
                yield chunk
        except FleetError as error:
            outcome = error.code
            raise
        finally:
            self._observe(since_ms, outcome)
            # Who goes away early ends the call at the engine now, not when somebody collects the generator.
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()

    async def abort(self, request_id: str) -> None:
        """See `ChatModel.abort`."""
        await self._model.abort(request_id)

    async def health(self) -> None:
        """See `ChatModel.health`."""
        await self._model.health()

    @contextmanager
    def _timed(self, tag: CallTag) -> Generator[OpenSpan | None]:
        attributes: dict[str, Attribute] = {"fleet.engine": self._engine, "fleet.role": tag.role}
        since_ms, outcome = self._clock.monotonic_ms(), "cancelled"
        try:
            with spanned(self._tracer, f"chat {self._engine}", attributes) as span:
                yield span
            outcome = "ok"
        except FleetError as error:
            outcome = error.code
            raise
        finally:
            self._observe(since_ms, outcome)

    def _observe(self, since_ms: int, outcome: str) -> None:
        seconds = (self._clock.monotonic_ms() - since_ms) / 1000
        self._meter.observe("fleet_model_call_seconds", seconds, {"engine": self._engine, "outcome": outcome})


def _describe(span: OpenSpan | None, reply: ChatReply) -> None:
    if span is not None:
        span.attributes.update(
            {
                "gen_ai.request.model": reply.model,
                "gen_ai.usage.input_tokens": reply.usage.tokens_in,
                "gen_ai.usage.output_tokens": reply.usage.tokens_out,
                "fleet.tokens_cached": reply.usage.tokens_cached,
                "fleet.queue_ms": reply.queue_ms,
                "fleet.finish_reason": reply.finish_reason,
            }
        )


class TimedModels(Mapping[str, ChatModel]):
    """The engines of a process, each of them timed."""

    def __init__(
        self, models: Mapping[str, ChatModel], *, meter: Meter, clock: Clock, tracer: Tracer | None = None
    ) -> None:
        self._models, self._meter, self._clock, self._tracer = models, meter, clock, tracer

    def __getitem__(self, engine_id: str) -> ChatModel:
        # The label of a recording that a run brings along is not the folder that it lies in.
        label = engine_id.split(":")[0]
        return TimedModel(self._models[engine_id], label, meter=self._meter, clock=self._clock, tracer=self._tracer)

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)


class TimedPacks:
    """Port Packs over the service that builds them."""

    def __init__(self, packs: Packs, *, meter: Meter, clock: Clock) -> None:
        self._packs, self._meter, self._clock = packs, meter, clock

    async def pack(self, request: PackRequest) -> Pack:
        """See `Packs.pack`."""
        since_ms, outcome = self._clock.monotonic_ms(), "cancelled"
        try:
            pack = await self._packs.pack(request)
            outcome = "ok"
        except FleetError as error:
            outcome = error.code
            raise
        finally:
            seconds = (self._clock.monotonic_ms() - since_ms) / 1000
            self._meter.observe("fleet_pack_seconds", seconds, {"outcome": outcome})
        self._meter.observe("fleet_pack_tokens", pack.token_count)
        for scope, count in pack.dropped:
            self._meter.add("fleet_pack_items_dropped_total", count, {"scope": scope})
        return pack

    async def count(self, request: CountRequest) -> int:
        """See `Packs.count`."""
        return await self._packs.count(request)


class TimedBackend:
    """Port SandboxBackend over the technology that holds the runs of one node."""

    def __init__(
        self, backend: SandboxBackend, node: str, *, meter: Meter, clock: Clock, tracer: Tracer | None = None
    ) -> None:
        self._backend, self._node = backend, node
        self._meter, self._clock, self._tracer = meter, clock, tracer
        self._active = 0

    async def run(
        self, spec: RunSpec, *, run_id: str, log: LogSink | None = None, secrets: SecretDelivery | None = None
    ) -> RunResult:
        """See `SandboxBackend.run`."""
        since_ms, status = self._clock.monotonic_ms(), "lost"
        self._more(1)
        try:
            with spanned(self._tracer, "run in the sandbox", {"fleet.node": self._node}) as span:
                result = await self._backend.run(spec, run_id=run_id, log=log, secrets=secrets)
                status = result.status
                if span is not None:
                    span.attributes["fleet.status"] = status
                    span.attributes["fleet.exit_code"] = -1 if result.exit_code is None else result.exit_code
                return result
        except FleetError as error:
            status = error.code
            raise
        finally:
            self._more(-1)
            self._meter.add("fleet_runs_total", labels={"status": status})
            seconds = (self._clock.monotonic_ms() - since_ms) / 1000
            self._meter.observe("fleet_run_seconds", seconds, {"status": status})

    def _more(self, by: int) -> None:
        self._active += by
        self._meter.set("fleet_runs_active", self._active, {"node": self._node})

    async def cancel(self, run_id: str) -> bool:
        """See `SandboxBackend.cancel`."""
        return await self._backend.cancel(run_id)

    async def health(self) -> Health:
        """See `SandboxBackend.health`."""
        return await self._backend.health()

    async def sweep(self) -> int:
        """See `SandboxBackend.sweep`."""
        return await self._backend.sweep()
