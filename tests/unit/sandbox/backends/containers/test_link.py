"""The connection of PID 1 to its supervisor: who is heard, what is heard, what is left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fleet.sandbox.backends.containers.link import Link
from tests.support.sandbox import eventually

Connect = Callable[[], socket.socket]


@pytest.fixture
def connect(tmp_path: Path) -> Generator[Connect]:
    """Connects to the socket `link` of the folder, as this process."""
    with ExitStack() as owned:
        descriptor = os.open(tmp_path, os.O_PATH)
        owned.callback(os.close, descriptor)

        def connected() -> socket.socket:
            peer = owned.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            peer.connect(f"/proc/self/fd/{descriptor}/link")
            return peer

        yield connected


@contextmanager
def link_at(place: Path) -> Generator[tuple[Link, list[int | None]]]:
    """The link, and what it heard at each of its calls."""
    heard: list[int | None] = []
    link = Link(place, lambda: heard.append(link.word()))
    try:
        yield link, heard
    finally:
        link.close()


@pytest.mark.rule("RC-19")
async def test_word_is_heard_and_closing_is_the_answer(tmp_path: Path, connect: Connect) -> None:
    with link_at(tmp_path / "link") as (link, heard):
        peer = connect()
        assert not link.is_joined
        link.await_peer(os.getpid())
        await eventually(lambda: link.is_joined, within_s=60)
        peer.send(b"143")
        await eventually(lambda: 143 in heard, within_s=60)
        link.close()

        assert peer.recv(1) == b""
        assert (link.is_joined, link.word()) == (False, None)


@pytest.mark.rule("RC-19")
async def test_nobody_else_can_connect_once_it_is_joined(tmp_path: Path, connect: Connect) -> None:
    with link_at(tmp_path / "link") as (link, _):
        connect()
        late = connect()
        link.await_peer(os.getpid())
        await eventually(lambda: link.is_joined, within_s=60)

        with pytest.raises(ConnectionRefusedError):
            connect()
        with pytest.raises(OSError, match="reset|pipe|connected"):
            late.send(b"0")


@pytest.mark.rule("RC-19")
async def test_another_process_is_not_heard(tmp_path: Path, connect: Connect) -> None:
    stranger = (
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect('link')\n"
        "s.send(b'0'); print('sent', flush=True); print(s.recv(1))"
    )
    with link_at(tmp_path / "link") as (link, heard):
        process = subprocess.Popen([sys.executable, "-c", stranger], cwd=tmp_path, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process:
            assert process.stdout.readline() == b"sent\n"
            link.await_peer(os.getpid())
            await eventually(lambda: process.poll() is not None, within_s=60)
        assert (link.is_joined, heard) == (False, [])

        connect()
        await eventually(lambda: link.is_joined, within_s=60)


@pytest.mark.rule("RC-19")
@pytest.mark.parametrize("said", [b"", b"x", b"-1"])
async def test_end_without_a_word_is_no_word(tmp_path: Path, connect: Connect, said: bytes) -> None:
    with link_at(tmp_path / "link") as (link, heard):
        peer = connect()
        link.await_peer(os.getpid())
        await eventually(lambda: link.is_joined, within_s=60)
        if said:
            peer.send(said)
        peer.close()
        await eventually(lambda: not link.is_joined, within_s=60)

        assert set(heard) == {None}


async def test_place_may_have_any_length(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    with link_at(folder / "link"):
        assert (folder / "link").is_socket()
        assert (folder / "link").stat().st_mode & 0o777 == 0o666  # noqa: PLR2004


async def test_place_that_is_taken_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "link").touch()
    with pytest.raises(OSError, match="in use"):
        Link(tmp_path / "link", lambda: None)
