"""A model server whose replies are files: `python -m scripts.record` puts whoever writes them behind its address.

It speaks the OpenAI wire format. Each request is written to a file, and answered with the file that is put beside it,
so that a person, or a model that has no such server, can be the model of a run and see what the fleet sends.

    0007.request.txt    what was asked; in a conversation only what is new since the last reply
    0007.reply.txt      the reply: words, and calls of tools as blocks
                            === CALL read
                            === ARG path
                            src/a.py
                            === END
    0007.reply.json     the same, where a script writes it: {"text": "...", "uses": [{"name": "...", "arguments": {}}]}

A reply whose only line is `=== AGAIN` is the earlier one that the request names: it was looked at, and still fits. The
same difference in later requests of the run needs no further look.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from fleet.models.chat import ToolOffer, ToolUse
from fleet.models.prompts.tool_text import tool_uses_in

MODEL = "a-large-general-model"
_POLL_S = 0.2
_CHARS_PER_TOKEN = 4
AGAIN = "=== AGAIN"


class Reply(NamedTuple):
    """What the model answers."""

    text: str
    uses: tuple[ToolUse, ...] = ()


class Earlier(NamedTuple):
    """The reply to a request that is like this one, and in what this one differs."""

    reply: Reply
    difference: str
    """As `diff` writes it; empty for an equal request."""
    is_frame: bool
    """Only what stands around the question differs: rules, tools, limits."""


Recall = Callable[[dict[str, Any]], Earlier | None]


class PlayedModel:
    """The requests and replies of one run.

    Args:
        folder: where the files are; it is made.
        recall: finds the reply to an earlier request that is like this one.
    """

    def __init__(self, folder: Path, recall: Recall) -> None:
        self._folder, self._recall = folder, recall
        self._lock, self._count, self._accepted = threading.Lock(), 0, set[str]()
        self.differences: dict[str, int] = {}
        """What differed in the frames of replies that were taken again, and how often."""
        folder.mkdir(parents=True, exist_ok=True)

    def answer(self, request: dict[str, Any], is_wanted: Callable[[], bool]) -> Reply | None:
        """The reply, once it is there; None when nobody waits for it any more."""
        earlier = self._recall(request)
        if earlier is not None and (earlier.is_frame or self._accepted.issuperset(earlier.difference.splitlines())):
            if earlier.difference:
                with self._lock:
                    self.differences[earlier.difference] = self.differences.get(earlier.difference, 0) + 1
            return earlier.reply
        with self._lock:
            self._count += 1
            stem = f"{self._count:04d}"
        told = _told(request) + (f"\n\n##### Differs from an earlier request\n{earlier.difference}" if earlier else "")
        (self._folder / f"{stem}.request.txt").write_text(told)
        while is_wanted():
            if (reply := self._reply(stem, request, earlier)) is not None:
                return reply
            time.sleep(_POLL_S)
        (self._folder / f"{stem}.gone").touch()
        return None

    def _reply(self, stem: str, request: dict[str, Any], earlier: Earlier | None) -> Reply | None:
        written, made = self._folder / f"{stem}.reply.txt", self._folder / f"{stem}.reply.json"
        if made.exists():
            value = json.loads(made.read_text())
            uses = [
                _use(n, one["name"], json.dumps(one["arguments"])) for n, one in enumerate(value.get("uses", []), 1)
            ]
            return Reply(value.get("text", ""), tuple(uses))
        if not written.exists():
            return None
        text = written.read_text()
        if text.strip() == AGAIN and earlier is not None:
            self._accepted.update(earlier.difference.splitlines())
            return earlier.reply
        offers = [ToolOffer.model_validate(tool["function"]) for tool in request.get("tools", [])]
        if not offers:
            return Reply(text.strip())
        found = tool_uses_in(text, "blocks", offers)
        return Reply(found.text.strip(), tuple(_use(n, u.name, u.arguments) for n, u in enumerate(found.uses, 1)))


def _use(number: int, name: str, arguments: str) -> ToolUse:
    return ToolUse(id=f"call-{number}", name=name, arguments=arguments)


def _told(request: dict[str, Any]) -> str:
    """The request for a reader; of a conversation the part after the last reply."""
    messages: Sequence[dict[str, Any]] = request["messages"]
    last = max((n for n, one in enumerate(messages) if one["role"] == "assistant"), default=-1)
    settings = {name: request.get(name) for name in ("temperature", "seed", "max_tokens", "max_completion_tokens")}
    parts = [f"##### {len(messages)} messages, {json.dumps({k: v for k, v in settings.items() if v is not None})}"]
    if last >= 0:
        parts.append(f"##### the conversation begins\n{str(messages[1]['content'])[-600:]}")
    parts += [f"##### {one['role']}\n{one['content']}" for one in messages[last + 1 :]]
    if last < 0 and request.get("tools"):
        parts.append("##### tools\n" + "\n".join(json.dumps(tool["function"]) for tool in request["tools"]))
    if form := request.get("response_format"):
        parts.append(f"##### form of the reply\n{json.dumps(form)}")
    return "\n\n".join(parts)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: PlayedModel

    def do_GET(self) -> None:
        """The one model there is."""
        listed = [{"id": MODEL, "object": "model", "created": 0, "owned_by": "played"}]
        self._send("application/json", json.dumps({"object": "list", "data": listed}).encode())

    def do_POST(self) -> None:
        """One completion, streamed in one piece."""
        request = json.loads(self.rfile.read(int(self.headers.get("content-length", "0"))))
        self.connection.settimeout(0)
        reply = self.model.answer(request, self._is_wanted)
        self.connection.settimeout(30)
        if reply is not None:
            self._send("text/event-stream", b"".join(_events(request, reply)))

    def _is_wanted(self) -> bool:
        try:
            return self.connection.recv(1) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """What was asked stands in files."""


def _events(request: dict[str, Any], reply: Reply) -> Iterator[bytes]:
    calls = [
        {"index": n, "id": u.id, "type": "function", "function": {"name": u.name, "arguments": u.arguments}}
        for n, u in enumerate(reply.uses)
    ]
    asked = json.dumps([request["messages"], request.get("tools", [])], ensure_ascii=False)
    written = reply.text + "".join(use.name + use.arguments for use in reply.uses)
    # Nobody counts tokens here: by the rule of thumb, and documents say so.
    counted = {"prompt_tokens": len(asked) // _CHARS_PER_TOKEN, "completion_tokens": len(written) // _CHARS_PER_TOKEN}
    yield _event({"delta": {"content": reply.text, **({"tool_calls": calls} if calls else {})}, "finish_reason": None})
    yield _event({"delta": {}, "finish_reason": "tool_calls" if calls else "stop"})
    yield _event(None, usage={**counted, "total_tokens": sum(counted.values())})
    yield b"data: [DONE]\n\n"


def _event(choice: dict[str, Any] | None, **more: Any) -> bytes:
    choices = [] if choice is None else [{"index": 0, **choice}]
    value = {"id": "p", "object": "chat.completion.chunk", "created": 0, "model": MODEL, "choices": choices, **more}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


@contextmanager
def served(model: PlayedModel) -> Iterator[str]:
    """The address of the model, up to and including `/v1`, while the block runs."""
    handler = type("_Bound", (_Handler,), {"model": model})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="played model", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
