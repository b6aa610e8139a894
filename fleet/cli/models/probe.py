"""`fleet models probe`: what an engine can do, measured, and how engineers then work on it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fleet.bench.service.probe import Probing, probe_engine
from fleet.cli.exit_codes import DONE
from fleet.cli.models.local_engine import Engine, check_served, served
from fleet.cli.output import Output, shown
from fleet.cli.settings import settings
from fleet.config.environment import config_files
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import InvalidInput
from fleet.models.engine_config import ActorEngine, HttpEngine, MockEngine, PluginEngine, RecordedEngine
from fleet.models.engines.factory import build_chat_model
from fleet.models.port import ChatModel
from fleet.models.probed import ExerciseScore, ProbedEngine, choose_strategy
from fleet.wiring.models.plugins import plugin_model
from fleet.wiring.models.probes import keep_probe, probed_models

LEAST_WINDOW = 4_000


def probe_model(output: Output, engine_id: str, *, window: int, is_kept: bool) -> int:
    """The engine was asked, its scores are printed, and kept in the home for councils that open from now on."""
    fleet_settings = settings()
    models = probed_models(config_files(fleet_settings), fleet_settings.home)
    engine = models.engine(engine_id)
    _check(engine)
    if window < LEAST_WINDOW:
        raise InvalidInput(f"--window {window} is too small to measure: give {LEAST_WINDOW} or more", field="window")
    if isinstance(engine, ActorEngine) and engine.as_server(os.environ) is None:
        check_served(engine, fleet_settings)

    async def probe() -> ProbedEngine:
        async with (
            served(engine, fleet_settings, output) as variables,
            _models(engine, os.environ | variables) as (text, own),
        ):
            given = Probing(
                engine_id=engine.engine_id,
                model=engine.model,
                window=engine.max_context,
                most=window,
                output=engine.max_output,
                text=text,
                native=own,
                told=lambda line: output.note(f"[dim]{shown(line)}[/]"),
            )
            return await probe_engine(given, SystemClock())

    probed = asyncio.run(probe())
    chosen = choose_strategy(probed)
    says = engine.strategy
    for line in _lines(probed):
        output.say(shown(line))
    output.say(shown(f"strategy: {chosen.strategy}, because {chosen.reason}"))
    if says not in ("auto", chosen.strategy):
        output.say(shown(f"models.yaml says strategy: {says}, and that holds; write auto to follow the probe"))
    path = str(keep_probe(fleet_settings.home, probed)) if is_kept else None
    if path:
        output.note(f"[dim]kept in {shown(path)}[/]")
    document = {**probed.model_dump(mode="json"), "strategy": chosen.strategy, "reason": chosen.reason}
    output.result({**document, "configured": says, "kept": path})
    return DONE


def _check(engine: Engine) -> None:
    if isinstance(engine, RecordedEngine | MockEngine):
        raise InvalidInput(
            f"engine {engine.engine_id!r} has no model behind it that could be probed: it is of kind {engine.kind}",
            field="engine",
        )


@asynccontextmanager
async def _models(engine: Engine, environ: Mapping[str, str]) -> AsyncGenerator[tuple[ChatModel, ChatModel | None]]:
    """The engine with calls as text, and with those of its own form where it may have one."""
    assert isinstance(engine, HttpEngine | ActorEngine | PluginEngine)
    made: list[Any] = []

    def model(*, is_native: bool) -> ChatModel:
        capabilities = engine.capabilities | {"tools"} if is_native else engine.capabilities - {"tools"}
        entry = engine.model_copy(update={"capabilities": capabilities})
        made.append(build_chat_model(entry, environ=environ, plugin=plugin_model))
        return made[-1]

    try:
        yield model(is_native=False), model(is_native=True)
    finally:
        for one in made:
            if closing := getattr(one, "close", None):
                await closing()


def _lines(probed: ProbedEngine) -> list[str]:
    def told(score: ExerciseScore | None) -> str:
        return f"{score.right} of {score.of}" if score else "none"

    more = "" if probed.is_smaller else ", as far as it was tried"
    return [
        f"{probed.engine_id}: {probed.model}, {probed.tokens} tokens used",
        f"calls of tools, its own form   {told(probed.native_calls)}",
        f"calls of tools, as text        {told(probed.text_calls)}",
        f"edits in a file of 200 lines   {told(probed.edits)}",
        f"facts in a long prompt         {told(probed.facts)}, window {probed.window} tokens{more}",
        f"failing test mended            {told(probed.fixes)}",
    ]
