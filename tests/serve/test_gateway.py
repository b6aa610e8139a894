"""The REST front in process: authentication, idempotency, problems, stories and their events (AP-1..AP-103)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send

from fleet.config.settings import ServeSettings
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.events.story import StoryCancelled
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import FleetError, all_error_classes
from fleet.kernel.ids import CommandId, Principal, StoryId, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import Answer, Command
from fleet.owner.shard import CouncilShard
from serve_apps.bounds import RequestBounds, is_deep
from serve_apps.problems import HTTP_STATUS
from serve_apps.routes.gateway import build_gateway
from serve_apps.stream.routes import event_frames, frame, resume_point
from tests.support.bench import STORY_TEXT, World
from tests.support.rules import files
from tests.support.story_events import STORY, StoryLog, created_payload, story

ANA = {"Authorization": "Bearer ana-token"}
DEV = {"Authorization": "Bearer dev-token"}
REGISTRY = PrincipalRegistry(
    (
        PrincipalEntry(principal=Principal("user:ana"), roles=frozenset({"po"}), token_sha256=hash_token("ana-token")),
        PrincipalEntry(
            principal=Principal("user:dev"), roles=frozenset({"developer"}), token_sha256=hash_token("dev-token")
        ),
    )
)
STORIES = "/api/planner/stories"


def keyed(number: int = 1, who: dict[str, str] = ANA) -> dict[str, str]:
    return who | {"Idempotency-Key": f"key-number-{number}"}


class Front:
    """A client of the front, over the world's stores."""

    def __init__(self, world: World, client: httpx2.AsyncClient) -> None:
        self.world, self.client = world, client

    async def create(self, *, number: int = 1, **changes: Any) -> dict[str, Any]:
        response = await self.client.post(STORIES, json=STORY_TEXT | changes, headers=keyed(number))
        assert response.status_code == 201, response.text
        return response.json()


@asynccontextmanager
async def front(*, with_owner: bool = True) -> AsyncIterator[Front]:
    """The front; with an owner, one shard answers its commands."""
    world = World(clock=SystemClock())
    settings = files().load("serve.yaml", ServeSettings)
    transport = httpx2.ASGITransport(app=build_gateway(world.desk, REGISTRY, settings))
    shard = CouncilShard(
        name="council:0",
        incarnation="a1",
        log=world.log,
        leases=world.leases,
        inbox=world.inbox,
        clock=world.clock,
        make_bench=world.bench,
        commands=world.commands,
    )
    task = asyncio.create_task(shard.run()) if with_owner else None
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://fleet") as client:
            yield Front(world, client)
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await shard.drain()


def problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["type"] == f"urn:swe-fleet:problem:{code}"
    assert {"title", "detail", "instance", "retry", "errors"} <= set(body)
    return body


@pytest.mark.rule("AP-47")
def test_every_error_class_has_exactly_one_row():
    # Another test of this process may have made a class of its own, which nothing has collected yet.
    ours = [cls for cls in all_error_classes() if cls.__module__.startswith("fleet.")]
    assert {cls.code for cls in ours} == set(HTTP_STATUS)


@pytest.mark.rule("AP-1", "AP-22")
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic ana-token"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", STORIES),
        ("POST", STORIES),
        ("GET", f"{STORIES}/{STORY}"),
        ("GET", f"/api/events/stream?storyId={STORY}"),
    ],
)
async def test_request_without_a_known_token_is_nobody(headers: dict[str, str], method: str, path: str):
    async with front(with_owner=False) as at:
        response = await at.client.request(method, path, headers=headers)
        problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"] == "Bearer"


async def test_health_needs_no_token():
    async with front(with_owner=False) as at:
        assert (await at.client.get("/healthz")).json() == {"status": "ok"}
        assert (await at.client.get("/readyz")).json() == {"status": "ready"}


@pytest.mark.rule("AP-3", "AP-53")
async def test_created_story_is_shown_with_its_score_and_version():
    async with front() as at:
        response = await at.client.post(STORIES, json=STORY_TEXT, headers=keyed())
        body = response.json()
        assert (response.status_code, body["state"], body["rigor"]) == (201, "DRAFT", "L1")
        assert response.headers["etag"] == f'"v{body["version"]}"'
        assert body["score"]
        shown = await at.client.get(f"{STORIES}/{body['story_id']}", headers=ANA)
        assert shown.json()["title"] == STORY_TEXT["title"]
        assert shown.headers["x-fleet-as-of"] == str(shown.json()["version"])


@pytest.mark.rule("AP-2")
async def test_same_key_creates_once_and_another_person_may_use_it_too():
    async with front() as at:
        first = await at.create()
        again = await at.create()
        assert first["story_id"] == again["story_id"]
        assert len(await at.world.log.streams()) == 1
        denied = await at.client.post(STORIES, json=STORY_TEXT, headers=keyed(1, DEV))
        assert problem(denied, 403, "policy_denied")["rule_id"] == "LC-11"


@pytest.mark.rule("AP-2", "AP-37")
async def test_same_key_for_another_request_is_refused_and_changes_nothing():
    async with front() as at:
        created = await at.create()
        other = await at.client.post(STORIES, json=STORY_TEXT | {"title": "Another title of a story"}, headers=keyed())
        problem(other, 422, "idempotency_mismatch")
        url = f"{STORIES}/{created['story_id']}"
        problem(
            await at.client.post(f"{url}/transition", json={"event": "approve_scope"}, headers=keyed()),
            422,
            "idempotency_mismatch",
        )
        shown = (await at.client.get(url, headers=ANA)).json()
        assert (shown["title"], shown["version"]) == (created["title"], created["version"])


@pytest.mark.rule("AP-2", "AP-37")
async def test_same_key_after_a_refusal_repeats_the_refusal_for_the_same_request_alone():
    async with front() as at:
        for _ in range(2):
            problem(await at.client.post(STORIES, json={"title": ""}, headers=keyed()), 422, "invalid_input")
        problem(await at.client.post(STORIES, json=STORY_TEXT, headers=keyed()), 422, "idempotency_mismatch")
        assert await at.world.log.streams() == []


@pytest.mark.rule("AP-2", "AP-21")
@pytest.mark.parametrize(
    ("key", "code"),
    [
        (None, "idempotency_key_required"),
        ("short", "malformed_request"),
        ("x" * 129, "malformed_request"),
        ("with a space", "malformed_request"),
    ],
)
async def test_key_that_is_missing_or_of_another_form_is_refused(key: str | None, code: str):
    async with front(with_owner=False) as at:
        headers = ANA | ({} if key is None else {"Idempotency-Key": key})
        problem(await at.client.post(STORIES, json=STORY_TEXT, headers=headers), 400, code)


@pytest.mark.rule("AP-7", "AP-36", "GL-15")
async def test_story_with_problems_lists_every_pointer():
    async with front() as at:
        response = await at.client.post(STORIES, json={"title": "", "stray": 1, "priority": 11}, headers=keyed())
        body = problem(response, 422, "invalid_input")
        assert {e["pointer"] for e in body["errors"]} == {"/title", "/stray", "/priority"}
        assert await at.world.log.streams() == []


@pytest.mark.rule("AP-9", "AP-20")
@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000], ids=["cut", "no-utf8", "deep"])
async def test_body_that_is_no_json_is_malformed(content: bytes):
    async with front(with_owner=False) as at:
        headers = keyed() | {"Content-Type": "application/json"}
        problem(await at.client.post(STORIES, content=content, headers=headers), 400, "malformed_request")


@pytest.mark.rule("AP-9", "AP-20")
@pytest.mark.parametrize("depth", [65, 450, 500, 900, 985, 990])
@pytest.mark.parametrize("path", [STORIES, f"{STORIES}/{STORY}/transition", "/mcp", "/api/tools/sessions/s-1/invoke"])
async def test_body_that_is_nested_too_deep_is_malformed_whatever_would_read_it(path: str, depth: int):
    async with front(with_owner=False) as at:
        headers = keyed() | {"Content-Type": "application/json"}
        content = b'{"title": "[[", "args": ' + b"[" * (depth - 1) + b'"x"' + b"]" * (depth - 1) + b"}"
        response = await at.client.post(path, content=content, headers=headers)
        assert "nested more than 64 levels" in problem(response, 400, "malformed_request")["detail"]


def test_depth_of_a_body_counts_no_text_and_no_neighbours():
    assert not is_deep(b"[" * 64 + b"]" * 64)
    assert is_deep(b"[" * 65 + b"]" * 65)
    assert is_deep(b'{"a":' * 65 + b"1" + b"}" * 65)
    assert not is_deep(b"[" + b"[]," * 500 + b"[]]")
    assert not is_deep(b'["' + b"[{" * 500 + b'\\"' + b"[{" * 500 + b'"]')


@pytest.mark.rule("AP-9", "AP-20")
async def test_body_of_a_command_that_is_no_json_is_malformed():
    async with front(with_owner=False) as at:
        headers = keyed() | {"Content-Type": "application/json"}
        response = await at.client.post(f"{STORIES}/{STORY}/transition", content=b"{", headers=headers)
        problem(response, 400, "malformed_request")


@pytest.mark.rule("AP-9", "AP-34")
async def test_body_over_the_limit_is_too_large():
    async with front(with_owner=False) as at:
        headers = keyed() | {"Content-Type": "application/json"}
        response = await at.client.post(STORIES, content=b" " * 1_048_577, headers=headers)
        problem(response, 413, "payload_too_large")


@pytest.mark.rule("AP-9", "AP-34")
@pytest.mark.parametrize(("chunks", "taken"), [(20, 17), (1000, 17)])
async def test_chunked_body_over_the_limit_is_too_large_and_is_not_read_to_its_end(chunks: int, taken: int):
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(chunks):
            sent += 1
            yield b" " * 65_536

    async with front(with_owner=False) as at:
        headers = keyed() | {"Content-Type": "application/json"}
        problem(await at.client.post(STORIES, content=body(), headers=headers), 413, "payload_too_large")
        assert sent == taken


@pytest.mark.rule("AP-9")
async def test_chunked_body_within_the_limit_is_read_whole():
    whole = json.dumps(STORY_TEXT).encode()

    async def body() -> AsyncIterator[bytes]:
        yield whole[:7]
        yield whole[7:]

    async with front() as at:
        headers = keyed() | {"Content-Type": "application/json"}
        response = await at.client.post(STORIES, content=body(), headers=headers)
        assert (response.status_code, response.json()["title"]) == (201, STORY_TEXT["title"])


@pytest.mark.rule("AP-9", "AP-20")
@pytest.mark.parametrize(
    ("path", "content"),
    [
        (STORIES, b'{"title": "one", "title": "two"}'),
        (STORIES, b'{"constraints": {"paths": [], "paths": ["a"]}}'),
        (f"{STORIES}/{STORY}/transition", b'{"event": "approve_scope", "event": "docs_ready"}'),
    ],
)
async def test_key_that_stands_twice_is_malformed(path: str, content: bytes):
    async with front(with_owner=False) as at:
        headers = keyed() | {"Content-Type": "application/json"}
        body = problem(await at.client.post(path, content=content, headers=headers), 400, "malformed_request")
        assert "stands twice" in body["detail"]


@pytest.mark.rule("AP-7")
async def test_method_that_a_path_does_not_know_has_the_same_status_in_body_and_answer():
    async with front(with_owner=False) as at:
        response = await at.client.put(f"{STORIES}/{STORY}", json={}, headers=keyed())
        problem(response, 405, "malformed_request")
        assert response.headers["allow"] == "GET"


async def test_length_that_is_no_number_is_malformed():
    async with front(with_owner=False) as at:
        headers = keyed() | {"Content-Length": "many"}
        problem(await at.client.post(STORIES, content=b"{}", headers=headers), 400, "malformed_request")


class BrokenLog(MemoryEventLog):
    """A log with a fault of its own, whose text must not reach a caller."""

    async def streams(self) -> list[StreamId]:
        raise RuntimeError("connection to 10.0.0.7 lost")


@pytest.mark.rule("AP-7")
async def test_unexpected_fault_is_a_problem_without_its_inside(caplog: pytest.LogCaptureFixture):
    world = World(log=BrokenLog(), clock=SystemClock())
    app = build_gateway(world.desk, REGISTRY, files().load("serve.yaml", ServeSettings))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
        response = await client.get(STORIES, headers=ANA)
    body = problem(response, 500, "internal_error")
    assert "10.0.0.7" not in response.text
    assert set(body) == {"type", "title", "status", "detail", "instance", "code", "retry", "errors"}
    assert response.headers["cache-control"] == "no-store"
    assert "10.0.0.7" in caplog.text


@pytest.mark.rule("AP-7")
async def test_fault_of_the_owner_is_a_problem_without_its_inside(caplog: pytest.LogCaptureFixture):
    async with front(with_owner=False) as at:
        posted = asyncio.create_task(at.client.post(STORIES, json=STORY_TEXT, headers=keyed()))
        (delivery,) = await at.world.inbox.take("council:0/a1", timeout_s=60)
        fault = FleetError("command create_story failed with OSError: /srv/secret", place="10.0.0.7").to_wire()
        await at.world.inbox.acknowledge(delivery, Answer(ok=False, problem=fault))
        response = await posted
        later = await at.client.get("/api/commands/user:ana/key-number-1", headers=ANA)
    problem(response, 500, "internal_error")
    assert later.json()["problem"]["code"] == "internal_error"
    for said in (response.text, later.text):
        assert "secret" not in said
        assert "10.0.0.7" not in said
    assert "/srv/secret" in caplog.text


async def test_fault_after_the_first_byte_is_raised():
    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("too late")

    app = RequestBounds(half, max_body_bytes=10)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
        with pytest.raises(RuntimeError, match="too late"):
            await client.get("/")


async def test_client_that_leaves_in_the_middle_of_its_body_is_passed_on():
    seen: list[Message] = []

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())

    arriving: list[Message] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return arriving.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError(message)

    scope: Scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await RequestBounds(behind, max_body_bytes=10)(scope, receive, send)
    assert seen == [{"type": "http.disconnect"}]


@pytest.mark.rule("AP-9", "AP-35")
async def test_body_of_another_type_is_refused():
    async with front(with_owner=False) as at:
        response = await at.client.post(STORIES, content=b"title: x", headers=keyed() | {"Content-Type": "text/yaml"})
        problem(response, 415, "unsupported_media_type")


@pytest.mark.rule("AP-7", "AP-25")
@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"{STORIES}/{STORY}", 404, "not_found"),
        ("/api/nothing/here", 404, "not_found"),
        (f"{STORIES}/Not%20An%20Id", 422, "invalid_input"),
        ("/api/commands/user:bo/key-number-1", 404, "not_found"),
    ],
)
async def test_thing_that_is_not_there_is_a_problem_document(path: str, status: int, code: str):
    async with front(with_owner=False) as at:
        body = problem(await at.client.get(path, headers=ANA), status, code)
        assert "Traceback" not in json.dumps(body)


@pytest.mark.rule("LC-6", "LC-4", "AP-36", "AP-27")
async def test_transition_takes_no_claim_about_a_guard():
    async with front() as at:
        created = await at.create()
        url = f"{STORIES}/{created['story_id']}/transition"
        claimed = await at.client.post(url, json={"event": "approve_scope", "dor_ok": True}, headers=keyed(2))
        assert problem(claimed, 422, "invalid_input")["errors"][0]["pointer"] == "/dor_ok"
        closed = await at.client.post(url, json={"event": "approve_scope"}, headers=keyed(3))
        refused = problem(closed, 409, "gate_closed")
        guards = refused["guards"]
        assert refused["retry"] == "reload"
        assert "po_approved" in [g["name"] for g in guards if not g["ok"]]


@pytest.mark.rule("LC-3", "AP-26")
async def test_illegal_event_names_those_that_are_allowed():
    async with front() as at:
        created = await at.create()
        url = f"{STORIES}/{created['story_id']}/transition"
        body = problem(
            await at.client.post(url, json={"event": "docs_ready"}, headers=keyed(2)), 409, "invalid_transition"
        )
        assert (body["allowed"], body["retry"]) == (["approve_scope"], "reload")


async def test_gate_is_decided_by_name():
    async with front() as at:
        created = await at.create(hold=True)
        base = f"{STORIES}/{created['story_id']}/approvals/approve_scope"
        nobody = await at.client.post(f"{base}/grant", json={}, headers=keyed(2))
        problem(nobody, 404, "not_found")
        problem(await at.client.post(f"{base}/perhaps", json={}, headers=keyed(3)), 422, "invalid_input")


@pytest.mark.rule("AP-57", "LC-77")
async def test_start_records_repository_model_and_delegations():
    async with front() as at:
        created = await at.create(hold=True)
        url = f"{STORIES}/{created['story_id']}/start"
        body = {"repo": "/srv/none", "delegate": ["po"]}
        started = await at.client.post(url, json=body, headers=keyed(2))
        assert started.status_code == 200
        assert started.json()["beside"] == []
        problem(await at.client.post(url, json={"repo": ""}, headers=keyed(3)), 422, "invalid_input")
        problem(await at.client.post(url, json=body | {"delegate": ["admin"]}, headers=keyed(4)), 422, "invalid_input")


@pytest.mark.rule("AP-57")
async def test_start_on_a_repository_that_another_story_works_on_says_what_that_one_holds():
    async with front() as at:
        first = await at.create(hold=True)
        body = {"repo": "/srv/none"}
        await at.client.post(f"{STORIES}/{first['story_id']}/start", json=body, headers=keyed(2))
        made = await at.client.post(STORIES, json={**STORY_TEXT, "title": "Another slug"}, headers=keyed(3))
        second = made.json()["story_id"]
        started = await at.client.post(f"{STORIES}/{second}/start", json=body, headers=keyed(4))
        (other,) = started.json()["beside"]
    assert (other["story_id"], other["branch"]) == (first["story_id"], f"fleet/{first['story_id']}")
    assert other["told"].startswith(f"{first['story_id']} ")
    assert other["told"].endswith("works in folders of its own")


@pytest.mark.rule("AP-5")
async def test_list_goes_page_by_page_in_a_stable_order():
    async with front(with_owner=False) as at:
        for number in range(5):
            await StoryLog(StoryId(f"st-n{number}-x")).add(created_payload()).write_to(at.world.log)
        seen: list[str] = []
        cursor: str | None = None
        while True:
            params: dict[str, Any] = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = (await at.client.get(STORIES, params=params, headers=ANA)).json()
            seen += [line["story_id"] for line in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == [f"st-n{number}-x" for number in range(5)]
        for limit in ("0", "201", "many"):
            problem(await at.client.get(STORIES, params={"limit": limit}, headers=ANA), 422, "invalid_input")


@pytest.mark.rule("AP-4", "AP-92")
async def test_command_that_nobody_decides_is_queued_and_its_answer_read_later():
    async with front(with_owner=False) as at:
        command_id = CommandId("user:ana/key-number-1")
        stream = StreamId.of_story(STORY)
        await at.world.inbox.submit(
            Command(command_id=command_id, stream=stream, name="cancel", principal=Principal("user:ana"), body={})
        )
        url = f"/api/commands/{command_id}"
        pending = await at.client.get(url, headers=ANA)
        assert pending.json()["status"] == "pending"
        (delivery,) = await at.world.inbox.take("council:0/a1", timeout_s=0)
        refusal = {"code": "gate_closed", "message": "guards are false", "details": {"state": "DRAFT"}}
        await at.world.inbox.acknowledge(delivery, Answer(ok=False, problem=refusal))
        refused = (await at.client.get(url, headers=ANA)).json()
        assert (refused["status"], refused["problem"]["code"], refused["result"]) == ("refused", "gate_closed", None)
        problem(await at.client.get(url, headers=DEV), 404, "not_found")


async def lines_of(at: Front, path: str, **headers: str) -> str:
    """What a stream of a story says at first."""
    found = ""
    # The transport of httpx2 gives a body only once it is whole, so the frames are read from their source.
    story_id = StoryId(path)
    start = resume_point(story_id, headers.get("last"))
    frames = event_frames(at.world.desk, story_id, after=start, heartbeat_s=1)
    async for text in frames:
        found += text
        if text.startswith(":"):
            await frames.aclose()  # pyright: ignore[reportAttributeAccessIssue]
            return found
    return found


@pytest.mark.rule("AP-101", "AP-102")
async def test_stream_has_frames_with_ids_groups_and_a_heartbeat():
    async with front(with_owner=False) as at:
        await story(until="scored").write_to(at.world.log)
        text = await lines_of(at, STORY)
        assert text.startswith("retry: 3000\n\n")
        assert text.endswith(": still here\n\n")
        ids = [line for line in text.splitlines() if line.startswith("id: ")]
        assert ids == [f"id: story:{STORY}/1", f"id: story:{STORY}/2"]
        assert "event: story" in text
        resumed = await lines_of(at, STORY, last=f"story:{STORY}/1")
        assert "id: story:" + STORY + "/1" not in resumed
        assert f"id: story:{STORY}/2" in resumed


def test_frame_holds_the_published_envelope():
    log = story(until="created").add(StoryCancelled(reason="nobody needs it any more"))
    first, group, data = frame(log.events[-1]).strip().split("\n")
    assert (first, group) == (f"id: story:{STORY}/2", "event: story")
    envelope = json.loads(data.removeprefix("data: "))
    assert (envelope["event_id"], envelope["type"], envelope["version"]) == (f"story:{STORY}/2", "StoryCancelled", 2)
    assert envelope["body"]["reason"] == "nobody needs it any more"


@pytest.mark.rule("AP-102")
@pytest.mark.parametrize(
    ("given", "version"), [(None, 0), ("", 0), (f"story:{STORY}/12", 12), (f"{STORY}/12", 12), ("12", 12)]
)
def test_stream_resumes_after_the_id_that_the_client_has(given: str | None, version: int):
    assert resume_point(STORY, given) == version


@pytest.mark.rule("AP-102")
@pytest.mark.parametrize("given", ["story:st-other1/3", f"story:{STORY}/x", f"story:{STORY}/-1", "9" * 16, "/"])
async def test_resume_id_of_another_stream_is_refused(given: str):
    async with front(with_owner=False) as at:
        await story(until="created").write_to(at.world.log)
        response = await at.client.get(
            "/api/events/stream", params={"storyId": STORY}, headers=ANA | {"Last-Event-ID": given}
        )
        problem(response, 422, "invalid_input")


@pytest.mark.rule("AP-100")
async def test_stream_without_a_story_or_of_an_unknown_one_is_refused():
    async with front(with_owner=False) as at:
        problem(await at.client.get("/api/events/stream", headers=ANA), 422, "invalid_input")
        response = await at.client.get("/api/events/stream", params={"storyId": STORY}, headers=ANA)
        problem(response, 404, "not_found")


async def test_description_of_the_interface_lists_the_operations():
    async with front(with_owner=False) as at:
        assert (await at.client.get("/api/openapi.json")).status_code == 401
        document = (await at.client.get("/api/openapi.json", headers=ANA)).json()
        assert document["openapi"].startswith("3.1")
        assert {STORIES, "/api/events/stream", "/healthz"} <= set(document["paths"])


async def test_answers_are_not_cached_and_not_sniffed():
    async with front(with_owner=False) as at:
        response = await at.client.get(STORIES, headers=ANA)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
