"""Interactive runs of one backend: a pipe to the command's input, and its files while it works on them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Generator
from dataclasses import dataclass

from fleet.kernel.errors import SandboxUnavailable
from fleet.kernel.ids import Digest
from fleet.policy.runs.spec import RunSpec
from fleet.sandbox.folders.run_folder import Left, RunFolder, Space
from fleet.sandbox.folders.tree_reader import WorkspaceFull

MAX_UNREAD_BYTES = 1 << 20
"""What may wait for a command that does not read, beside the 64 KiB of the pipe itself."""
_CAPTURES = 3


class InputPipe:
    """A pipe to a command; writing never blocks, and what the command has not read yet waits here.

    Attributes:
        read_end: descriptor for the command; closed with the pipe.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.read_end, self._write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._write_end, False)
        self._waiting = bytearray()
        self._is_last = False

    def feed(self, data: bytes, *, is_last: bool) -> None:
        """The command reads `data` after all that came before; after the last one it finds the end.

        Raises:
            SandboxUnavailable: the command has left too much unread; nothing of `data` was taken.
        """
        if len(self._waiting) + len(data) > MAX_UNREAD_BYTES:
            raise SandboxUnavailable(
                f"the command has left {len(self._waiting)} bytes of its input unread; write again when it reads",
                missing="room",
                unread_bytes=len(self._waiting),
            )
        self._is_last = self._is_last or is_last
        if self._write_end >= 0:
            self._waiting += data
            self._flush()

    def close(self) -> None:
        """Both ends are closed; what waited is gone. Idempotent."""
        self._close_input()
        if self.read_end >= 0:
            os.close(self.read_end)
            self.read_end = -1

    def _flush(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: os.write(self._write_end, self._waiting)]
        except BlockingIOError:
            self._loop.add_writer(self._write_end, self._flush)
            return
        self._loop.remove_writer(self._write_end)
        if self._is_last:
            self._close_input()

    def _close_input(self) -> None:
        self._waiting.clear()
        if self._write_end >= 0:
            self._loop.remove_writer(self._write_end)
            os.close(self._write_end)
            self._write_end = -1


@dataclass(frozen=True, slots=True)
class _Session:
    pipe: InputPipe
    spec: RunSpec
    folder: RunFolder
    left: Left


class LiveSessions:
    """Invariant: an id is here exactly while its sandbox may live, and its folder with it."""

    def __init__(self) -> None:
        self._open: dict[str, _Session] = {}

    @contextlib.contextmanager
    def opened(self, run_id: str, spec: RunSpec, space: Space) -> Generator[int | None]:
        """The descriptor that the command of an interactive run reads from; None for any other run."""
        if not spec.interactive:
            yield None
            return
        pipe = InputPipe()
        self._open[run_id] = _Session(pipe, spec, space.folder, space)
        try:
            yield pipe.read_end
        finally:
            del self._open[run_id]
            pipe.close()

    def write(self, run_id: str, data: bytes, *, is_last: bool) -> bool:
        """The command reads `data` next; False when no such run is open here. Raises SandboxUnavailable: no room."""
        session = self._open.get(run_id)
        if session is not None:
            session.pipe.feed(data, is_last=is_last)
        return session is not None

    async def connect(self, run_id: str, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to the socket of this name in the workspace. None when no such run is open, or nobody listens.

        The folder is the run's own to write: what is a link there, or no socket, is not followed.
        """
        session = self._open.get(run_id)
        if session is None:
            return None
        try:
            descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=session.folder.descriptor)
        except OSError:
            return None
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                return None
            return await asyncio.open_unix_connection(f"/proc/self/fd/{descriptor}")
        except OSError:
            return None
        finally:
            os.close(descriptor)

    async def snapshot(self, run_id: str) -> Digest | None:
        """The files as a tree, each as it was when it was read. None when no such run is open here.

        Raises:
            SandboxUnavailable: they change too fast to be read, or are more than the run may have.
        """
        for _ in range(_CAPTURES):
            session = self._open.get(run_id)
            if session is None:
                return None
            with contextlib.suppress(OSError):  # a file went away between the listing and the reading
                return await self._captured(session)
        raise SandboxUnavailable("the files of the session change too fast to be read; ask again", missing="quiet")

    async def _captured(self, session: _Session) -> Digest:
        try:
            return (await session.left.kept(session.spec))[0]
        except WorkspaceFull as error:
            raise SandboxUnavailable(f"the session has more files than it may have: {error}", missing="room") from error
