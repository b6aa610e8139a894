"""One walk through each page of the desk where a person does more than look, in a real Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fleet import events as ev
from fleet.ids import EntityId, Principal
from scripts import desk
from tests.support.chromium import Page, chromium, chromium_program
from tests.support.desk_front import DEV_TOKEN, DeskFront, desk_front
from tests.support.desk_page import SIZES, assert_clean, pictures, sign_in
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
    decision_payload,
    story,
)
from tests.support.team_models import EveryEngine, scripted

pytestmark = [pytest.mark.wide, pytest.mark.network, pytest.mark.timeout(300)]

HOSTILE = "<img src=x onerror='window.hit=1'> Keep the table short"
OPEN = EntityId("de-open2")
BOB = Principal("user:bob")
_KEYS = count(1)


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    """What the tests look at is what the sources make now."""
    if chromium_program() is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    try:
        desk.build()
    except desk.Failed as error:
        pytest.skip(f"the desk could not be built here, is a package registry in reach? {error}")


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
    await front.team.desk.require(STORY, name, body, principal=who, key=f"key-{next(_KEYS)}")


def paused(log: StoryLog) -> StoryLog:
    """No step of the story starts, so that what a person does is all that happens."""
    return log.add(ev.StoryPaused(scope="story", by=BOB, reason="A person looks at it."), actor=BOB)


async def typed(page: Page, id: str) -> str:
    """What stands in this field."""
    return await page.evaluate(f"document.getElementById('{id}').value")


async def has_button(page: Page, name: str) -> bool:
    return await page.evaluate(f"[...document.querySelectorAll('button')].some((e) => e.textContent === '{name}')")


@pytest.mark.rule("AP-71", "AP-72", "GR-82")
async def test_decisions_are_proposed_settled_and_replaced_by_clicks(page: Page, front: DeskFront) -> None:
    log = paused(story(until="build"))
    needs = (ev.DecisionLink(rel="DEPENDS_ON", decision_id=DECISION),)
    log.add(decision_payload(OPEN, title=HOSTILE, category="QUALITY", author=ARCHITECT, links=needs))
    await project(front.graph, log.events)
    await log.write_to(front.team.log)
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
    log.add(ev.TreeMerged(base_digest=BASE, result_digest=old, commit="0d" * 20))
    log.task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    log.task(TASK, "implementing", "COMMIT_CODE", "dev_completed", by=DEVELOPER, evidence=(new,))
    return log.task(TASK, "dev_completed", "AUTO_ROUTE_TO_ARCHITECT", "pending_arch_review")


@pytest.mark.rule("AP-62", "AP-64", "AP-65", "LC-130")
async def test_review_of_a_task_is_held_given_back_and_given_by_clicks(page: Page, front: DeskFront) -> None:
    await (await in_review(front)).write_to(front.team.log)
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
    log.add(ev.StoryResumed(scope="story", by=BOB), actor=BOB)
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
    before = log.version
    await paused(log).write_to(front.team.log, after=before)
    await page.wait("!document.body.innerText.includes('overdue by')")
    assert_clean(page, front)
