"""Tool browser in the real sandbox, where Chromium is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.extensions.browser.browser import BrowserTool
from fleet.kernel.errors import InvalidInput, ToolFailed
from fleet.policy.runs.outcome import ToolOutcome
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.memory import MemorySandboxBackend, ProgramEnd
from fleet.trees.memory import MemoryBlobStore
from tests.support.sandbox import put_tree, state_folder
from tests.support.tool_calls import call_of, context_of
from tests.support.tool_kit import DirectSandbox

pytestmark = pytest.mark.wide

PAGE = b"""<!doctype html><html lang="en"><head><title>Shop</title></head><body><h1>Hello</h1>
<button id="buy" onclick="document.title='bought'">Buy</button><button></button>
<input id="name" oninput="document.title=this.value"><script>console.error('bad thing')</script></body></html>"""


@pytest.fixture
def root() -> Iterator[Path]:
    if not shutil.which("chromium"):
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with state_folder() as folder:
        yield folder


async def ask(one: BrowserTool, op: str, tree: Any = None, **args: Any) -> ToolOutcome:
    return await one.call(call_of("browser", op, page="/index.html", **args), context_of(tree=tree, timeout_s=90))


def content(found: ToolOutcome) -> dict[str, Any]:
    assert isinstance(found.content, dict)
    return found.content


@pytest.mark.rule("RT-52", "RT-63")
async def test_page_of_the_workspace_is_seen_clicked_and_filled(root: Path) -> None:
    blobs = MemoryBlobStore()
    tree = await put_tree(blobs, {"site/index.html": PAGE})
    one = BrowserTool(DirectSandbox(BubblewrapBackend(root, blobs)), blobs)
    wanted = {"text_present": ["Hello", "Nowhere"], "selector_present": ["#buy"], "no_console_error": True}

    seen = await ask(one, "click", tree, folder="site", selector="#buy", assertions=wanted)
    filled = await ask(one, "fill", tree, folder="site", selector="#name", value='a "b"')

    assert (seen.outcome, seen.reason) == ("failed", "assertion_failed")
    assert (content(seen)["status"], content(seen)["title"]) == (200, "bought")
    assert [a["holds"] for a in content(seen)["assertions"]] == [True, False, True, False]
    assert [entry["text"] for entry in content(seen)["console"]] == ["bad thing"]
    assert content(seen)["accessibility"]["unnamed"] == ["button", "textbox"]
    assert len(seen.artifacts) == 1
    assert seen.artifacts[0].blob is not None
    assert (await blobs.get(seen.artifacts[0].blob)).startswith(b"\x89PNG")
    assert content(filled)["title"] == 'a "b"'
    assert filled.outcome == "succeeded"


# What does not need a browser: the run is scripted.


async def outcome_of_run(end: ProgramEnd, op: str = "open", **args: Any) -> ToolOutcome:
    blobs = MemoryBlobStore()

    async def program(start: Any) -> ProgramEnd:
        return end

    return await ask(BrowserTool(DirectSandbox(MemorySandboxBackend(program, blobs)), blobs), op, **args)


def ended(code: int, document: bytes) -> ProgramEnd:
    return ProgramEnd(exit_code=code, written={"out/browser.json": document})


async def test_missing_browser_is_named_and_a_broken_one_is_a_failure() -> None:
    found = await outcome_of_run(ended(2, b'{"missing": "no browser: install chromium"}'))

    assert (found.outcome, found.reason) == ("failed", "program_missing")
    assert "chromium" in found.text
    with pytest.raises(ToolFailed, match="broke"):
        await outcome_of_run(ended(3, b'{"broken": "the browser ended"}'))
    nothing = await outcome_of_run(ProgramEnd(exit_code=1))
    assert (nothing.outcome, nothing.exit_code) == ("failed", 1)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b'{"error": "net::ERR_FAILED", "load_ms": 1.5}', "page_not_loaded"),
        (b'{"error": null, "action": {"found": false}}', "element_missing"),
        (b'{"error": null, "action": null, "assertions": []}', "assertion_failed"),
    ],
)
async def test_what_failed_is_the_reason(document: bytes, reason: str) -> None:
    assert (await outcome_of_run(ended(1, document))).reason == reason


async def test_dom_is_the_text_and_the_whole_of_it_a_blob() -> None:
    found = await outcome_of_run(ended(0, b'{"error": null, "dom": "<html>%s</html>"}' % (b"x" * 20_000)), "dom")

    assert found.text.startswith("<html>xx")
    assert found.output is not None
    assert "dom" not in content(found)


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("open", {"assertions": {"anything": True}}),
        ("open", {"assertions": {"text_present": "a"}}),
        ("open", {"folder": "a", "service": ["python", "app.py"]}),
        ("click", {}),
        ("fly", {}),
    ],
)
async def test_wrong_arguments_are_refused(op: str, args: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await outcome_of_run(ended(0, b"{}"), op, **args)
