"""Mock members and building models from configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleet.kernel.errors import ConfigError, ModelError, ModelUnavailable
from fleet.kernel.types import MockMode
from fleet.models.chat import ChatMessage, ChatRequest, Sampling
from fleet.models.engine_config import HttpEngine, MockEngine, MockReply
from fleet.models.engines.factory import ChatModels, build_chat_model
from fleet.models.engines.mock import MockChatModel
from fleet.models.engines.openai import OpenAIChatModel
from fleet.models.engines.recorded import RecordedChatModel, RecordingChatModel
from fleet.models.profiles import load_models
from fleet.models.replies.json_schema import schema_problems
from fleet.models.replies.replies import proposal_schema, review_schema
from tests.support.openai_server import Scripted, serving

BALLOT = {
    "type": "object",
    "properties": {
        "votes": {
            "type": "array",
            "minItems": 2,
            "items": {
                "type": "object",
                "properties": {
                    "label": {"type": "string", "enum": ["A", "B"]},
                    "vote": {"type": "string", "enum": ["approve", "reject", "abstain"]},
                    "reason": {"type": "string", "maxLength": 200},
                },
            },
        },
        "ranking": {"type": "array", "minItems": 2, "uniqueItems": True, "items": {"enum": ["A", "B"]}},
        "sure": {"type": "boolean"},
        "round": {"const": 1},
        "weight": {"type": "integer", "minimum": 3},
        "note": {"type": "null"},
    },
}


def mock(mode: MockMode, *, kind: str = "draft") -> MockChatModel:
    replies = {"draft": MockReply(correct="right", wrong="wrong")}
    return MockChatModel(
        MockEngine(engine_id="mock", kind="mock", model="m", mode=mode, unpriced=True, replies=replies)
    )


def request(kind: str, *, seed: int = 0, schema: dict[str, object] | None = None) -> ChatRequest:
    system = ChatMessage(role="system", content=f"Work: {kind}\nRules.")
    return ChatRequest(messages=(system,), sampling=Sampling(seed=seed), json_schema=schema)


async def ask(model: MockChatModel, asked: ChatRequest) -> str:
    return (await model.complete(asked, request_id="r", timeout_s=60)).text


async def test_excellent_is_right_and_poor_is_wrong() -> None:
    assert await ask(mock("excellent"), request("draft")) == "right"
    assert await ask(mock("poor"), request("draft")) == "wrong"


async def test_mock_that_is_asked_to_look_around_has_seen_enough_at_once() -> None:
    assert await ask(mock("excellent"), request("act")) == "Nothing more has to be looked at."


async def test_verbose_drafts_are_much_longer() -> None:
    assert len(await ask(mock("verbose"), request("draft"))) > 5 * len("right")


@pytest.mark.rule("CN-85")
async def test_error_prone_fails_about_half_of_the_calls_in_all_three_ways() -> None:
    outcomes: list[str] = []
    for seed in range(60):
        try:
            outcomes.append(await ask(mock("error_prone"), request("draft", seed=seed)))
        except ModelError as error:
            outcomes.append(error.code)
    assert set(outcomes) == {"right", "I am not sure what to say.", "model_timeout", "model_unavailable"}
    assert 15 <= outcomes.count("right") <= 45


async def test_inconsistent_depends_on_the_seed_and_repeats_for_the_same_request() -> None:
    texts = [await ask(mock("inconsistent"), request("draft", seed=seed)) for seed in range(20)]
    assert set(texts) == {"right", "wrong"}
    assert texts == [await ask(mock("inconsistent"), request("draft", seed=seed)) for seed in range(20)]


@pytest.mark.parametrize("mode", ["excellent", "poor", "stubborn", "verbose", "concise"])
@pytest.mark.parametrize("schema", [BALLOT, review_schema(["ac-1"]), proposal_schema(["ac-1", "ac-2"], ["a.py"])])
async def test_structured_reply_always_fits_its_schema(mode: MockMode, schema: dict[str, object]) -> None:
    value = json.loads(await ask(mock(mode), request("vote", schema=schema)))
    assert schema_problems(value, schema) == ()


async def test_ballots_follow_the_mode() -> None:
    ballots = {
        mode: json.loads(await ask(mock(mode), request("vote", schema=BALLOT)))
        for mode in ("excellent", "poor", "stubborn", "verbose")
    }
    assert {vote["vote"] for vote in ballots["excellent"]["votes"]} == {"approve"}
    assert {vote["vote"] for vote in ballots["stubborn"]["votes"]} == {"reject"}
    assert [vote["label"] for vote in ballots["excellent"]["votes"]] == ["A", "B"]
    assert ballots["poor"]["ranking"] == ["B", "A"]
    assert len(ballots["verbose"]["votes"][0]["reason"]) == 200


async def test_mock_without_an_answer_is_an_error_and_invents_nothing() -> None:
    with pytest.raises(ModelUnavailable, match="'tests'"):
        await ask(mock("excellent"), request("tests"))


CONFIG = load_models(
    {
        "engines": [
            {
                "engine_id": "web",
                "kind": "openai",
                "base_url": "http://127.0.0.1:9/v1",
                "base_url_env": "WEB_URL",
                "model": "auto",
                "model_env": "WEB_MODEL",
                "api_key_env": "WEB_KEY",
                "capabilities": ["tools"],
                "unpriced": True,
            },
            {"engine_id": "mock", "kind": "mock", "model": "m", "unpriced": True},
        ],
        "policies": {"default": [{"engine_id": "profile", "max_tokens": 100, "timeout_s": 5}]},
    }
)


async def test_address_model_and_key_come_from_the_named_variables() -> None:
    async with serving(Scripted("hi")) as server:
        environ = {"WEB_URL": server.base_url, "WEB_MODEL": "big", "WEB_KEY": "k1"}
        engine = CONFIG.engine("web")
        assert isinstance(engine, HttpEngine)
        model = build_chat_model(engine, environ=environ)
        assert isinstance(model, OpenAIChatModel)
        await model.complete(request("draft"), request_id="r", timeout_s=60)
        await model.close()
    assert server.requests[0]["model"] == "big"
    assert server.headers[0]["authorization"] == "Bearer k1"


async def test_models_are_built_once_and_recorded_folders_are_engines_too(tmp_path: Path) -> None:
    models = ChatModels(CONFIG, environ={}, record_dir=tmp_path)
    assert models["mock"] is models["mock"]
    assert isinstance(models["mock"], RecordingChatModel)
    assert isinstance(models[f"recorded:{tmp_path}"], RecordedChatModel)
    assert (list(models), len(models)) == (["web", "mock"], 2)
    with pytest.raises(KeyError):
        models["nothing"]


@pytest.mark.rule("CN-87")
def test_unknown_mode_of_a_mock_is_refused() -> None:
    engine = {"engine_id": "m", "kind": "mock", "model": "m", "unpriced": True, "mode": "perfect"}
    with pytest.raises(ConfigError, match="mode"):
        load_models({"engines": [engine], "profiles": {"p": {"engines": ["m"]}}})


async def test_mock_that_another_program_asks_says_what_it_is() -> None:
    asked = ChatRequest(messages=(ChatMessage(role="user", content="Which day is it?"),))
    reply = await mock("excellent").complete(asked, request_id="r", timeout_s=1)
    assert reply.text == "mock is a mock engine: there is no model behind it."


async def test_mock_without_a_reply_of_a_form_that_no_sentence_has_says_which_one_it_needs() -> None:
    name = {"type": "string", "pattern": "^[a-z]{1,29}$"}
    schema: dict[str, object] = {"type": "object", "properties": {"keywords": {"type": "array", "items": name}}}
    assert (await mock("excellent").complete(request("derive", schema=schema), request_id="r", timeout_s=1)).text
    needed = {"type": "object", "properties": {"name": name}}
    with pytest.raises(ModelUnavailable, match="no reply for work 'derive'"):
        await mock("excellent").complete(request("derive", schema=needed), request_id="r", timeout_s=1)
