"""Runs inside the sandbox: opens one page in a headless Chromium and writes down what was seen (RT-63).

Reads /inputs/request.json, writes `out/browser.json` and `out/screenshot.png` below /workspace. Standard library only:
the browser is driven over --remote-debugging-pipe, so nothing listens. Own profile per run; no downloads, no file
addresses: static files are served from the workspace by this script on a loopback port of the sandbox's own network.
"""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from browser_pipe import OUT, PROGRAMS, Broken, Browser, Missing, program

Json = dict[str, Any]
REQUEST = Path("/inputs/request.json")
MAX_NODES = 400
MAX_ENTRIES = 100
MAX_DOM = 400_000
QUIET_S = 0.5


class Folder(http.server.SimpleHTTPRequestHandler):
    """Serves files below one folder; nothing is logged."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def send_head(self) -> Any:
        """Refuse what a link leads to outside of the folder."""
        if self.path == "/favicon.ico" and not Path(str(self.directory), "favicon.ico").exists():
            # Every browser asks for it; that there is none is no error of the page.
            self.send_response(204)
            self.end_headers()
            return None
        root = os.path.realpath(self.directory)
        path = os.path.realpath(self.translate_path(self.path))
        if path != root and not path.startswith(root + os.sep):
            self.send_error(404)
            return None
        return super().send_head()


def served(folder: str) -> int:
    """The port at which the folder is served until this process ends."""
    handler = functools.partial(Folder, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def address(request: Json) -> str:
    """The page's address: below a folder of the workspace that is served here, or of the service beside us."""
    page = request["page"]
    if not page.startswith("/"):
        raise Broken(f"page {page!r} does not begin with a slash")
    if request.get("folder") is not None:
        return f"http://127.0.0.1:{served(request['folder'])}{page}"
    # The service beside this command: its port is in the environment.
    return f"http://{os.environ['PREVIEW_HOST']}:{os.environ['PREVIEW_PORT']}{page}"


def visit(browser: Browser, request: Json) -> Json:
    """Open the page, act on it, and say what was seen."""
    url = address(request)
    started = time.monotonic()
    browser.open_page()
    navigated = browser.send("Page.navigate", url=url)
    loaded = browser.wait_for(lambda: _has(browser, "Page.loadEventFired"), browser.deadline - 5)
    load_ms = int((time.monotonic() - started) * 1000)
    browser.listen(QUIET_S)
    action = act(browser, request)
    tree = browser.send("Accessibility.getFullAXTree").get("nodes", [])
    seen = {
        "url": evaluated(browser, "location.href"),
        "status": status_of(browser.events, navigated.get("frameId")),
        "title": evaluated(browser, "document.title"),
        "loaded": loaded,
        "load_ms": load_ms,
        "error": navigated.get("errorText"),
        "console": console(browser.events),
        "failed_requests": failed(browser.events),
        "accessibility": summary(tree),
        "action": action,
    }
    seen["assertions"] = assertions(browser, request.get("assertions") or {}, seen)
    if request.get("dom"):
        seen["dom"] = (evaluated(browser, "document.documentElement.outerHTML") or "")[:MAX_DOM]
    shot = browser.send("Page.captureScreenshot", format="png")
    (OUT / "screenshot.png").write_bytes(base64.b64decode(shot["data"]))
    return seen


def act(browser: Browser, request: Json) -> Json | None:
    """Click or fill; whether the element was there."""
    op, selector = request["op"], request.get("selector")
    if op not in ("click", "fill"):
        return None
    script = (
        "(() => {const e = document.querySelector(%s); if (!e) return false; e.scrollIntoView(); e.focus();"
        " %s; return true})()"
    )
    if op == "click":
        done = evaluated(browser, script % (json.dumps(selector), "e.click()"))
    else:
        value = json.dumps(request.get("value") or "")
        # The setter of the prototype: frameworks put one of their own on the element.
        setting = (
            f"const d = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(e), 'value'); "
            f"d && d.set ? d.set.call(e, {value}) : e.textContent = {value}; "
            "e.dispatchEvent(new Event('input', {bubbles: true})); "
            "e.dispatchEvent(new Event('change', {bubbles: true}))"
        )
        done = evaluated(browser, script % (json.dumps(selector), setting))
    browser.listen(QUIET_S)
    return {"op": op, "selector": selector, "found": done is True}


def assertions(browser: Browser, asked: Json, seen: Json) -> list[Json]:
    """Every declared assertion and whether it holds."""
    answers: list[Json] = []
    for text in list[Any](asked.get("text_present") or []):
        holds = evaluated(browser, f"document.body && document.body.innerText.includes({json.dumps(text)})")
        answers.append({"kind": "text_present", "value": text, "holds": holds is True})
    for selector in list[Any](asked.get("selector_present") or []):
        holds = evaluated(browser, f"!!document.querySelector({json.dumps(selector)})")
        answers.append({"kind": "selector_present", "value": selector, "holds": holds is True})
    if asked.get("no_console_error"):
        holds = not any(entry["level"] == "error" for entry in seen["console"])
        answers.append({"kind": "no_console_error", "value": True, "holds": holds})
    if (limit := asked.get("load_under_ms")) is not None:
        answers.append({"kind": "load_under_ms", "value": limit, "holds": seen["loaded"] and seen["load_ms"] <= limit})
    return answers


def evaluated(browser: Browser, expression: str) -> Any:
    """The value of a script in the page; None when it raises."""
    result = browser.send("Runtime.evaluate", expression=expression, returnByValue=True)
    return None if "exceptionDetails" in result else result.get("result", {}).get("value")


def _has(browser: Browser, method: str) -> bool:
    return any(event["method"] == method for event in browser.events)


def status_of(events: list[Json], frame: str | None) -> int | None:
    """The HTTP status of the document that is shown."""
    answers = [
        e["params"]["response"]["status"]
        for e in events
        if e["method"] == "Network.responseReceived"
        and e["params"].get("type") == "Document"
        and e["params"].get("frameId") == frame
    ]
    return answers[-1] if answers else None


def console(events: list[Json]) -> list[Json]:
    """Messages, uncaught errors and log entries, in order: the first of them."""
    return entries(events)[:MAX_ENTRIES]


def entries(events: list[Json]) -> list[Json]:
    """All messages, uncaught errors and log entries, in order."""
    rows: list[Json] = []
    for event in events:
        params = event.get("params", {})
        if event["method"] == "Runtime.consoleAPICalled":
            texts = [str(a.get("value", a.get("description", a.get("type")))) for a in params.get("args", [])]
            rows.append({"level": params["type"], "text": " ".join(texts)[:1000]})
        elif event["method"] == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details.get("text", "")
            rows.append({"level": "error", "text": text[:1000]})
        elif event["method"] == "Log.entryAdded":
            entry = params["entry"]
            rows.append({"level": entry["level"], "text": f"{entry['text']} {entry.get('url', '')}".strip()[:1000]})
    return rows


def failed(events: list[Json]) -> list[Json]:
    """Requests without answer, or with a status of 400 and more."""
    urls = {e["params"]["requestId"]: e["params"]["request"]["url"] for e in events if e["method"] == _SENT}
    requests: list[Json] = []
    for event in events:
        params = event.get("params", {})
        if event["method"] == "Network.loadingFailed":
            requests.append({"url": urls.get(params["requestId"], "")[:500], "error": params.get("errorText", "")})
        elif event["method"] == "Network.responseReceived" and params["response"]["status"] >= 400:
            requests.append({"url": params["response"]["url"][:500], "error": str(params["response"]["status"])})
    return requests[:MAX_ENTRIES]


_SENT = "Network.requestWillBeSent"


def summary(nodes: list[Json]) -> Json:
    """Roles by number, and what has a role that needs a name and no name."""
    roles: dict[str, int] = {}
    unnamed: list[str] = []
    lines: list[str] = []
    for node in nodes:
        role = node.get("role", {}).get("value", "")
        if node.get("ignored") or role in ("", "none", "generic", "InlineTextBox", "StaticText", "RootWebArea"):
            continue
        name = str(node.get("name", {}).get("value", ""))
        roles[role] = roles.get(role, 0) + 1
        if role in ("button", "link", "textbox", "image", "img", "checkbox", "combobox") and not name.strip():
            unnamed.append(role)
        if len(lines) < MAX_NODES:
            lines.append(f"{role}: {name[:120]}" if name else role)
    return {"roles": roles, "unnamed": unnamed[:MAX_ENTRIES], "outline": lines}


def main(path: Path = REQUEST, programs: Sequence[str] = PROGRAMS) -> int:
    """Return 0 when the page was seen and every assertion holds. It is 1 when not, 2 without a browser, 3 when it
    broke.
    """
    request = json.loads(path.read_text())
    OUT.mkdir(exist_ok=True)
    code = 3
    result: Json = {}
    with tempfile.TemporaryDirectory() as profile:
        browser = None
        try:
            executable = program(programs)
            browser = Browser(executable, profile, time.monotonic() + request.get("timeout_s", 60))
            result = visit(browser, request)
            acted = result["action"] is None or result["action"]["found"]
            held = all(a["holds"] for a in result["assertions"])
            code = 0 if result["error"] is None and acted and held else 1
        except Missing as error:
            code, result = 2, {"missing": str(error)}
        except (Broken, OSError) as error:
            result = {"broken": str(error)}
        finally:
            if browser is not None:
                browser.close()
    (OUT / "browser.json").write_text(json.dumps(result))
    print(json.dumps({k: v for k, v in result.items() if k not in ("dom", "accessibility")})[:4000])
    return code


if __name__ == "__main__":
    sys.exit(main())
