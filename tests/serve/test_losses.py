"""Giving up over HTTP what a stream lost: by an admin, signed, once per key (AP-95, EV-19)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from fleet.audit.files.ed25519 import Ed25519Verifier
from fleet.audit.service.notary import Notary
from fleet.config.settings import ServeSettings
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.events.envelope import Head
from fleet.kernel.ids import Principal, StreamId
from serve_apps.routes.gateway import build_gateway
from tests.support.audit import SIGNER
from tests.support.bench import World
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import STORY
from tests.support.tool_front import DEV, REGISTRY, ROOT, ToolFront, keyed, tool_front

WHY = {"reason": "the disk of the store died"}
STREAM = StreamId.of_story(STORY)
URL = f"/api/streams/{STREAM}/accept-loss"


@pytest.fixture
async def at() -> AsyncIterator[ToolFront]:
    """A story in BUILD that its owner takes commands for."""
    async with tool_front() as front:
        yield front


def _notary(world: World) -> Notary:
    return Notary(
        world.log,
        world.raw,
        world.checkpoints,
        world.exported,
        signer=SIGNER,
        verifier=Ed25519Verifier(),
        clock=world.clock,
    )


async def _loses(at: ToolFront, *, by: int) -> int:
    """The attested story went back by so many events, and the notary noticed; the version where it stands now."""
    world = at.world
    await _notary(world).checkpoint()
    entries = (await world.raw.entries(STREAM, limit=10_000))[:-by]
    world.raw.tampered[STREAM] = entries
    world.raw.heads[STREAM] = Head(len(entries), entries[-1].fields["h"].decode())
    (finding,) = (await _notary(world).checkpoint()).findings
    assert (finding.subject, list(await world.log.refused())) == (STREAM, [STREAM])
    return len(entries)


async def _post(
    at: ToolFront, body: Any = WHY, *, number: int = 1, who: dict[str, str] = ROOT, url: str = URL
) -> httpx2.Response:
    return await at.client.post(url, json=body, headers=keyed(number, who))


def _refused(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return response.json()


@pytest.mark.rule("AP-95", "EV-19", "AP-2")
async def test_admin_gives_up_what_a_story_lost_and_the_record_is_signed(at: ToolFront):
    present = await _loses(at, by=2)
    done = await _post(at)
    assert done.status_code == 200, done.text
    view = done.json()
    assert (view["stream"], view["is_new"], view["lost"]) == (STREAM, True, 2)
    assert (view["present"], view["attested"], view["kept"]) == (present, present + 2, 0)
    assert (view["accepted_by"], view["reason"]) == ("user:root", WHY["reason"])
    assert view["refusal"].startswith("rolled back: ")
    assert await at.world.log.refused() == {}
    (note,) = await at.world.checkpoints.losses()
    loss = SIGNER.ring.open_loss(note, Ed25519Verifier().check)
    assert (loss.accepted_by, loss.command_id) == ("user:root", "user:root/key-number-1")
    assert list(await at.world.exported.losses()) == [note]
    assert (await _notary(at.world).checkpoint()).findings == ()


@pytest.mark.rule("AP-2", "EV-19")
async def test_same_key_accepts_once_and_nothing_that_was_lost_later(at: ToolFront):
    await _loses(at, by=1)
    first = (await _post(at, url=f"/api/streams/{STORY}/accept-loss")).json()
    assert (await _post(at, url=f"/api/streams/{STORY}/accept-loss")).json() == first
    await _loses(at, by=1)
    # The stored answer is gone after a day; the command comes to the desk again then.
    command = Principal("user:root"), "user:root/key-number-1"
    again = await at.world.losses.accept(STREAM, by=command[0], reason=WHY["reason"], command_id=command[1])  # pyright: ignore[reportArgumentType]
    assert (again.is_new, again.loss.present.version) == (False, first["present"])
    assert list(await at.world.log.refused()) == [STREAM]
    assert len(await at.world.checkpoints.losses()) == 1
    assert (await _post(at, number=2)).json()["present"] == first["present"] - 1
    assert await at.world.log.refused() == {}


@pytest.mark.rule("EV-19")
async def test_command_that_died_before_the_stream_was_opened_goes_on(at: ToolFront):
    await _loses(at, by=1)
    (why,) = (await at.world.log.refused()).values()
    first = await _post(at)
    await at.world.log.refuse(STREAM, reason=why)
    again = await at.world.losses.accept(
        STREAM,
        by=Principal("user:root"),
        reason=WHY["reason"],
        command_id="user:root/key-number-1",  # pyright: ignore[reportArgumentType]
    )
    assert (again.is_new, first.json()["is_new"]) == (False, True)
    assert await at.world.log.refused() == {}
    assert len(await at.world.checkpoints.losses()) == 1


@pytest.mark.rule("AP-95", "AP-36", "LC-11")
async def test_what_is_no_loss_and_who_may_not_are_refused_and_nothing_is_signed(at: ToolFront):
    assert _refused(await _post(at, who=DEV), 403, "policy_denied")["rule_id"] == "AP-95"
    assert (await at.client.post(URL, json=WHY)).status_code == 401
    assert (await at.client.post(URL, json=WHY, headers=ROOT)).json()["code"] == "idempotency_key_required"
    for number, body in enumerate(({}, {"reason": "short"}, WHY | {"force": True}, {"reason": " " * 10}), 10):
        _refused(await _post(at, body, number=number), 422, "invalid_input")
    for number, name in enumerate(("story:pr-a", "nothing", "log:main"), 20):
        _refused(await _post(at, number=number, url=f"/api/streams/{name}/accept-loss"), 422, "invalid_input")
    for number, name in enumerate((STREAM, "platform:main", "st-none1"), 30):
        told = _refused(
            await _post(at, number=number, url=f"/api/streams/{name}/accept-loss"), 409, "invalid_transition"
        )
        assert "was lost" in told["detail"]
    assert await at.world.checkpoints.losses() == []


@pytest.mark.rule("CX-60")
async def test_secret_in_a_reason_is_not_signed(at: ToolFront):
    await _loses(at, by=1)
    token = "ghp_" + "a1B2" * 9
    view = (await _post(at, {"reason": f"it leaked {token} somewhere"})).json()
    (note,) = await at.world.checkpoints.losses()
    assert token not in view["reason"]
    assert token not in note


@pytest.mark.rule("AP-4")
async def test_acceptance_without_a_shard_waits_for_one(at: ToolFront):
    await _loses(at, by=1)
    await at.lose_owner()
    pending = await _post(at)
    assert (pending.status_code, pending.json()["status"]) == (202, "pending")
    async with at.owner():
        answer = await at.world.inbox.answer(pending.json()["command_id"], timeout_s=10)
    assert answer is not None
    assert (answer.ok, await at.world.log.refused()) == (True, {})


@pytest.mark.rule("AP-1", "AP-25")
async def test_admin_of_chosen_projects_gives_up_streams_of_those_alone(at: ToolFront):
    def app_of(project: str) -> httpx2.AsyncClient:
        chosen = PrincipalEntry(
            principal=Principal("user:root"),
            roles=frozenset({"admin"}),
            projects=frozenset({project}),
            token_sha256=hash_token("root-token"),
        )
        settings = files().load("serve.yaml", ServeSettings)
        app = build_gateway(at.world.desk, PrincipalRegistry((chosen,)), settings, parts=front_parts(at.world))
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet")

    async with app_of("pr-shop") as client:
        for number, name in enumerate((STREAM, "st-none1", "project:pr-default"), 1):
            found = await client.post(f"/api/streams/{name}/accept-loss", json=WHY, headers=keyed(number, ROOT))
            _refused(found, 404, "not_found")
        whole = await client.post("/api/streams/platform:main/accept-loss", json=WHY, headers=keyed(9, ROOT))
        assert _refused(whole, 403, "policy_denied")["rule_id"] == "project_not_held"
    async with app_of("pr-default") as client:
        for number, name in enumerate((STREAM, "project:pr-default"), 11):
            found = await client.post(f"/api/streams/{name}/accept-loss", json=WHY, headers=keyed(number, ROOT))
            _refused(found, 409, "invalid_transition")


async def test_front_without_commands_on_the_fleet_says_so():
    world = World()
    parts = replace(front_parts(world), platform=None)
    app = build_gateway(world.desk, REGISTRY, files().load("serve.yaml", ServeSettings), parts=parts)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
        _refused(await client.post(URL, json=WHY, headers=keyed(1, ROOT)), 503, "store_unavailable")
