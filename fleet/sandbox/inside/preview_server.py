"""Serve a repository's preview, wait until it answers, keep a part of what it prints, and end it (RC-75)."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from urllib.parse import quote

HOST = "127.0.0.1"
LOG_BYTES = 256 << 10
"""How much of what the preview prints is kept, from its beginning."""
_TAIL_BYTES = 4 << 10
_PROBE_S = 3.0
_POLL_S = 0.1
_GRACE_S = 5
_ANSWER = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r\n]")
_REQUEST = "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: */*\r\nConnection: close\r\n\r\n"


class Unserved(Exception):
    """The preview cannot be looked at; the text says what was expected and what was found."""


class Preview:
    """One started preview.

    Args:
        log: file that takes the beginning of what it prints.
    """

    def __init__(self, command: Sequence[str], port: int, log: Path) -> None:
        self.base = f"http://{HOST}:{port}"
        self._command, self._port, self._log = command, port, log
        self._tail = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Its process runs; Unserved when it cannot, or when something else is at its port."""
        if _accepts(self._port):
            raise Unserved(f"expected port {self._port} to be free for the preview, found something that listens there")
        try:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, "PORT": str(self._port)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise Unserved(f"the preview cannot be started: {self._command[0]}: {error.strerror}") from error
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[bytes]) -> None:
        left = LOG_BYTES
        with stream, self._log.open("wb") as kept:
            # All of it is read: a full pipe would stop the preview.
            while data := os.read(stream.fileno(), 1 << 16):
                kept.write(data[:left])
                kept.flush()
                left -= min(left, len(data))
                self._tail = (self._tail + data)[-_TAIL_BYTES:]

    def wait(self, path: str, seconds: float) -> None:
        """It answers at the path with a status below 500, or with another one for the whole time; else Unserved."""
        until = time.monotonic() + seconds
        status: int | None = None
        while True:
            answer = self._status(path, until)
            status = answer if answer is not None else status
            if status is not None and status < 500:
                return
            self.check()
            if time.monotonic() >= until:
                break
            time.sleep(_POLL_S)
        if status is None:
            raise Unserved(f"expected an answer at {self.base}{path} within {seconds:g} s, found none{self.said()}")

    def check(self) -> None:
        """Unserved when the preview has ended."""
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            assert self._reader is not None
            self._reader.join(1)
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise Unserved(f"expected the preview to go on, found that {self._command[0]} {how}{self.said()}")

    def said(self) -> str:
        """The last line that it printed, for a message."""
        lines = [line.strip() for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        return f"; it said last: {lines[-1][:120]}" if lines else "; it printed nothing"

    def close(self, grace_s: float = _GRACE_S) -> None:
        """The preview and all of its process group have ended."""
        if self._process is None or self._reader is None:
            return
        for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(wait_s)
        self._reader.join(1)

    def _status(self, path: str, until: float) -> int | None:
        """The status of an answer, None without one. By hand: the time holds for all of it, and one line is read."""
        until = min(until, time.monotonic() + _PROBE_S)
        asked = _REQUEST.format(path=quote(path, safe="/?&=%:@+,;~!$'()*"), host=HOST, port=self._port)
        data = b""
        try:
            with socket.create_connection((HOST, self._port), timeout=_left(until)) as connection:
                connection.sendall(asked.encode())
                while b"\n" not in data and len(data) < 1024:
                    connection.settimeout(_left(until))
                    more = connection.recv(1024)
                    if not more:
                        break
                    data += more
        except OSError:
            return None
        match = _ANSWER.match(data)
        return int(match.group(1)) if match else None


def _left(until: float) -> float:
    return max(0.01, until - time.monotonic())


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False
