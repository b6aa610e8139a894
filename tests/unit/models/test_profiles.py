"""config/models.yaml: what is accepted, and the chain of a role."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.kernel.errors import ConfigError, InvalidInput, ModelUnavailable
from fleet.models.engine_config import RecordedEngine
from fleet.models.profiles import (
    Budgets,
    ModelsConfig,
    explain_no_model,
    load_models,
    recorded_directory,
    recorded_profile,
)
from fleet.models.routing.budget import BudgetLimits

SHIPPED = Path(__file__).parents[3] / "config" / "models.yaml"


def engine(engine_id: str, **changes: object) -> dict[str, Any]:
    return {
        "engine_id": engine_id,
        "kind": "vllm",
        "base_url": "http://h/v1",
        "model": "m",
        "unpriced": True,
        **changes,
    }


def entry(engine_id: str, **changes: object) -> dict[str, Any]:
    return {"engine_id": engine_id, "max_tokens": 100, "timeout_s": 5, **changes}


def config(*, engines: list[dict[str, Any]] | None = None, **policies: Any) -> ModelsConfig:
    listed = [engine("big"), engine("small")] if engines is None else engines
    return load_models({"engines": listed, "policies": {"default": [entry("big"), entry("small")], **policies}})


def ids(config: ModelsConfig, role: str, profile: str | None = None, **kw: Any) -> list[str]:
    return [link.engine_id for link in config.chain_for(role, profile, **kw).entries]


@pytest.mark.rule("MB-1")
def test_engine_without_price_is_refused_unless_declared_unpriced() -> None:
    price = {"in_microusd_per_mtok": 1, "out_microusd_per_mtok": 2}
    with pytest.raises(ConfigError, match=r"config/models\.yaml.*'big' needs either a price"):
        config(engines=[engine("big", unpriced=False), engine("small")])
    with pytest.raises(ConfigError, match="not both"):
        config(engines=[engine("big", price=price), engine("small")])
    assert config(engines=[engine("big", unpriced=False, price=price), engine("small")]).profiles == ("big", "small")


@pytest.mark.rule("GL-22")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"engines": [engine("big"), engine("big")]}, "named twice: big"),
        ({"engines": [engine("profile")]}, "no engine can be called"),
        ({"qa": [entry("lost")]}, "policies.qa.chain.0.engine_id: no engine 'lost'; there are "),
        ({"default": []}, "policies.default.chain"),
        ({"default": [entry("big", temprature="1")]}, "temprature"),
        ({"default": [entry("big", temperature=-1)]}, "temperature"),
        ({"engines": [{**engine("big"), "kind": "other"}]}, "kind|tag"),
    ],
)
def test_wrong_configuration_is_refused_with_path_and_reason(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        config(**change)
    assert caught.value.details["problems"]


def test_missing_default_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"policies\.default is missing"):
        load_models({"engines": [], "policies": {}})


@pytest.mark.rule("MB-20")
def test_story_budget_without_tokens_and_gpu_ms_is_refused() -> None:
    data = {"engines": [engine("big")], "policies": {"default": [entry("big")]}, "budgets": {"story": {"calls": 9}}}
    with pytest.raises(ConfigError, match="limit on tokens or gpu_ms"):
        load_models(data)


@pytest.mark.rule("MB-2")
def test_role_without_policy_uses_that_of_its_lineage_and_then_the_default() -> None:
    made = config(architect=[entry("small")])
    assert ids(made, "architect") == ["small"]
    assert ids(made, "critic", inherits=["architect"]) == ["small"]
    assert ids(made, "developer", inherits=["nobody"]) == ["big", "small"]


@pytest.mark.rule("MB-2")
def test_profile_of_a_run_stands_first_with_the_values_of_the_first_entry() -> None:
    chain = config().chain_for("developer", "small")
    assert [link.engine_id for link in chain.entries] == ["small", "big"]
    assert chain.entries[0].entry.max_tokens == 100


@pytest.mark.rule("MB-2")
def test_unknown_profile_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(InvalidInput) as caught:
        config().chain_for("developer", "gpt")
    assert caught.value.details["allowed"] == ["big", "small", "recorded:DIR"]
    with pytest.raises(InvalidInput):
        config().engine("recorded:")


@pytest.mark.rule("MB-10")
def test_pinned_policy_ignores_the_profile_and_has_no_fallback() -> None:
    made = config(qa={"chain": [entry("big"), entry("small")], "pinned": True})
    assert ids(made, "qa", "small") == ["big"]


def test_recorded_folder_is_an_engine_of_its_own() -> None:
    chain = config().chain_for("developer", "recorded:some/dir")
    assert chain.entries[0].engine_id == "recorded:some/dir"
    made = config().engine("recorded:some/dir")
    assert isinstance(made, RecordedEngine)
    assert made.directory == "some/dir"


def test_recorded_folder_is_replayed_under_the_terms_that_its_profile_names() -> None:
    profile = recorded_profile("/a?b/replies", strategy="session", max_context=64_000, max_output=9_000)
    engine = config().engine(profile)
    assert (engine.strategy, engine.max_context, engine.max_output) == ("session", 64_000, 9_000)
    assert isinstance(engine, RecordedEngine)
    assert engine.directory == recorded_directory(profile) == "/a?b/replies"
    for wrong in ("max_context=12", "price=1", "max_output=many"):
        with pytest.raises(InvalidInput, match=f"(?s){wrong.partition('=')[0]}.*give recorded:DIR alone"):
            config().engine(f"recorded:/x?strategy=session&{wrong}")


def test_decimal_values_are_text_so_that_requests_have_one_digest() -> None:
    chain = config(qa=[entry("big", temperature=0.2, top_p=1)]).chain_for("qa")
    assert (chain.entries[0].entry.temperature, chain.entries[0].entry.top_p) == ("0.2", "1")


def test_shipped_configuration_without_a_profile_explains_the_options() -> None:
    shipped = load_models(yaml.safe_load(SHIPPED.read_text()))
    with pytest.raises(ModelUnavailable) as caught:
        shipped.chain_for("developer")
    assert str(caught.value) == explain_no_model()
    for profile in shipped.profiles:
        assert ids(shipped, "developer", profile) == [profile]
    for word in ("vllm", "openai", "local", "recorded:DIR", "GPU"):
        assert word in explain_no_model()


@pytest.mark.rule("MB-21")
@pytest.mark.parametrize("is_shipped", [True, False])
def test_budgets_have_the_limits_of_the_rules_where_nobody_set_others(is_shipped: bool) -> None:
    budgets = load_models(yaml.safe_load(SHIPPED.read_text())).budgets if is_shipped else Budgets()
    story = BudgetLimits(tokens=20_000_000, wall_ms=8 * 3_600_000, gpu_ms=7_200_000)
    assert (budgets.story, budgets.task) == (story, BudgetLimits(tokens=10_000_000))
    assert budgets.council == BudgetLimits(tokens=8_000_000, wall_ms=10_800_000)
    assert budgets.step == BudgetLimits(tokens=200_000)
