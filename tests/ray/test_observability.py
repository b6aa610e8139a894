"""A story as its operators see it: one trace through crashes, metrics of every node, log lines that name the story."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fleet.cli.local.local_principals import read_token
from fleet.config.settings import ServeSettings
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import StoryId
from fleet.remote.observed_log import root_of
from fleet.telemetry.catalogue import CATALOGUE, exported_names
from fleet.telemetry.memory import MemoryMeter
from fleet.telemetry.service import Tracer
from fleet.telemetry.sinks.otel_spans import CollectorPlace, OtelSpans
from fleet.wiring.endpoints import load_principals
from fleet.wiring.telemetry import Telemetry
from serve_apps.observed import ObservedRequests
from serve_apps.routes.gateway import build_gateway
from tests.support.otlp_collector import Collector, Span, collector, connected
from tests.support.ray_fleet import Client, RayFleet, ray_fleet, until
from tests.support.ray_log_proxy import Append
from tests.support.rules import files
from tests.support.team_models import RECORDED, demo_repository, demo_story

TTL_S = 4
CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"
SENT = f"00-{CALLER}-00f067aa0ba902b7-01"
STORIES = "/api/planner/stories"
pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


@pytest.fixture(scope="module")
def spans() -> Iterator[Collector]:
    with collector() as found:
        yield found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, spans: Collector) -> Iterator[RayFleet]:
    """A fleet with two council shards whose processes send their spans to the collector."""
    settings = {"FLEET_OBSERVABILITY_OTLP_ENDPOINT": spans.endpoint, "FLEET_OBSERVABILITY_OTLP_HEADERS": "x-key=k1"}
    with ray_fleet(tmp_path_factory.mktemp("f"), shards=2, ttl_s=TTL_S, settings=settings) as found:
        yield found


@pytest.fixture(scope="module")
def delivered(fleet: RayFleet, tmp_path_factory: pytest.TempPathFactory) -> StoryId:
    """A story that came to its end on this fleet, whichever tests ran before."""

    async def run() -> StoryId:
        async with fleet.client() as client:
            story_id = await client.create(demo_story())
            await client.start(story_id, demo_repository(tmp_path_factory.mktemp("seen")))
            state = await client.settled(story_id, within_s=240)
            assert state.closed, state.park
            return story_id

    return asyncio.run(run())


class KillOwner:
    """A rule that kills the owner's process behind some of its appends, before anybody is told."""

    def __init__(self, fleet: RayFleet, story_id: StoryId, *, after: tuple[int, ...]) -> None:
        self._fleet, self._stream, self._after = fleet, f"story:{story_id}", after
        self._seen = self.killed = 0

    async def __call__(self, append: Append) -> bool:
        owner = self._fleet.proxy.owners(self._stream).get(append.epoch)
        if append.stream != self._stream or append.outcome != "OK" or owner is None or append.owner is not None:
            return True
        self._seen += 1
        if self._seen not in self._after:
            return True
        self._fleet.send(owner[1], signal.SIGKILL)
        self.killed += 1
        return False


def front(fleet: RayFleet, client: Client, spans: Collector) -> tuple[httpx2.AsyncClient, Telemetry]:
    """The HTTP front over the stores of the fleet, as a replica builds it."""
    meter = MemoryMeter()
    sink = OtelSpans([CollectorPlace(spans.endpoint, headers={})], process="gateway", lost=lambda reason, number: None)
    telemetry = Telemetry(meter, Tracer(sink, SystemClock()))
    settings = files().load("serve.yaml", ServeSettings)
    app = build_gateway(client.desk, load_principals(fleet.home / "principals.json"), settings)

    async def root(story_id: StoryId) -> Any:
        return await root_of(client.log, story_id)

    app.add_middleware(ObservedRequests, name="gateway", telemetry=telemetry, root_of=root)
    headers = {"Authorization": f"Bearer {read_token(fleet.home)}"}
    transport = httpx2.ASGITransport(app=app)
    return httpx2.AsyncClient(transport=transport, base_url="http://front", headers=headers), telemetry


async def of_story(spans: Collector, story_id: StoryId, trace_id: str, *, until_closed: bool) -> list[Span]:
    """The spans of the trace, once it is whole."""

    def whole() -> list[Span]:
        found = [span for span in spans.spans() if span.trace_id == trace_id]
        is_there = not until_closed or any(span.name.startswith("POST") for span in found)
        return found if is_there and len(connected(found)) == 1 else []

    return await until(whole, within_s=20, why=f"the trace of {story_id} is one tree: {_names(spans, trace_id)}")


def _names(spans: Collector, trace_id: str) -> list[str]:
    return sorted({span.name for span in spans.spans() if span.trace_id == trace_id})


@pytest.mark.rule("AP-8", "GL-19")
async def test_story_whose_owner_is_killed_twice_is_one_connected_trace(
    fleet: RayFleet, spans: Collector, tmp_path: Path
) -> None:
    async with fleet.client() as client:
        http, telemetry = front(fleet, client, spans)
        created = await http.post(STORIES, json=demo_story(), headers={"Idempotency-Key": "create-1"})
        assert created.status_code == 201, created.text
        story_id = StoryId(created.json()["story_id"])
        repo = await asyncio.to_thread(demo_repository, tmp_path / "stage")
        fleet.proxy.after = rule = KillOwner(fleet, story_id, after=(30, 90))
        await client.start(story_id, repo)
        state = await client.settled(story_id, within_s=240)
        fleet.proxy.after = None
        assert state.closed, state.park
        assert rule.killed == 2
        await http.aclose()
        telemetry.close()
        root = await root_of(client.log, story_id)
        events = await client.events(story_id)
    assert root is not None
    steps = {json.loads(event.body)["step_id"] for event in events if event.type == "StepFinished"}

    def told_steps() -> set[str]:
        """Processes send their spans every few seconds."""
        mine = [span for span in spans.spans() if span.trace_id == root.trace_id and span.name.startswith("step ")]
        return steps if {span.attributes["fleet.step"] for span in mine} >= steps else set()

    await until(told_steps, within_s=20, why="every step has its span")
    found = await of_story(spans, story_id, root.trace_id, until_closed=True)

    assert connected(found) == {"story"}
    assert {span.place: repr(span) for span in found if span.name == "story"}.keys() == {(root.trace_id, root.span_id)}
    # Whoever tells a span of the log again tells the same.
    trunk = [span for span in found if span.name == "story" or span.name.startswith(("step ", "council"))]
    told = {(span.place, span.parent, span.name, span.start_ns, span.end_ns, str(span.attributes)) for span in trunk}
    assert len(told) == len({span.place for span in trunk})
    assert {span.attributes["fleet.step"] for span in trunk if span.name.startswith("step ")} == steps
    kinds = {span.name.split()[0] for span in found}
    assert {"POST", "story", "council", "step", "role", "chat", "sandbox", "run", "context"} <= kinds
    assert len({span.process for span in found}) >= 6
    assert all(header["x-key"] == "k1" for header in spans.headers if "x-key" in header)
    _nothing_secret(spans, repo, fleet)


def _nothing_secret(spans: Collector, repo: Path, fleet: RayFleet) -> None:
    text = json.dumps(spans.documents)
    story = demo_story()
    for word in (story["title"], story["description"], read_token(fleet.home), fleet.redis_url, str(repo), RECORDED):
        assert word not in text
    keys = {key for span in spans.spans() for key in span.attributes}
    assert {key for key in keys if not key.startswith(("fleet.", "http.", "gen_ai."))} == set()


@pytest.mark.rule("AP-8")
async def test_story_of_a_caller_with_a_trace_is_in_that_trace(fleet: RayFleet, spans: Collector) -> None:
    async with fleet.client() as client:
        http, telemetry = front(fleet, client, spans)
        text = {**demo_story(), "title": "As a reader, I want a story that belongs to a trace"}
        headers = {"Idempotency-Key": "create-2", "traceparent": SENT}
        created = await http.post(STORIES, json=text, headers=headers)
        assert created.status_code == 201, created.text
        assert created.headers["traceparent"] == SENT
        story_id = StoryId(created.json()["story_id"])
        await http.aclose()
        telemetry.close()
    found = await until(
        lambda: {s.name: s for s in spans.spans() if s.trace_id == CALLER and s.process != "gateway"} and spans.spans(),
        within_s=20,
        why="the owner told the story",
    )
    mine = {span.name: span for span in found if span.trace_id == CALLER}
    assert mine[f"POST {STORIES}"].parent == "00f067aa0ba902b7"
    assert mine["story"].parent == mine[f"POST {STORIES}"].span_id
    assert mine["story"].attributes["fleet.story"] == story_id


async def exported(fleet: RayFleet) -> str:
    async with httpx2.AsyncClient() as client:
        pages = [await client.get(url) for url in fleet.metrics()]
    return "\n".join(page.text for page in pages)


@pytest.mark.rule("AP-120")
async def test_metrics_of_the_nodes_are_those_of_the_catalogue(fleet: RayFleet, delivered: StoryId) -> None:
    wanted = {
        "ray_fleet_log_appends_total",
        "ray_fleet_events_total",
        "ray_fleet_step_seconds_bucket",
        "ray_fleet_council_stories",
        "ray_fleet_commands_waiting",
        "ray_fleet_runs_total",
        "ray_fleet_pack_seconds_count",
        "ray_fleet_council_votes_total",
    }

    async def complete() -> set[str]:
        found = set(re.findall(r"^(ray_fleet_\w+)\{", await exported(fleet), re.MULTILINE))
        return found if wanted <= found else set()

    found = await until(complete, within_s=400, why=f"{wanted} are exported")
    known = {name for metric in CATALOGUE.values() for name in exported_names(metric)}
    assert found <= known, found - known


def test_log_lines_of_the_actors_are_json_that_names_story_and_step(fleet: RayFleet, delivered: StoryId) -> None:
    lines = [line for path in fleet.logs().glob("worker-*.err") for line in path.read_text().splitlines()]
    ours = [json.loads(line) for line in lines if line.startswith('{"ts"')]
    finished = [line for line in ours if line["message"].startswith("step finished")]
    assert delivered in {line["story"] for line in finished}
    assert all(line["story"].startswith("st-") and line["step"] and len(line["trace_id"]) == 32 for line in finished)
    assert {line["process"].split(":")[0] for line in ours} >= {"council"}
