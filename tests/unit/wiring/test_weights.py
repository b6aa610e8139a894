"""Engines of kind `local` as they are wired: their file, a server that stands for them, what a recording holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cluster.local.identity import ProcessIdentity
from cluster.local.record import Addresses, RunningFleet
from fleet.cli.models.local_engine import check_served, with_actors
from fleet.config.settings import FleetSettings, LlamaSettings
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ModelUnavailable
from fleet.models.chat import ChatMessage, ChatRequest
from fleet.models.engine_config import ActorEngine, HttpEngine
from fleet.models.engines.factory import ChatModels
from fleet.models.memory import ScriptedChatModel
from fleet.models.profiles import load_models
from fleet.secrets.service import KnownSecrets
from fleet.wiring.models.policies import EngineModels
from fleet.wiring.models.weights import make_llama_source, weights_of
from fleet.wiring.stores.redaction import with_engine_keys
from tests.support.llama_stub import fake_llama
from tests.support.openai_server import Scripted, serving

KEY = "key-of-a-test-server-1"
LOCAL = {
    "engine_id": "local",
    "kind": "local",
    "model": "tiny",
    "unpriced": True,
    "path": "none.gguf",
    "path_env": "FLEET_LOCAL_FILE",
    "base_url_env": "FLEET_LOCAL_BASE_URL",
    "model_env": "FLEET_LOCAL_MODEL",
    "api_key_env": "FLEET_LOCAL_API_KEY",
    "capabilities": ["seed"],
}
REQUEST = ChatRequest(messages=(ChatMessage(role="user", content="hello"),))


def engine(**changes: object) -> ActorEngine:
    return ActorEngine.model_validate({**LOCAL, **changes})


CONFIG = load_models(
    {
        "engines": [LOCAL],
        "policies": {"default": [{"engine_id": "profile", "max_tokens": 9, "timeout_s": 9}]},
    }
)


@pytest.mark.rule("MB-1")
def test_variable_with_an_address_makes_a_server_of_an_engine() -> None:
    assert engine().as_server({}) is None
    assert engine().as_server({"FLEET_LOCAL_BASE_URL": " "}) is None
    assert engine(base_url_env=None).as_server({"FLEET_LOCAL_BASE_URL": "http://h/v1"}) is None
    server = engine().as_server({"FLEET_LOCAL_BASE_URL": "http://h/v1"})
    assert isinstance(server, HttpEngine)
    assert (server.base_url, server.model, server.engine_id) == ("http://h/v1", "auto", "local")
    assert (server.api_key_env, server.capabilities) == ("FLEET_LOCAL_API_KEY", frozenset({"seed"}))


async def test_server_that_stands_for_an_engine_answers_with_its_key() -> None:
    async with serving(Scripted("hi"), models=["other", "mine"]) as server:
        named = {"FLEET_LOCAL_MODEL": "mine", "FLEET_LOCAL_API_KEY": KEY}
        bare = ChatModels(CONFIG, environ={"FLEET_LOCAL_BASE_URL": server.base_url, **named})
        models = EngineModels(CONFIG, bare, clock=SystemClock())
        assert (await models["local"].complete(REQUEST, request_id="r", timeout_s=60)).text == "hi"
        assert [stats.engine for stats in models.stats()] == ["local"]
        await bare["local"].close()  # pyright: ignore[reportAttributeAccessIssue]
    assert (server.requests[0]["model"], server.headers[0]["authorization"]) == ("mine", f"Bearer {KEY}")


def test_engine_that_nothing_stands_for_says_how_to_start_it() -> None:
    models = EngineModels(CONFIG, ChatModels(CONFIG, environ={}), clock=SystemClock())
    with pytest.raises(ModelUnavailable, match="fleet up"):
        models["local"]


async def test_own_file_is_found_by_path_or_variable_and_compared(tmp_path: Path) -> None:
    file = tmp_path / "own.gguf"
    file.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(ModelUnavailable, match=r"none\.gguf.*FLEET_LOCAL_FILE"):
        await weights_of(engine(), tmp_path, {})()
    assert await weights_of(engine(path_sha256=digest), tmp_path, {"FLEET_LOCAL_FILE": str(file)})() == str(file)
    with pytest.raises(ModelUnavailable, match="path_sha256"):
        await weights_of(engine(path_sha256="0" * 64, path=str(file)), tmp_path, {})()


async def test_wired_source_serves_the_file(tmp_path: Path) -> None:
    file = tmp_path / "own.gguf"
    file.write_bytes(b"weights")
    llama = LlamaSettings(python=fake_llama(tmp_path / "stub"))
    source = make_llama_source(engine(path=str(file)), tmp_path, llama, environ={})
    try:
        assert (await source.load()).version == "llama-cpp-python 0.0.1"
    finally:
        await source.close()


# What `fleet run` starts.


def test_vllm_engine_of_a_run_is_served_by_the_fleet_of_the_run(tmp_path: Path) -> None:
    settings = FleetSettings(home=tmp_path)
    assert with_actors(settings, engine(kind="vllm")).models.serve == ("local",)
    listed = with_actors(settings, engine(kind="vllm"))
    assert with_actors(listed, engine(kind="vllm")).models.serve == ("local",)
    assert with_actors(settings, engine()) is settings
    assert with_actors(settings, None) is settings


def test_fleet_that_is_up_has_to_serve_the_engine(tmp_path: Path) -> None:
    settings = FleetSettings(home=tmp_path)
    check_served(engine(), settings)
    places = {"neo4j_uri": "bolt://127.0.0.1:1", "neo4j_user": "n", "neo4j_password": "n", "neo4j_database": "n"}
    addresses = Addresses(redis_url="redis://127.0.0.1:1", cache_url="redis://127.0.0.1:1", **places)
    running = RunningFleet(home=tmp_path, supervisor=ProcessIdentity.of_self(), started_at_ms=0, addresses=addresses)
    (tmp_path / "fleet.json").write_text(running.model_dump_json())
    with pytest.raises(ModelUnavailable, match="fleet down"):
        check_served(engine(), settings)
    check_served(engine(), with_actors(settings, engine(kind="vllm")))


# What a recording holds.


@pytest.mark.rule("CX-60")
async def test_recorded_reply_holds_neither_the_keys_of_engines_nor_what_looks_like_a_secret(tmp_path: Path) -> None:
    token = "ghp_" + "a1B2" * 9
    said = f"the key is {KEY}, the token {token}"
    secrets = with_engine_keys(CONFIG, {"FLEET_LOCAL_API_KEY": KEY}, KnownSecrets())
    models = EngineModels(
        CONFIG,
        {"local": ScriptedChatModel.of(said)},
        clock=SystemClock(),
        record_dir=tmp_path,
        redact=lambda text: secrets.redact(text).text,
    )
    asked = ChatRequest(messages=(ChatMessage(role="user", content=f"is {KEY} the key?"),))
    reply = await models["local"].complete(asked, request_id="r", timeout_s=60)
    (kept,) = tmp_path.glob("r/*.json")
    assert kept.name == f"{asked.digest.hex}.json"
    assert not any(secret in kept.read_text() + reply.text for secret in (KEY, token))
    assert reply.text == "the key is [REDACTED:KNOWN_SECRET], the token [REDACTED:GITHUB]"
