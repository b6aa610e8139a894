"""One headless Chromium over the DevTools protocol, for the scripts inside the sandbox. Standard library only.

The browser is driven over --remote-debugging-pipe, so nothing listens. What it loads is not trusted: what a page says
is bounded, and a dialog that it opens is closed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]
OUT = Path("out")
# Debian's `chromium` is a script that reads files of /etc, which the sandbox does not have.
PROGRAMS = ("/usr/lib/chromium/chromium", "chromium", "chromium-browser", "google-chrome", "headless_shell")
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
            reply = self._next(self.deadline)
            if reply is None:
                raise Broken(f"no answer to {method}")
            if reply.get("id") == number:
                if "error" in reply:
                    raise Broken(f"{method}: {reply['error'].get('message')}")
                return reply.get("result", {})

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


def program(names: Sequence[str] = PROGRAMS) -> str:
    """The browser that is installed."""
    for name in names:
        if (path := shutil.which(name)) is not None:
            return path
    raise Missing(f"no browser: install chromium (looked for {', '.join(names)})")
