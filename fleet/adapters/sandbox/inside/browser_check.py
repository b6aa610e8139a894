"""Runs inside the sandbox: opens one page in a headless Chromium and writes down what was seen (RT-63).

Reads /inputs/request.json, writes `out/browser.json` and `out/screenshot.png` below /workspace. Standard library only:
the browser is driven over --remote-debugging-pipe, so nothing listens. Own profile per run; no downloads, no file
addresses: static files are served from the workspace by this script on a loopback port of the sandbox's own network.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]
REQUEST = Path("/inputs/request.json")
OUT = Path("out")
# Debian's `chromium` is a script that reads files of /etc, which the sandbox does not have.
PROGRAMS = ("/usr/lib/chromium/chromium", "chromium", "chromium-browser", "google-chrome", "headless_shell")
MAX_NODES = 400
MAX_ENTRIES = 100
MAX_DOM = 400_000
QUIET_S = 0.5
MAX_EVENT_BYTES = 16 << 20
"""What a page says beyond that is not kept: `is_flooded` is set."""
MAX_MESSAGE = 64 << 20


class Missing(Exception):
    """No browser is installed here."""


class Broken(Exception):
    """The browser ended or did not answer."""


class Browser:
    """One Chromium and one page of it, by the DevTools protocol over two pipes."""

    def __init__(self, program: str, profile: str, deadline: float) -> None:
        self.deadline = deadline
        self.events: list[Json] = []
        self.is_flooded = False
        self._event_bytes = 0
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        with (OUT / "chromium.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _EXEC, str(to_read), str(to_write), program, *_flags(profile)],
                pass_fds=(to_read, to_write),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        os.close(to_read)
        os.close(to_write)
        self._own_ends = (self._to, self._from)

    def open_page(self) -> None:
        """A page of its own is attached, and its events are told."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Browser.setDownloadBehavior", behavior="deny")
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: object) -> Json:
        """The result of one command; Broken when the browser refuses it or is gone."""
        number = self._write(method, params)
        while True:
            found = self._next(self.deadline)
            if found is None:
                raise Broken(f"no answer to {method}")
            if found.get("id") == number:
                if "error" in found:
                    raise Broken(f"{method}: {found['error'].get('message')}")
                return found.get("result", {})

    def _write(self, method: str, params: Json) -> int:
        self._number += 1
        message: Json = {"id": self._number, "method": method, "params": params}
        if self._session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        return self._number

    def wait_for(self, holds: Callable[[], bool], until: float) -> bool:
        """Whether the condition came true before the time; events are read meanwhile."""
        while not holds():
            if time.monotonic() >= until or self._next(until) is None and time.monotonic() >= until:
                return holds()
        return True

    def listen(self, seconds: float) -> None:
        """Read events for a while."""
        until = min(time.monotonic() + seconds, self.deadline)
        while time.monotonic() < until:
            self._next(until)

    def _next(self, until: float) -> Json | None:
        """The next message; events are kept. None when the time is over."""
        while b"\0" not in self._buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                return None
            data = os.read(self._from, 1 << 20)
            if not data:
                raise Broken("the browser ended")
            self._buffer += data
            if len(self._buffer) > MAX_MESSAGE:
                raise Broken("the browser says more than can be read")
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(raw)
        if "method" in message:
            self._event(message, len(raw))
        return message

    def _event(self, message: Json, size: int) -> None:
        if message["method"] == "Page.javascriptDialogOpening":
            # The page stands still until somebody answers, and nobody else is here.
            is_leaving = message["params"].get("type") == "beforeunload"
            self._write("Page.handleJavaScriptDialog", {"accept": is_leaving})
        self._event_bytes += size
        if self._event_bytes > MAX_EVENT_BYTES:
            self.is_flooded = True
        if not self.is_flooded or message["method"] == "Page.loadEventFired":
            self.events.append(message)

    def close(self) -> None:
        """End the browser and all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for end in self._own_ends:
            os.close(end)


# The protocol's pipes are descriptors 3 and 4 of the browser.
_EXEC = (
    "import os, sys; a, b = int(sys.argv[1]), int(sys.argv[2]); "
    "c, d = os.dup(a), os.dup(b); c, d = (os.dup(c), os.dup(d)); "
    "import fcntl; c = fcntl.fcntl(c, fcntl.F_DUPFD, 20); d = fcntl.fcntl(d, fcntl.F_DUPFD, 20); "
    "os.dup2(c, 3, inheritable=True); os.dup2(d, 4, inheritable=True); os.closerange(5, 64); "
    "os.execvp(sys.argv[3], sys.argv[3:])"
)


def _flags(profile: str) -> list[str]:
    return [
        "--headless=new",
        "--remote-debugging-pipe",
        # Chromium's own sandbox needs namespaces, which this sandbox takes away; the run as a whole is the sandbox.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-extensions",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-default-apps",
        "--no-first-run",
        "--no-default-browser-check",
        "--disable-breakpad",
        "--disable-features=Translate,MediaRouter,OptimizationHints",
        "--password-store=basic",
        "--use-mock-keychain",
        "--hide-scrollbars",
        "--mute-audio",
        "--window-size=1280,800",
        f"--user-data-dir={profile}",
        "about:blank",
    ]


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


def program(names: Sequence[str] = PROGRAMS) -> str:
    """The browser that is installed."""
    for name in names:
        if (found := shutil.which(name)) is not None:
            return found
    raise Missing(f"no browser: install chromium (looked for {', '.join(names)})")


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


def assertions(browser: Browser, wanted: Json, seen: Json) -> list[Json]:
    """Every declared assertion and whether it holds."""
    found: list[Json] = []
    for text in list[Any](wanted.get("text_present") or []):
        holds = evaluated(browser, f"document.body && document.body.innerText.includes({json.dumps(text)})")
        found.append({"kind": "text_present", "value": text, "holds": holds is True})
    for selector in list[Any](wanted.get("selector_present") or []):
        holds = evaluated(browser, f"!!document.querySelector({json.dumps(selector)})")
        found.append({"kind": "selector_present", "value": selector, "holds": holds is True})
    if wanted.get("no_console_error"):
        holds = not any(entry["level"] == "error" for entry in seen["console"])
        found.append({"kind": "no_console_error", "value": True, "holds": holds})
    if (limit := wanted.get("load_under_ms")) is not None:
        found.append({"kind": "load_under_ms", "value": limit, "holds": seen["loaded"] and seen["load_ms"] <= limit})
    return found


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
    found: list[Json] = []
    for event in events:
        params = event.get("params", {})
        if event["method"] == "Runtime.consoleAPICalled":
            texts = [str(a.get("value", a.get("description", a.get("type")))) for a in params.get("args", [])]
            found.append({"level": params["type"], "text": " ".join(texts)[:1000]})
        elif event["method"] == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details.get("text", "")
            found.append({"level": "error", "text": text[:1000]})
        elif event["method"] == "Log.entryAdded":
            entry = params["entry"]
            found.append({"level": entry["level"], "text": f"{entry['text']} {entry.get('url', '')}".strip()[:1000]})
    return found


def failed(events: list[Json]) -> list[Json]:
    """Requests without answer, or with a status of 400 and more."""
    urls = {e["params"]["requestId"]: e["params"]["request"]["url"] for e in events if e["method"] == _SENT}
    found: list[Json] = []
    for event in events:
        params = event.get("params", {})
        if event["method"] == "Network.loadingFailed":
            found.append({"url": urls.get(params["requestId"], "")[:500], "error": params.get("errorText", "")})
        elif event["method"] == "Network.responseReceived" and params["response"]["status"] >= 400:
            found.append({"url": params["response"]["url"][:500], "error": str(params["response"]["status"])})
    return found[:MAX_ENTRIES]


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
    """0 when the page was seen and every assertion holds, 1 when not, 2 without a browser, 3 when it broke."""
    request = json.loads(path.read_text())
    OUT.mkdir(exist_ok=True)
    code = 3
    result: Json = {}
    with tempfile.TemporaryDirectory() as profile:
        browser = None
        try:
            found = program(programs)
            browser = Browser(found, profile, time.monotonic() + request.get("timeout_s", 60))
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
