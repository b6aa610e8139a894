"""Look at one page of a preview in a headless Chromium, and judge what was seen (RC-75).

The page is not trusted: our questions run in a world of their own, whose built-in functions the page cannot replace.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from browser_check import entries, status_of
from browser_pipe import Broken, Browser

Json = dict[str, Any]
WIDTH, HEIGHT = 1280, 900
MAX_PICTURE = 8 << 20
_SETTLE_S = 5.0
"""How long a page may take after its load event until all that is declared of it is there."""
_QUIET_S = 0.5
_LOOK_S = 0.2
_SHORT = 100
_EMPTY = "net::ERR_HTTP_RESPONSE_CODE_FAILURE"
"""What the browser says of an error status without a body: the status is judged by itself."""

_SEEN = """((texts, selectors) => {
  const flat = (text) => text.replace(/\\s+/g, ' ');
  const shown = flat(document.body ? document.body.innerText ?? '' : '');
  const there = (selector) => {
    try { return document.querySelector(selector) !== null; } catch { return 'invalid'; }
  };
  return {
    url: location.href.slice(0, 500), texts: texts.map((text) => shown.includes(flat(text))),
    selectors: selectors.map(there), width: document.documentElement.scrollWidth, shown: shown.trim().slice(0, 100),
  };
})(%s, %s)"""


def look(browser: Browser, base: str, page: Json) -> Json:
    """What was seen: `status`, `error`, `asked` (the last address of the document), `loaded`, `flooded`, `errors`, and
    of the page itself `url`, `texts`, `selectors`, `width` (pixels), `shown`. Broken when the page lets nobody look."""
    width = page["width"] or WIDTH
    size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
    browser.send("Emulation.setDeviceMetricsOverride", **size)
    url = base + page["path"]
    navigated = browser.send("Page.navigate", url=url)
    frame = navigated.get("frameId")
    loaded = browser.wait_for(lambda: any(e["method"] == "Page.loadEventFired" for e in browser.events), _end(browser))
    seen = _settled(browser, page)
    status = status_of(browser.events, frame)
    return {
        **seen,
        "status": status,
        "error": navigated.get("errorText"),
        "asked": _asked(browser.events, frame),
        "loaded": loaded,
        "flooded": browser.is_flooded,
        "errors": _errors(browser.events, ignored={f"{base}/favicon.ico", url if status == page["status"] else ""}),
    }


def _end(browser: Browser) -> float:
    """The time until which a page may load: some is left for the look and the picture."""
    return time.monotonic() + max(0.5, 0.7 * (browser.deadline - time.monotonic()))


def _settled(browser: Browser, page: Json) -> Json:
    until = min(time.monotonic() + _SETTLE_S, _end(browser))
    while not _is_there(_look(browser, page)) and time.monotonic() < until:
        browser.listen(_LOOK_S)
    # Errors come late, and what was there may go again: the last look counts.
    browser.listen(_QUIET_S)
    return _look(browser, page)


def _is_there(seen: Json) -> bool:
    return all(seen["texts"]) and all(is_shown is True for is_shown in seen["selectors"])


def _look(browser: Browser, page: Json) -> Json:
    frame = browser.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
    world = browser.send("Page.createIsolatedWorld", frameId=frame)["executionContextId"]
    asked = _SEEN % (json.dumps(page["text"]), json.dumps(page["selectors"]))
    reply = browser.send("Runtime.evaluate", expression=asked, contextId=world, returnByValue=True)
    if "exceptionDetails" in reply:
        raise Broken("the page has no document that can be looked at")
    return reply["result"]["value"]


def picture(browser: Browser, path: Path) -> bool:
    """Whether a picture of the window is at the path. A page that gives none, or too large a one, has none."""
    try:
        data = base64.b64decode(browser.send("Page.captureScreenshot", format="png")["data"])
    except (Broken, KeyError):
        return False
    if len(data) > MAX_PICTURE:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True


def _asked(events: list[Json], frame: str | None) -> str:
    addresses = [
        e["params"]["request"]["url"]
        for e in events
        if e["method"] == "Network.requestWillBeSent"
        and e["params"].get("type") == "Document"
        and e["params"].get("frameId") == frame
    ]
    return addresses[-1][:500] if addresses else ""


def _errors(events: list[Json], *, ignored: set[str]) -> list[str]:
    """Errors of the console and uncaught exceptions; not those about a favicon, or about a status that is expected."""
    urls = ignored - {""}
    kept = [e for e in events if e["method"] != "Log.entryAdded" or e["params"]["entry"].get("url", "") not in urls]
    return [entry["text"] for entry in entries(kept) if entry["level"] in ("error", "assert")][:20]


def problems(page: Json, base: str, seen: Json) -> list[str]:
    """What is not as declared, each with what was expected and what was found; empty for a good page. Pure."""
    for address in (seen["asked"], seen["url"]):
        if address and not _is_at(address, base):
            return [f"expected to stay at {base}, found that it leads to {_cut(address)}"]
    if seen["error"] and seen["error"] != _EMPTY:
        return [f"expected a page, found {_cut(seen['error'])}"]
    rows: list[str] = []
    if seen["status"] != page["status"]:
        rows.append(f"expected status {page['status']}, found {seen['status']}")
    if not seen["loaded"]:
        rows.append("expected the page to load in its time, found that it still loads")
    for text, is_there in zip(page["text"], seen["texts"], strict=True):
        if not is_there:
            rows.append(f"expected the text {_cut(text)!r}, found {_cut(seen['shown'])!r}")
    for selector, is_there in zip(page["selectors"], seen["selectors"], strict=True):
        if is_there is not True:
            why = "that it is no CSS selector" if is_there == "invalid" else "no such element"
            rows.append(f"expected an element {_cut(selector)!r}, found {why}")
    if page["width"] is not None and seen["width"] > page["width"]:
        rows.append(f"expected it to fit into {page['width']} px, found {seen['width']} px")
    return rows + ([] if page["allow_errors"] else _of_errors(seen))


def _of_errors(seen: Json) -> list[str]:
    if seen["errors"]:
        more = f" (and {len(seen['errors']) - 1} more)" if len(seen["errors"]) > 1 else ""
        return [f"expected no error, found {_cut(seen['errors'][0])!r}{more}"]
    # Among what was not kept there may have been one.
    return ["expected no error, found more messages than can be read"] if seen["flooded"] else []


def _is_at(address: str, base: str) -> bool:
    try:
        at, own = urlsplit(address), urlsplit(base)
        is_here = at.hostname in (own.hostname, "localhost") and at.port == own.port
    except ValueError:
        return False
    return is_here and at.scheme == own.scheme


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHORT else f"{flat[:_SHORT]}..."


def told(complaints: Sequence[str]) -> str:
    """The problems as one line."""
    return "; ".join(complaints)
