"""A git server over smart HTTP on loopback: git's own `http-backend` behind a small server that asks for a token."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class GitServer:
    """Serves the bare repositories below `root`; tests read and change its fields."""

    root: Path
    user: str = "git"
    token: str = "tok-push-SECRET"
    port: int = 0
    status: int = 0
    """Answer every request with this status instead."""
    faults: int = 0
    """So many requests are answered with 503 first."""
    cut_after_push: bool = False
    """The next push is carried out, and its answer is lost."""
    asked: list[str] = field(default_factory=list[str])

    @property
    def credentials(self) -> str:
        """The header that is let in."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.token}".encode()).decode()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """Handlers over this server's fields."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def do_POST(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def answer(self, asked: BaseHTTPRequestHandler) -> None:
        """One request, as a web server with CGI does it."""
        body = _body(asked)
        self.asked.append(f"{asked.command} {asked.path}")
        if self.faults or self.status:
            status, self.faults = self.status or 503, max(0, self.faults - 1)
            return _plain(asked, status)
        if asked.headers.get("authorization") != self.credentials:
            return _plain(asked, 401)
        path, _, query = asked.path.partition("?")
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            check=False,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_NOSYSTEM": "1",
                "HOME": str(self.root),
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": asked.command,
                "CONTENT_TYPE": asked.headers.get("content-type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": asked.headers.get("content-encoding", ""),
                "GIT_PROTOCOL": asked.headers.get("git-protocol", ""),
                "REMOTE_USER": self.user,
                "REMOTE_ADDR": "127.0.0.1",
            },
        )
        if self.cut_after_push and path.endswith("git-receive-pack") and asked.command == "POST":
            self.cut_after_push = False
            asked.close_connection = True
            return None
        return _send(asked, done.stdout)


def _body(asked: BaseHTTPRequestHandler) -> bytes:
    if asked.headers.get("transfer-encoding") != "chunked":
        return asked.rfile.read(int(asked.headers.get("content-length", "0")))
    data = b""
    while size := int(asked.rfile.readline().split(b";")[0], 16):
        data += asked.rfile.read(size)
        asked.rfile.readline()
    asked.rfile.readline()
    return data


def _plain(asked: BaseHTTPRequestHandler, status: int) -> None:
    asked.send_response(status)
    if status == 401:
        asked.send_header("www-authenticate", 'Basic realm="git"')
    asked.send_header("content-length", "0")
    asked.end_headers()


def _send(asked: BaseHTTPRequestHandler, output: bytes) -> None:
    head, _, body = output.partition(b"\r\n\r\n")
    lines = [line.decode().partition(": ") for line in head.split(b"\r\n")]
    status = next((value for name, _, value in lines if name.lower() == "status"), "200 OK")
    asked.send_response(int(status.split()[0]))
    for name, _, value in lines:
        if name.lower() != "status":
            asked.send_header(name, value)
    asked.send_header("content-length", str(len(body)))
    asked.end_headers()
    asked.wfile.write(body)


@contextlib.contextmanager
def serving_git(root: Path) -> Generator[GitServer]:
    """The server answers on `port` of loopback inside the block."""
    found = GitServer(root)
    http = ThreadingHTTPServer(("127.0.0.1", 0), found.handler())
    found.port = http.server_port
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
