"""cluster/compose.yaml by its structure: pinned images, no root, no password in it, only the gateway open."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.config.environment import settings_keys
from fleet.config.files import packaged_directory
from fleet.config.settings import FleetSettings, ServeSettings
from tests.support.cluster_manifests import cluster_named, rendered

FILE = Path(__file__).resolve().parents[3] / "cluster" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
KEYS = {
    "image", "command", "configs", "secrets", "volumes", "tmpfs", "healthcheck", "user", "cap_drop", "security_opt",
    "restart", "networks", "environment", "env_file", "shm_size", "depends_on", "stop_grace_period", "ports",
    "read_only",
}  # fmt: skip
"""Of the Compose specification; a typing error in a name is none of them."""


def sources(name: str, kind: str) -> set[str]:
    """What a service takes of `kind`."""
    return {entry["source"] if isinstance(entry, dict) else entry for entry in SERVICES[name].get(kind, ())}


def test_file_has_the_parts_of_a_fleet_and_no_unknown_key() -> None:
    assert COMPOSE.keys() == {"name", "services", "networks", "volumes", "secrets", "configs"}
    assert SERVICES.keys() == {"log", "cache", "graph", "head", "gateway"}
    for service in SERVICES.values():
        assert service.keys() <= KEYS


@pytest.mark.parametrize("name", SERVICES)
def test_every_name_that_a_service_uses_is_defined(name: str) -> None:
    service = SERVICES[name]

    assert sources(name, "configs") <= COMPOSE["configs"].keys()
    assert sources(name, "secrets") <= COMPOSE["secrets"].keys()
    assert set(service["networks"]) <= COMPOSE["networks"].keys()
    assert set(service.get("depends_on", ())) <= SERVICES.keys()
    assert {v.split(":")[0] for v in service.get("volumes", ())} <= COMPOSE["volumes"].keys()


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_unprivileged_and_has_to_be_named_by_image(name: str) -> None:
    service = SERVICES[name]

    assert re.fullmatch(r"\$\{FLEET_[A-Z0-9]+_IMAGE:\?[^}]*digest\}", service["image"])
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", service["user"])
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


def test_only_the_gateway_is_open_and_only_to_this_machine() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["gateway"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["gateway"]["ports"])
    assert COMPOSE["networks"]["stores"] == {"internal": True}
    for store in ("log", "cache", "graph"):
        assert SERVICES[store]["networks"] == ["stores"]
    assert "stores" not in SERVICES["gateway"]["networks"]


def test_no_password_stands_in_the_file() -> None:
    text = FILE.read_text()

    assert not re.search(r"redis://[^\s]*@", text)
    assert {
        key for s in SERVICES.values() for key in s.get("environment", {}) if re.search("PASS|TOKEN|KEY", key)
    } == set()
    assert all(secret["file"].startswith("secrets/") for secret in COMPOSE["secrets"].values())


def test_variables_of_the_head_are_settings() -> None:
    known = {key.variable for key in settings_keys()}

    assert set(SERVICES["head"]["environment"]) <= known
    named = set(re.findall(r"\bFLEET_[A-Z0-9_]+\b", FILE.read_text()))
    assert {name for name in named if not name.endswith("_IMAGE")} <= known


def test_front_of_the_head_differs_from_the_packaged_one_by_its_address_alone() -> None:
    found = yaml.safe_load(COMPOSE["configs"]["serve"]["content"])
    packaged = yaml.safe_load((packaged_directory() / "serve.yaml").read_text())

    assert ServeSettings.model_validate(found).host == "0.0.0.0"
    assert {**found, "host": packaged["host"]} == packaged


@pytest.mark.parametrize("store", ["log", "cache"])
def test_stores_have_the_settings_of_the_cluster(store: str) -> None:
    def lines(text: str) -> set[str]:
        return {line for line in text.splitlines() if not line.startswith("maxmemory ")}

    (config,) = [
        m
        for m in rendered(cluster_named("small"))
        if (m["kind"], m["metadata"]["name"]) == ("ConfigMap", f"fleet-{store}")
    ]

    assert lines(COMPOSE["configs"][store]["content"]) == lines(config["data"]["redis.conf"])


def test_head_waits_for_stores_that_answer() -> None:
    waits = {name: entry["condition"] for name, entry in SERVICES["head"]["depends_on"].items()}

    assert waits == dict.fromkeys(("log", "cache", "graph"), "service_healthy")
    assert all("healthcheck" in SERVICES[name] for name in waits)
    assert FleetSettings.model_validate({"home": "/x", "ports": {"gateway": 8000}}).ports.gateway == 8000
