"""The engine actor: loads in the background, serves through its queue, loads again after a death, drains."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.engine import EngineShell
from actors.role import RoleShell
from fleet.config.files import packaged_directory
from fleet.config.settings import ModelsSettings
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ConfigError, ModelUnavailable
from fleet.models.chat import NO_TAG
from fleet.models.memory import FakeTokens, MemoryTokenSource
from fleet.models.service.model_engine import ModelEngine
from fleet.models.service.queued_model import behind_queue
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.models.engines import EngineParts, engine_environment_of, engine_replicas, make_engine, served_engines
from tests.support.engines import actor_engine, ask

ENTRY = {"engine_id": "tiny", "kind": "vllm", "model": "tiny", "path": "/nowhere", "unpriced": True, "replicas": 2}


def endpoints(folder: Path, *serve: str, **changes: Any) -> Endpoints:
    document = yaml.safe_load((packaged_directory() / "models.yaml").read_text())
    document["engines"] += [{**ENTRY, **changes}, {**ENTRY, "engine_id": "small", "kind": "local"}]
    (folder / "models.yaml").write_text(yaml.safe_dump(document))
    return Endpoints(
        home=str(folder),
        config=str(folder),
        redis_url="redis://127.0.0.1:1/0",
        cache_url="redis://127.0.0.1:1/1",
        neo4j_uri="bolt://127.0.0.1:1",
        neo4j_user="neo4j",
        neo4j_password="none",
        neo4j_database="neo4j",
        node="local",
        pools={},
        council_shards=1,
        lease_ttl_s=15,
        sweep_s=5,
        record_dir=None,
        code_digest="sha256:" + "0" * 64,
        environ={},
        models=ModelsSettings(serve=serve),
    )


class Quick(EngineShell):
    """An engine actor that does not wait long before it looks, and before it loads again."""

    first_pause_s, look_s = 0.001, 0.01


def shell_of(folder: Path, **speed: float) -> tuple[Quick, MemoryTokenSource]:
    clock, config = SystemClock(), actor_engine()
    source = MemoryTokenSource(config, clock, FakeTokens(prefill_ms=0, **speed))
    engine = ModelEngine(source, config, clock=clock)
    parts = EngineParts(engine, behind_queue(engine, config, clock), config)
    return Quick("engine:tiny:0", endpoints(folder, "tiny"), parts), source


async def until_state(shell: EngineShell, state: str) -> None:
    async with asyncio.timeout(10):
        while (await shell.health())["state"].split(":")[0] != state:
            await asyncio.sleep(0.005)


async def test_actor_serves_while_loaded_and_counts_what_it_did(tmp_path: Path) -> None:
    shell, _ = shell_of(tmp_path, decode_ms=1)
    assert (await shell.health())["state"].startswith("loading")
    await until_state(shell, "ready")
    await shell.probe()
    whole = await shell.complete(ask("x", tokens=30), request_id="a", budget_s=30, tag=NO_TAG)
    chunks = [chunk async for chunk in shell.stream(ask("x", tokens=30), request_id="b", budget_s=30, tag=NO_TAG)]
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert chunks[-1].reply is not None
    # Pieces that came at once travelled together.
    assert len(chunks) < 5
    assert [call.request_id for call in await shell.usage()] == ["a", "b"]
    assert (await shell.info()).waiting == 0
    await shell.drain()
    with pytest.raises(ModelUnavailable, match="being stopped|loaded again"):
        await shell.complete(ask("x"), request_id="c", budget_s=1, tag=NO_TAG)


async def test_abort_reaches_the_call_through_the_queue(tmp_path: Path) -> None:
    shell, _ = shell_of(tmp_path, decode_ms=50)
    await until_state(shell, "ready")
    call = asyncio.ensure_future(shell.complete(ask("x", tokens=400), request_id="a", budget_s=60, tag=NO_TAG))
    while not (await shell.info()).running:
        await asyncio.sleep(0)
    await shell.abort("a")
    assert (await call).finish_reason == "abort"
    await shell.drain()


async def test_engine_that_died_is_loaded_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shell, source = shell_of(tmp_path, load_s=0.01)
    await until_state(shell, "ready")
    source.dead = "killed"
    assert "killed" in (await shell.health())["state"]
    await until_state(shell, "ready")
    assert "is loaded again" in capsys.readouterr().err
    await shell.drain()


def test_engines_that_cannot_be_served_are_refused_at_start(tmp_path: Path) -> None:
    assert served_engines(endpoints(tmp_path)) == ()
    assert [engine.engine_id for engine in served_engines(endpoints(tmp_path, "tiny", "small"))] == ["tiny", "small"]
    for wrong, why in (
        (endpoints(tmp_path, "nobody"), "unknown model profile"),
        (endpoints(tmp_path, "tiny", "tiny"), "twice"),
        (endpoints(tmp_path, "openai"), "runs elsewhere"),
    ):
        with pytest.raises(ConfigError, match=why):
            served_engines(wrong)
    with pytest.raises(ConfigError, match="raise `gpus`"):
        served_engines(endpoints(tmp_path, "tiny", gpus=1, tensor_parallel=2))


def test_replicas_are_there_only_for_engines_that_are_served(tmp_path: Path) -> None:
    where = endpoints(tmp_path, "tiny")
    tiny, small = served_engines(endpoints(tmp_path, "tiny", "small"))
    assert list(engine_replicas(where, tiny)) == ["engine:tiny:0", "engine:tiny:1"]
    assert engine_replicas(where, small) == {}


async def test_both_kinds_are_built_without_loading_anything(tmp_path: Path) -> None:
    where = endpoints(tmp_path, "tiny", "small")
    for name in ("tiny", "small"):
        parts = make_engine(where, name)
        assert (await parts.engine.info()).state == "loading"
        assert parts.config.engine_id == name
    tiny, small = served_engines(where)
    assert engine_environment_of(tiny)["HF_HUB_OFFLINE"] == "1"
    assert engine_environment_of(small) == {}


async def test_role_actor_is_well_and_tells_its_figures_also_while_no_store_is_there(tmp_path: Path) -> None:
    shell = RoleShell("role:developer:0", endpoints(tmp_path))
    await asyncio.sleep(0)
    assert (await shell.health())["state"] == "ready"
    assert shell._models.stats() == ()  # pyright: ignore[reportPrivateUsage]
    await shell.drain()
