"""A GGUF model behind a llama.cpp server that is started and supervised here: port `TokenSource`."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

from fleet.kernel.errors import ModelUnavailable
from fleet.models.chat import CallTag, ChatRequest, TokenUsage
from fleet.models.engine_config import ActorEngine, HttpEngine
from fleet.models.engines.llama_server import LlamaServer, ServerPlan, find_program, free_port
from fleet.models.engines.openai import OpenAIChatModel
from fleet.models.port import LoadedModel, TokenPiece

_RESTARTS = 3
_MOMENT_S = 1.0
_LONGEST_S = 3600.0
"""Who calls bounds the time of a call; this one only ends what nobody waits for."""


@dataclass(frozen=True, slots=True)
class LlamaPlaces:
    """Where things are on this machine."""

    home: Path
    python: Path | None = None
    """Interpreter that has llama_cpp."""
    server: Path | None = None
    """A `llama-server` binary."""


def _silent(line: str) -> None:
    """Nobody looks."""


class LlamaTokenSource:
    """One llama.cpp server on a loopback port, with a key of its own. A server that dies is started again, three times.

    Args:
        weights: gives the GGUF file, its digest compared; raises ModelUnavailable when it is not here.
        told: takes lines of progress.
        port: 0 takes a free one, which stays over restarts.
    """

    def __init__(
        self,
        config: ActorEngine,
        places: LlamaPlaces,
        weights: Callable[[], Awaitable[str]],
        *,
        told: Callable[[str], None] = _silent,
        port: int = 0,
        api_key: str = "",
    ) -> None:
        self._config, self._places, self._weights, self._told = config, places, weights, told
        self._port = port
        self._api_key = api_key or secrets.token_urlsafe(24)
        self._server: LlamaServer | None = None
        self._model: OpenAIChatModel | None = None
        self._watching: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._failure: ModelUnavailable | None = None

    @property
    def base_url(self) -> str:
        """Address of the server up to and including `/v1`; valid after `load`."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def api_key(self) -> str:
        """What the server wants as bearer token."""
        return self._api_key

    @property
    def pid(self) -> int | None:
        """The server's process, while there is one."""
        return self._server.pid if self._server else None

    async def load(self) -> LoadedModel:
        """See `TokenSource.load`."""
        await self.close()
        config, places = self._config, self._places
        self._told("comparing the weights with their digest")
        file = await self._weights()
        program = await asyncio.to_thread(find_program, python=places.python, server=places.server, home=places.home)
        self._port = self._port or free_port()
        plan = ServerPlan(
            program=program,
            file=Path(file),
            alias=config.model,
            port=self._port,
            api_key=self._api_key,
            context=config.max_context,
            threads=config.threads or len(os.sched_getaffinity(0)),
            parallel=config.max_concurrency,
            options={name: str(value) for name, value in config.engine_args.items()},
            log=places.home / "engines" / config.engine_id / "log",
        )
        self._failure = None
        self._told(f"loading {Path(file).name} with {program.version}")
        try:
            self._server = await self._started(plan)
        except BaseException:
            await self.close()
            raise
        self._model = OpenAIChatModel(
            _client_of(config, self.base_url), base_url=self.base_url, model=config.model, api_key=self._api_key
        )
        self._up.set()
        self._watching = asyncio.create_task(self._watch(plan))
        revision = config.weights.sha256 if config.weights else config.revision
        return LoadedModel(program.version, revision, config.max_context)

    async def generate(
        self, request: ChatRequest, *, call_id: str, tag: CallTag, is_whole: bool
    ) -> AsyncGenerator[TokenPiece]:
        """See `TokenSource.generate`. A call that comes while a dead server starts again waits for it."""
        await self._up.wait()
        self.check()
        assert self._model is not None, "a source that is up has a client"
        stream = self._model.stream(request, request_id=call_id, timeout_s=_LONGEST_S, tag=tag)
        usage, server = TokenUsage(), self._server
        try:
            async with aclosing(stream) as chunks:
                async for chunk in chunks:
                    if (reply := chunk.reply) is not None:
                        text = reply.text if is_whole else ""
                        yield TokenPiece(text, reply.usage, reply.finish_reason, tool_uses=reply.tool_uses)
                    elif not is_whole:
                        usage += TokenUsage(tokens_out=1)
                        yield TokenPiece(chunk.text, usage)
        except ModelUnavailable as error:
            # The connection breaks a moment before the kernel tells that the process has ended.
            if server is not None and await server.has_ended(within_s=_MOMENT_S):
                raise server.ended() from error
            raise

    async def abort(self, call_id: str) -> None:
        """See `TokenSource.abort`."""
        if self._model is not None:
            await self._model.abort(call_id)

    def check(self) -> None:
        """See `TokenSource.check`: a server that is just being started again counts as living."""
        if self._failure is not None:
            raise self._failure
        if self._server is None:
            raise ModelUnavailable(f"engine {self._config.engine_id!r} is not loaded", engine=self._config.engine_id)

    async def close(self) -> None:
        """See `TokenSource.close`."""
        self._up.clear()
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        server, self._server = self._server, None
        if server is not None:
            await server.stop()
        model, self._model = self._model, None
        if model is not None:
            await model.close()

    async def _started(self, plan: ServerPlan) -> LlamaServer:
        server = LlamaServer(plan)
        # On this thread, which lives as long as the process: the kernel ends the server with it.
        server.start()
        try:
            await asyncio.wait_for(server.ready(), self._config.load_timeout_s)
        except TimeoutError as error:
            await server.stop()
            raise ModelUnavailable(
                f"engine {self._config.engine_id!r} was not loaded after {self._config.load_timeout_s} s: raise "
                f"load_timeout_s in models.yaml, or use a smaller model; the server's log is {plan.log}",
                engine=self._config.engine_id,
                reason="load_timeout",
            ) from error
        except BaseException:
            await server.stop()
            raise
        return server

    async def _watch(self, plan: ServerPlan) -> None:
        """A server that ends by itself is started again, up to three times in the life of the source."""
        for restart in range(1, _RESTARTS + 1):
            assert self._server is not None, "the source was loaded"
            await self._server.ended_by_itself()
            self._up.clear()
            self._told(f"the llama.cpp server ended; starting it again ({restart} of {_RESTARTS})")
            try:
                self._server = await self._started(plan)
            except ModelUnavailable as error:
                return self._give_up(error)
            self._up.set()
        assert self._server is not None, "it was started again"
        await self._server.ended_by_itself()
        return self._give_up(self._server.ended())

    def _give_up(self, error: ModelUnavailable) -> None:
        self._failure = error
        self._told(error.message)
        # Those who wait are woken, and told.
        self._up.set()


def _client_of(config: ActorEngine, base_url: str) -> HttpEngine:
    """The entry of a server with the limits of this engine."""
    return HttpEngine(
        kind="local",
        engine_id=config.engine_id,
        base_url=base_url,
        model=config.model,
        revision=config.weights.sha256 if config.weights else config.revision,
        max_context=config.max_context,
        max_output=config.max_output,
        max_concurrency=config.max_concurrency,
        capabilities=config.capabilities,
        unpriced=True,
    )
