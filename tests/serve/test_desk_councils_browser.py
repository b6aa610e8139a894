"""One walk through what the desk does with councils: named agents, delegated gates, estimates, in a real Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from fleet.models.port import AgentRequest
from tests.support.chromium import Page, chromium
from tests.support.council_front import council_front, voters
from tests.support.desk_page import SIZES, build_desk, pictures
from tests.support.story_events import STORY
from tests.support.tool_front import serving

pytestmark = [pytest.mark.wide, pytest.mark.network, pytest.mark.timeout(1200)]

HOSTILE = "<img src=x onerror='window.hit=1'> Look at edges first"


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    build_desk()


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with chromium() as found:
        await found.resize(*SIZES[0])
        yield found


def estimated(request: AgentRequest) -> dict[str, Any]:
    """Values that lie apart, and meet once everybody was heard."""
    value = (5, 5, 8)[request.variant % 3] if "Their median is" in request.own else (1, 5, 21)[request.variant % 3]
    return {"value": value, "reason": f"{HOSTILE}, it is {value}"}


@pytest.mark.rule("AP-79", "AP-94", "LC-77", "CN-70", "PL-80")
async def test_agents_are_added_gates_delegated_to_a_council_and_estimates_asked_for_by_clicks(page: Page):
    async with council_front(voters("reject", advise=estimated)) as (_, app, _), serving(app) as url:
        await page.open(f"{url}/#token=root-token")
        await page.sees("Board")
        await _adds_an_agent(page)
        await _delegates_the_scope(page, url)
        await _asks_for_an_estimate(page, url)
        assert await page.evaluate("window.hit") is None
        assert page.hosts() == {url.removeprefix("http://")}
        assert (page.dialogs, page.trouble) == (0, [])


async def _adds_an_agent(page: Page) -> None:
    await page.click("link", "Agents")
    await page.sees("No agent was added by name.")
    await page.fill("Persona: how it works, in words", HOSTILE)
    await page.click("button", "Add it")
    await page.sees("agent-developer-101", "Look at edges first", "added by root")
    await pictures(page, "agents")
    await page.click("button", "Take it away")
    await page.sees("No agent was added by name.")


async def _delegates_the_scope(page: Page, url: str) -> None:
    await page.click("link", "Gates")
    await page.sees("Nothing waits for a person.", "People decide every gate.")
    await page.click("button", "Delegate a gate")
    await page.choose("Who decides it", "council:architect")
    await page.fill("Why (at least 10 characters)", "Small changes may begin at once.")
    await page.click("button", "Delegate")
    await page.sees("a council of role architect", "up to rigor L1, all projects")
    await pictures(page, "delegations")
    await page.open(f"{url}/#/story/{STORY}")
    await page.sees("Start the work")
    await page.fill("Repository: its path on the fleet’s machine", "/srv/text")
    await pictures(page, "start")
    await page.click("button", "Start")
    await page.wait("!document.body.innerText.includes('Start the work')")
    await page.open(f"{url}/#/gates")
    await page.click("link", "Scope")
    await page.sees("A council of role architect, by delegation of root, said no: a person decides.", "It says no")
    await page.sees("Note, or the reason of a rejection")
    await pictures(page, "gate-council")


async def _asks_for_an_estimate(page: Page, url: str) -> None:
    await page.open(f"{url}/#/story/{STORY}/council")
    await page.click("button", "Ask a council")
    await page.choose("What you want", "estimate")
    await page.sees("Each member gives a value in points, alone", "the whole story")
    await page.fill("Your question", "How much work is it?")
    await page.fill("What makes an answer good, one in each line", "Tests count too")
    await pictures(page, "ask-estimate")
    await page.click("button", "Ask")
    await page.sees("5 points for the whole story", "1, 5, 21", "5, 5, 8", "The values came together.")
    await page.sees("3 reasons of round 2, without names", "Look at edges first, it is 8")
    await pictures(page, "estimate")
