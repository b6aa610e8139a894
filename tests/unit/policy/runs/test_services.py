"""Recipes of side services and what a run's list of them comes to."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fleet.kernel.errors import PolicyDenied
from fleet.policy.runs.services import ServicesConfig, plan_services
from fleet.policy.runs.spec import ServiceSpec
from tests.support.rules import files

SHIPPED: dict[str, Any] = files().document("policy.yaml")["services"]
RECIPES = ServicesConfig.model_validate(SHIPPED)


def spec(kind: str, name: str = "one", **fields: Any) -> ServiceSpec:
    return ServiceSpec.model_validate({"name": name, "kind": kind, "env_prefix": name.upper(), **fields})


@pytest.mark.rule("RC-101", "RC-102")
def test_shipped_recipes_are_filled_in_whole() -> None:
    kinds = ("redis", "postgres", "neo4j", "command")
    services = [spec(kind, f"s{n}", argv=("serve",) if kind == "command" else ()) for n, kind in enumerate(kinds)]
    plans = plan_services(services, RECIPES, role="qa", passwords=["pw"] * 4)

    assert [p.exported[f"S{n}_PORT"] for n, p in enumerate(plans)] == ["6379", "5432", "7687", "18080"]
    assert plans[0].exported == {
        "S0_HOST": "127.0.0.1",
        "S0_PORT": "6379",
        "S0_URL": "redis://:pw@127.0.0.1:6379/0",
    }
    for plan in plans:
        texts = (
            *plan.argv,
            *plan.prepare,
            *plan.ready,
            *plan.files.values(),
            *plan.env.values(),
            *plan.exported.values(),
        )
        assert not any("{" in text for text in texts)


def test_port_of_a_service_is_its_own_and_never_the_proxys() -> None:
    recipes = ServicesConfig.model_validate({"redis": {**SHIPPED["redis"], "port": 3127}})
    plans = plan_services([spec("redis", n) for n in ("a", "b", "c")], recipes, role=None, passwords=["x", "y", "z"])

    assert [p.exported[f"{p.name.upper()}_PORT"] for p in plans] == ["3127", "3129", "3130"]
    assert len({p.folder for p in plans}) == 3


def test_readiness_of_the_run_replaces_that_of_the_recipe() -> None:
    service = spec("command", argv=("serve", "{port}", "{other}"), ready={"argv": ["try", "{port}"], "timeout_s": 5})
    (plan,) = plan_services([service], RECIPES, role=None, passwords=["x"])

    assert (plan.argv, plan.ready, plan.timeout_s) == (("serve", "18080", "{other}"), ("try", "18080"), 5)


@pytest.mark.rule("RC-101")
def test_unknown_kind_names_those_that_there_are() -> None:
    with pytest.raises(PolicyDenied) as caught:
        plan_services([spec("oracle")], RECIPES, role=None, passwords=["x"])

    assert caught.value.details["allowed"] == ["command", "neo4j", "postgres", "redis"]
    assert caught.value.details["rule_id"] == "unknown_service"


@pytest.mark.rule("GL-22")
@pytest.mark.parametrize(
    "recipes",
    [
        {"redis": {**SHIPPED["redis"], "url": "redis://{hots}"}},
        {"redis": {**SHIPPED["redis"], "argv": []}},
        {"command": {**SHIPPED["command"], "argv": ["x"]}},
        {"redis": {**SHIPPED["redis"], "port": 80}},
        {"Redis": SHIPPED["redis"]},
        {"redis": {**SHIPPED["redis"], "image": "x"}},
    ],
    ids=["placeholder", "no_program", "own_program", "port", "name", "unknown_key"],
)
def test_recipe_that_is_wrong_is_refused(recipes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ServicesConfig.model_validate(recipes)
