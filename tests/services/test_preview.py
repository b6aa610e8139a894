"""Pages of a declared preview, looked at by a real Chromium in the real sandbox: good ones and each of the bad ones."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from fleet.kernel.ids import EntityId, StoryId
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.trees.memory import MemoryBlobStore
from fleet.workspace.report import TestSection, WorkspaceReport
from fleet.workspace.service.workspace import WorkspaceService
from tests.support.chromium import chromium_program
from tests.support.sandbox import put_tree, state_folder

pytestmark = pytest.mark.wide

APP = b"""
import http.server, os, sys, time

HEAD = "<!doctype html><html lang=en><meta name=viewport content='width=device-width'><title>Shop</title><body>"
PAGES = {
    "/": HEAD + "<h1 id=top>Hello   there</h1><script>setTimeout(() => document.body.append('Late'), 700)</script>",
    "/hidden": HEAD + "<p style='display:none'>Secret</p><p>Shown</p>",
    "/console": HEAD + "<script>console.error('broken widget')</script>",
    "/raises": HEAD + "<script>throw new Error('boom')</script>",
    "/wide": HEAD + "<div style='width:900px'>wide</div>",
    "/dialog": HEAD + "<script>alert('a'); confirm('b'); onbeforeunload = () => 1</script><p>After</p>",
    "/loop": HEAD + "<script>for (;;) {}</script>",
    "/flood": HEAD + "<script>const x = 'x'.repeat(1e6); for (let i = 0; i < 40; i++) console.log(x)</script><p>F</p>",
    "/lies": HEAD + "<script>String.prototype.includes = () => true; Document.prototype.querySelector = () => 1;"
             "Object.defineProperty(document.body, 'innerText', {get: () => 'Secret'})</script><p>Shown</p>",
    "/leaves": HEAD + "<script>location.href = 'http://example.com/'</script>",
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path
        if path == "/hangs":
            time.sleep(600)
        if path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "http://example.com/")
            return self.end_headers()
        if path == "/dies":
            os._exit(3)
        found = PAGES.get(path)
        self.send_response(200 if found else 500 if path == "/fails" else 404)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write((found or "<p>sorry</p>").encode())

    def log_message(self, *_):
        pass


print("y" * 3_000_000, flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def declared(*pages: str, command: str = '["python", "app.py"]', more: str = "") -> bytes:
    listed = "".join(f"[[preview.pages]]\n{page}\n" for page in pages)
    return f"[preview]\ncommand = {command}\nport = 8000\npage_s = 10\n{more}\n{listed}".encode()


class Place:
    """The pipeline over one state folder."""

    def __init__(self, backend: BubblewrapBackend, blobs: MemoryBlobStore) -> None:
        self.backend, self.blobs = backend, blobs
        self.runs: list[RunResult] = []

    async def run(self, spec: RunSpec) -> RunResult:
        self.runs.append(await self.backend.run(spec, run_id=f"rn-{len(self.runs)}"))
        return self.runs[-1]

    async def measure(self, declaration: bytes, files: Mapping[str, bytes] = MappingProxyType({})) -> WorkspaceReport:
        tree = await put_tree(self.blobs, {"app.py": APP, ".fleet/workspace.toml": declaration, **files})
        ids = {"run_id": EntityId("rn-1"), "story_id": StoryId("st-1")}
        stages = ("build", "e2e")
        found = await WorkspaceService(self.run, self.blobs).measure(tree, rigor="L1", stages=stages, **ids)
        return found.report


@pytest.fixture
async def place() -> AsyncGenerator[Place]:
    if chromium_program() is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with state_folder() as state:
        blobs = MemoryBlobStore()
        backend = BubblewrapBackend(state, blobs)
        health = await backend.health()
        if health.status == "down":
            pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
        yield Place(backend, blobs)


def failures(report: WorkspaceReport) -> dict[str, str]:
    assert isinstance(report.e2e, TestSection), report.stages
    return {f.id.removeprefix("preview::"): f.message for f in report.e2e.failures}


@pytest.mark.rule("RC-75")
async def test_good_pages_pass_and_leave_a_picture_each(place: Place) -> None:
    report = await place.measure(
        declared(
            'path = "/"\ntext = ["Hello there", "Late"]\nselectors = ["#top"]',
            'path = "/"\nwidth = 390',
            'path = "/gone"\nstatus = 404\ntext = ["sorry"]',
            'path = "/fails"\nstatus = 500',
            'path = "/dialog"\ntext = ["After"]',
            'path = "/console"\nallow_errors = true',
        )
    )

    assert failures(report) == {}
    assert report.e2e is not None
    assert (report.e2e.ok, report.e2e.passed) == (True, 6)
    stage = report.stage("e2e")
    assert stage is not None
    assert (stage.status, stage.exit_code) == ("passed", 0)
    assert len(report.e2e.artifacts) == 6
    for picture in report.e2e.artifacts:
        assert (await place.blobs.get(picture)).startswith(b"\x89PNG")


@pytest.mark.rule("RC-75")
async def test_example_of_the_documentation_passes(place: Place) -> None:
    page = (Path(__file__).parents[2] / "docs/preview.md").read_text(encoding="utf-8")
    example = page.split("```toml\n", 1)[1].split("```", 1)[0].encode()
    files = {
        "site/index.html": b"<h1>Welcome to the shop</h1><nav><a href='/contact.html'>Contact</a></nav>",
        "site/contact.html": b"<meta name=viewport content='width=device-width'><p>Write to us</p>",
    }
    report = await place.measure(example, files=files)

    assert failures(report) == {}
    assert report.e2e is not None
    assert report.e2e.passed == 3


@pytest.mark.rule("RC-75")
async def test_bad_pages_fail_with_what_was_expected_and_what_was_found(place: Place) -> None:
    report = await place.measure(
        declared(
            'path = "/fails"',
            'path = "/hidden"\ntext = ["Secret"]\nselectors = ["#none", "::"]',
            'path = "/lies"\ntext = ["Secret"]\nselectors = ["#none"]',
            'path = "/console"',
            'path = "/raises"',
            'path = "/wide"\nwidth = 390',
            'path = "/elsewhere"',
            'path = "/leaves"',
            'path = "/loop"',
            'path = "/hangs"',
            'path = "/flood"\ntext = ["F"]',
            'path = "/dies"',
            'path = "/"',
        )
    )

    found = failures(report)
    assert found["/fails"].startswith("expected status 200, found 500")
    assert "expected the text 'Secret', found 'Shown'; expected an element '#none', found no such" in found["/hidden"]
    assert "'::', found that it is no CSS selector" in found["/hidden"]
    assert found["/lies"].startswith("expected the text 'Secret', found 'Shown'; expected an element '#none'")
    assert found["/console"] == "expected no error, found 'broken widget'"
    assert "boom" in found["/raises"]
    assert found["/wide at 390 px"].startswith("expected it to fit into 390 px, found 9")
    assert "it leads to http://example.com/" in found["/elsewhere"]
    assert "it leads to http://example.com/" in found["/leaves"]
    assert found["/loop"].startswith("expected a page within 10 s")
    assert found["/hangs"].startswith("expected a page within 10 s")
    assert found["/flood"] == "expected no error, found more messages than can be read"
    assert "ended with exit code 3" in found["/dies"]
    assert "ended with exit code 3" in found["/"]
    assert report.e2e is not None
    assert (report.e2e.passed, report.e2e.failed, report.e2e.errored) == (0, 13, 0)
    stage = report.stage("e2e")
    assert stage is not None
    assert stage.status == "failed"
    log = next(a for a in place.runs[-1].artifacts if a.path == "out/preview.log")
    assert log.size_bytes == 256 << 10


@pytest.mark.rule("RC-75")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ('["python", "-c", "import time; time.sleep(900)"]', "within 2 s, found none"),
        ('["python", "-c", "raise SystemExit(\'no table\')"]', "exit code 1; it said last: no table"),
        ('["no-such-program"]', "cannot be started: no-such-program"),
    ],
)
async def test_preview_that_cannot_be_looked_at_fails_every_page(place: Place, command: str, words: str) -> None:
    report = await place.measure(declared('path = "/"', 'path = "/b"', command=command, more="ready_s = 2"))

    assert set(failures(report)) == {"/", "/b"}
    assert all(words in message for message in failures(report).values())


@pytest.mark.rule("RC-75")
async def test_declaration_that_is_not_valid_is_an_errored_test(place: Place) -> None:
    report = await place.measure(declared('path = "no slash"'))

    assert failures(report)["declaration"].startswith(
        ".fleet/workspace.toml, line 7: preview.pages[0].path: must be a path of the preview"
    )
