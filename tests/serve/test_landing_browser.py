"""The landing page in a real Chromium: a real recording plays to its end, and nothing of it asks another host."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scripts import desk
from tests.support.chromium import chromium, chromium_program
from tests.support.desk_page import FAINT, SIZES

pytestmark = [pytest.mark.wide, pytest.mark.network, pytest.mark.timeout(600)]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def site() -> Iterator[int]:
    """The port of a plain web server over what the sources make now."""
    if chromium_program() is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    try:
        desk.landing()
    except desk.Failed as error:
        pytest.skip(f"the page could not be built here, is a package registry in reach? {error}")
    handler = partial(Quiet, directory=str(desk.ROOT / "build" / "landing"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


async def test_recording_plays_to_the_delivered_branch(site: int) -> None:
    async with chromium() as page:
        await page.resize(*SIZES[0])
        await page.open(f"http://127.0.0.1:{site}/")
        await page.sees("A software team that argues by evidence", "A real recording")
        await page.sees("Council: design", within_s=100)
        # The browser of the tests asks for no motion, so the page begins at the end of the recording.
        await page.sees("branch delivered")
        await page.click("button", "Play again")
        await page.wait("document.querySelector('.reel').value < document.querySelector('.reel').max / 2")
        await page.wait("document.querySelector('.states .now')?.textContent.toLowerCase() === 'design'", within_s=100)
        await page.sees("branch delivered", "Play again", within_s=100)
        for width, height in SIZES:
            for dark in (False, True):
                await page.resize(width, height, dark=dark)
                assert await page.evaluate(FAINT) == []
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
        assert await page.unnamed() == []
        assert (page.hosts(), page.trouble) == ({f"127.0.0.1:{site}"}, [])
