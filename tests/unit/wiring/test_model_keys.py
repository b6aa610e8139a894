"""Keys of models that stand in a secret store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import ModelUnavailable
from fleet.models.chat import ChatMessage, ChatRequest
from fleet.models.engine_config import HttpEngine
from fleet.models.engines.factory import build_chat_model
from fleet.models.profiles import load_models
from fleet.policy.secret_grants import SecretAccess, SecretGrant, SecretPolicy
from fleet.secrets.providers.file import FileSecrets
from fleet.secrets.service import KnownSecrets, SecretBroker
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.models.policies import SecretKey, make_model_keys, wants_secret_keys
from tests.support.model_server import Scene, playing
from tests.support.providers import reply, trouble
from tests.support.secret_places import secret_file

REQUEST = ChatRequest(messages=(ChatMessage(role="user", content="hello"),))
ENGINE = HttpEngine.model_validate(
    {"engine_id": "mine", "preset": "groq", "model": "m", "unpriced": True, "api_key": "secret://groq-api-key"}
)


@pytest.fixture
def lines() -> list[SecretAccess]:
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "secrets"
    place.mkdir(mode=0o700)
    return place


@pytest.fixture
def key_of(folder: Path, lines: list[SecretAccess]) -> Callable[[str], SecretKey]:
    """The keys of role developer, who may use one of them."""

    async def record(line: SecretAccess) -> None:
        lines.append(line)

    known = KnownSecrets()
    grant = SecretGrant(secret="groq-api-key", roles=frozenset({"developer"}), tool="model", ops=frozenset({"call"}))
    store = FileSecrets("local", folder, ["groq-api-key", "other-key"], ttl_s=60)
    broker = SecretBroker(
        {"groq-api-key": store, "other-key": store},
        SecretPolicy(grants=(grant,)),
        clock=MemoryClock(),
        record=record,
        known_secrets=known,
    )
    return lambda reference: SecretKey(reference, broker, known, role="developer")


async def ask(key_of: Callable[[str], SecretKey], *scenes: Scene, engine: HttpEngine = ENGINE) -> list[str]:
    """The keys that the server saw."""
    async with playing(*scenes) as server:
        at_server = engine.model_copy(update={"base_url": f"{server.url}/v1"})
        model = build_chat_model(at_server, environ={}, key_of=key_of)
        try:
            await model.complete(REQUEST, request_id="r", timeout_s=60)
        finally:
            await model.close()  # type: ignore[attr-defined]
        return [asked.headers["authorization"] for asked in server.asked]


async def test_key_is_fetched_at_the_first_call_with_one_audit_line(
    key_of: Callable[[str], SecretKey], folder: Path, lines: list[SecretAccess]
) -> None:
    model = build_chat_model(ENGINE, environ={}, key_of=key_of)
    await model.close()  # type: ignore[attr-defined]
    assert lines == []
    secret_file(folder / "groq-api-key", "gsk-first-key")
    assert await ask(key_of, reply("groq", "x")) == ["Bearer gsk-first-key"]
    assert [(line.name, line.role, line.tool, line.op, line.outcome) for line in lines] == [
        ("groq-api-key", "developer", "model", "call", "resolved")
    ]


async def test_key_that_was_rotated_is_read_again_when_the_old_one_is_refused(
    key_of: Callable[[str], SecretKey], folder: Path
) -> None:
    secret_file(folder / "groq-api-key", "gsk-first-key")
    await ask(key_of, reply("groq", "x"))
    (folder / "groq-api-key").unlink()
    secret_file(folder / "groq-api-key", "gsk-second-key")
    seen = await ask(key_of, trouble("groq", "key"), reply("groq", "x"))
    assert seen == ["Bearer gsk-first-key", "Bearer gsk-second-key"]


async def test_key_that_is_refused_and_has_no_successor_is_an_error_that_names_its_reference(
    key_of: Callable[[str], SecretKey], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret_file(folder / "groq-api-key", "sk-test-1234")
    with pytest.raises(ModelUnavailable, match="store a valid key under secret://groq-api-key") as caught:
        await ask(key_of, trouble("groq", "key"))
    shown = f"{caught.value} {caught.value.details} {caught.value.__cause__} {caplog.text}"
    assert "sk-test-1234" not in shown
    assert "[REDACTED" in caught.value.message


@pytest.mark.parametrize(("name", "reason"), [("groq-api-key", "not_found"), ("other-key", "policy_denied")])
async def test_missing_key_names_the_reference_and_the_grant_and_nothing_is_sent(
    key_of: Callable[[str], SecretKey], name: str, reason: str
) -> None:
    engine = ENGINE.model_copy(update={"api_key": f"secret://{name}"})
    with pytest.raises(ModelUnavailable, match=f"the key secret://{name} cannot be had") as caught:
        await ask(key_of, reply("groq", "x"), engine=engine)
    assert f"{{secret: {name}, roles: [developer], tool: model, ops: [call]}}" in caught.value.message
    assert (caught.value.details["reason"], caught.value.details["permanent"]) == (reason, True)


async def test_store_that_cannot_be_read_may_be_asked_again(key_of: Callable[[str], SecretKey], folder: Path) -> None:
    secret_file(folder / "groq-api-key", "with a \0 nul")
    with pytest.raises(ModelUnavailable) as caught:
        await ask(key_of, reply("groq", "x"))
    assert (caught.value.details["reason"], caught.value.details.get("permanent")) == ("store_unavailable", None)


async def test_no_key_is_handed_out_while_its_use_cannot_be_recorded(tmp_path: Path, folder: Path) -> None:
    secret_file(folder / "groq-api-key", "gsk-first-key")
    (tmp_path / "secrets.yaml").write_text(f"""
providers: [{{kind: file, label: local, path: {folder}, secrets: [groq-api-key]}}]
grants: [{{secret: groq-api-key, roles: [developer], tool: model, ops: [call]}}]
""")
    url = "redis://127.0.0.1:1/0"
    endpoints = Endpoints(
        home=str(tmp_path),
        config=str(tmp_path),
        redis_url=url,
        cache_url=url,
        neo4j_uri="bolt://127.0.0.1:1",
        neo4j_user="neo4j",
        neo4j_password="x",
        neo4j_database="neo4j",
        node="local",
        pools={},
        council_shards=1,
        lease_ttl_s=15,
        sweep_s=5,
        record_dir=None,
        code_digest="sha256:" + "0" * 64,
        environ={},
    )
    key = make_model_keys(endpoints, role="developer", known_secrets=KnownSecrets())("secret://groq-api-key")
    with pytest.raises(ModelUnavailable) as caught:
        await key.get()
    assert caught.value.details["reason"] == "store_unavailable"
    assert "permanent" not in caught.value.details


def test_broker_is_needed_only_where_an_engine_takes_its_key_from_a_store() -> None:
    policies = {"default": [{"engine_id": "mine", "max_tokens": 1, "timeout_s": 1}]}
    plain = {"engine_id": "mine", "preset": "groq", "model": "m", "unpriced": True}
    for entry, wants in ((plain, False), ({**plain, "api_key": "secret://a-b"}, True)):
        assert wants_secret_keys(load_models({"engines": [entry], "policies": policies})) is wants
