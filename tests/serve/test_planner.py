"""What people read of stories through the front, and what they do beside gates (AP-52..AP-88)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from fleet.config.settings import ServeSettings
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.events.codec import published
from fleet.events.plan import CheckpointSaved
from fleet.events.task import FileChange, TreeMerged
from fleet.events.workspace import (
    DeploymentRecorded,
    DocFile,
    DocsProduced,
    HealthCheck,
    HealthObserved,
    IncidentOpened,
)
from fleet.kernel.digest import digest_of
from fleet.kernel.ids import Digest, EntityId, Principal, StepId
from fleet.trees.tree import FileEntry, encode_tree
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import STORY_TEXT, World
from tests.support.front import front_parts, prompts
from tests.support.rules import files
from tests.support.story_events import DESIGN_COUNCIL, PLAN, STORY, TASK, decision_payload, story
from tests.support.tool_front import ARCHIE, DEV, ROOT, ToolFront, keyed, tool_front

STORIES = "/api/planner/stories"
URL = f"{STORIES}/{STORY}"


@pytest.fixture
async def at() -> AsyncIterator[ToolFront]:
    """A story in BUILD that its owner takes commands for."""
    async with tool_front() as front:
        yield front


async def _get(client: httpx2.AsyncClient, url: str, who: dict[str, str] = ROOT, **params: Any) -> Any:
    response = await client.get(url, headers=who, params=params)
    assert response.status_code == 200, response.text
    return response.json()


async def _post(at: ToolFront, path: str, body: Any, *, number: int = 900, who: dict[str, str] = ROOT) -> Any:
    response = await at.client.post(path, json=body, headers=keyed(number, who))
    assert response.status_code in (200, 201), response.text
    return response.json()


def _refused(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return response.json()


READS = (
    "transitions",
    "plan",
    "tasks",
    "decisions",
    "questions",
    "scores",
    "runs",
    "timeline",
    "councils",
    f"councils/{DESIGN_COUNCIL}",
    "report",
    "advice",
)


@pytest.mark.rule("AP-1", "AP-55", "AP-59", "AP-62", "AP-71", "AP-84", "AP-88")
async def test_every_read_of_a_story_is_answered_to_those_who_are_known(at: ToolFront):
    for path in READS:
        response = await at.client.get(f"{URL}/{path}", headers=ARCHIE)
        assert response.status_code == 200, (path, response.text)
        _refused(await at.client.get(f"{STORIES}/st-nobody/{path}", headers=DEV), 404, "not_found")
        assert (await at.client.get(f"{URL}/{path}")).status_code == 401


@pytest.mark.rule("AP-55", "LC-9")
async def test_transitions_name_each_guard_and_who_may_fire(at: ToolFront):
    found = await _get(at.client, f"{URL}/transitions")
    assert found["state"] == "BUILD"
    build_done = next(t for t in found["items"] if t["event"] == "build_done")
    assert (build_done["to"], build_done["is_open"]) == ("TEST", False)
    assert {g["name"] for g in build_done["guards"]} == {"all_tasks_done", "builds_passing"}
    assert {t["event"] for t in found["items"] if t["kind"] == "loopback"} == {"reject_build"}


@pytest.mark.rule("AP-52", "AP-5")
async def test_board_is_filtered_by_state_project_and_text(at: ToolFront):
    await _post(at, STORIES, STORY_TEXT | {"tags": ["links"], "hold": True})
    assert len((await _get(at.client, STORIES))["items"]) == 2
    held = await _get(at.client, STORIES, state="BACKLOG")
    assert [line["state"] for line in held["items"]] == ["BACKLOG"]
    assert [x["state"] for x in (await _get(at.client, STORIES, state=["BUILD", "TEST"]))["items"]] == ["BUILD"]
    assert (await _get(at.client, STORIES, project="pr-other"))["items"] == []
    assert len((await _get(at.client, STORIES, text="LINKS"))["items"]) == 1
    _refused(await at.client.get(STORIES, params={"rigor": "L9"}, headers=ROOT), 422, "invalid_input")


@pytest.mark.rule("AP-3")
async def test_story_that_did_not_change_is_not_sent_again(at: ToolFront):
    first = await at.client.get(URL, headers=ROOT)
    again = await at.client.get(URL, headers=ROOT | {"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.rule("AP-54", "AP-3", "AP-33", "AP-39", "PL-5", "SC-31")
async def test_edit_needs_the_version_that_was_read_and_is_scored_anew(at: ToolFront):
    story_id = (await _post(at, STORIES, STORY_TEXT))["story_id"]
    url = f"{STORIES}/{story_id}"
    before = await at.client.get(url, headers=ROOT)
    kept, dropped = before.json()["acceptance_criteria"]
    body = {"description": "", "acceptance_criteria": [{"text": "It is fast"}, kept]}
    _refused(await at.client.patch(url, json=body, headers=keyed(1, ROOT)), 428, "precondition_required")
    stale = keyed(2, ROOT) | {"If-Match": '"v1"'}
    assert (
        _refused(await at.client.patch(url, json=body, headers=stale), 412, "precondition_failed")["version"]
        == before.json()["version"]
    )
    fresh = keyed(3, ROOT) | {"If-Match": before.headers["etag"]}
    response = await at.client.patch(url, json=body, headers=fresh)
    after = response.json()
    assert response.status_code == 200, response.text
    assert after["description"] == ""
    assert [c["text"] for c in after["acceptance_criteria"]] == ["It is fast", kept["text"]]
    ids = [c["ac_id"] for c in after["acceptance_criteria"]]
    assert ids[1] == kept["ac_id"]
    assert ids[0] not in (kept["ac_id"], dropped["ac_id"])
    assert int(after["score"]) < int(before.json()["score"])
    assert "DESC_MISSING" in {f["code"] for f in after["findings"]}
    # The same key gives its answer again, although the version that it names is long past.
    assert (await at.client.patch(url, json=body, headers=fresh)).json()["version"] == after["version"]


@pytest.mark.rule("PL-5")
async def test_edit_under_an_adopted_plan_asks_whether_the_plan_still_fits(at: ToolFront):
    tag = (await at.client.get(URL, headers=ROOT)).headers["etag"]
    headers = keyed(1, ROOT) | {"If-Match": tag}
    response = await at.client.patch(URL, json={"title": "As an editor I want other slugs"}, headers=headers)
    assert response.status_code == 200, response.text
    (question,) = (await _get(at.client, f"{URL}/questions"))["items"]
    assert (question["severity"], question["answer"]) == ("blocking", None)
    url = f"{URL}/questions/{question['question_id']}/answer"
    _refused(await at.client.post(url, json={"answer": "Yes"}, headers=keyed(2, DEV)), 403, "policy_denied")
    assert (await _post(at, url, {"answer": "Yes, it does"}))["open_questions"] == 0
    _refused(await at.client.post(url, json={"answer": "No"}, headers=keyed(4, ROOT)), 409, "version_conflict")


@pytest.mark.rule("AP-73")
async def test_anybody_may_ask_and_the_question_is_listed(at: ToolFront):
    await _post(at, f"{URL}/questions", {"text": "Which alphabet?", "severity": "blocking"}, who=DEV)
    (question,) = (await _get(at.client, f"{URL}/questions"))["items"]
    assert question["text"] == "Which alphabet?"


@pytest.mark.rule("AP-57", "PL-50")
async def test_paused_story_starts_nothing_until_it_is_resumed(at: ToolFront):
    reason = {"reason": "The repository moves today"}
    _refused(await at.client.post(f"{URL}/pause", json=reason, headers=keyed(1, DEV)), 403, "policy_denied")
    assert (await _post(at, f"{URL}/pause", reason))["is_paused"]
    _refused(await at.client.post(f"{URL}/pause", json=reason, headers=keyed(3, ROOT)), 409, "invalid_transition")
    _refused(await at.run("python", "a.py", number=4), 403, "approval_required")
    assert not (await _post(at, f"{URL}/resume", {"note": ""}, number=5))["is_paused"]
    run = (await at.run("python", "a.py", number=6)).json()["taskId"]
    assert (await at.result(run))["status"] == "passed"
    _refused(await at.client.post(f"{URL}/resume", json={}, headers=keyed(7, ROOT)), 409, "invalid_transition")


@pytest.mark.rule("PL-47", "AP-57")
async def test_story_tree_is_set_back_to_a_listed_checkpoint_by_a_po_with_a_reason(at: ToolFront):
    assert await _get(at.client, f"{URL}/checkpoints") == {"items": [], "restoring": None}
    body = {"checkpoint": "rp-first1", "reason": "The second step broke the first"}
    _refused(await at.client.post(f"{URL}/restore", json=body, headers=keyed(1, DEV)), 403, "policy_denied")
    missing = _refused(await at.client.post(f"{URL}/restore", json=body, headers=keyed(2, ROOT)), 404, "not_found")
    assert "none before its first merge" in missing["detail"]
    for number, bad in enumerate(({}, body | {"reason": "short"}, body | {"checkpoint": ""}, body | {"tree": "x"}), 3):
        response = await at.client.post(f"{URL}/restore", json=bad, headers=keyed(number, ROOT))
        assert response.status_code in (400, 422), response.text


@pytest.mark.rule("PL-47", "AP-2")
async def test_restoration_is_on_record_once_and_listed_until_it_is_done(at: ToolFront):
    base, later = digest_of(b"base"), digest_of(b"later")
    saved = CheckpointSaved(
        plan_id=PLAN,
        checkpoint_id=EntityId("rp-first1"),
        tree_digest=base,
        task_states={TASK: "todo"},
        note="after the first task",
    )
    moved = TreeMerged(base_digest=base, result_digest=later, commit="0b" * 20)
    await at.record(TreeMerged(base_digest=base, result_digest=base, commit="0a" * 20), saved, moved)
    await _post(at, f"{URL}/questions", {"text": "Was it better before?"}, number=5)
    (listed,) = (await _get(at.client, f"{URL}/checkpoints"))["items"]
    assert (listed["checkpoint_id"], listed["is_present"]) == ("rp-first1", False)
    assert (listed["tree"], listed["tasks"], listed["note"]) == (base, {TASK: "todo"}, "after the first task")
    body = {"checkpoint": str(listed["version"]), "reason": "The second step broke the first"}
    for _ in range(2):  # the same key once more is the same command
        assert (await _post(at, f"{URL}/restore", body, number=1))["story_id"] == STORY
    assert (await _get(at.client, f"{URL}/checkpoints"))["restoring"] == "rp-first1"
    response = await at.client.post(f"{URL}/restore", json=body, headers=keyed(2, ROOT))
    _refused(response, 409, "invalid_transition")
    assert [e.actor for e in await at.world.events() if e.type == "RestoreRequested"] == ["user:root"]


@pytest.mark.rule("AP-57", "LC-93")
async def test_cancelled_story_takes_no_further_word(at: ToolFront):
    gone = await _post(at, f"{URL}/cancel", {"reason": "Nobody needs it any more"})
    assert gone["disposition"] == "cancelled"
    body = {"reason": "Nobody needs it any more"}
    for path in ("cancel", "pause"):
        response = await at.client.post(f"{URL}/{path}", json=body, headers=keyed(len(path), ROOT))
        _refused(response, 409, "invalid_transition")
    response = await at.client.post(f"{URL}/unpark", json={"note": "It goes on"}, headers=keyed(12, ROOT))
    _refused(response, 409, "invalid_transition")


@pytest.mark.rule("AP-58", "LC-96")
async def test_rigor_is_raised_by_anybody_and_lowered_by_a_po(at: ToolFront):
    higher = {"rigor": "high", "reason": "It is about money now"}
    response = await at.client.put(f"{URL}/rigor", json=higher, headers=keyed(1, DEV))
    assert response.json()["rigor"] == "L2", response.text
    lower = {"rigor": "L1", "reason": "It is a prototype after all"}
    _refused(await at.client.put(f"{URL}/rigor", json=lower, headers=keyed(2, DEV)), 403, "policy_denied")
    response = await at.client.put(f"{URL}/rigor", json=lower, headers=keyed(3, ROOT))
    assert response.json()["rigor"] == "L1"
    assert [a["status"] for a in response.json()["approvals"] if a["gate"] == "lower_rigor"] == ["granted"]
    _refused(await at.client.put(f"{URL}/rigor", json=lower, headers=keyed(4, ROOT)), 422, "invalid_input")


@pytest.mark.rule("CX-22", "CX-27")
async def test_blocks_of_a_pack_are_those_of_configuration_and_the_very_text_that_models_are_sent(at: ToolFront):
    pack = await _get(at.client, f"/api/context/{STORY}/developer/BUILD", task_id=TASK)
    blocks = pack["blocks"]
    assert set(blocks) == {"system", "context", "tools"}
    assert blocks["context"] == pack["text"]
    assert digest_of(blocks["context"].encode()) == pack["hash"]
    assert pack["version"] == pack["as_of"] > 0
    assert blocks["system"].startswith(prompts().persona("prompts/roles/developer.md").text)
    assert blocks["system"].endswith("\n\nLanguage: en\n")
    assert "exec: run\n" in blocks["tools"]
    assert "files: append, delete," in blocks["tools"]
    # What people and models wrote stands in the context alone.
    assert "slug" in blocks["context"]
    assert "slug" not in blocks["system"] + blocks["tools"]
    architect = (await _get(at.client, f"/api/context/{STORY}/architect/BUILD"))["blocks"]
    assert "exec: run" not in architect["tools"]


@pytest.mark.rule("CX-22", "CX-74")
async def test_pack_tells_how_many_secrets_were_taken_out_of_its_text(at: ToolFront):
    assert (await _get(at.client, f"/api/context/{STORY}/developer/BUILD"))["redactions"] == {}
    note = "[REDACTED:AWS] and [REDACTED:JWT] and [REDACTED:AWS]"
    await at.record(decision_payload(EntityId("de-told1"), title="Keep no key", rationale=f"They were: {note}"))
    pack = await _get(at.client, f"/api/context/{STORY}/architect/BUILD")
    assert note in pack["text"]
    assert pack["redactions"] == {"AWS": 2, "JWT": 1}


@pytest.mark.rule("AP-68", "AP-97", "AP-99")
async def test_context_pack_is_shown_by_role_and_phase_with_its_tokens(at: ToolFront):
    pack = await _get(at.client, f"/api/context/{STORY}/DEV/build")
    assert (pack["role"], pack["phase"]) == ("developer", "BUILD")
    assert 0 < pack["token_count"] <= pack["budget"]
    assert pack["text"]
    listed = (await _get(at.client, f"/api/context/{STORY}/packs"))["items"]
    same = next(p for p in listed if (p["role"], p["phase"]) == ("developer", "BUILD"))
    assert (same["token_count"], same["text"]) == (pack["token_count"], None)
    assert any(p["refused"] for p in listed)
    _refused(await at.client.get(f"/api/context/{STORY}/nobody/BUILD", headers=ROOT), 403, "policy_denied")


@pytest.mark.rule("AP-70")
async def test_graph_around_a_story_grows_with_depth_and_is_bounded(at: ToolFront):
    near = await _get(at.client, f"/api/context/{STORY}/graph", depth=1)
    far = await _get(at.client, f"/api/context/{STORY}/graph", depth=3)
    assert near["nodes"][0]["id"] == STORY
    assert TASK in {n["id"] for n in far["nodes"]}
    assert len(far["nodes"]) > len(near["nodes"])
    ids = {n["id"] for n in far["nodes"]}
    assert all({e["from_id"], e["to_id"]} <= ids for e in far["edges"])
    few = await _get(at.client, f"/api/context/{STORY}/graph", depth=3, limit=3)
    assert (len(few["nodes"]), few["left_out"]) == (3, len(far["nodes"]) - 3)


@pytest.mark.rule("AP-88")
@pytest.mark.parametrize(
    ("format", "kind"), [("md", "text/markdown"), ("html", "text/html"), ("json", "application/json")]
)
async def test_report_runs_nothing_in_a_browser(at: ToolFront, format: str, kind: str):
    response = await at.client.get(f"{URL}/report?format={format}", headers=ROOT)
    assert response.headers["content-type"].startswith(kind)
    assert response.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


async def test_lines_of_any_run_of_a_story_are_read_by_its_step(at: ToolFront):
    run = (await at.run("python", "a.py", number=5)).json()["taskId"]
    await at.result(run)
    (line,) = [r for r in (await _get(at.client, f"{URL}/runs"))["items"] if r["run_id"] == run]
    assert (line["status"], line["exit_code"]) == ("succeeded", 0)
    lines = await _get(at.client, line["logs_url"])
    assert [x["line"] for x in lines["items"]] == ["one", "two"]
    followed = await at.client.get(line["logs_url"], params={"follow": "true", "fromLine": 2}, headers=ROOT)
    assert "one" not in followed.text
    assert "event: end" in followed.text
    _refused(await at.client.get(f"{URL}/steps/run/rn-nobody1/logs", headers=ROOT), 404, "not_found")


@pytest.mark.rule("AP-89")
async def test_blob_is_given_only_to_readers_of_a_story_that_names_it(at: ToolFront):
    secret = await at.world.blobs.put(b"of another story")
    _refused(await at.client.get(f"{URL}/blobs/{secret}", headers=ROOT), 404, "not_found")
    (event,) = [e for e in await at.world.events() if e.type == "StoryCreated"]
    named = digest_of(b"content")
    assert str(named).encode() in event.body
    await at.world.blobs.put(b"content")
    response = await at.client.get(f"{URL}/blobs/{named}", headers=ROOT)
    assert (response.status_code, response.content) == (200, b"content")
    assert response.headers["content-disposition"].startswith("attachment")
    assert response.headers["x-content-type-options"] == "nosniff"


@asynccontextmanager
async def _reading(world: World, registry: PrincipalRegistry) -> AsyncIterator[httpx2.AsyncClient]:
    app = build_gateway(world.desk, registry, files().load("serve.yaml", ServeSettings), parts=front_parts(world))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
        yield client


def _registry(**projects: frozenset[str] | None) -> PrincipalRegistry:
    return PrincipalRegistry(
        tuple(
            PrincipalEntry(
                principal=Principal(f"user:{name}"),
                roles=frozenset({"po"}),
                token_sha256=hash_token(f"{name}-token"),
                projects=seen,
            )
            for name, seen in projects.items()
        )
    )


@pytest.mark.rule("AP-1", "AP-25", "AP-100", "AP-104")
async def test_story_of_another_project_is_not_there():
    world = World()
    await story().write_to(world.log)
    async with _reading(world, _registry(ana=frozenset({"pr-default"}), eve=frozenset({"pr-other"}))) as client:
        ana, eve = ({"Authorization": f"Bearer {name}-token"} for name in ("ana", "eve"))
        assert len((await _get(client, STORIES, ana))["items"]) == 1
        assert (await _get(client, STORIES, eve))["items"] == []
        for path in (*READS, "diff", "files", "file?path=a", f"blobs/{digest_of(b'content')}"):
            _refused(await client.get(f"{URL}/{path}", headers=eve), 404, "not_found")
        for path in (f"context/{STORY}/graph", f"events?stream={STORY}", f"events/stream?storyId={STORY}"):
            _refused(await client.get(f"/api/{path}", headers=eve), 404, "not_found")
        _refused(await client.get("/api/events/stream?projectId=pr-default", headers=eve), 404, "not_found")
        everything = await _get(client, "/api/approvals", ana, status="granted")
        assert everything["items"]
        assert (await _get(client, "/api/approvals", eve, status="granted"))["items"] == []
        approval = everything["items"][0]["approval_id"]
        _refused(await client.get(f"/api/approvals/{approval}", headers=eve), 404, "not_found")
        for method, path, body in (
            ("POST", f"{URL}/cancel", {"reason": "It is not mine to cancel"}),
            ("POST", f"/api/approvals/{approval}/grant", {}),
            ("POST", "/api/approvals", {"story_id": STORY, "gate": "approve_scope"}),
            ("POST", STORIES, STORY_TEXT | {"project_id": "pr-default"}),
        ):
            response = await client.request(method, path, json=body, headers=eve | {"Idempotency-Key": "key-of-eve-1"})
            _refused(response, 404, "not_found")


async def _tree(world: World, **texts: str) -> Digest:
    entries = {f"{name}.py": FileEntry("100644", await world.blobs.put(t.encode())) for name, t in texts.items()}
    return await world.blobs.put(encode_tree(entries))


async def _with_trees(world: World) -> tuple[Digest, Digest]:
    """A story whose base and present tree are these."""
    old = await _tree(world, slug="def slugify():\n    pass\n", gone="x = 1\n")
    new = await _tree(world, slug="def slugify():\n    return 1\n", more="y = 2\n")
    log = story(until="scope")
    log.add(TreeMerged(base_digest=old, result_digest=old, commit="a" * 40, files=()))
    log.add(
        TreeMerged(
            base_digest=old,
            result_digest=new,
            commit="b" * 40,
            files=(FileChange(path="slug.py", change="modified"),),
        )
    )
    await log.write_to(world.log)
    return old, new


async def test_diff_shows_what_the_trees_of_a_story_have_not_in_common():
    world = World()
    old, new = await _with_trees(world)
    async with _reading(world, _registry(ana=None)) as client:
        ana = {"Authorization": "Bearer ana-token"}
        found = await _get(client, f"{URL}/diff", ana)
        assert (found["old"], found["new"]) == (old, new)
        assert {f["path"]: f["change"] for f in found["files"]} == {
            "gone.py": "removed",
            "more.py": "added",
            "slug.py": "modified",
        }
        assert (found["added"], found["removed"]) == (2, 2)
        patch = next(f["patch"] for f in found["files"] if f["path"] == "slug.py")
        assert "-    pass" in patch
        assert "+    return 1" in patch
        one = await _get(client, f"{URL}/diff", ana, **{"from": new, "to": old, "path": "more.py"})
        assert [f["change"] for f in one["files"]] == ["removed"]
        foreign = await _tree(world, other="z = 3\n")
        _refused(await client.get(f"{URL}/diff", params={"to": foreign}, headers=ana), 404, "not_found")


async def test_files_of_a_tree_are_listed_and_read():
    world = World()
    old, _ = await _with_trees(world)
    async with _reading(world, _registry(ana=None)) as client:
        ana = {"Authorization": "Bearer ana-token"}
        assert [f["path"] for f in (await _get(client, f"{URL}/files", ana))["items"]] == ["more.py", "slug.py"]
        found = await _get(client, f"{URL}/file", ana, path="gone.py", tree=old)
        assert (found["text"], found["size_bytes"]) == ("x = 1\n", 6)
        _refused(await client.get(f"{URL}/file", params={"path": "gone.py"}, headers=ana), 404, "not_found")


@pytest.mark.rule("CX-60", "CX-74", "AP-89")
async def test_secrets_in_code_names_and_blobs_are_shown_to_nobody():
    world, token = World(), "ghp_" + "a1B2c3D4e5" * 4
    log = story(until="scope")
    texts = {"slug": f"TOKEN = '{token}'\n", token: "PASSWORD = 'b1ue-horse'\n"}
    old, new = await _tree(world, slug="TOKEN = None\n"), await _tree(world, **texts)
    for tree, name in ((old, "a"), (new, "b")):
        log.add(TreeMerged(base_digest=old, result_digest=tree, commit=name * 40, files=()))
    candidate = await world.blobs.put(json.dumps({"files": {"slug.py": f"password = 'r3d-horse'  # {token}"}}).encode())
    doc = DocFile(path="notes.md", artifact_digest=candidate)
    log.add(DocsProduced(docs=(doc,), tree_digest=new, criteria={}))
    await log.write_to(world.log)
    async with _reading(world, _registry(ana=None)) as client:
        ana = {"Authorization": "Bearer ana-token"}
        listed = [f["path"] for f in (await _get(client, f"{URL}/files", ana))["items"]]
        assert listed == ["[REDACTED:GITHUB].py", "slug.py"]
        files = [await _get(client, f"{URL}/file", ana, path=path) for path in listed]
        assert [f["text"] for f in files] == ["PASSWORD = '[REDACTED:KEY_VALUE]'\n", "TOKEN = '[REDACTED:GITHUB]'\n"]
        changes = await _get(client, f"{URL}/diff", ana)
        assert [f["path"] for f in changes["files"]] == listed
        blob = await client.get(f"{URL}/blobs/{candidate}", headers=ana)
        assert blob.headers["X-Fleet-Redactions"] == "GITHUB=1, KEY_VALUE=1"
        seen = json.dumps([listed, files, changes, blob.json()])
        assert not any(secret in seen for secret in (token, "b1ue-horse", "r3d-horse"))


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.rule("AP-8")
async def test_trace_of_a_caller_comes_back_and_stands_in_the_events_that_it_caused(at: ToolFront):
    sent = f"00-{TRACE}-00f067aa0ba902b7-01"
    headers = keyed(1, ROOT) | {"traceparent": sent}
    response = await at.client.post(f"{URL}/questions", json={"text": "Which alphabet?"}, headers=headers)
    assert response.headers["traceparent"] == sent
    (asked,) = [published(e) for e in await at.world.events() if e.type == "QuestionRaised"]
    assert asked["trace_id"] == TRACE


@pytest.mark.rule("AP-8")
@pytest.mark.parametrize(
    "sent", ["", "00-xyz", f"ff-{TRACE}-00f067aa0ba902b7-01", f"00-{'0' * 32}-00f067aa0ba902b7-01"]
)
async def test_what_names_no_trace_is_not_given_back(at: ToolFront, sent: str):
    response = await at.client.get(URL, headers=ROOT | {"traceparent": sent})
    assert response.status_code == 200
    assert "traceparent" not in response.headers


@pytest.mark.rule("LC-49", "LC-63")
async def test_deployments_of_a_story_are_listed_with_their_health_and_incidents(at: ToolFront):
    assert await _get(at.client, f"{URL}/deployments") == {"environment": None, "items": [], "incidents": []}
    first, incident, tree = EntityId("dp-first1"), EntityId("in-alive1"), digest_of(b"tree")
    check = HealthCheck(name="alive", ok=True, value="0", threshold="0")
    await at.record(
        DeploymentRecorded(
            deployment_id=first,
            environment="preview",
            tree_digest=tree,
            status="succeeded",
            step_id=StepId("deployments/1"),
            monitor_s=600,
        ),
        HealthObserved(environment="preview", deployment_id=first, ok=True, checks=(check,), from_=1_000, to=61_000),
        IncidentOpened(
            incident_id=incident,
            severity="high",
            summary="alive is 4",
            source="monitor",
            deployment_id=first,
            task_id=EntityId("tk-later1"),
        ),
    )
    await _post(at, f"{URL}/questions", {"text": "Was it better before?"}, number=5)
    found = await _get(at.client, f"{URL}/deployments", DEV)
    (shown,) = found["items"]
    assert (shown["deployment_id"], shown["tree"], shown["status"]) == (first, tree, "succeeded")
    assert (shown["windows"], shown["healthy_s"], shown["monitor_s"], shown["is_healthy"]) == (1, 60, 600, False)
    (open_one,) = found["incidents"]
    assert (open_one["summary"], open_one["status"], open_one["task_id"]) == ("alive is 4", "open", None)
