"""An engine of kind `local` that a command serves itself, for as long as it runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cluster.local.record import find_running
from fleet.cli.output import Output, shown
from fleet.config.settings import FleetSettings
from fleet.kernel.errors import ModelUnavailable
from fleet.models.engine_config import ActorEngine, AnyEngine

if TYPE_CHECKING:
    from fleet.models.engines.llama_engine import LlamaTokenSource


_TELL_S = 10.0
Engine = AnyEngine


def _needs_serving(engine: Engine | None, settings: FleetSettings, environ: Mapping[str, str]) -> bool:
    """Whether a command has to start it: it is of kind `local`, and neither a server nor actors stand for it."""
    if not isinstance(engine, ActorEngine) or engine.kind != "local":
        return False
    return engine.as_server(environ) is None and engine.engine_id not in settings.models.serve


def with_actors(settings: FleetSettings, engine: Engine | None) -> FleetSettings:
    """The settings of a fleet of a command's own: an engine of kind `vllm` runs in its actors."""
    if not isinstance(engine, ActorEngine) or engine.kind != "vllm" or engine.as_server(os.environ) is not None:
        return settings
    served = dict.fromkeys((*settings.models.serve, engine.engine_id))
    return settings.model_copy(update={"models": settings.models.model_copy(update={"serve": tuple(served)})})


def check_served(engine: ActorEngine, settings: FleetSettings) -> None:
    """Nothing happens when the engine is served, or can be.

    Raises:
        ModelUnavailable: the fleet that is up does not serve it, or its weights are missing.
    """
    is_listed = engine.engine_id in settings.models.serve
    if find_running(settings.home) is None:
        return _check_weights(engine, settings)
    if not is_listed:
        raise ModelUnavailable(
            f"the fleet that is up does not serve engine {engine.engine_id!r}: stop it with `fleet down`, and this "
            "command starts what it needs; or name it in models.serve of fleet.yaml and start the fleet again",
            engine=engine.engine_id,
            permanent=True,
        )
    return None


def _check_weights(engine: ActorEngine, settings: FleetSettings) -> None:
    """Nothing happens when the weights are here. Quick: bytes are read only if the file changed since its pull.

    Raises:
        ModelUnavailable: they are missing or damaged; names the command that fetches them.
    """
    from fleet.wiring.models.weights import make_weights

    if engine.weights is None:
        return
    stored = asyncio.run(make_weights(settings.home).look(engine.weights))
    if stored.state != "present":
        what = {"partial": "are not whole", "wrong_digest": "are damaged"}.get(stored.state, "are not on this machine")
        raise ModelUnavailable(
            f"the weights of engine {engine.engine_id!r} {what} ({engine.weights.size_bytes / 1e9:.1f} GB): fetch them "
            f"with `fleet models pull {engine.engine_id}`",
            engine=engine.engine_id,
            reason="wrong_digest" if stored.state == "wrong_digest" else "missing_weights",
            file=stored.path,
            permanent=True,
        )


@asynccontextmanager
async def serving_source(
    engine: ActorEngine, settings: FleetSettings, output: Output, *, port: int = 0, api_key: str = ""
) -> AsyncGenerator[LlamaTokenSource]:
    """The engine's model is loaded and answers until the block ends. Raises ModelUnavailable."""
    from fleet.wiring.models.weights import make_llama_source

    def told(line: str) -> None:
        output.note(f"[dim]{shown(engine.engine_id)}: {shown(line)}[/]")

    source = make_llama_source(
        engine, settings.home, settings.llama, environ=os.environ, told=told, port=port, api_key=api_key
    )
    try:
        async with _ticking(told):
            await source.load()
        told("ready")
        yield source
    finally:
        await source.close()


@asynccontextmanager
async def served(engine: Engine | None, settings: FleetSettings, output: Output) -> AsyncGenerator[Mapping[str, str]]:
    """The variables by which the engine is found; empty when nothing had to be started."""
    if not _needs_serving(engine, settings, os.environ):
        yield {}
        return
    assert isinstance(engine, ActorEngine), "only those are served"
    if engine.base_url_env is None:
        raise ModelUnavailable(
            f"engine {engine.engine_id!r} names no variable for its address: add `base_url_env` (and `api_key_env`) to "
            "its entry in models.yaml",
            engine=engine.engine_id,
            permanent=True,
        )
    async with serving_source(engine, settings, output) as source:
        variables = {engine.base_url_env: source.base_url}
        yield variables | ({engine.api_key_env: source.api_key} if engine.api_key_env else {})


@asynccontextmanager
async def _ticking(told: Callable[[str], None]) -> AsyncGenerator[None]:
    """A line now and then while something takes long."""

    async def tick() -> None:
        passed_s = 0.0
        while True:
            await asyncio.sleep(_TELL_S)
            passed_s += _TELL_S
            told(f"still loading ({passed_s:.0f} s)")

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
