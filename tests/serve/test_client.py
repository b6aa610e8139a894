"""The Python client: its types and methods are those of the OpenAPI document, and it works against a real front."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path

import pytest

from fleet.config.settings import ServeSettings
from scripts import client as generator
from serve_apps.routes.gateway import build_gateway
from swe_fleet_client import FleetClient
from swe_fleet_client.calling import FleetProblem
from tests.support.bench import World
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import STORY, story
from tests.support.tool_front import REGISTRY, serving, tool_front

DOCUMENT = json.loads(generator.OPENAPI.read_text())


def test_client_has_a_method_for_every_operation():
    operations = [found["operationId"] for item in DOCUMENT["paths"].values() for found in item.values()]
    methods = [n for n, _ in inspect.getmembers(FleetClient, inspect.isfunction) if not n.startswith("_")]
    # The stream of events is `watch`.
    assert len(set(methods) - {"watch", "close"}) == len(operations) - 1


@pytest.fixture
async def url() -> AsyncIterator[str]:
    world = World()
    await story(until="merged").write_to(world.log)
    app = build_gateway(world.desk, REGISTRY, files().load("serve.yaml", ServeSettings), parts=front_parts(world))
    async with serving(app) as found:
        yield found


async def test_client_reads_stories_files_and_events(url: str, tmp_path: Path):
    (tmp_path / "token").write_text("archie-token\n")

    def ask() -> None:
        with FleetClient.at_home(url, tmp_path) as fleet:
            (line,) = fleet.list_stories(limit=5)["items"]
            assert line["story_id"] == STORY
            assert fleet.list_stories(state=["DONE"])["items"] == []
            assert fleet.report(STORY, format="md").startswith(b"#")
            versions = [event["version"] for event in islice(fleet.watch(STORY, after=2), 4)]
            assert versions == [3, 4, 5, 6]

    await asyncio.to_thread(ask)


async def test_refusals_are_told_as_the_fleet_tells_them(url: str):
    def ask() -> None:
        with FleetClient(url, "dev-token") as fleet, pytest.raises(FleetProblem) as refused:
            fleet.show_story("../../healthz")
        assert (refused.value.status, refused.value.code) in ((404, "not_found"), (422, "invalid_input"))
        with FleetClient(url, "wrong") as fleet, pytest.raises(FleetProblem) as refused:
            next(fleet.watch(STORY))
        assert (refused.value.status, refused.value.code) == (401, "unauthenticated")
        with FleetClient("http://127.0.0.1:1", "x") as fleet, pytest.raises(FleetProblem, match="does not answer"):
            fleet.me()

    await asyncio.to_thread(ask)


@pytest.mark.rule("AP-2")
async def test_command_is_carried_out_once_for_each_key():
    async with tool_front() as front, serving(front.app) as url:

        def ask() -> None:
            with FleetClient(url, "dev-token") as fleet:
                before = len(fleet.questions(STORY)["items"])
                for key in ("key-number-1", "key-number-1", None):
                    fleet.ask_question(STORY, body={"text": "Which alphabet?", "severity": "normal"}, key=key)
                assert len(fleet.questions(STORY)["items"]) == before + 2

        await asyncio.to_thread(ask)
