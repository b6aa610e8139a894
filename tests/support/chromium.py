"""A headless Chromium that a test drives as a person would: by what stands on the page, with real clicks and keys."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PATIENCE_S = 60.0
"""A machine that others use too may stand still for half a minute; only what never comes has failed."""

Json = dict[str, Any]
# Debian's `chromium` is a script around this one.
_PROGRAMS = ("/usr/lib/chromium/chromium", "chromium", "chromium-browser", "google-chrome", "headless_shell")
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--no-first-run",
    "--disable-breakpad",
    "--disable-features=Translate,MediaRouter,OptimizationHints",
    "--password-store=basic",
    "--use-mock-keychain",
    "--hide-scrollbars",
    "--mute-audio",
    "--force-prefers-reduced-motion",
    "about:blank",
)
# Visible elements by what they are and what they are called; the first exact name wins, else the first that begins so.
_FIND = """(what, name) => {
  const kinds = {
    button: 'button, summary, [role=button], input[type=submit]', link: 'a[href]',
    field: 'input, textarea, select', any: '*',
  };
  const called = (e) => {
    const ids = e.getAttribute('aria-labelledby');
    const label = e.getAttribute('aria-label') || (ids && document.getElementById(ids)?.textContent)
      || (e.labels && e.labels[0]?.textContent) || e.textContent || e.getAttribute('placeholder') || '';
    return label.replace(/\\s+/g, ' ').trim();
  };
  const seen = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0;
  const all = [...document.querySelectorAll(kinds[what] ?? what)].filter(seen);
  if (name === null) return all[0];
  return all.find((e) => called(e) === name) ?? all.find((e) => called(e).startsWith(name));
}"""

_MIDDLE = """(e) => {
  if (!e) return null;
  e.scrollIntoView({ block: 'center', inline: 'center' });
  const r = e.getClientRects()[0];
  return r ? [r.x + r.width / 2, r.y + r.height / 2] : null;
}"""

_USED = frozenset({"button", "link", "textbox", "searchbox", "combobox", "checkbox", "region", "meter"})


_SHOWN = "(document.body?.innerText ?? '')"
"""What stands on the page; a page that is only coming has no body yet."""


def chromium_program() -> str | None:
    """The browser of this machine, None when there is none."""
    return next((path for name in _PROGRAMS if (path := shutil.which(name))), None)


@dataclass
class Page:
    """One page; what went wrong on it and where it sent requests is kept."""

    _to: asyncio.StreamWriter
    _session: str = ""
    trouble: list[str] = field(default_factory=list[str])
    """Exceptions, errors of the console, and answers of the browser's own policy."""
    requests: list[str] = field(default_factory=list[str])
    dialogs: int = 0
    bindings: dict[str, Callable[[str], None]] = field(default_factory=dict[str, "Callable[[str], None]"])
    """What takes the texts that a page hands to a function of `Runtime.addBinding`."""
    _number: int = 0
    _waiting: dict[int, asyncio.Future[Json]] = field(default_factory=dict[int, "asyncio.Future[Json]"])

    async def send(self, method: str, **params: Any) -> Json:
        """The result of one command of the DevTools protocol."""
        self._number += 1
        message: Json = {"id": self._number, "method": method, "params": params}
        if self._session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        answer = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        self._to.write(json.dumps(message).encode() + b"\0")
        async with asyncio.timeout(2 * PATIENCE_S):
            return await answer

    def heard(self, raw: bytes) -> None:
        """One message of the browser."""
        message = json.loads(raw)
        waiting = self._waiting.pop(message.get("id", -1), None)
        if waiting is not None and not waiting.done():
            if "error" in message:
                waiting.set_exception(AssertionError(f"Chromium: {message['error'].get('message')}"))
            else:
                waiting.set_result(message.get("result", {}))
        elif "method" in message:
            self._event(message["method"], message["params"])

    def _event(self, method: str, params: Json) -> None:
        match method:
            case "Runtime.exceptionThrown":
                found = params["exceptionDetails"]
                self.trouble.append(found.get("exception", {}).get("description") or found["text"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning"):
                self.trouble.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.trouble.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.bindingCalled" if params["name"] in self.bindings:
                self.bindings[params["name"]](params["payload"])
            case "Page.javascriptDialogOpening":
                self.dialogs += 1
            case _:
                pass

    async def open(self, url: str) -> None:
        """The page is at this address, as after typing it."""
        await self.send("Page.navigate", url=url)
        await self.wait("document.readyState === 'complete'")

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited when it is a promise."""
        found = await self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description") or details["text"])
        return found["result"].get("value")

    async def wait(self, condition: str, *, within_s: float = PATIENCE_S) -> None:
        """Returns once the expression is true; what the page shows is told otherwise."""
        try:
            async with asyncio.timeout(within_s):
                while not await self.evaluate(f"Boolean({condition})"):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            shown = await self.text()
            raise AssertionError(f"never true: {condition}\n{self.trouble}\n{shown[:3000]}") from None

    async def sees(self, *texts: str, within_s: float = PATIENCE_S) -> None:
        """Returns once all of these words stand on the page."""
        for text in texts:
            await self.wait(f"{_SHOWN}.includes({json.dumps(text)})", within_s=within_s)

    async def text(self) -> str:
        """What stands on the page."""
        return await self.evaluate(_SHOWN)

    async def click(self, what: str, name: str | None = None, *, within_s: float = PATIENCE_S) -> None:
        """A click on the button, link, or element of a selector with this name."""
        x, y = await self._place(what, name, within_s)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def fill(self, label: str, value: str) -> None:
        """The field with this label holds this text, as if it were typed."""
        await self.click("field", label)
        await self.press("a", modifiers=2)
        await self.send("Input.insertText", text=value)

    async def choose(self, label: str, value: str) -> None:
        """The list with this label has this value."""
        await self._place("field", label, PATIENCE_S)
        script = (
            "(e, v) => { Object.getOwnPropertyDescriptor(HTMLSelectElement.prototype, 'value').set.call(e, v); "
            "e.dispatchEvent(new Event('change', { bubbles: true })); }"
        )
        await self.evaluate(f"({script})(({_FIND})('field', {json.dumps(label)}), {json.dumps(value)})")

    async def press(self, key: str, *, modifiers: int = 0) -> None:
        """A key is pressed and let go; modifiers: 1 alt, 2 control, 8 shift."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "a": 65, "Escape": 27}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        common: Json = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, 0), "modifiers": modifiers}
        commands = ["selectAll"] if key == "a" and modifiers == 2 else []
        kind = "keyDown" if text else "rawKeyDown"
        await self.send("Input.dispatchKeyEvent", type=kind, text=text, commands=commands, **common)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    async def _place(self, what: str, name: str | None, within_s: float) -> tuple[float, float]:
        found = f"({_FIND})({json.dumps(what)}, {json.dumps(name)})"
        box: Any = None
        async with asyncio.timeout(within_s + 10):
            while True:
                await self.wait(f"(e => e && !e.disabled)({found})", within_s=within_s)
                before, box = box, await self.evaluate(f"({_MIDDLE})({found})")
                # A person does not hit what still moves.
                if box is not None and box == before:
                    return box[0], box[1]
                await asyncio.sleep(0.05)

    async def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """The window has this size, and its person prefers light or dark."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self, path: Path) -> None:
        """A picture of the whole page."""
        size = (await self.send("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 4000), "scale": 1}
        found = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(found["data"]))

    async def unnamed(self) -> list[str]:
        """The roles of what a person can use and a screen reader has no name for."""
        nodes = (await self.send("Accessibility.getFullAXTree"))["nodes"]
        return [
            node["role"]["value"]
            for node in nodes
            if not node.get("ignored")
            and node.get("role", {}).get("value") in _USED
            and not node.get("name", {}).get("value", "").strip()
        ]

    def hosts(self) -> set[str]:
        """Where the page sent requests, but for what it made itself."""
        return {urlsplit(url).netloc for url in self.requests if urlsplit(url).scheme in ("http", "https")}


@asynccontextmanager
async def chromium() -> AsyncGenerator[Page]:
    """A page in a fresh profile; the browser and all its processes end with the block."""
    program = chromium_program()
    assert program is not None, "the test skips without Chromium"
    profile = tempfile.mkdtemp(prefix="desk-")
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    # The protocol's pipes are descriptors 3 and 4 of the browser.
    launch = f'exec "$@" 3<&{to_read} 4>&{from_write}'
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", launch, "chromium", program, f"--user-data-dir={profile}", *_FLAGS),
        pass_fds=(to_read, from_write),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(to_read)
    os.close(from_write)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 26)
    incoming, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(from_read, "rb"))
    outgoing, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(to_write, "wb"))
    page = Page(asyncio.StreamWriter(outgoing, protocol, None, loop))
    listening = asyncio.create_task(_listen(reader, page))
    try:
        target = (await page.send("Target.createTarget", url="about:blank"))["targetId"]
        found = await page.send("Target.attachToTarget", targetId=target, flatten=True)
        page._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            await page.send(f"{domain}.enable")
        yield page
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        incoming.close()
        outgoing.close()
        shutil.rmtree(profile, ignore_errors=True)


async def _listen(reader: asyncio.StreamReader, page: Page) -> None:
    while True:
        page.heard((await reader.readuntil(b"\0"))[:-1])
