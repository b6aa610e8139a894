"""The connection that PID 1 of a container holds to its supervisor: how the command ended is told here alone."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

_WORD_BYTES = 16
_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Link:
    """A socket at `place`, which the container mounts; PID 1 connects before there is any command.

    The kernel says which process connected, nobody else is heard, and the socket at `place` is closed before the
    command may start: a command can neither speak here nor fill anything. PID 1 sends one packet with the command's
    exit code and waits until we close the connection, so that the container's counters can be read while they are
    there. An end without that word was not the command's own.

    Args:
        place: where the socket is made; its folder exists. Of any length.
        on_change: called when PID 1 has connected, and when it said something.
    """

    def __init__(self, place: Path, on_change: Callable[[], None]) -> None:
        self._loop, self._on_change = asyncio.get_running_loop(), on_change
        self._first = 0
        self._peer: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        folder = os.open(place.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # The address of a socket has at most 107 bytes.
            self._listener.bind(f"/proc/self/fd/{folder}/{place.name}")
            place.chmod(0o666)  # the container's user is another one; who connects is asked below
            self._listener.listen()
        except OSError:
            self._listener.close()
            raise
        finally:
            os.close(folder)

    def await_peer(self, first: int) -> None:
        """The process with this pid may connect, once, also if it did before this call."""
        self._first = first
        self._loop.add_reader(self._listener, self._admit)

    @property
    def is_joined(self) -> bool:
        """True once that process has connected; from then on nobody can."""
        return self._peer is not None

    def _admit(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return
        if _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0] != self._first:
            peer.close()
            return
        self._peer = peer
        peer.setblocking(False)
        self._close_listener()
        self._loop.add_reader(peer, self._on_change)
        self._on_change()

    def word(self) -> int | None:
        """The command's exit code, when PID 1 has told it; PID 1 then waits for `close`."""
        if self._peer is None:
            return None
        try:
            said = self._peer.recv(_WORD_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            said = b""
        if not said.isdigit():
            self._close_peer()
            return None
        return int(said)

    def close(self) -> None:
        """No descriptor is left, and PID 1 may end. Idempotent."""
        self._close_listener()
        self._close_peer()

    def _close_listener(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def _close_peer(self) -> None:
        if self._peer is not None:
            self._loop.remove_reader(self._peer)
            self._peer.close()
            self._peer = None
