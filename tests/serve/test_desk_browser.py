"""The desk in a real Chromium over the real gateway: a story from its first word to its report, by clicks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fleet.kernel.ids import Digest, EntityId, StoryId
from serve_apps.stream.asyncapi import asyncapi_document
from tests.support.chromium import Page, chromium
from tests.support.desk_front import TOKEN, DeskFront, desk_front
from tests.support.desk_page import FAINT, SIZES, assert_clean, build_desk, pictures, sign_in
from tests.support.sandbox import put_tree
from tests.support.story_events import (
    BASE,
    DECISION,
    DOCUMENTED,
    MERGED,
    STORY,
    TASK,
    StoryLog,
    decision_payload,
    story,
)
from tests.support.streamed_events import StreamedEvents, problems_of
from tests.support.team_models import GOOD, WRONG, EveryEngine, demo_repository, demo_story, scripted
from tests.unit.report.test_context_figures import pack, summary

pytestmark = [pytest.mark.wide, pytest.mark.network, pytest.mark.timeout(1200)]

TABS = {
    "Lifecycle": "now in DONE",
    "Files": "textkit/words.py",
    "Tasks": "Add slugify to the words module",
    "Tests": "tests/test_words.py",
    "Activity": "events",
    "Work": "Merged",
    "Decisions": "Choose a node",
    "Context": "tokens",
    "Costs": "Tokens by role",
}
PAGES = {"Packs": "Packs by role and phase", "Usage": "Tokens by role", "Audit": "events"}
HOSTILE = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>{{7*7}}${7*7} javascript:window.hit=1'


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    """What the tests look at is what the sources make now."""
    build_desk()


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[DeskFront]:
    """A desk whose team makes one mistake, which its evidence finds."""
    async with desk_front(tmp_path, EveryEngine(scripted(draft=[WRONG, GOOD, GOOD]))) as found:
        yield found


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with chromium() as found:
        await found.resize(*SIZES[0])
        yield found


def link_to(name: str) -> str:
    """Whether there is a link that begins so."""
    return f"[...document.querySelectorAll('a')].some((e) => e.textContent.startsWith({json.dumps(name)}))"


async def decide(page: Page, gate: str, *, reason: str | None = None, back: str | None = None) -> None:
    """The person opens the gate that waits and says yes, or no with a reason."""
    await page.click("link", gate, within_s=200)
    await page.sees("Your decision")
    if reason is not None:
        await page.fill("Note, or the reason of a rejection", reason)
    if back is not None:
        await page.choose("On a rejection", back)
    await page.click("button", "Approve" if reason is None else "Reject")
    await page.wait("document.querySelector('[data-testid=decision]')")
    await page.click("link", "To the story")


@pytest.mark.rule("PL-47")
async def test_story_goes_from_its_first_word_to_its_report_by_clicks(
    page: Page, front: DeskFront, tmp_path: Path
) -> None:
    repo, text = demo_repository(tmp_path / "stage"), demo_story()
    streamed = await StreamedEvents.of(page)
    await page.open(front.url)
    await pictures(page, "login")
    await page.fill("Access token", "no such token")
    await page.click("button", "Sign in")
    await page.sees("not, or no longer, valid")
    page.trouble.clear()
    await sign_in(page, front)
    await page.sees("There is no story yet.")

    # The coach: a first text is not ready, one click adds a scenario to fill in, real words make it ready.
    await page.click("link", "New story")
    await page.fill("Title", text["title"])
    await page.fill("Description", text["description"])
    await page.sees("Not ready yet", "Suggestions")
    before = int(await page.evaluate("document.querySelector('[data-testid=score]').textContent"))
    await page.click("button", "Apply: Add a scenario to fill in")
    await page.wait("document.querySelector('textarea[aria-label=\"Acceptance criterion 1\"]').value.includes('<')")
    await pictures(page, "new-story")
    for number, criterion in enumerate(text["acceptance_criteria"], 1):
        if number > 1:
            await page.click("button", "+ Add a criterion")
        await page.fill(f"Acceptance criterion {number}", criterion)
    await page.wait(f"Number(document.querySelector('[data-testid=score]').textContent) > {before}")
    await page.wait("[...document.querySelectorAll('.badge')].some((e) => e.textContent === 'Ready')")
    await page.click("button", "Create the story")
    await page.sees("Start the work", text["title"])

    # Work starts, and stops at the first gate.
    await pictures(page, "start")
    await page.fill("Repository: its path on the fleet’s machine", str(repo))
    await page.fill("Model profile", "mock")
    await page.click("button", "Start")
    await page.wait(link_to("Scope"), within_s=200)
    await page.click("link", "Board")
    await page.sees("waits for a decision")
    await pictures(page, "board")
    await page.click("link", "Gates")
    await page.sees("You can decide")
    await pictures(page, "gates")
    await decide(page, "Scope")
    await decide(page, "Design")

    # The council is watched while it works; the gateway goes away in the middle, and nothing is missed.
    await page.click("link", "Council")
    await page.sees("drafting", "Live", within_s=200)
    await front.stop()
    await page.sees("Line lost")
    await front.start()
    await page.sees("Work on a task", within_s=200)
    await page.sees("Decided by evidence")
    story_id = StoryId(await page.evaluate("decodeURIComponent(location.hash.split('/')[2])"))
    await pictures(page, "council")
    await _shows_every_event(page, front, story_id)
    page.trouble.clear()

    # A rejection with its reason comes back as new work; then it is approved.
    await page.click("link", "Work on a task")
    await page.sees("Your decision", "What you decide", "def slugify")
    await pictures(page, "gate")
    await page.open(f"{front.url}/#/story/{story_id}/overview")
    await decide(page, "Work on a task", reason="Say what a run of letters is.")
    await page.sees("Say what a run of letters is.", within_s=200)
    await page.wait(link_to("Work on a task"), within_s=200)
    await decide(page, "Work on a task")
    await decide(page, "Quality")
    await page.wait(link_to("Documents"), within_s=200)

    # The story goes back to an earlier tree by a new merge, and comes to the same gate again.
    await page.click("link", "Changes")
    await page.sees("Checkpoints", "Tasks done", "present")
    await page.fill("Why go back (at least 10 characters)", "The documents came too early.")
    await pictures(page, "checkpoints")
    await page.click("button", "Go back to this")
    await page.click("link", "Activity")
    await page.sees("Went back to a checkpoint", within_s=200)
    await page.click("link", "Overview")
    await decide(page, "Quality")
    await decide(page, "Documents")
    await page.sees("closed", "DONE", within_s=200)
    await pictures(page, "story")

    await page.click("link", "Work")
    await page.click("summary", "tests pipeline")
    await page.sees("1 passed")
    await page.click("link", "Changes")
    await page.sees("textkit/words.py", "def slugify")
    await pictures(page, "changes")
    await page.click("link", "Report")
    await page.sees("Acceptance criteria", text["title"], within_s=200)
    await pictures(page, "report")
    for tab, words in TABS.items():
        await page.click("link", tab)
        await page.sees(words)
        if tab == "Files":
            await page.click("button", "textkit/words.py")
            await page.sees("def slugify")
        await pictures(page, tab.lower())
    for name, words in PAGES.items():
        await page.click("link", name)
        await page.sees(words)
        if name == "Audit":
            await page.click("button", "Verify now")
            await page.sees("hashes fit, no checkpoint yet")
        await pictures(page, name.lower())
    state = await front.team.desk.state(story_id)
    assert state.closed
    assert_clean(page, front)
    _assert_as_documented(streamed, story_id, state.version)


def _assert_as_documented(streamed: StreamedEvents, story_id: StoryId, version: int) -> None:
    """Every event that the browser was sent validates, and none of the story is missing among them."""
    document, frames = asyncapi_document(), streamed.frames()
    assert [problem for frame in frames for problem in problems_of(frame, document)] == []
    seen = {frame["id"] for frame in frames}
    assert {f"story:{story_id}/{number}" for number in range(1, version + 1)} <= seen


@pytest.mark.rule("AP-100", "AP-101", "LC-138")
async def test_project_page_tells_of_all_stories_and_every_event_sent_is_as_documented(
    page: Page, front: DeskFront
) -> None:
    streamed, log = await StreamedEvents.of(page), story()
    # An owner that took the story in the middle of this would write to it too.
    await front.team.crash()
    await log.write_to(front.team.log)
    await sign_in(page, front)
    await page.open(f"{front.url}/#/story/{STORY}/activity")
    await page.sees(f"{log.version} events")
    _assert_as_documented(streamed, STORY, log.version)
    await page.click("link", "Project")
    await page.choose("Period", "365")
    await page.sees("Median time in each state", "Quality, story by story", "Timeline")
    await page.sees("Tasks in their workflow", "Share that passes at once", "review by architect", "100 %")
    await pictures(page, "project")
    assert_clean(page, front)


@pytest.mark.rule("AP-99", "AP-101")
async def test_statistics_of_context_move_with_the_events_of_the_stories(page: Page, front: DeskFront) -> None:
    own = story(until="task")
    # An owner that took the story in the middle of this would write to it too.
    await front.team.crash()
    await own.write_to(front.team.log)
    await sign_in(page, front)
    await page.click("link", "Packs")
    await page.sees("Packs by role and phase", "Live", "The graph is behind by", "No secret was found.")
    before = own.version
    own.add(pack(3, phase="TEST"), summary(1))
    await own.write_to(front.team.log, after=before)
    # Well before the figures are read again by themselves.
    await page.sees("developer, TEST", "3,000 of 4,096 tokens", "2 items left out", "75 %", within_s=10)
    await pictures(page, "packs")
    assert_clean(page, front)


@pytest.mark.rule("CX-22", "CX-24")
async def test_pack_tells_its_pieces_what_was_left_out_and_what_stands_around_it(page: Page, front: DeskFront) -> None:
    log, long = story(until="task"), "Fold_" + "with_unicodedata_" * 9
    for number in range(120):
        name = EntityId(f"de-long{number:03d}")
        log.add(decision_payload(name, title=long, rationale=f"{number}: " + "It folds most letters. " * 40))
    await front.team.crash()
    await log.write_to(front.team.log)
    await sign_in(page, front)
    await page.open(f"{front.url}/#/story/{STORY}/context")
    await page.sees("BUILD", "items left out")
    await page.click(".packs li button")
    await page.sees("Left out, because it did not fit", f"As of version {log.version} of the story", "more")
    await page.click("summary", "What is in it, and why")
    await page.sees("every decision of the story, and those of the project", "that architect may see in BUILD")
    await page.click("summary", "Rules of the role")
    for width in (1280, 390):
        await page.resize(width, 800)
        assert not await page.evaluate("document.documentElement.scrollWidth > window.innerWidth"), width
    await pictures(page, "pack")
    assert_clean(page, front)


async def test_checks_of_a_page_find_what_they_look_for(page: Page) -> None:
    raw = "<p style='color:#999'>faint</p><p>plain</p><button></button><button>named</button>"
    await page.evaluate(f"void (document.body.innerHTML = {json.dumps(raw)})")

    assert await page.evaluate(FAINT) == ["P: faint"]
    assert await page.unnamed() == ["button"]


async def test_text_of_a_story_is_mended_with_one_click_and_saved(page: Page, front: DeskFront) -> None:
    await sign_in(page, front)
    await page.click("link", "New story")
    await page.fill("Title", "As a clerk, I want to print labels")
    await page.click("button", "Create the story")
    await page.click("button", "Edit the text")
    await page.fill("Description", "Print labels maybe, so that parcels find their way.")
    await page.click("button", "Apply: Mark an unclear word in the description")
    await page.click("button", "Apply: Add a scenario to fill in")
    await page.click("button", "Save")
    await page.sees("Print labels maybe [CLARIFY], so", "Given <context>, when <action>, then <outcome>")
    await page.sees("The text of the story was changed")
    assert_clean(page, front)


@pytest.mark.rule("AP-1", "AP-10")
async def test_stored_script_in_story_diff_log_or_file_name_never_runs(page: Page, front: DeskFront) -> None:
    blobs = front.team.blobs
    old = await put_tree(blobs, {"a.py": b"old\n"})
    raw = f"{HOSTILE}\n".encode()
    new = await put_tree(blobs, {"a.py": raw, "<img src=x onerror=window.hit=1>.html": raw})
    log = hostile_story({BASE: old, MERGED: new, DOCUMENTED: new})
    # An owner that took the story in the middle of this would write to it too.
    await front.team.crash()
    await log.write_to(front.team.log)
    await sign_in(page, front)
    await page.sees("onerror=")
    for tab in HOSTILE_TABS:
        await page.open(f"{front.url}/#/story/{STORY}/{tab}")
        await page.wait("document.querySelector('.tabs [aria-current]')")
        await page.wait("!document.body.innerText.includes('Reading ')")
        await page.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
        if tab == "files":
            await page.click("button.file")
        if tab in ("overview", "activity", "changes", "files", "decisions", "report"):
            await page.sees("onerror=")
    approvals = list(log.state.approvals)
    for place in (
        f"gates/{STORY}/{approvals[0]}",
        f"gates/{STORY}/{approvals[-1]}",
        f"story/{STORY}/decisions/{DECISION}",
        f"story/{STORY}/tasks/{TASK}",
        "gates",
        "project",
        "context",
        "usage",
        "audit",
    ):
        await page.open(f"{front.url}/#/{place}")
        await page.wait("document.querySelector('h1')")
        await page.wait("!document.body.innerText.includes('Reading ')")
    assert await page.evaluate("window.hit") is None
    assert await page.evaluate("document.querySelectorAll('#root script, #root img, #root iframe').length") == 0
    assert page.hosts() == {f"127.0.0.1:{front.port}"}
    assert page.dialogs == 0


HOSTILE_TABS = (
    *(
        "overview",
        "lifecycle",
        "tasks",
        "council",
        "activity",
        "work",
        "changes",
        "files",
        "tests",
        "decisions",
        "context",
    ),
    *("costs", "report"),
)


def hostile_story(trees: dict[Digest, Digest]) -> StoryLog:
    """A whole story, each free text of which holds markup; its trees are these."""
    log = StoryLog()
    for event, payload in story().decoded:
        body = payload.model_dump(mode="json", by_alias=True)
        for place in _free_texts(body):
            marked = _marked(body, place)
            # A field with a form of its own takes no markup at all.
            with suppress(ValidationError):
                type(payload).model_validate_json(json.dumps(marked))
                body = marked
        raw = json.dumps(body)
        for before, after in trees.items():
            raw = raw.replace(str(before), str(after))
        log.add(type(payload).model_validate_json(raw), actor=event.actor)
    return log


FREE = frozenset(
    ["title", "description", "text", "rationale", "reason", "excerpt", "notes", "note", "feedback", "message", "path"]
)


def _free_texts(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where free texts stand."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [place for key, one in items for place in _free_texts(one, (*at, key))]
    return [at] if isinstance(value, str) and at and at[-1] in FREE else found


def _marked(value: Any, at: tuple[Any, ...]) -> Any:
    """A copy with markup at this place."""
    if not at:
        return f"{HOSTILE} {value}"
    copy = value.copy()
    copy[at[0]] = _marked(value[at[0]], at[1:])
    return copy


async def test_token_in_the_address_is_taken_out_at_once_and_ends_with_the_session(
    page: Page, front: DeskFront
) -> None:
    await page.open(f"{front.url}/#token={TOKEN}")
    await page.sees("There is no story yet.")
    assert TOKEN not in await page.evaluate("location.href")
    assert await page.evaluate("[document.cookie, localStorage.length]") == ["", 0]
    assert not any(TOKEN in url for url in page.requests)
    visited = (await page.send("Page.getNavigationHistory"))["entries"]
    assert not any(TOKEN in entry["url"] for entry in visited)
    await page.open(f"{front.url}/#/board")
    await page.click("button", "Sign out")
    await page.sees("You are signed out.")
    assert await page.evaluate("sessionStorage.length") == 0
    assert_clean(page, front)


async def test_keyboard_alone_leads_to_a_new_story(page: Page, front: DeskFront) -> None:
    await page.open(front.url)
    await page.sees("Access token")
    await page.send("Input.insertText", text=TOKEN)
    await page.press("Enter")
    await page.sees("There is no story yet.")
    await page.evaluate("document.activeElement.blur()")
    await page.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "To the content"
    await page.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"
    await page.press("Tab")
    await page.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "New story"
    await page.press("Enter")
    await page.wait("document.querySelector('#title')")
    assert await page.evaluate("document.activeElement.id") == "main"
    assert_clean(page, front)


async def _shows_every_event(page: Page, front: DeskFront, story_id: StoryId) -> None:
    """Each version stands once, in order, though the line was cut."""
    await page.open(f"{front.url}/#/audit")
    head = (await front.team.desk.state(story_id)).version
    await page.sees(f"{head} events")
    shown = await page.evaluate("[...document.querySelectorAll('td.number')].map((e) => Number(e.textContent))")
    assert shown == list(range(1, head + 1))
    await page.open(f"{front.url}/#/story/{story_id}/council")
