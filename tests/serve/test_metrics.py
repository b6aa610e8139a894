"""`/metrics` of the front: what its process counted, for hosts of listed networks alone (AP-96)."""

from __future__ import annotations

from dataclasses import replace

import httpx2
import pytest
from pydantic import ValidationError

from fleet.config.settings import ServeSettings
from fleet.telemetry.memory import NoMeter
from fleet.telemetry.sinks.kept_meter import KeptMeter
from fleet.wiring.telemetry import Telemetry
from serve_apps.observed import ObservedRequests
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import World
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.tool_front import REGISTRY

pytestmark = pytest.mark.rule("AP-96")
SETTINGS = files().load("serve.yaml", ServeSettings)


def _client(host: str, *, networks: tuple[str, ...] | None = None, is_kept: bool = True) -> httpx2.AsyncClient:
    world, meter = World(), KeptMeter(NoMeter(), labels={"worker": "7"})
    parts = replace(front_parts(world), figures=meter if is_kept else None)
    settings = SETTINGS if networks is None else SETTINGS.model_copy(update={"metrics_networks": networks})
    app = build_gateway(world.desk, REGISTRY, settings, parts=parts)
    app.add_middleware(ObservedRequests, name="gateway", telemetry=Telemetry(meter))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app, client=(host, 1)), base_url="http://fleet")


async def test_host_of_a_listed_network_reads_what_the_front_counted():
    async with _client("127.0.0.1") as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/api/fleet")).status_code == 401
        found = await client.get("/metrics")
    assert found.status_code == 200
    assert found.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = found.text.splitlines()
    told = 'fleet_http_requests_total{{app="gateway",code="{}",method="GET",route="{}",worker="7"}} 1.0'
    assert told.format(200, "/healthz") in lines
    assert told.format(401, "/api/fleet") in lines


@pytest.mark.parametrize(
    ("host", "networks", "status"),
    [
        ("::1", None, 200),
        ("::ffff:127.0.0.1", None, 200),
        ("10.1.2.3", None, 403),
        ("10.1.2.3", ("10.0.0.0/8",), 200),
        ("127.0.0.1", ("10.0.0.0/8",), 403),
        ("127.0.0.1", (), 403),
        ("fe80::1%eth0", ("fe80::/10",), 200),
        ("testclient", None, 403),
        ("", None, 403),
    ],
)
async def test_only_hosts_of_listed_networks_are_answered(host: str, networks: tuple[str, ...] | None, status: int):
    async with _client(host, networks=networks) as client:
        found = await client.get("/metrics")
    assert found.status_code == status, found.text
    assert status == 200 or found.json()["rule_id"] == "AP-96"


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
async def test_request_that_a_proxy_hands_on_is_refused_whatever_it_says(header: str):
    async with _client("127.0.0.1") as client:
        found = await client.get("/metrics", headers={header: "127.0.0.1"})
    assert (found.status_code, found.json()["code"]) == (403, "policy_denied")


async def test_front_that_keeps_no_figures_has_nothing_there():
    async with _client("127.0.0.1", is_kept=False) as client:
        assert (await client.get("/metrics")).status_code == 404
        assert (await client.post("/metrics")).status_code == 405


def test_network_that_is_none_is_refused_at_the_start():
    for wrong in ("10.0.0.1/8", "everywhere", ""):
        with pytest.raises(ValidationError, match="metrics_networks"):
            ServeSettings.model_validate({**SETTINGS.model_dump(), "metrics_networks": [wrong]})
