"""Probes as files of the home, and the strategy that follows for an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import ConfigError
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatMessage, ChatReply, ChatRequest, TokenUsage
from fleet.models.engines.recorded import read_about
from fleet.models.probed import ExerciseScore, ProbedEngine
from fleet.models.profiles import ModelsConfig
from fleet.wiring.models.policies import EngineModels
from fleet.wiring.models.probes import keep_probe, probe_file, probed_models
from tests.support.rules import files
from tests.support.sessions import models

ALL = ExerciseScore(right=6, of=6)


def probe(engine: str = "recorded", **values: object) -> ProbedEngine:
    """A probe that all went well in."""
    given = {"model": "m", "probed_at": "2026-11-25T04:00:00Z", "window": 32_000, "tokens": 60_000}
    scores = {
        "text_calls": ALL,
        "edits": ALL,
        "facts": ExerciseScore(right=3, of=3),
        "fixes": ExerciseScore(right=1, of=1),
    }
    return ProbedEngine.model_validate({"engine_id": engine, **given, **scores, **values})


def test_probe_is_read_where_it_was_kept(tmp_path: Path):
    assert probed_models(files(), tmp_path).strategy_of("local") == ("draft", "it was never probed")
    found = probe("local", model="qwen2.5-coder-1.5b-instruct")
    assert keep_probe(tmp_path, found) == probe_file(tmp_path, "local")
    config = probed_models(files(), tmp_path)
    assert config.probe_of("local") == found
    assert config.strategy_of("local").strategy == "session"


def test_file_that_is_no_probe_is_named(tmp_path: Path):
    probe_file(tmp_path, "x").parent.mkdir()
    probe_file(tmp_path, "x").write_text("{}")
    with pytest.raises(ConfigError, match="is no probe of an engine: remove it, or run `fleet models probe x` again"):
        probed_models(files(), tmp_path)


def test_probe_of_another_model_says_nothing():
    config = models(strategy="auto").with_probes({"recorded": probe(model="other")})
    assert config.strategy_of("recorded").strategy == "draft"
    assert models(strategy="auto").with_probes({"recorded": probe()}).strategy_of("recorded").strategy == "session"


def test_what_the_file_says_wins_over_a_probe_of_the_home():
    here = ModelsConfig.model_validate({**models().model_dump(), "probes": {"recorded": probe(window=8_000)}})
    assert here.with_probes({"recorded": probe()}).probe_of("recorded") == probe(window=8_000)
    drafts = models(strategy="draft").with_probes({"recorded": probe()})
    assert drafts.strategy_of("recorded") == ("draft", "models.yaml says so")


class Greeter:
    """A model that says hello."""

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        return ChatReply(text="hello", finish_reason="stop", usage=TokenUsage(), engine="mock", model="m")

    def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        """Not asked for here."""
        raise AssertionError

    async def abort(self, request_id: str) -> None:
        """See `ChatModel.abort`."""

    async def health(self) -> None:
        """See `ChatModel.health`."""


async def test_recording_says_which_strategy_the_probe_led_to(tmp_path: Path):
    config = probed_models(files(), tmp_path)
    assert config.engine("mock").strategy == "auto"
    probed = config.with_probes({"mock": probe("mock", model=config.engine("mock").model)})
    recorded = EngineModels(probed, {"mock": Greeter()}, clock=MemoryClock(), record_dir=tmp_path / "replies")
    asked = ChatRequest(messages=(ChatMessage(role="user", content="hi"),))
    await recorded["mock"].complete(asked, request_id="x/1", timeout_s=5)
    about = read_about(tmp_path / "replies")
    assert about is not None
    assert about.strategy == "session"
