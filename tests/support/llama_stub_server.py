"""What the stand-in of `tests/support/llama_stub.py` runs: a folder with its mode, then the command line it stands for.

Standard library only: it runs in an interpreter without the project.
"""

from __future__ import annotations

import http.server
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

FOLDER, ARGUMENTS = Path(sys.argv[1]), sys.argv[2:]
SERVER = ["-m", "llama_cpp.server"]


def mode() -> str:
    """How it shall behave now."""
    return (FOLDER / "mode").read_text()


def main() -> None:
    """Tell the version, or serve."""
    if ARGUMENTS[0] == "-c":
        if mode() == "broken":
            sys.exit("ImportError: no llama_cpp here")
        print("llama-cpp-python 0.0.1")
        return
    if ARGUMENTS[0] == "--version":
        print("version: 42 (abc)")
        return
    serve(ARGUMENTS[2:] if ARGUMENTS[:2] == SERVER else ARGUMENTS)


def serve(arguments: list[str]) -> None:
    """Answer on the port that the options name, in the way of the mode."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    (FOLDER / "options").write_text(json.dumps(options))
    with (FOLDER / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    if mode() == "dies":
        sys.exit("error: failed to load model")
    while mode() == "hangs":
        time.sleep(0.05)
    Handler.model = options.get("--model_alias") or options["--alias"]
    Handler.key = os.environ.get("API_KEY") or os.environ["LLAMA_API_KEY"]
    http.server.ThreadingHTTPServer((options["--host"], int(options["--port"])), Handler).serve_forever()


class Handler(http.server.BaseHTTPRequestHandler):
    """The two endpoints that are used."""

    model = key = ""

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        listed = {"id": self.model, "object": "model", "created": 0, "owned_by": "t"}
        if self.path != "/v1/models":
            self.answer(404, b"{}")
        elif self.is_known():
            self.answer(200, json.dumps({"object": "list", "data": [listed]}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if not self.is_known():
            return
        if mode() == "crashes":
            os._exit(9)
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        chunks = [self.chunk({"content": "two "}), self.chunk({"content": "words"})]
        chunks += [self.chunk({}, "stop") | {"usage": usage}]
        body = b"".join(b"data: " + json.dumps(c).encode() + b"\n\n" for c in chunks)
        self.answer(200, body + b"data: [DONE]\n\n", "text/event-stream")

    def chunk(self, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": self.model, "choices": [choice]}

    def is_known(self) -> bool:
        if self.headers.get("authorization") == f"Bearer {self.key}":
            return True
        self.answer(401, b'{"error": {"message": "no key"}}')
        return False

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    main()
