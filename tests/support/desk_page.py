"""What tests of the desk in a browser share: signing in, and what every page has to be like."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import desk
from tests.support.chromium import Page, chromium_program
from tests.support.desk_front import TOKEN, DeskFront

PICTURES = Path("build/reports/desk")
SIZES = ((1280, 800), (390, 844))
# Texts whose contrast with what is behind them is below 4.5 to 1 (WCAG 2.2, 1.4.3); what is disabled is exempt.
FAINT = """(() => {
  const parts = (c) => (c.match(/[\\d.]+/g) ?? []).map(Number);
  const light = (c) => parts(c).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if ((parts(c)[3] ?? 1) === 1) return c;
  } return 'rgb(255,255,255)'; };
  const found = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n = walk.nextNode(); n; n = walk.nextNode()) {
    const e = n.parentElement;
    if (!n.data.trim() || !e.checkVisibility()) continue;
    if (e.closest(':disabled, svg, noscript, .visually-hidden, option')) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.add(`${e.className || e.tagName}: ${n.data.trim().slice(0, 30)}`);
  }
  return [...found];
})()"""


def build_desk() -> None:
    """The desk as the sources make it now; the tests that look at it are skipped where that cannot be had."""
    if chromium_program() is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    try:
        desk.build()
    except desk.Failed as error:
        pytest.skip(f"the desk could not be built here, is a package registry in reach? {error}")


async def pictures(page: Page, name: str) -> None:
    """The page in both sizes and both colours: never wider than the window, readable, and everything has a name."""
    for width, height in SIZES:
        for dark in (False, True):
            await page.resize(width, height, dark=dark)
            await page.screenshot(PICTURES / f"{name}-{width}-{'dark' if dark else 'light'}.png")
            assert await page.evaluate(FAINT) == [], f"{name}: too faint to read ({'dark' if dark else 'light'})"
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name} is {wide} px wide at {width}"
    assert await page.unnamed() == [], name
    assert await page.evaluate("[document.documentElement.lang, document.querySelectorAll('h1').length]") == ["en", 1]
    await page.resize(*SIZES[0])


async def sign_in(page: Page, front: DeskFront, token: str = TOKEN) -> None:
    """The board of the person whose token this is."""
    await page.open(front.url)
    await page.fill("Access token", token)
    await page.click("button", "Sign in")
    await page.sees("Board")


def assert_clean(page: Page, front: DeskFront) -> None:
    """Nothing ran that should not, nothing was asked of another host, and nothing went wrong unseen."""
    assert page.hosts() == {f"127.0.0.1:{front.port}"}
    assert page.dialogs == 0
    assert page.trouble == []
