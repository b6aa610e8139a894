"""What runs in an environment over HTTP and on the command line, and its end by hand (LC-49)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import httpx2
import pytest

from fleet.cli.cluster.deployments import Front, end_environment, list_environments
from fleet.cli.output import Output
from fleet.config.settings import ServeSettings
from fleet.deploy.memory import MemoryDeployments
from fleet.deploy.port import Occupancy, Standing
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.kernel.errors import (
    ConfigError,
    InvalidTransition,
    NotFound,
    PolicyDenied,
    SandboxUnavailable,
    StoreUnavailable,
)
from fleet.kernel.ids import Principal, RunKey, StoryId
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import PEOPLE, World
from tests.support.environments import BEFORE, NOW, URL, WHY, placed, site
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import MERGED, STORY
from tests.support.tool_front import DEV, REGISTRY, ROOT, keyed, serving


def _refused(response: httpx2.Response, status: int, code: str) -> str:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return response.json()["detail"]


@pytest.mark.rule("LC-49")
async def test_list_says_what_runs_of_which_story_since_when():
    async with site() as at:
        assert await at.shown() == {
            "environment": "preview",
            "kind": "process",
            "is_running": True,
            "answers": True,
            "since": "2026-01-02T03:04:05.000Z",
            "revision": NOW,
            "previous": BEFORE,
            "story_id": STORY,
            "deployment_id": "dp-first1",
            "tree": MERGED,
            "is_healthy": None,
            "port": 18_080,
            "ended": None,
        }


@pytest.mark.rule("LC-49", "AP-2")
async def test_stop_ends_it_once_with_who_and_why_on_record_and_parks_the_story_that_watches_it():
    async with site() as at:
        stopped = await at.end("stop")
        assert stopped.status_code == 200, stopped.text
        told = f"user:root stopped it by hand: {WHY}"
        view = stopped.json()
        assert (view["is_running"], view["revision"], view["port"], view["ended"]) == (False, None, None, told)
        assert (await at.deployments.standing("preview")).status == "nothing"
        first, last = await at.recorded()
        assert (first.status, last.status, last.detail) == ("succeeded", "rolled_back", told)
        state = await at.world.desk.state(STORY)
        assert state.park is not None
        assert told in state.park.detail
        # The same request again, after another story was deployed there: the same answer, and nothing is ended twice.
        await at.deployments.deploy(placed(RunKey("c" * 64), StoryId("st-later")))
        assert (await at.end("stop")).status_code == 200
        assert (await at.deployments.standing("preview")).key == "c" * 64
        assert len(await at.recorded()) == 2
        _refused(await at.end("stop", number=2), 409, "invalid_transition")


@pytest.mark.rule("LC-49")
async def test_rollback_lets_what_ran_before_run_again():
    async with site() as at:
        back = await at.end("rollback")
        assert back.status_code == 200, back.text
        assert (back.json()["revision"], back.json()["previous"]) == (BEFORE, None)
        # Whose story is not in the log is told to nobody, and it has no record to write to.
        assert back.json()["story_id"] is None
        assert back.json()["ended"] == f"user:root rolled it back by hand: {WHY}"
        assert [d.status for d in await at.recorded()] == ["succeeded", "rolled_back"]


@pytest.mark.rule("LC-49")
async def test_rollback_without_anything_to_go_back_to_or_to_what_does_not_start_changes_nothing():
    async with site() as at:
        await at.deployments.stop("preview")
        await at.deployments.deploy(placed(NOW))
        assert "stop what runs there instead" in _refused(await at.end("rollback"), 409, "invalid_transition")
    broken: list[str] = []
    deployments = MemoryDeployments(starts=lambda _: broken[0] if broken else None)
    async with site(deployments=deployments) as at:
        broken.append("the program ended with 3")
        told = _refused(await at.end("rollback"), 409, "invalid_transition")
        assert told == "what ran in preview before does not start: the program ended with 3"
        assert (await at.deployments.standing("preview")).key == NOW
        assert [d.status for d in await at.recorded()] == ["succeeded"]


@pytest.mark.rule("LC-49", "AP-7")
async def test_rollback_to_a_port_that_somebody_has_is_refused_and_no_fault_of_the_front():
    class Taken(MemoryDeployments):
        async def roll_back(self, environment: str, *, failed: RunKey, told: str = "") -> Standing:
            raise ConfigError("port 18081 of this node cannot be used", port=18_081)

    async with site(deployments=Taken()) as at:
        told = _refused(await at.end("rollback"), 409, "invalid_transition")
        assert told == "what ran in preview before cannot start: port 18081 of this node cannot be used"
        assert [d.status for d in await at.recorded()] == ["succeeded"]


@pytest.mark.rule("LC-49", "AP-2")
async def test_request_whose_front_died_before_the_story_was_told_is_carried_through_when_it_comes_again():
    async with site() as at:
        await at.deployments.stop("preview", only=NOW, told=f"user:root stopped it by hand: {WHY}")
        assert (await at.end("stop")).status_code == 200
        assert [d.status for d in await at.recorded()] == ["succeeded", "rolled_back"]


@pytest.mark.rule("LC-49")
async def test_what_came_meanwhile_is_left_alone_and_so_is_what_is_not_on_record_yet():
    async with site() as at:
        await at.deployments.deploy(placed(RunKey("c" * 64), StoryId("st-later")))
        told = _refused(await at.end("stop"), 409, "invalid_transition")
        assert told == f"preview runs {'c' * 64}, of st-later, and not what was named"
        assert (await at.deployments.standing("preview")).key == "c" * 64
    async with site(is_recorded=False) as at:
        assert "is just being deployed" in _refused(await at.end("stop"), 409, "invalid_transition")
        assert (await at.deployments.standing("preview")).key == NOW


@pytest.mark.rule("AP-36", "AP-1", "LC-11", "GL-14")
async def test_bad_request_is_refused_and_changes_nothing():
    async with site() as at:
        for who in (DEV, {"Authorization": "Bearer quinn-token"}):
            assert (await at.client.get(URL, headers=who)).json()["code"] == "policy_denied"
            _refused(await at.end("stop", who=who), 403, "policy_denied")
        assert (await at.client.post(f"{URL}/preview/stop", json={})).status_code == 401
        unkeyed = await at.client.post(f"{URL}/preview/stop", json={"reason": WHY, "revision": NOW}, headers=ROOT)
        _refused(unkeyed, 400, "idempotency_key_required")
        bodies = ({"reason": "short"}, {"revision": ""}, {"revision": "../x"}, {"revision": 7}, {"colour": "red"})
        for number, body in enumerate(bodies, 10):
            _refused(await at.end("stop", number=number, **body), 422, "invalid_input")
        _refused(await at.end("stop", number=20, revision="d" * 64), 404, "not_found")
        elsewhere = await at.client.post(
            f"{URL}/elsewhere/stop", json={"reason": WHY, "revision": NOW}, headers=keyed(21, ROOT)
        )
        _refused(elsewhere, 404, "not_found")
        assert (await at.deployments.standing("preview")).key == NOW
        assert [d.status for d in await at.recorded()] == ["succeeded"]


@pytest.mark.rule("AP-25")
async def test_environment_of_a_project_that_is_hidden_looks_as_if_it_were_not_there():
    chosen = PrincipalEntry(
        principal=Principal("user:root"),
        roles=PEOPLE["user:root"],
        projects=frozenset({"pr-shop"}),
        token_sha256=hash_token("root-token"),
    )
    async with site(registry=PrincipalRegistry((chosen,))) as at:
        assert (await at.client.get(URL, headers=ROOT)).json() == {"items": []}
        hidden = _refused(await at.end("stop"), 404, "not_found")
        assert hidden == _refused(await at.end("stop", number=2, revision="d" * 64), 404, "not_found").replace(
            "d" * 64, NOW
        )
        assert (await at.deployments.standing("preview")).key == NOW


@pytest.mark.rule("CX-60")
async def test_secret_in_a_reason_is_kept_nowhere():
    token = "ghp_" + "a1B2" * 9
    async with site() as at:
        view = (await at.end("stop", reason=f"it printed {token} to its log")).json()
        assert token not in view["ended"]
        assert "it printed" in view["ended"]
        assert all(token.encode() not in event.body for event in await at.world.events())


async def test_front_without_environments_and_a_node_that_is_away_say_so():
    world = World()
    parts = replace(front_parts(world), deployments=None)
    app = build_gateway(world.desk, REGISTRY, files().load("serve.yaml", ServeSettings), parts=parts)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
        _refused(await client.get(URL, headers=ROOT), 503, "sandbox_unavailable")

    class Away(MemoryDeployments):
        async def occupancy(self, environment: str) -> Occupancy:
            raise SandboxUnavailable("the node is away", missing="answer")

    async with site(deployments=Away()) as at:
        _refused(await at.client.get(URL, headers=ROOT), 503, "sandbox_unavailable")
        _refused(await at.end("stop"), 503, "sandbox_unavailable")


# The command line, over real HTTP.


@pytest.mark.rule("LC-49")
@pytest.mark.door(
    "fleet deploy stop",
    "fleet deploy rollback",
    stand_in="a front, an owner and environments in one process: the packaged fleet deploys nowhere",
)
async def test_command_line_lists_and_ends(capsys: pytest.CaptureFixture[str]):
    async with site() as at, serving(at.app) as url:
        front = Front(url, "root-token")
        assert await asyncio.to_thread(list_environments, Output(as_json=False), front=front) == 0
        told = capsys.readouterr().out
        assert "preview" in told
        assert STORY in told
        await asyncio.to_thread(
            end_environment, Output(as_json=True), "preview", "rollback", reason=WHY, revision=NOW, front=front
        )
        assert json.loads(capsys.readouterr().out)["revision"] == BEFORE
        assert [d.status for d in await at.recorded()] == ["succeeded", "rolled_back"]
        await asyncio.to_thread(list_environments, Output(as_json=True), front=front)
        (line,) = json.loads(capsys.readouterr().out)["environments"]
        assert line["ended"] == f"user:root rolled it back by hand: {WHY}"


@pytest.mark.rule("LC-49")
async def test_command_line_says_what_was_refused():
    async with site() as at, serving(at.app) as url:
        front, silent = Front(url, "root-token"), Output(as_json=True)

        async def ended(environment: str, *, of: Front = front, reason: str = WHY, revision: str | None = None) -> None:
            await asyncio.to_thread(
                end_environment, silent, environment, "stop", reason=reason, revision=revision, front=of
            )

        with pytest.raises(NotFound, match="fleet deploy list"):
            await ended("elsewhere")
        with pytest.raises(PolicyDenied):
            await ended("preview", of=Front(url, "dev-token"))
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await ended("preview", of=Front("http://127.0.0.1:9", "root-token"))
        assert (await at.deployments.standing("preview")).key == NOW
        await ended("preview")
        with pytest.raises(InvalidTransition, match="nothing runs in preview"):
            await ended("preview")
