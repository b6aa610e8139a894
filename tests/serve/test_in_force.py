"""The configuration in force over HTTP: engines, policies of models and roles, without secrets (AP-93)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from fleet.config.settings import ServeSettings
from fleet.models.profiles import load_models
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import World
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.tool_front import DEV, REGISTRY


@asynccontextmanager
async def _front(models: Any = None, *, is_wired: bool = True) -> AsyncIterator[httpx2.AsyncClient]:
    world = World()
    parts = front_parts(world)
    assert parts.config is not None
    config = parts.config if models is None else replace(parts.config, models=load_models(models))
    parts = replace(parts, config=config if is_wired else None)
    app = build_gateway(world.desk, REGISTRY, files().load("serve.yaml", ServeSettings), parts=parts)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as at:
        yield at


async def _get(client: httpx2.AsyncClient, path: str) -> Any:
    response = await client.get(f"/api/{path}", headers=DEV)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.rule("AP-93")
async def test_engines_are_told_in_the_order_of_the_file_with_its_digest():
    async with _front() as client:
        found = await _get(client, "engines")
    models = load_models(files().document("models.yaml"))
    assert [one["engine_id"] for one in found["items"]] == list(models.profiles)
    assert (found["file"], found["digest"]) == ("models.yaml", files().digests()["models.yaml"])
    by_id = {one["engine_id"]: one for one in found["items"]}
    local, mock, openai = by_id["local"], by_id["mock"], by_id["openai"]
    assert (local["runs"], local["host"], local["replicas"]) == ("actors", None, 1)
    assert (local["weights_sha256"] or "").startswith("cc324af0")
    assert (mock["runs"], mock["has_key"]) == ("mock", False)
    assert (openai["runs"], openai["host"], openai["has_key"]) == ("server", "https://api.openai.com", True)


@pytest.mark.rule("AP-93")
async def test_no_secret_and_no_place_of_one_is_told_with_an_engine():
    token = "ghp_" + "a1B2" * 9
    entry = {
        "engine_id": "ours",
        "kind": "openai",
        "base_url": "https://ana:hunter2pass@models.example:8443/secret-path/v1?key=hunter3pass",
        "api_key": "secret://the-model-key",
        "model": token,
        "unpriced": True,
    }
    loaded = {
        "engine_id": "loaded",
        "kind": "vllm",
        "model": "private",
        "path": "/srv/private/weights",
        "engine_args": {"hf_token": "hunter4pass"},
        "api_key_env": "PRIVATE_MODEL_KEY",
        "unpriced": True,
    }
    models = {
        "engines": [entry, loaded],
        "policies": {"default": [{"engine_id": "ours", "max_tokens": 5, "timeout_s": 5}]},
    }
    async with _front(models) as client:
        response = await client.get("/api/engines", headers=DEV)
    ours, on_gpus = response.json()["items"]
    assert (ours["host"], ours["has_key"], on_gpus["has_key"]) == ("https://models.example:8443", True, True)
    for hidden in ("hunter", "ana:", "secret", "the-model-key", token, "/srv/", "PRIVATE_MODEL_KEY"):
        assert hidden not in response.text, hidden


@pytest.mark.rule("AP-93", "MB-2")
async def test_policies_name_the_chain_of_each_role():
    async with _front() as client:
        found = await _get(client, "models/policies")
    (default,) = [one for one in found["items"] if one["role"] == "default"]
    assert [entry["engine_id"] for entry in default["policy"]["chain"]] == ["profile"]
    assert found["digest"] == files().digests()["models.yaml"]


@pytest.mark.rule("AP-93", "RT-1")
async def test_roles_are_told_with_what_they_inherit():
    async with _front() as client:
        found = await _get(client, "roles")
        again = await _get(client, "roles")
    assert found == again
    roles = {one["name"]: one for one in found["items"]}
    assert list(roles) == sorted(roles)
    assert {"architect", "developer", "qa", "devops", "data", "po"} <= set(roles)
    assert roles["developer"]["tools"]["files"]["ops"] == sorted(roles["developer"]["tools"]["files"]["ops"])
    assert roles["qa"]["tools"]["files"]["write_paths"] == ["**/*_test.*", "**/test_*.py", "test/**", "tests/**"]
    assert roles["architect"]["sees_decisions"] == ["all"]
    assert (found["file"], found["digest"]) == ("roles.yaml", files().digests()["roles.yaml"])


@pytest.mark.rule("AP-1", "AP-93")
@pytest.mark.parametrize("path", ["engines", "models/policies", "roles"])
async def test_configuration_is_for_those_with_a_token_and_says_when_it_is_not_wired(path: str):
    async with _front(is_wired=False) as client:
        assert (await client.get(f"/api/{path}")).status_code == 401
        missing = await client.get(f"/api/{path}", headers=DEV)
    assert (missing.status_code, missing.json()["code"]) == (503, "store_unavailable")
