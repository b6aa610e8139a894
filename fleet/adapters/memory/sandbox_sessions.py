"""In-memory twin of the port InteractiveBackend: an async function that converses, without an operating system."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fleet.adapters.memory.sandbox import MemorySandboxBackend, ProgramEnd, ProgramStart
from fleet.adapters.sandbox.live_sessions import MAX_UNREAD_BYTES
from fleet.errors import SandboxUnavailable
from fleet.ids import Digest
from fleet.ports import BlobStore, LogSink, SecretDelivery
from fleet.tools import FileEntry, LogLine, RunResult, RunSpec, encode_tree

__all__ = ["Conversation", "MemoryInteractiveBackend", "MemoryTerminal"]


@dataclass(eq=False)
class MemoryTerminal:
    """Input and output of one scripted conversation."""

    log: LogSink | None
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """What the program has at /workspace; it may change them."""
    printed: bytes = b""
    unread: bytearray = field(default_factory=bytearray)
    is_ended: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def read_line(self) -> bytes:
        """The next line of the input with its newline; what is left at its end, then nothing."""
        while b"\n" not in self.unread and not self.is_ended:
            self._news.clear()
            await self._news.wait()
        line, newline, rest = bytes(self.unread).partition(b"\n")
        self.unread[:] = rest
        return line + newline

    def print(self, text: str) -> None:
        """The program prints one line."""
        self.printed += f"{text}\n".encode()
        if self.log is not None:
            self.log(LogLine(n=self.printed.count(b"\n"), ts_ms=0, stream="stdout", level="info", line=text))

    def feed(self, data: bytes, *, is_last: bool) -> None:
        """The input goes on. Raises SandboxUnavailable when too much is unread."""
        if len(self.unread) + len(data) > MAX_UNREAD_BYTES:
            raise SandboxUnavailable("the program left too much unread; write again when it reads", missing="room")
        if not self.is_ended:
            self.unread += data
        self.is_ended = self.is_ended or is_last
        self._news.set()


Conversation = Callable[[ProgramStart, MemoryTerminal], Awaitable[int]]
"""Returns the exit code."""


class MemoryInteractiveBackend(MemorySandboxBackend):
    """Answers interactive runs with an async function. Any other run ends at once with 0 and prints nothing.

    What the twin of plain runs does not hold is not held here either; its lines come at once, and not redacted.
    """

    def __init__(self, conversation: Conversation, blobs: BlobStore) -> None:
        super().__init__(self._converse, blobs)
        self._conversation = conversation
        self._trees = blobs
        self._terminals: dict[str, MemoryTerminal] = {}

    async def run(
        self, spec: RunSpec, *, run_id: str, log: LogSink | None = None, secrets: SecretDelivery | None = None
    ) -> RunResult:
        """Converse to the end and say how it ended."""
        if not spec.interactive:
            return await super().run(spec, run_id=run_id, log=log, secrets=secrets)
        self._terminals[run_id] = MemoryTerminal(log)
        try:
            # The parent's program sees the run by its arguments alone; this one is found by the variable.
            marked = spec.model_copy(update={"interactive": False, "env": {**spec.env, "TWIN_RUN": run_id}})
            return await super().run(marked, run_id=run_id, secrets=secrets)
        finally:
            del self._terminals[run_id]

    async def write_stdin(self, run_id: str, data: bytes, *, is_last: bool = False) -> bool:
        """The program reads `data` next."""
        terminal = self._terminals.get(run_id)
        if terminal is not None:
            terminal.feed(data, is_last=is_last)
        return terminal is not None

    async def snapshot(self, run_id: str) -> Digest | None:
        """The files that the program has now, all of mode 100644."""
        terminal = self._terminals.get(run_id)
        if terminal is None:
            return None
        entries = {path: FileEntry("100644", await self._trees.put(data)) for path, data in terminal.files.items()}
        return await self._trees.put(encode_tree(entries))

    async def _converse(self, start: ProgramStart) -> ProgramEnd:
        terminal = self._terminals.get(start.env.get("TWIN_RUN", ""))
        if terminal is None:
            return ProgramEnd()
        terminal.files.update(start.files)
        code = await self._conversation(start, terminal)
        return ProgramEnd(exit_code=code, stdout=terminal.printed, written=dict(terminal.files))
