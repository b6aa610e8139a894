"""One walk through each page of the desk where a person does more than look, in a real Chromium."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fleet.deploy.port import Placed
from fleet.events.decision import DecisionLink
from fleet.events.step import StepArtifact
from fleet.events.story import StoryPaused, StoryResumed
from fleet.events.task import TreeMerged
from fleet.events.workspace import DeploymentRecorded, HealthCheck, HealthObserved, IncidentOpened
from fleet.kernel.ids import EntityId, Principal, RunKey, StepId, StoryId, StreamId
from fleet.models.memory import Hang
from fleet.story.commands.catalogue import parse_command
from tests.support.chromium import Page, chromium
from tests.support.deployed import target_of
from tests.support.desk_front import DEV_TOKEN, RITA_TOKEN, DeskFront, desk_front
from tests.support.desk_page import SIZES, assert_clean, build_desk, pictures, sign_in
from tests.support.graphs import project
from tests.support.sandbox import put_tree
from tests.support.story_events import (
    ARCHITECT,
    BASE,
    DECISION,
    DEVELOPER,
    STORY,
    TASK,
    StoryLog,
    created_payload,
    decision_payload,
    story,
)
from tests.support.team_models import EveryEngine, demo_repository, demo_story, scripted

pytestmark = [pytest.mark.wide, pytest.mark.network, pytest.mark.timeout(1200)]

HOSTILE = "<img src=x onerror='window.hit=1'> Keep the table short"
OPEN = EntityId("de-open2")
BOB = Principal("user:bob")
_KEYS = count(1)


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    """What the tests look at is what the sources make now."""
    build_desk()


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[DeskFront]:
    async with desk_front(tmp_path, EveryEngine(scripted())) as found:
        yield found


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with chromium() as found:
        await found.resize(*SIZES[0])
        yield found


async def does(front: DeskFront, name: str, who: Principal = BOB, **body: Any) -> None:
    """Somebody else does this meanwhile."""
    await front.team.desk.require(STORY, parse_command(name, body), principal=who, key=f"key-{next(_KEYS)}")


def paused(log: StoryLog) -> StoryLog:
    """No step of the story starts, so that what a person does is all that happens."""
    return log.add(StoryPaused(scope="story", by=BOB, reason="A person looks at it."), actor=BOB)


async def typed(page: Page, id: str) -> str:
    """What stands in this field."""
    return await page.evaluate(f"document.getElementById('{id}').value")


async def has_button(page: Page, name: str) -> bool:
    return await page.evaluate(f"[...document.querySelectorAll('button')].some((e) => e.textContent === '{name}')")


async def put(front: DeskFront, log: StoryLog) -> None:
    """The story is there, and is taken by an owner only once it is there whole."""
    await front.team.crash()
    await log.write_to(front.team.log)
    front.team.begin(front.team.make_shard("a2", front.team.log))


SLOW_COMMANDS = """void (window.fetch = ((send) => (path, init) => init?.method === 'POST'
  ? new Promise((done) => setTimeout(() => done(send(path, init)), 1000)) : send(path, init))(window.fetch))"""


@asynccontextmanager
async def graph_follows(front: DeskFront) -> AsyncIterator[None]:
    """What is recorded of the story comes to the graph, as a projector brings it."""

    async def follow() -> None:
        while True:
            seen = (await front.graph.cursor(StreamId.of_story(STORY))).version
            if events := await front.team.desk.events(STORY, after=seen):
                await project(front.graph, events)
            await asyncio.sleep(0.02)

    following = asyncio.create_task(follow())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@pytest.mark.rule("AP-71", "AP-72", "GR-82")
async def test_decisions_are_proposed_settled_and_replaced_by_clicks(page: Page, front: DeskFront) -> None:
    log = paused(story(until="build"))
    needs = (DecisionLink(rel="DEPENDS_ON", decision_id=DECISION),)
    log.add(decision_payload(OPEN, title=HOSTILE, category="QUALITY", author=ARCHITECT, links=needs))
    await put(front, log)
    async with graph_follows(front):
        await _settles_decisions(page, front)


async def _settles_decisions(page: Page, front: DeskFront) -> None:
    await sign_in(page, front)
    await page.open(f"{front.url}/#/story/{STORY}/decisions")
    await page.sees("2 decisions", "1 task, 1 decision", HOSTILE)
    await page.choose("Status", "PROPOSED")
    await page.sees("1 decision")
    await page.choose("Status", "")

    # A proposal, while somebody else's comes in: what is typed stays.
    await page.click("button", "Propose a decision")
    await page.fill("What is decided", "Fold letters by a table")
    await page.fill("Why (at least 10 characters)", "It is measured to be the fastest.")
    await does(front, "propose_decision", title="From afar", rationale="It came in meanwhile.", category="DATA")
    await page.sees("3 decisions")
    assert await typed(page, "decision-why") == "It is measured to be the fastest."
    await page.choose("Category", "ARCHITECTURE")
    await page.click("field", "Write slugify")
    await pictures(page, "propose")
    await page.click("button", "Propose")
    await page.sees("Proposed by ada", "Your decision", "affects")
    await page.click("button", "Accept")
    await page.sees("Accepted by ada as architect")

    # Who comes too late is told what happened and what to do.
    await page.click("link", "All decisions")
    await page.click("link", "From afar")
    await page.sees("Your decision")
    await page.evaluate(SLOW_COMMANDS)
    await page.click("button", "Accept")
    late = await page.evaluate("decodeURIComponent(location.hash.split('/').at(-1))")
    await does(front, "reject_decision", decision_id=late, reason="It is said elsewhere.")
    await page.sees("Somebody rejected it before you.", "is REJECTED already")
    # The browser itself tells of the refusal.
    page.trouble.clear()

    # Another one is settled by somebody else while a reason is written: the words stay, the ways change.
    await page.open(f"{front.url}/#/story/{STORY}/decisions/{OPEN}")
    await page.sees("What hangs on it", "Your decision")
    await page.fill("Note, or the reason of a rejection", "It has to be said shorter.")
    await does(front, "accept_decision", decision_id=OPEN)
    await page.sees("It is accepted by now. What you wrote is still here.")
    assert await typed(page, "decision-said") == "It has to be said shorter."
    assert not await has_button(page, "Accept")
    await pictures(page, "decision")
    table = await page.evaluate(
        "[...document.querySelectorAll('#decision-by option')].find((e) => e.textContent.includes('table')).value"
    )
    await page.choose("What comes in its place", table)
    await page.click("button", "Put it in the place of this one")
    await page.sees("Replaced by Fold letters by a table", "It has to be said shorter.")
    await page.open(f"{front.url}/#/story/{STORY}/decisions/{DECISION}")
    await page.sees("Steps away", "Write slugify")

    # A developer reads it all, and settles nothing but what is their own.
    await does(front, "propose_decision", title="For ada", rationale="Somebody has to say so.", category="SCOPE")
    await page.click("button", "Sign out")
    await sign_in(page, front, DEV_TOKEN)
    await page.open(f"{front.url}/#/story/{STORY}/decisions")
    await page.click("link", "For ada")
    await page.sees("Decisions of this category are settled by architect, po.")
    assert not await has_button(page, "Accept")
    assert not await has_button(page, "Reject")
    assert await page.evaluate("window.hit") is None
    assert_clean(page, front)


async def in_review(front: DeskFront) -> StoryLog:
    """A paused story with finished work that waits for an architect."""
    old = await put_tree(front.team.blobs, {"text/slug.py": b"pass\n"})
    new = await put_tree(front.team.blobs, {"text/slug.py": b"def slugify(text):\n    return text\n"})
    log = paused(story(until="build"))
    log.add(TreeMerged(base_digest=BASE, result_digest=old, commit="0d" * 20))
    log.task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    log.task(TASK, "implementing", "COMMIT_CODE", "dev_completed", by=DEVELOPER, evidence=(new,))
    return log.task(TASK, "dev_completed", "AUTO_ROUTE_TO_ARCHITECT", "pending_arch_review")


@pytest.mark.rule("AP-62", "AP-64", "AP-65", "LC-130")
async def test_review_of_a_task_is_held_given_back_and_given_by_clicks(page: Page, front: DeskFront) -> None:
    await put(front, await in_review(front))
    await sign_in(page, front, DEV_TOKEN)
    await page.open(f"{front.url}/#/story/{STORY}/tasks")
    await page.click("link", "Write slugify")
    await page.sees("It waits for a review by an architect.", "def slugify")
    assert not await has_button(page, "Hold the review")
    assert not await has_button(page, "Discard the task")
    await page.click("button", "Sign out")
    await sign_in(page, front)
    await page.open(f"{front.url}/#/story/{STORY}/tasks/{TASK}")

    # What is written stays while the review is held, given back, and taken by somebody else.
    await page.fill("Note, or why not", "An empty text is not looked at.")
    await page.click("button", "Hold the review")
    await page.sees("ada holds its review; the story waits for that.", "left, until")
    await pictures(page, "task")
    await page.click("button", "Give it back")
    await page.sees("It waits for a review by an architect.")
    await does(front, "act_on_task", task_id=TASK, action="CLAIM_REVIEW")
    await page.sees("bob holds its review")
    assert not await has_button(page, "Hold the review")
    assert await typed(page, "task-said") == "An empty text is not looked at."
    await page.click("link", "All tasks")
    await page.sees("held by bob")
    # Nothing of it was said to the team yet.
    assert "An empty text" not in await page.text()
    await pictures(page, "tasks")
    await page.click("link", "Write slugify")
    await page.click("button", "Take it from bob")
    await page.click("button", "Hold the review")
    await page.fill("Note, or why not", "An empty text is not looked at.")
    await page.click("button", "Reject")
    await page.sees("reject design", "nobody")
    await page.click("link", "All tasks")
    await page.sees("implementing", "An empty text is not looked at.")
    assert_clean(page, front)


@pytest.mark.rule("AP-63", "LC-131", "LC-133")
async def test_overdue_tasks_are_marked_until_the_story_rests(page: Page, front: DeskFront) -> None:
    log = await in_review(front)
    log.add(StoryResumed(scope="story", by=BOB), actor=BOB)
    # An owner that took the story in the middle of this would write to it too.
    await front.team.crash()
    await log.write_to(front.team.log)
    await sign_in(page, front)
    await page.sees("1 task overdue, by", "days")
    await pictures(page, "board-overdue")
    await page.click("link", "Make slugs from titles")
    await page.click("link", "Work")
    await page.sees("1 task overdue", "overdue by", "for architect")
    await pictures(page, "work-overdue")

    # While somebody reviews it, it is still late; a story that rests has no limits.
    before = log.version
    log.task(TASK, "pending_arch_review", "CLAIM_REVIEW", "arch_reviewing", by=ARCHITECT)
    await log.write_to(front.team.log, after=before)
    await page.sees("arch reviewing", "for architect")
    await page.click("link", "Write slugify")
    await page.sees("overdue by", "An agent reviews it now.")
    await page.open(f"{front.url}/#/board")
    await page.sees("1 task overdue, by", "days")
    await page.click("link", "Make slugs from titles")
    await page.sees("overdue by")
    before = log.version
    await paused(log).write_to(front.team.log, after=before)
    await page.wait("!document.body.innerText.includes('overdue by')")
    assert_clean(page, front)


@pytest.mark.rule("LC-49", "LC-63")
async def test_deployments_show_how_they_are_and_what_went_wrong(page: Page, front: DeskFront) -> None:
    log = story(until="merged", created=created_payload(lifecycle="sdlc", environment="preview"))
    log.move("TEST", "tests_done", "REVIEW").move("REVIEW", "review_approved", "DEPLOY")
    await front.team.crash()
    await log.write_to(front.team.log)
    await sign_in(page, front)
    await page.open(f"{front.url}/#/story/{STORY}/changes")
    await page.sees("preview", "Nothing was deployed yet.")
    before, first = log.version, EntityId("dp-first1")
    deployed = DeploymentRecorded(
        deployment_id=first,
        environment="preview",
        tree_digest=BASE,
        status="succeeded",
        step_id=StepId("deployments/1"),
        monitor_s=600,
        detail=HOSTILE,
    )
    check = HealthCheck(name="alive", ok=True, value="0", threshold="0")
    seen = HealthObserved(environment="preview", deployment_id=first, ok=True, checks=(check,), from_=0, to=60_000)
    opened = IncidentOpened(
        incident_id=EntityId("in-alive1"), severity="high", summary=HOSTILE, source="monitor", deployment_id=first
    )
    log.add(deployed).add(seen.model_copy(update={"from_": 1_000})).add(opened)
    await log.write_to(front.team.log, after=before)
    await page.sees("59 of 600 s", "Keep the table short", "incident")
    await pictures(page, "deployments")
    await page.click("link", "Activity")
    await page.sees("Deployment to preview: succeeded", "preview was healthy for a window", "Incident: ")
    assert await page.evaluate("window.hit") is None
    # The trees of this story were never stored, so that there is nothing to compare.
    page.trouble[:] = [line for line in page.trouble if "404" not in line]
    assert_clean(page, front)


def png(shade: int) -> bytes:
    """A picture of 30 by 20 pixels in one shade of grey."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([shade]) * 30) * 20
    head = struct.pack(">IIBBBBB", 30, 20, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


@pytest.mark.rule("RC-75")
async def test_pages_of_the_preview_are_seen_as_pictures(page: Page, front: DeskFront) -> None:
    hostile = f"<script>window.hit=1</script>{HOSTILE}".encode()
    files = {"01.png": png(90), "02.png": png(200), "03.png": hostile}
    artifacts = [
        StepArtifact(path=f"out/preview/{name}", artifact_digest=await front.team.blobs.put(data), size_bytes=len(data))
        for name, data in files.items()
    ]
    log = paused(story(until="build"))
    await put(front, log.step("tests/preview", kind="run", artifacts=tuple(artifacts)))
    await sign_in(page, front)
    await page.open(f"{front.url}/#/story/{STORY}/tests")
    await page.sees("Pages of the preview", "Page 1 of the preview", "Page 3 of the preview: is no picture")
    shown = "[...document.querySelectorAll('.pictures img')].map((e) => [e.alt, e.naturalWidth, e.naturalHeight])"
    assert await page.evaluate(shown) == [[f"Page {n} of the preview", 30, 20] for n in (1, 2)]
    await pictures(page, "preview")
    assert await page.evaluate("window.hit") is None
    assert_clean(page, front)


@pytest.mark.rule("LC-49")
async def test_what_runs_in_an_environment_is_seen_and_ended_by_clicks(page: Page, front: DeskFront) -> None:
    now, before = RunKey("a" * 64), RunKey("b" * 64)
    log = story(until="merged", created=created_payload(lifecycle="sdlc", environment="preview"))
    log.move("TEST", "tests_done", "REVIEW").move("REVIEW", "review_approved", "DEPLOY")
    recorded = DeploymentRecorded(
        deployment_id=EntityId("dp-first1"),
        environment="preview",
        tree_digest=BASE,
        revision=now,
        status="succeeded",
        step_id=StepId("deployments/1"),
        monitor_s=600,
    )
    await put(front, paused(log.add(recorded).move("DEPLOY", "deploy_done", "MONITOR")))
    for key, whose in ((before, StoryId("st-before")), (now, STORY)):
        await front.deployments.deploy(Placed(key, whose, BASE, "python", target_of(expose=18_080)))
    await sign_in(page, front)
    await page.click("link", "Environments")
    await page.sees("preview", STORY, "at port 18080", "answers", "Why end it")
    await pictures(page, "environments")
    await page.fill("Why end it (at least 10 characters)", HOSTILE)
    await page.click("button", "Run what ran before")
    await page.sees("Ended by hand last: user:ada rolled it back by hand: <img", "A story runs here")
    assert (await front.deployments.standing("preview")).key == before
    assert not await has_button(page, "Run what ran before")
    state = await front.team.desk.state(STORY)
    assert state.deployment is not None
    assert state.deployment.status == "rolled_back"
    assert state.park is not None
    assert "user:ada rolled it back by hand" in state.park.detail
    assert await page.evaluate("window.hit") is None
    assert_clean(page, front)


@pytest.mark.rule("AP-1")
async def test_environments_are_offered_to_nobody_who_may_not_see_them(page: Page, front: DeskFront) -> None:
    await sign_in(page, front, RITA_TOKEN)
    await page.sees("Audit", "rita")
    assert await page.evaluate("[...document.querySelectorAll('nav a')].every((e) => e.textContent !== 'Environments')")


def _advice(number: int) -> str:
    refs = ("r-1", "ac-1", "ac-2", "ac-3")
    text = f"{HOSTILE}\nFold by table {number}."
    return json.dumps(
        {"summary": f"Way {number}", "text": text, "addressed": [{"ref": ref, "how": "by folding"} for ref in refs]}
    )


@pytest.mark.rule("AP-77", "AP-78", "CN-63")
async def test_council_is_asked_ended_and_sent_back_by_clicks(page: Page, tmp_path: Path) -> None:
    answers = [Hang(), Hang(), Hang(), *(_advice(n) for n in range(1, 13))]
    async with desk_front(tmp_path, EveryEngine(scripted(advise=answers))) as front:
        story_id = await front.team.create(demo_story())
        repo = demo_repository(tmp_path / "stage")
        await front.team.start(story_id, repo, model="mock", delegate=())
        await front.team.settled(story_id)
        # A developer does not see what it does not work on; a reviewer sees it, and may not ask.
        await sign_in(page, front, DEV_TOKEN)
        await page.open(f"{front.url}/#/story/{story_id}/council")
        await page.sees(f"There is no story {story_id}.")
        page.trouble.clear()
        await page.click("button", "Sign out")
        await sign_in(page, front, RITA_TOKEN)
        await page.open(f"{front.url}/#/story/{story_id}/council")
        await page.sees("No council has met yet.")
        assert not await has_button(page, "Ask a council")
        await page.click("button", "Sign out")
        await sign_in(page, front)
        await page.open(f"{front.url}/#/story/{story_id}/council")

        await ask(page, "Which way of folding should it use?")
        await page.sees("drafting", "Which way of folding should it use?", "No answer yet.")
        await page.click("button", "End this council")
        await page.fill("Why (at least 10 characters)", "The question answered itself.")
        await page.click("button", "End it")
        await page.sees("Cancelled")

        # While another question is written, somebody else asks one: what is typed stays.
        await page.click("button", "Ask a council")
        await page.fill("Your question", "Which table should it use?")
        await front.team.desk.require(
            story_id, parse_command("request_council", asked(story_id)), principal=BOB, key="key-bob-1"
        )
        await page.sees("asked by bob", "What do others do?", "Fold by table", within_s=200)
        assert await page.evaluate("document.querySelector('textarea').value") == "Which table should it use?"
        await fill_ask(page)
        await page.wait(f"document.body.innerText.split({DONE}).length === 3", within_s=200)
        await pictures(page, "advice")
        await page.click("button", "Send its answer back")
        await page.fill("Why (at least 10 characters)", "Other alphabets were left out.")
        await page.click("button", "Ask again with this reason")
        await page.sees("It was sent back; the council that was asked again stands above.", within_s=200)
        assert await page.evaluate("window.hit") is None
        assert_clean(page, front)


DONE = json.dumps("The story did nothing with it.")


def asked(story_id: StoryId) -> dict[str, Any]:
    """What bob wants to know."""
    return {
        "story_id": story_id,
        "task_description": "What do others do?",
        "role": "architect",
        "output_kind": "text",
        "constraints": {
            "rubric": [{"name": "readers", "text": "Links stay readable"}],
            "requirements": ["Name one way"],
        },
        "budget": {"tokens": 50_000, "wall_s": 600},
    }


async def ask(page: Page, question: str) -> None:
    """A council is asked for with this question."""
    await page.click("button", "Ask a council")
    await page.fill("Your question", question)
    await fill_ask(page)


async def fill_ask(page: Page) -> None:
    """The rest of a question is written, and it is sent."""
    await page.fill("What makes an answer good, one in each line", "Links stay readable")
    await page.fill("What it has to meet, one in each line", "Name one way")
    await page.click("button", "Ask")
