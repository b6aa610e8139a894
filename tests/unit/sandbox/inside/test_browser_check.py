"""The script behind the tool browser, with a browser that is scripted: it speaks the protocol over the two pipes."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.inside import load

check = load("browser_check")

BROWSER = """#!{python}
import base64, json, os, sys
plan = json.load(open({plan!r}))
buffer = b""
def tell(message):
    os.write(4, json.dumps(message).encode() + b"\\0")
while True:
    data = os.read(3, 65536)
    if not data:
        break
    buffer += data
    while b"\\0" in buffer:
        raw, _, buffer = buffer.partition(b"\\0")
        asked = json.loads(raw)
        method, params = asked["method"], asked["params"]
        if method == plan.get("dies_at"):
            sys.exit(1)
        if method == plan.get("fails_at"):
            tell({{"id": asked["id"], "error": {{"message": "refused"}}}})
            continue
        result = {{}}
        if method == "Target.createTarget":
            result = {{"targetId": "t"}}
        elif method == "Target.attachToTarget":
            result = {{"sessionId": "s"}}
        elif method == "Page.navigate":
            result = {{"frameId": "f", **plan.get("navigated", {{}})}}
            for event in plan.get("events", []):
                tell(event)
            tell({{"method": "Page.loadEventFired", "params": {{}}}})
        elif method == "Accessibility.getFullAXTree":
            result = {{"nodes": plan.get("nodes", [])}}
        elif method == "Page.captureScreenshot":
            result = {{"data": base64.b64encode(b"PNG").decode()}}
        elif method == "Runtime.evaluate":
            known = [v for k, v in plan.get("values", {{}}).items() if k in params["expression"]]
            result = known[0] if known else {{"result": {{"value": True}}}}
        tell({{"id": asked["id"], "result": result}})
"""


def response(status: int, kind: str = "Document", url: str = "http://127.0.0.1/") -> dict[str, Any]:
    params = {"requestId": "1", "type": kind, "frameId": "f", "response": {"status": status, "url": url}}
    return {"method": "Network.responseReceived", "params": params}


class Run:
    """One run of the script in a folder of its own."""

    def __init__(self, folder: Path, plan: dict[str, Any]) -> None:
        self.folder = folder
        plan_file = folder / "plan.json"
        plan_file.write_text(json.dumps(plan))
        self.browser = folder / "browser"
        self.browser.write_text(BROWSER.format(python=sys.executable, plan=str(plan_file)))
        self.browser.chmod(0o755)
        (folder / "site").mkdir()
        (folder / "site" / "index.html").write_text("<h1>Hello</h1>")

    def __call__(self, **request: Any) -> tuple[int, dict[str, Any]]:
        asked = {"op": "open", "page": "/index.html", "folder": "site", "timeout_s": 20, **request}
        (self.folder / "request.json").write_text(json.dumps(asked))
        code = check.main(self.folder / "request.json", [str(self.browser)])
        return code, json.loads((self.folder / "out" / "browser.json").read_text())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    return lambda **plan: Run(tmp_path, plan)


@pytest.mark.rule("RT-63")
def test_page_is_seen_with_its_status_errors_and_picture(run: Any, tmp_path: Path) -> None:
    events = [
        {"method": "Network.requestWillBeSent", "params": {"requestId": "9", "request": {"url": "http://x/a"}}},
        response(200),
        response(404, "Image", "http://127.0.0.1/x.png"),
        {"method": "Network.loadingFailed", "params": {"requestId": "9", "errorText": "net::ERR"}},
        {"method": "Runtime.consoleAPICalled", "params": {"type": "error", "args": [{"value": "bad"}, {"type": "x"}]}},
        {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": {"text": "Uncaught"}}},
        {"method": "Log.entryAdded", "params": {"entry": {"level": "warning", "text": "slow", "url": "u"}}},
    ]
    nodes = [
        {"role": {"value": "button"}, "name": {"value": ""}},
        {"role": {"value": "heading"}, "name": {"value": "Hello"}},
        {"role": {"value": "generic"}},
        {"ignored": True, "role": {"value": "link"}},
    ]
    code, seen = run(events=events, nodes=nodes, values={"outerHTML": {"result": {"value": "<html>"}}})(dom=True)

    assert code == 0
    assert (seen["status"], seen["action"], seen["dom"]) == (200, None, "<html>")
    assert seen["failed_requests"] == [
        {"url": "http://127.0.0.1/x.png", "error": "404"},
        {"url": "http://x/a", "error": "net::ERR"},
    ]
    assert [e["text"] for e in seen["console"]] == ["bad x", "Uncaught", "slow u"]
    assert seen["accessibility"] == {
        "roles": {"button": 1, "heading": 1},
        "unnamed": ["button"],
        "outline": ["button", "heading: Hello"],
    }
    assert (tmp_path / "out" / "screenshot.png").read_bytes() == b"PNG"


@pytest.mark.rule("RT-63")
def test_assertion_that_does_not_hold_fails_the_run(run: Any) -> None:
    wanted = {"text_present": ["a"], "selector_present": ["#b"], "no_console_error": True, "load_under_ms": 60_000}
    values = {"innerText": {"exceptionDetails": {}}}
    error = {"method": "Runtime.consoleAPICalled", "params": {"type": "error", "args": []}}
    code, seen = run(values=values, events=[error])(assertions=wanted)

    assert code == 1
    assert [(a["kind"], a["holds"]) for a in seen["assertions"]] == [
        ("text_present", False),
        ("selector_present", True),
        ("no_console_error", False),
        ("load_under_ms", True),
    ]
    assert seen["status"] is None


@pytest.mark.parametrize(("op", "value", "code"), [("click", True, 0), ("fill", True, 0), ("click", False, 1)])
def test_element_that_is_missing_fails_the_action(run: Any, op: str, value: bool, code: int) -> None:
    found, seen = run(values={"querySelector": {"result": {"value": value}}})(op=op, selector="#a", value="x")

    assert (found, seen["action"]) == (code, {"op": op, "selector": "#a", "found": value})


def test_page_that_cannot_be_loaded_fails(run: Any) -> None:
    code, seen = run(navigated={"errorText": "net::ERR_CONNECTION_REFUSED"})()

    assert (code, seen["error"]) == (1, "net::ERR_CONNECTION_REFUSED")


@pytest.mark.parametrize(
    ("plan", "request_", "told"),
    [
        ({"fails_at": "Page.enable"}, {}, "Page.enable: refused"),
        ({"dies_at": "Page.navigate"}, {}, "the browser ended"),
        ({}, {"timeout_s": 0}, "no answer to Target.createTarget"),
        ({}, {"page": "file:///etc/passwd"}, "does not begin with a slash"),
    ],
)
def test_browser_that_breaks_is_told_apart_from_a_bad_page(
    run: Any, plan: dict[str, Any], request_: dict[str, Any], told: str
) -> None:
    code, seen = run(**plan)(**request_)

    assert code == 3
    assert told in seen["broken"]


def test_missing_browser_is_named(run: Any) -> None:
    one = run()
    one.browser.unlink()
    code, seen = one()

    assert code == 2
    assert "install chromium" in seen["missing"]


def test_service_beside_the_command_is_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREVIEW_HOST", "127.0.0.1")
    monkeypatch.setenv("PREVIEW_PORT", "8000")

    assert check.address({"page": "/a"}) == "http://127.0.0.1:8000/a"


def test_waiting_ends_with_the_time(run: Any) -> None:
    one = run()
    Path("out").mkdir()
    browser = check.Browser(str(one.browser), "profile", time.monotonic() + 5)
    try:
        assert browser.wait_for(lambda: False, time.monotonic() + 0.05) is False
    finally:
        browser.close()


@pytest.mark.rule("RT-63")
def test_folder_serves_its_own_files_alone(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "a.txt").write_text("here")
    (tmp_path / "secret").write_text("not here")
    (tmp_path / "site" / "link").symlink_to(tmp_path / "secret")
    port = check.served(str(tmp_path / "site"))

    def got(path: str) -> tuple[int, bytes]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read()

    assert got("/a.txt") == (200, b"here")
    assert got("/favicon.ico") == (204, b"")
    for path in ("/link", "/../secret"):
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            got(path)
        caught.value.close()
