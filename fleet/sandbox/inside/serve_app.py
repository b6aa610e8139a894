"""Runs a deployed program, and looks at it when it is told to. Standard library only.

Usage: serve_app.py [--hide NAME,NAME] PORT PROGRAM [ARGUMENT...]

Requests come as JSON lines on standard input, `{"id": 1, "op": "http", "path": "/healthz"}`, and are answered as JSON
lines on standard output, `{"id": 1, "value": 0, "detail": "status 200"}`; `value` null says that the look could not be
taken. What the program prints is kept here, its last lines only. It ends with the end of the input, or when the program
does. The values of variables that are to be hidden are taken out of all that is kept and answered, before it is cut:
a piece of one would not be known for what it is later.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

_KEPT_LINES = 2_000
_LINE_CHARS = 2_000
_DETAIL_CHARS = 600
_BODY_BYTES = 1 << 20
_TIMEOUT_S = 5
_DOOR = "/workspace/.fleet-door"
"""Where people outside are let in; only the supervisor can reach it."""
_CHUNK = 1 << 16
_COMMAND_S = 30
_GRACE_S = 5
_SHORTEST = 6
"""Characters of a value that can be told from ordinary text."""
_MARK = "[REDACTED:KNOWN_SECRET]"


class Hidden:
    """Values that are shown to nobody, and how a program writes them down."""

    def __init__(self, values: list[str]) -> None:
        forms = {form for value in values for form in self._forms(value) if len(form) >= _SHORTEST}
        self._pattern = re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True)))) if forms else None
        self.longest = max((len(form.encode()) for form in forms), default=0)

    def out_of(self, text: str) -> str:
        """The text without any of them."""
        return self._pattern.sub(_MARK, text) if self._pattern else text

    @staticmethod
    def _forms(value: str) -> set[str]:
        data = value.encode()
        lines = {line.strip() for line in value.splitlines()}
        encoded = {base64.b64encode(data).decode().rstrip("="), base64.urlsafe_b64encode(data).decode().rstrip("=")}
        return {value, *lines, *encoded, json.dumps(value)[1:-1], quote(value, safe=""), data.hex(), repr(value)[1:-1]}


class Output:
    """What the program printed: its last lines, numbered from 1."""

    def __init__(self, hidden: Hidden) -> None:
        self._hidden = hidden
        self._lines: deque[tuple[int, str]] = deque(maxlen=_KEPT_LINES)
        self._count = 0
        self._seen: dict[str, int] = {}
        self._lock = threading.Lock()

    def follow(self, stream: IO[bytes]) -> None:
        """Take lines until there are no more."""
        rest = b""
        while raw := stream.readline(1 << 16):
            text = self._hidden.out_of((rest + raw).decode(errors="surrogateescape"))
            # The end of a line that goes on may be the beginning of what is hidden: it is looked at with what follows.
            end = len(text) if text.endswith("\n") else max(0, len(text) - self._hidden.longest)
            rest = text[end:].encode(errors="surrogateescape")
            self._keep(text[:end])
        if rest:
            self._keep(rest.decode(errors="replace"))

    def _keep(self, text: str) -> None:
        line = text.encode(errors="surrogateescape").decode(errors="replace").rstrip("\n")[:_LINE_CHARS]
        with self._lock:
            self._count += 1
            self._lines.append((self._count, line))

    def tail(self) -> str:
        """The end of it, short."""
        with self._lock:
            return "\n".join(line for _, line in list(self._lines)[-20:])[-_DETAIL_CHARS:]

    def since(self, reader: str) -> list[str]:
        """The lines that this reader has not had yet."""
        with self._lock:
            after, self._seen[reader] = self._seen.get(reader, 0), self._count
            return [line for number, line in self._lines if number > after]


class App:
    """The program and the looks at it."""

    def __init__(self, port: int, argv: list[str], hidden: Hidden) -> None:
        self._port, self._out, self._hidden = port, threading.Lock(), hidden
        self.output = Output(hidden)
        self.process = subprocess.Popen(
            argv,
            env={**os.environ, "PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self.output.follow, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def answer(self, request: dict[str, Any]) -> None:
        """Take one look and say what was found."""
        try:
            value, detail = getattr(self, f"_{request['op']}")(request)
        except Exception as error:  # whatever the program answers, the look is answered too
            value, detail = None, f"{type(error).__name__}: {error}"
        self.say({"id": request["id"], "value": value, "detail": self._hidden.out_of(detail)[:_DETAIL_CHARS]})

    def say(self, message: dict[str, Any]) -> None:
        """One line to whoever looks."""
        with self._out:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    def ended(self) -> None:
        """Wait for the program, and say how it ended."""
        code = self.process.wait()
        self._reader.join(1)
        self.say({"ended": code, "detail": self.output.tail()})
        sys.stdout.flush()
        os._exit(code if code >= 0 else 128 - code)

    def stop(self) -> None:
        """End the program and all that it started."""
        for number, wait_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(wait_s)
                return

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read(_BODY_BYTES)
        finally:
            connection.close()

    def _http(self, request: dict[str, Any]) -> tuple[float, str]:
        try:
            status, body = self._get(request["path"])
        except (OSError, http.client.HTTPException) as error:
            return 1, f"no answer from {request['path']}: {error}"
        said = "" if status < 400 else ": " + self._hidden.out_of(body.decode(errors="replace"))[:300]
        return float(status >= 400), f"status {status} from {request['path']}{said}"

    def _metric(self, request: dict[str, Any]) -> tuple[float | None, str]:
        path, name = request["path"], request["name"]
        try:
            status, body = self._get(path)
        except (OSError, http.client.HTTPException) as error:
            return None, f"no answer from {path}: {error}"
        text = body.decode(errors="replace")
        values = [float(m[1]) for m in re.finditer(_SERIES % re.escape(name), text, re.MULTILINE)]
        if status >= 400 or not values:
            return None, f"{path} has no metric {name} (status {status})"
        return max(values), f"{name} is {max(values):g}"

    def _command(self, request: dict[str, Any]) -> tuple[float, str]:
        environ = {**os.environ, "PORT": str(self._port)}
        try:
            done = subprocess.run(request["argv"], env=environ, capture_output=True, timeout=_COMMAND_S, check=False)
        except subprocess.TimeoutExpired:
            return 1, f"{request['argv'][0]} did not end within {_COMMAND_S} s"
        said = self._hidden.out_of((done.stdout + done.stderr).decode(errors="replace"))[-300:].strip()
        return float(done.returncode != 0), f"exit code {done.returncode}: {said}"

    def _log(self, request: dict[str, Any]) -> tuple[float, str]:
        lines = [line for line in self.output.since(request["name"]) if re.search(request["pattern"], line)]
        return float(len(lines)), lines[0] if lines else "no line matches"


def open_door(port: int) -> None:
    """Whoever comes to the door is led to the program's port."""
    Path(_DOOR).unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX)
    door.bind(_DOOR)
    door.listen(64)
    threading.Thread(target=_let_in, args=(door, port), daemon=True).start()


def _let_in(door: socket.socket, port: int) -> None:
    while True:
        outside, _ = door.accept()
        try:
            inside = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        except OSError:
            outside.close()
            continue
        inside.settimeout(None)
        for source, sink in ((outside, inside), (inside, outside)):
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


_SERIES = r"^%s(?:\{[^\n]*\})?[ \t]+([-+]?[0-9][-+0-9.eE]*)"


def main() -> None:
    given, names = sys.argv[1:], list[str]()
    if given[0] == "--hide":
        names, given = given[1].split(","), given[2:]
    port, argv = int(given[0]), given[1:]
    try:
        open_door(port)
        app = App(port, argv, Hidden([os.environ[name] for name in names if name in os.environ]))
    except OSError as error:
        print(json.dumps({"ended": 127, "detail": f"{argv[0]} cannot be started: {error.strerror}"}), flush=True)
        sys.exit(127)
    signal.signal(signal.SIGTERM, lambda _number, _frame: app.stop())
    threading.Thread(target=app.ended, daemon=True).start()
    for line in sys.stdin:
        threading.Thread(target=app.answer, args=(json.loads(line),), daemon=True).start()
    app.stop()


if __name__ == "__main__":
    main()
