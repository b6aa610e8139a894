"""Every answer about a story that is seen is cut to the rows that are seen (CX-16)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from fleet.desk.budgets import BudgetDesk
from fleet.events.approval import ApprovalRejected, ApprovalRequested, Subject
from fleet.events.codec import decode
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.platform import AccessDenied
from fleet.events.story import QuestionRaised, Topic
from fleet.events.workspace import DocsProduced
from fleet.kernel.ids import EntityId, Principal
from fleet.models.profiles import Budgets
from fleet.models.routing.budget import BudgetLimits
from fleet.owner.spending.memory import MemoryDaySpending
from fleet.planning.platform_state import PLATFORM
from tests.support.event_samples import samples
from tests.support.stores import eventually
from tests.support.story_events import (
    DECISION,
    DESIGN_COUNCIL,
    DOC_TASK,
    PLAN,
    STORY,
    SYSTEM,
    TASK,
    StoryLog,
    decision_payload,
    digest,
)
from tests.support.tool_front import ARCHIE, DEV, QUINN, ROOT, ToolFront, keyed, tool_front

URL = f"/api/planner/stories/{STORY}"
CONTEXT = f"/api/context/{STORY}"
READS = (
    "",
    "/plan",
    "/plans",
    f"/plans/{PLAN}",
    "/tasks",
    "/transitions",
    "/checkpoints",
    "/deployments",
    "/decisions",
    "/questions",
    "/scores",
    "/runs",
    "/timeline",
    "/councils",
    f"/councils/{DESIGN_COUNCIL}",
    "/tests",
    "/workspace-reports",
    f"/tasks/{TASK}",
)
OTHERS = (
    f"{CONTEXT}/graph?depth=3",
    f"{CONTEXT}/packs",
    f"{CONTEXT}/developer/BUILD",
    f"{CONTEXT}/architect/BUILD",
    f"{CONTEXT}/po/DESIGN",
    f"/api/events?stream={STORY}&limit=200",
    "/api/planner/stories",
    "/api/tasks/pending",
    "/api/projects/pr-default/timeline?days=3650",
    f"/api/decisions/{DECISION}",
    "/api/councils",
    "/api/approvals?status=granted",
)
QUESTION = "qu-hidden1"


@pytest.fixture
async def at() -> AsyncIterator[ToolFront]:
    """A developer sees the story, one task of it, and nothing of the task for its page."""
    async with tool_front() as front:
        yield front


async def _asked(at: ToolFront, id: str, about: str) -> None:
    await at.record(
        QuestionRaised(
            question_id=EntityId(id),
            kind="question",
            text=f"The text of {id}",
            severity="normal",
            about=Topic(kind="task", id=about),
            asked_by=SYSTEM,
        )
    )


async def _secrets(at: ToolFront) -> set[str]:
    """What stands for the task that the developer does not see, and for the question about it."""
    found = (await at.client.get(f"{URL}/tasks", headers=ROOT)).json()["items"]
    (title,) = (row["title"] for row in found if row["task_id"] == DOC_TASK)
    return {DOC_TASK, title, QUESTION}


async def _denied(at: ToolFront, action: str, what: str) -> None:
    async def told() -> bool:
        events: list[StoredEvent] = await at.world.log.read(PLATFORM)
        found = [p for p in map(decode, events) if isinstance(p, AccessDenied)]
        return (action, what) in {(one.action, one.object) for one in found}

    await eventually(told, within_s=10)


@pytest.mark.rule("CX-16", "CX-12")
async def test_no_answer_tells_a_developer_of_a_task_that_is_not_theirs(at: ToolFront):
    await _asked(at, QUESTION, DOC_TASK)
    await _asked(at, "qu-shown1", TASK)
    secrets, told = await _secrets(at), set[str]()
    for path in (*(URL + read for read in READS), *OTHERS):
        answer = await at.client.get(path, headers=DEV)
        assert answer.status_code == 200, (path, answer.text)
        assert not {secret for secret in secrets if secret in answer.text}, path
        whole = await at.client.get(path, headers=ROOT)
        assert whole.status_code == 200
        told |= {secret for secret in secrets if secret in whole.text}
    assert told == secrets, "to the po these paths tell all of it"
    assert "qu-shown1" in (await at.client.get(f"{URL}/questions", headers=DEV)).text


@pytest.mark.rule("CX-16", "RP-2")
async def test_report_envelopes_and_change_request_are_shown_whole_or_not_at_all(at: ToolFront):
    for path in ("report", "change-request"):
        assert (await at.client.get(f"{URL}/{path}", headers=ARCHIE)).status_code == 200
        refused = await at.client.get(f"{URL}/{path}", headers=DEV)
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    await _denied(at, "read_report", STORY)


@pytest.mark.rule("CX-16", "CX-40")
async def test_bundle_is_cut_and_one_that_was_kept_whole_is_not_there(at: ToolFront):
    await _asked(at, QUESTION, DOC_TASK)
    secrets = await _secrets(at)
    body = {"roles": ["developer", "architect", "po"], "timeline_events": 500, "persist_bundle": True}
    whole = await at.client.post(f"{CONTEXT}/rehydrate", json=body, headers=ROOT)
    mine = await at.client.post(f"{CONTEXT}/rehydrate", json=body, headers=DEV)
    assert whole.status_code == mine.status_code == 200, mine.text
    assert QUESTION in whole.text
    assert not {secret for secret in secrets if secret in mine.text}
    assert TASK in mine.text
    assert (await at.client.get(mine.json()["kept_at"], headers=DEV)).json() == mine.json()["bundle"]
    kept = whole.json()["kept_at"]
    hidden = await at.client.get(kept, headers=DEV)
    other = "sha256:" + "0" * 64
    missing = await at.client.get(kept.replace(whole.json()["hash"], other), headers=DEV)
    assert hidden.status_code == missing.status_code == 404
    assert hidden.text == missing.text.replace(other, whole.json()["hash"])
    await _denied(at, "read_bundle", whole.json()["hash"])


@pytest.mark.rule("CX-16", "AP-104")
async def test_stream_leaves_out_the_events_that_name_what_is_hidden(at: ToolFront):
    await _asked(at, QUESTION, DOC_TASK)
    await _asked(at, "qu-shown1", TASK)
    secrets, found = await _secrets(at), list[str]()
    async with at.client.stream("GET", f"/api/events?stream={STORY}&limit=200", headers=DEV) as response:
        found.append((await response.aread()).decode())
    versions = [item["version"] for item in json.loads(found[0])["items"]]
    whole = (await at.client.get(f"/api/events?stream={STORY}&limit=200", headers=ROOT)).json()["items"]
    assert set(versions) < {item["version"] for item in whole}
    assert not {secret for secret in secrets if secret in found[0]}
    assert "qu-shown1" in found[0]


@pytest.mark.rule("CX-16", "AP-89")
async def test_documents_of_the_whole_story_are_not_there_for_who_sees_a_part_of_it(at: ToolFront):
    name = await at.world.blobs.put(b"all of the story")
    await at.record(DocsProduced(docs=(), criteria={}, tree_digest=name))
    assert (await at.client.get(f"{URL}/blobs/{name}", headers=ROOT)).content == b"all of the story"
    hidden = await at.client.get(f"{URL}/blobs/{name}", headers=DEV)
    other = "sha256:" + "0" * 64
    missing = await at.client.get(f"{URL}/blobs/{other}", headers=DEV)
    assert (hidden.status_code, hidden.text) == (404, missing.text.replace(other, name))
    await _denied(at, "read_blob", name)


@pytest.mark.rule("CX-16", "CX-5")
async def test_pack_for_a_hidden_task_is_that_for_a_missing_one(at: ToolFront):
    answers = list[httpx2.Response]()
    for task in (DOC_TASK, "tk-nobody"):
        answers.append(await at.client.get(f"{CONTEXT}/developer/BUILD?task_id={task}", headers=DEV))
    hidden, missing = answers
    assert (hidden.status_code, hidden.text) == (missing.status_code, missing.text.replace("tk-nobody", DOC_TASK))
    await _denied(at, "read_task", DOC_TASK)


@pytest.mark.rule("CX-16", "RT-20")
async def test_session_and_run_for_a_hidden_task_are_refused_as_for_a_missing_one(at: ToolFront):
    for number, (path, key) in enumerate((("/api/tools/sessions", "task_id"), ("/api/runs", "task_id"))):
        answers = list[str]()
        for shift, task in ((0, DOC_TASK), (50, "tk-nobody")):
            body = (
                {"story_id": STORY, "role": "developer", key: task}
                if number == 0
                else {
                    "image": "python",
                    "cmd": ["true"],
                    "context": {"case_id": STORY, "task_id": task, "role": "developer"},
                }
            )
            sent = await at.client.post(path, json=body, headers=keyed(number + shift))
            assert sent.status_code == 404, sent.text
            answers.append(sent.text.replace(task, "?"))
        assert answers[0] == answers[1]


@pytest.mark.rule("CX-22", "CX-24")
async def test_pack_names_what_did_not_fit_and_its_blocks_hold_the_text_that_was_counted(at: ToolFront):
    for n in range(40):
        await at.record(
            decision_payload(EntityId(f"de-long{n}"), title=f"T{n}", rationale="why " * 200, council_id=None)
        )
    page = (await at.client.get(f"{CONTEXT}/architect/DESIGN?token_budget=2000", headers=ROOT)).json()
    (dropped,) = (one for one in page["dropped"] if one["scope"] == "DECISIONS_GLOBAL")
    assert dropped["items"] == len(dropped["ids"]) > 0
    assert set(dropped["ids"]) <= {f"de-long{n}" for n in range(40)}
    assert page["blocks"]["context"] == page["text"]
    sizes = [-(-len(text.encode()) // 3) for text in page["blocks"].values()]
    assert page["token_count"] == sum(sizes) <= page["budget"] == 2000


@pytest.mark.rule("CX-22", "CX-41")
async def test_bundle_has_the_blocks_of_each_role(at: ToolFront):
    found = (await at.client.post(f"{CONTEXT}/rehydrate", json={"roles": ["developer", "qa"]}, headers=ROOT)).json()
    assert found["blocks"].keys() == found["bundle"]["packs"].keys() == {"developer", "qa"}
    for role, blocks in found["blocks"].items():
        assert json.loads(blocks["context"]) == found["bundle"]["packs"][role]
        assert "Language: en" in blocks["system"]
        assert blocks["tools"]


@pytest.mark.rule("CX-16", "AP-87")
async def test_usage_and_budgets_name_no_hidden_task_or_story(at: ToolFront):
    for path in (f"/api/usage?group_by=task&storyId={STORY}", "/api/usage?group_by=task"):
        answer = await at.client.get(path, headers=DEV)
        assert answer.status_code == 200
        assert DOC_TASK not in answer.text
    assert STORY in (await at.client.get("/api/usage?group_by=story", headers=DEV)).text
    assert STORY not in (await at.client.get("/api/usage?group_by=story", headers=QUINN)).text, "qa sees no such story"
    seen = await at.app.state.sight.known_ids(Principal("user:dev"), None)
    assert {STORY, TASK} <= seen
    assert DOC_TASK not in seen
    assert (await at.client.get(f"/api/budgets?scope=story:{STORY}", headers=DEV)).status_code == 200


async def _figures(at: ToolFront, who: dict[str, str]) -> dict[str, Any]:
    """Sums over stories as somebody is told them."""
    found: dict[str, Any] = {}
    for key in ("role", "model", "day", "story"):
        found[f"usage by {key}"] = await _get(at, f"/api/usage?group_by={key}", who)
    stats = await _get(at, "/api/workflow/stats", who)
    found |= {f"workflow {name}": stats[name] for name in ("tasks", "gates", "rejections", "stays")}
    metrics = await _get(at, "/api/projects/pr-default/metrics?days=3650", who)
    found |= {f"metrics {name}": metrics[name] for name in ("tokens", "reworks", "tasks_done")}
    context = await _get(at, "/api/context/stats", who)
    found |= {f"context {name}": context[name] for name in ("packs", "dropped", "redactions", "projection")}
    found["budgets"] = (await _get(at, f"/api/budgets?scope=story:{STORY}", who))["items"]
    (line,) = (await _get(at, "/api/planner/stories", who))["items"]
    return found | {f"board {name}": line[name] for name in ("tokens", "tasks_done", "gates")}


async def _get(at: ToolFront, path: str, who: dict[str, str]) -> Any:
    answer = await at.client.get(path, headers=who)
    assert answer.status_code == 200, (path, answer.text)
    return answer.json()


async def _worked_on(at: ToolFront, task: str) -> None:
    """A task is built, sent back, built again, done, and asked about; its work costs tokens."""
    log = StoryLog()
    log.step("hidden/draft", task_id=EntityId(task), tokens=(7_000, 900))
    log.task(EntityId(task), "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    log.task(EntityId(task), "implementing", "COMMIT_CODE", "pending_arch_review")
    log.task(EntityId(task), "pending_arch_review", "REVISE_CODE", "implementing")
    log.task(EntityId(task), "implementing", "AUTO_COMPLETE", "done")
    asked = [_asked_for(EntityId(f"ap-hidden{n}"), task) for n in (1, 2)]
    refused = ApprovalRejected(
        approval_id=asked[0].approval_id,
        principal=Principal("user:root"),
        as_role="po",
        reason="It does not work.",
        delegated=False,
    )
    built = samples()["ContextPackBuilt"].model_copy(update={"task_id": EntityId(task)})
    await at.record(*map(decode, log.events), *asked, refused, built, _redacted(task))


def _asked_for(approval_id: EntityId, task: str) -> ApprovalRequested:
    return ApprovalRequested(
        approval_id=approval_id,
        gate="task_acceptance",
        role="po",
        actor="human",
        subject=Subject(kind="tree", id=task, digest=digest("subject")),
        risk="low",
        expires_at=2**42,
        attempt=1,
        card_digest=digest("card"),
        requested_by=SYSTEM,
    )


def _redacted(task: str) -> Payload:
    return QuestionRaised(
        question_id=EntityId("qu-key1"),
        kind="question",
        text="Is [REDACTED:AWS] the key?",
        severity="normal",
        about=Topic(kind="task", id=task),
        asked_by=SYSTEM,
    )


@pytest.mark.rule("CX-12", "CX-16", "RP-42", "MB-30")
async def test_figures_of_whole_projects_count_only_what_the_caller_sees(at: ToolFront):
    mine, whole = await _figures(at, DEV), await _figures(at, ROOT)
    await _worked_on(at, DOC_TASK)
    assert await _figures(at, DEV) == mine
    after = await _figures(at, ROOT)
    assert [name for name in after if after[name] == whole[name]] == [], "to the po each of them counts it"


@pytest.mark.rule("CX-16", "AP-87")
async def test_budget_lines_of_a_story_are_as_if_there_were_no_more_than_the_caller_sees(at: ToolFront):
    log = StoryLog()
    log.step("shown/draft", task_id=EntityId(TASK), tokens=(500, 50))
    await at.record(*map(decode, log.events))
    await _worked_on(at, DOC_TASK)
    before = (await _get(at, f"/api/budgets?scope=story:{STORY}", DEV))["items"]
    whole = (await _get(at, f"/api/budgets?scope=story:{STORY}", ROOT))["items"]
    spent, all_spent = (_of_story(lines, "tokens")["spent"] for lines in (before, whole))
    assert all_spent - spent >= 7_900
    mine = {line["spent"] for line in whole if line["id"] == TASK and line["quantity"] == "tokens"}
    assert mine == {line["spent"] for line in before if line["id"] == TASK and line["quantity"] == "tokens"} != set()
    assert DOC_TASK in {line["id"] for line in whole}
    assert DOC_TASK not in {line["id"] for line in before}
    body = {"limits": {"tokens": 1_000_000}}
    assert (await at.client.put(f"/api/budgets/story/{STORY}", json=body, headers=keyed(7, ROOT))).status_code < 300
    line = _of_story((await _get(at, f"/api/budgets?scope=story:{STORY}", DEV))["items"], "tokens")
    assert (line["limit"], line["spent"], line["left"]) == (1_000_000, spent, 1_000_000 - spent - line["reserved"])


def _of_story(lines: list[dict[str, Any]], quantity: str) -> dict[str, Any]:
    (found,) = (line for line in lines if line["scope"] == "story" and line["quantity"] == quantity)
    return found


@pytest.mark.rule("CX-16", "AP-87")
async def test_days_of_projects_and_the_builder_of_packs_are_told_to_those_who_see_every_story(at: ToolFront):
    limits = Budgets(platform=BudgetLimits(calls=9), project=BudgetLimits(calls=9))
    at.app.state.budgets = BudgetDesk(
        log=at.world.log, spending=MemoryDaySpending(), limits=limits, clock=at.world.clock
    )
    for who, is_told in ((ROOT, True), (ARCHIE, True), (DEV, False), (QUINN, False)):
        assert bool((await _get(at, "/api/budgets?scope=platform", who))["items"]) is is_told
        activity = (await _get(at, "/api/context/stats", who))["activity"]
        assert (activity["away"] is None) is is_told
    assert (await _get(at, "/api/context/stats", QUINN))["stories"] == 0, "qa sees no such story"
