"""A fleet from an environment alone: the same settings and files as on a laptop, and stores that are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.local.record import Addresses
from fleet.config.environment import load_settings
from fleet.config.files import packaged_directory
from fleet.context.scope import scopes_for
from fleet.kernel.errors import ConfigError
from fleet.wiring.endpoints import load_definitions, load_principals
from fleet.wiring.places import cluster_endpoints, endpoints_at

STORES = {
    "FLEET_REDIS_URL": "redis://:pass@log:6379/0",
    "FLEET_NEO4J_URI": "bolt://graph:7687",
    "FLEET_NEO4J_PASSWORD": "pass",
}


def test_cluster_and_laptop_come_to_the_same_endpoints(tmp_path: Path) -> None:
    environ = {"FLEET_HOME": str(tmp_path), "FLEET_POOLS": "{developer: 1}", **STORES}
    settings = load_settings(environ)
    addresses = Addresses(
        redis_url="redis://:pass@log:6379/0",
        cache_url="redis://:pass@log:6379/0",
        neo4j_uri="bolt://graph:7687",
        neo4j_user="neo4j",
        neo4j_password="pass",
        neo4j_database="neo4j",
    )
    found = cluster_endpoints(environ)
    assert found == endpoints_at(settings, addresses, environ=environ)
    assert found.pools["developer"] == 1


def test_settings_that_actors_were_born_with_change_their_digest(tmp_path: Path) -> None:
    environ = {"FLEET_HOME": str(tmp_path), **STORES}
    one = cluster_endpoints(environ)
    again = cluster_endpoints(environ | {"FLEET_CACHE_URL": "redis://cache:6379/0"})
    moved = cluster_endpoints(environ | {"FLEET_PLACEMENT": "{council: {pool: agents}}"})
    assert one.code_digest == again.code_digest != moved.code_digest
    assert (one.cache_url, again.cache_url) == (STORES["FLEET_REDIS_URL"], "redis://cache:6379/0")


@pytest.mark.rule("RT-1", "CX-2")
def test_role_that_roles_yaml_alone_names_has_an_agent_and_the_view_of_the_role_that_it_extends(tmp_path: Path) -> None:
    own = tmp_path / "config"
    own.mkdir()
    roles = "  security: {extends: reviewer, assignable: true}\n  auditor: {extends: qa, assignable: false}\n"
    (own / "roles.yaml").write_text((packaged_directory() / "roles.yaml").read_text() + roles)
    environ = {"FLEET_HOME": str(tmp_path), "FLEET_CONFIG": str(own), **STORES}
    found = cluster_endpoints(environ)
    assert (found.pools["security"], found.pools.get("auditor")) == (1, None)
    assert cluster_endpoints(environ | {"FLEET_POOLS": "{security: 0}"}).pools["security"] == 0
    context = load_definitions(found.files).context
    for phase in ("DESIGN", "BUILD"):
        assert scopes_for(context, phase, "security") == scopes_for(context, phase, "architect")
    assert context.base_role("auditor") == "qa"


@pytest.mark.rule("RT-19", "GL-18")
def test_lifecycle_that_names_a_role_of_nobody_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "config"
    own.mkdir()
    shipped = (packaged_directory() / "fsm.yaml").read_text()
    (own / "fsm.yaml").write_text(shipped.replace("qa_passed: {role: qa,", "qa_passed: {role: auditor,"))
    environ = {"FLEET_HOME": str(tmp_path), "FLEET_CONFIG": str(own), **STORES}
    with pytest.raises(ConfigError, match=r"fsm.yaml.* gates.qa_passed.role: roles.yaml has no role 'auditor'"):
        load_definitions(cluster_endpoints(environ).files)
    roles = (packaged_directory() / "roles.yaml").read_text()
    (own / "roles.yaml").write_text(f"{roles}  auditor: {{extends: qa, assignable: false}}\n")
    assert load_definitions(cluster_endpoints(environ).files).fsm.gates["qa_passed"].role == "auditor"


def test_stores_that_are_not_named_are_refused_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FLEET_REDIS_URL and FLEET_NEO4J_URI not set") as caught:
        cluster_endpoints({"FLEET_HOME": str(tmp_path)})
    assert caught.value.details["missing"] == ["FLEET_REDIS_URL", "FLEET_NEO4J_URI"]


def test_variables_of_engines_are_taken_along_and_no_others(tmp_path: Path) -> None:
    environ = {"FLEET_HOME": str(tmp_path), "OPENAI_API_KEY": "key", "STRAY": "x", **STORES}
    assert dict(cluster_endpoints(environ).environ) == {"OPENAI_API_KEY": "key"}


def test_damaged_token_file_is_refused_without_its_values(tmp_path: Path) -> None:
    path = tmp_path / "principals.json"
    path.write_text('[{"principal": "user:ann", "roles": ["po"], "token_sha256": "short-secret"}]')
    with pytest.raises(ConfigError, match=r"principals.json: 0.token_sha256") as caught:
        load_principals(path)
    assert "short-secret" not in f"{caught.value.message}{caught.value.details}"
