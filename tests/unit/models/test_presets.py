"""Providers as data, and what an entry of config/models.yaml needs beside them."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.kernel.errors import ConfigError
from fleet.models.engine_config import HttpEngine
from fleet.models.presets import PRESETS
from fleet.models.profiles import load_models


def engine(**entry: Any) -> HttpEngine:
    default = [{"engine_id": "mine", "max_tokens": 100, "timeout_s": 5}]
    whole = {"engine_id": "mine", "model": "some-model", "unpriced": True, **entry}
    found = load_models({"engines": [whole], "policies": {"default": default}}).engine("mine")
    assert isinstance(found, HttpEngine)
    return found


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_entry_of_a_provider_needs_a_model_and_nothing_else(name: str) -> None:
    known, found = PRESETS[name], engine(preset=name)  # type: ignore[index]
    assert (found.kind, found.base_url, found.api_key_env) == (known.wire, known.base_url, known.key_variable)
    assert (found.max_context, found.capabilities, found.external) == (
        known.max_context,
        known.capabilities,
        known.external,
    )
    assert found.max_output <= found.max_context // 2
    assert (found.dialect, found.headers) == (known.dialect, known.headers)
    assert found.wants_key == (name != "ollama")
    assert known.documented_at
    assert (
        load_models(
            {
                "engines": [found.model_dump()],
                "policies": {"default": [{"engine_id": "mine", "max_tokens": 1, "timeout_s": 1}]},
            }
        ).engine("mine")
        == found
    )


@pytest.mark.parametrize("kind", ["openai", "vllm", "local"])
def test_what_the_entry_sets_stays(kind: str) -> None:
    price = {"in_microusd_per_mtok": 1, "out_microusd_per_mtok": 2}
    found = engine(
        preset="groq",
        kind=kind,
        base_url="http://mirror/v1",
        max_context=999,
        max_output=7,
        external=False,
        capabilities=["seed"],
        api_key_env="MY_KEY",
        unpriced=False,
        price=price,
    )
    assert (found.base_url, found.max_context, found.max_output, found.external) == ("http://mirror/v1", 999, 7, False)
    assert (found.capabilities, found.api_key_env) == (frozenset({"seed"}), "MY_KEY")


def test_key_in_a_secret_store_leaves_the_variable_out() -> None:
    found = engine(preset="groq", api_key="secret://groq-api-key")
    assert (found.api_key, found.api_key_env) == ("secret://groq-api-key", None)
    assert "secret://groq-api-key" in found.how_to_give_a_key


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"preset": "azure"}, "choose one of openai, anthropic, google, groq, openrouter, ollama"),
        ({"preset": ["groq"]}, "unknown preset"),
        ({"kind": "openai"}, "needs `base_url`, or a `preset` that knows it"),
        ({"preset": "groq", "kind": "anthropic"}, "leave `kind` out"),
        ({"preset": "anthropic", "kind": "openai"}, "leave `kind` out"),
        ({"preset": "groq", "api_key": "secret://a-b", "api_key_env": "K"}, "names its key twice"),
        ({"preset": "groq", "api_key": "sk-1234"}, "String should match pattern"),
        ({"preset": "groq", "api_key": "secret://Not_A_Name"}, "String should match pattern"),
        ({"preset": "groq", "unpriced": False}, "needs either a price"),
    ],
)
def test_wrong_entry_stops_the_start_and_says_what_to_do(entry: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        engine(**entry)
    assert told in caught.value.message
    assert caught.value.details.get("allowed") == (list(PRESETS) if "unknown preset" in caught.value.message else None)


def test_advice_on_keys_names_what_the_entry_would_take() -> None:
    assert engine(preset="google").how_to_give_a_key == (
        "set GEMINI_API_KEY to a valid key, or put `api_key: secret://gemini-api-key` in its entry"
    )
    plain = engine(kind="openai", base_url="http://h/v1")
    assert (plain.how_to_give_a_key, plain.wants_key, plain.headers) == (
        "name a variable that holds it as `api_key_env`, or a secret as `api_key`",
        False,
        {},
    )
