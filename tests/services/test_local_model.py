"""The real small model behind the real llama.cpp, where both are on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.config.settings import LlamaSettings
from fleet.kernel.clock import SystemClock
from fleet.models.chat import ChatMessage, ChatRequest, Sampling
from fleet.models.engine_config import ActorEngine
from fleet.models.profiles import load_models
from fleet.models.service.model_engine import ModelEngine
from fleet.wiring.models.weights import make_llama_source, make_weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def named(variable: str) -> Path:
    """The file that the variable names; skips the test where it names none."""
    if not (value := os.environ.get(variable)):
        pytest.skip(f"{variable} names no file on this machine")
    return Path(value)


@pytest.mark.rule("MB-1", "MB-13")
async def test_real_model_is_pulled_by_its_digest_loaded_and_writes_code_and_json(tmp_path: Path) -> None:
    python, gguf = named("FLEET_TEST_LLAMA_PYTHON"), named("FLEET_TEST_GGUF")
    config = load_models(ConfigFiles(packaged_directory()).document("models.yaml")).engine("local")
    assert isinstance(config, ActorEngine)
    assert config.weights is not None
    pulled = await make_weights(tmp_path, given=gguf).pull(config.weights)
    assert Path(pulled.path).stat().st_size == config.weights.size_bytes
    source = make_llama_source(config, tmp_path, LlamaSettings(python=python), environ={})
    engine = ModelEngine(source, config, clock=SystemClock())
    await engine.load()
    try:
        code = await engine.complete(
            asking("Write a Python function add(a, b). Only code."), request_id="a", timeout_s=600
        )
        assert "def add" in code.text
        assert (code.revision, code.usage.tokens_out > 5) == (config.weights.sha256, True)
        schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
        reply = await engine.complete(
            asking("What is 2 + 3? Answer as JSON.", json_schema=schema), request_id="b", timeout_s=600
        )
        assert isinstance(json.loads(reply.text)["sum"], int)
    finally:
        await engine.close()


def asking(text: str, **more: object) -> ChatRequest:
    messages = (ChatMessage(role="user", content=text),)
    return ChatRequest.model_validate({"messages": messages, "sampling": Sampling(max_tokens=60), **more})
