"""The benchmark of a model's words beside a summary, on scripted models (CX-53, CX-54, CX-56, CX-58)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import compression
from benchmarks.compression_words import ROLE, agents, figures_of, words_of
from benchmarks.sessions import generated
from fleet.kernel.errors import InvalidInput, ModelUnavailable
from fleet.models.memory import ScriptedChatModel
from fleet.models.service.role_agent import LocalAgents
from tests.support.agents import role_agent

SESSION = generated(3, tokens=8_000)


def saying(text: str) -> tuple[LocalAgents, ScriptedChatModel]:
    model = ScriptedChatModel.of(json.dumps({"summary": text}))
    return LocalAgents({ROLE: role_agent(model, role=ROLE)[0]}), model


@pytest.mark.rule("CX-53", "CX-54")
async def test_words_without_a_fact_are_used_lose_nothing_and_hold_nothing_by_themselves() -> None:
    asked, model = saying("The slow way was given up, and the quick one was measured and kept.")
    found = await words_of(asked, None, SESSION)
    assert (found.is_used, found.recall, found.alone) == (True, 1.0, 0.0)
    assert found.engine is not None
    shown = "\n".join(message.content for message in model.calls[0].messages)
    assert "<history>" in shown
    assert len(shown) < len(SESSION.source), "the model reads what the compressor made, and not the session"


@pytest.mark.rule("CX-54")
async def test_words_that_tell_a_planted_fact_hold_it_by_themselves() -> None:
    fact = SESSION.facts["constraint"][0]
    found = await words_of(saying(f"It is certain that {fact}.")[0], None, SESSION)
    assert found.is_used
    assert found.alone == pytest.approx(1 / sum(map(len, SESSION.facts.values())))


@pytest.mark.rule("CX-56")
async def test_words_that_name_what_the_session_does_not_are_left_out_and_cost_no_fact() -> None:
    found = await words_of(saying("All of it is in src/nowhere/made_up.py since de-made-up1.")[0], None, SESSION)
    assert (found.is_used, found.recall) == (False, 1.0)


@pytest.mark.rule("CX-55")
async def test_model_that_does_not_answer_costs_no_fact_and_is_counted() -> None:
    agent, _ = role_agent(ScriptedChatModel.of(*[ModelUnavailable("down", permanent=True)]), role=ROLE)
    lost = await words_of(LocalAgents({ROLE: agent}), None, SESSION)
    assert (lost.engine, lost.is_used, lost.recall) == (None, False, 1.0)
    used = await words_of(saying("One way was kept.")[0], None, SESSION)
    figures = figures_of("tiny", [lost, used])
    assert [round(figure.value) for figure in figures[:2]] == [50, 100]
    assert "1 used, 0 left out, 1 without a reply" in (figures[0].note or "")


@pytest.mark.rule("CX-58", "MB-2")
async def test_profile_that_the_configuration_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput):
        agents("no-such-model")
    assert isinstance(agents("mock"), LocalAgents)
    monkeypatch.setenv("COMPRESSION_MODEL", "no-such-model")
    with pytest.raises(InvalidInput):
        await compression.measure(Path())


@pytest.mark.rule("CX-58")
@pytest.mark.parametrize("wanted", [1, 2, 5])
def test_recorded_stories_come_first_among_the_sessions_that_a_model_is_asked_about(wanted: int) -> None:
    found = compression.sessions_of_words(wanted)
    assert len({session.name for session in found}) == wanted
    assert found[0].name == compression.sessions_of_words(8)[0].name
