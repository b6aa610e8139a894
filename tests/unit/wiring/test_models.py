"""Every engine behind its queue and router, whoever runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import ModelUnavailable
from fleet.models.chat import ChatMessage, ChatRequest
from fleet.models.engine_config import ActorEngine
from fleet.models.engines.recorded import RecordingChatModel
from fleet.models.memory import ScriptedChatModel
from fleet.models.port import ChatModel
from fleet.models.profiles import ModelsConfig, load_models
from fleet.models.service.routed_model import RoutedModel
from fleet.wiring.models.policies import EngineModels

REQUEST = ChatRequest(messages=(ChatMessage(role="user", content="go"),))


def config() -> ModelsConfig:
    shared = {"model": "m", "unpriced": True}
    return load_models(
        {
            "engines": [
                {"engine_id": "server", "kind": "vllm", "base_url": "http://x/v1", "max_waiting": 3, **shared},
                {"engine_id": "actors", "kind": "vllm", "path": "weights", "replicas": 2, **shared},
                {"engine_id": "mock", "kind": "mock", **shared},
                {"engine_id": "kept", "kind": "recorded", "directory": "d", **shared},
            ],
            "policies": {"default": [{"engine_id": "server", "max_tokens": 10, "timeout_s": 5}]},
            "tenant_weights": {"shop": 2},
        }
    )


def models(*, record_dir: Path | None = None, actors: int = 2, **bare: ChatModel) -> EngineModels:
    known = {name: ScriptedChatModel.of("yes", engine=name) for name in ("server", "actors", "mock", "kept")}

    def replicas(engine: ActorEngine) -> dict[str, ChatModel]:
        return {f"engine:{engine.engine_id}:{n}": ScriptedChatModel.of("yes") for n in range(actors)}

    return EngineModels(config(), {**known, **bare}, clock=MemoryClock(), replicas=replicas, record_dir=record_dir)


async def test_server_has_its_queue_here_and_actors_have_theirs_elsewhere() -> None:
    found = models()
    await found["server"].complete(REQUEST, request_id="r", timeout_s=60)
    await found["actors"].complete(REQUEST, request_id="r", timeout_s=60)
    server, actors = found.stats()
    assert [replica.queue is not None for replica in server.replicas] == [True]
    assert [replica.queue is not None for replica in actors.replicas] == [False, False]
    assert found["server"] is found["server"]
    assert (len(found), sorted(found)) == (4, ["actors", "kept", "mock", "server"])


async def test_models_without_a_server_stand_as_they_are() -> None:
    found = models()
    assert all(isinstance(found[name], ScriptedChatModel) for name in ("mock", "kept"))
    assert found.stats() == ()
    with pytest.raises(KeyError):
        found["recorded:nowhere"]


async def test_engine_without_actors_here_has_its_queue_before_what_stands_for_it() -> None:
    found = models(actors=0)
    await found["actors"].complete(REQUEST, request_id="r", timeout_s=60)
    (router,) = found.stats()
    assert [(replica.name, replica.queue is not None) for replica in router.replicas] == [("actors", True)]


async def test_refusal_is_known_once_the_circuit_of_an_engine_is_open() -> None:
    found = models(server=ScriptedChatModel.of(ModelUnavailable("down")))
    assert found.refusal("server") is None
    for _ in range(3):
        with pytest.raises(ModelUnavailable):
            await found["server"].complete(REQUEST, request_id="r", timeout_s=60)
    refusal = found.refusal("server")
    assert refusal is not None
    assert "down" in refusal.message
    assert found.refusal("mock") is None
    router = found["server"]
    assert isinstance(router, RoutedModel)
    await router.close()


async def test_recording_stands_in_front_of_the_router_so_that_what_is_kept_is_not_asked_again(tmp_path: Path) -> None:
    found = models(record_dir=tmp_path)
    for _ in range(3):
        await found["server"].complete(REQUEST, request_id="r", timeout_s=60)
    assert isinstance(found["server"], RecordingChatModel)
    assert isinstance(found["mock"], RecordingChatModel)
    assert isinstance(found["kept"], ScriptedChatModel)
    assert [router.replicas[0].calls for router in found.stats()] == [1]
