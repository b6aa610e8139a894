"""PID 1 of containers, as an ordinary process: it needs no privilege for what it does."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fleet.adapters.sandbox.seccomp import filter_bytes
from fleet.adapters.sandbox.stage import INSIDE


class Inside:
    """The process and the supervisor's end of its pipes and its connection."""

    def __init__(self, process: subprocess.Popen[bytes], link: socket.socket) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.process, self.link = process, link
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr

    def end(self, wish: bytes = b"") -> tuple[bytes, int, str, str]:
        """What it told us, exit code and output; standard input stays open until the end, as the supervisor's does."""
        self.stdin.write(wish)
        word = self.link.recv(16)
        self.link.close()
        out, err = self.stdout.read(), self.stderr.read()
        return word, self.process.wait(10), out.decode(), err.decode()


Start = Callable[..., Inside]


@pytest.fixture
def start(tmp_path: Path) -> Generator[Start]:
    with ExitStack() as owned:
        yield lambda *argv, **fields: started(tmp_path, owned, argv, fields)


def started(folder: Path, owned: ExitStack, argv: tuple[str, ...], fields: dict[str, object]) -> Inside:
    (folder / "filter").write_bytes(filter_bytes(platform.machine()))
    listener = owned.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    descriptor = os.open(folder, os.O_PATH)
    owned.callback(os.close, descriptor)
    listener.bind(f"/proc/self/fd/{descriptor}/link")
    listener.listen()
    process = owned.enter_context(
        subprocess.Popen(
            [sys.executable, "-IS", INSIDE / "enter.py", "filter", "link"], cwd=folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        )
    )  # fmt: skip
    owned.callback(process.kill)
    listener.settimeout(10)
    link = owned.enter_context(listener.accept()[0])
    link.settimeout(10)
    request = {
        "argv": argv, "env": {"PATH": "/usr/bin:/bin"}, "files": {}, "cwd": str(folder), "stdin": None,
        "deadline_s": 20, **fields,
    }  # fmt: skip
    inside = Inside(process, link)
    inside.stdin.write(json.dumps(request).encode() + b"\n")
    return inside


def test_command_gets_its_folder_variables_input_and_files(tmp_path: Path, start: Start) -> None:
    (tmp_path / "in").write_text("given")
    script = "pwd; cat; echo; echo $A; stat -c %a kept/s; cat kept/s"
    inside = start(
        "sh", "-c", script, stdin=str(tmp_path / "in"), env={"A": "1", "PATH": "/usr/bin:/bin"},
        files={str(tmp_path / "kept" / "s"): "secret"},
    )  # fmt: skip

    assert inside.end() == (b"0", 0, f"{tmp_path}\ngiven\n1\n400\nsecret", "")


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("kill -15 $$", 143)])
@pytest.mark.rule("RC-14")
def test_exit_code_is_that_of_the_command(start: Start, script: str, code: int) -> None:
    assert start("sh", "-c", script).end()[:2] == (str(code).encode(), code)


def test_missing_program_is_127(start: Start) -> None:
    assert start("no-such-program").end() == (b"127", 127, "", "no-such-program: No such file or directory\n")


@pytest.mark.rule("RC-24")
def test_wish_to_end_reaches_the_command(start: Start) -> None:
    inside = start("sh", "-c", "trap 'echo tidied; exit 3' TERM; echo here; sleep 20 & wait")
    assert inside.stdout.read(5) == b"here\n"

    inside.stdin.write(b"T")
    assert inside.stdout.read(7) == b"tidied\n"
    assert inside.link.recv(16) == b"3"


@pytest.mark.rule("RC-27")
@pytest.mark.parametrize("is_early", [True, False])
def test_end_of_its_supervisor_ends_it_without_a_word(start: Start, is_early: bool) -> None:  # noqa: FBT001
    inside = start("sh", "-c", "echo $$; exec sleep 20")
    if not is_early:
        inside.stdout.readline()
    inside.stdin.close()

    assert (inside.link.recv(16), inside.process.wait(10)) == (b"", 137)


@pytest.mark.rule("RC-27")
def test_deadline_ends_it_without_a_supervisor(start: Start) -> None:
    inside = start("sh", "-c", "exec sleep 1.5", deadline_s=0.2)

    assert (inside.link.recv(16), inside.process.wait(10)) == (b"", 137)


@pytest.mark.rule("RC-30")
def test_it_lives_until_the_supervisor_has_looked(start: Start) -> None:
    inside = start("sh", "-c", "exit 3")
    assert inside.link.recv(16) == b"3"

    with pytest.raises(subprocess.TimeoutExpired):
        inside.process.wait(0.1)
    inside.link.close()
    assert inside.process.wait(10) == 3


@pytest.mark.rule("RC-27")
def test_supervisor_that_does_not_look_keeps_it_for_a_moment_only(start: Start) -> None:
    inside = start("sh", "-c", "exit 3")

    assert (inside.process.wait(10), inside.link.recv(16)) == (3, b"3")


@pytest.mark.rule("RC-19")
def test_command_does_not_get_the_connection(start: Start) -> None:
    _, _, said, _ = start("sh", "-c", "readlink /proc/$$/fd/*").end()

    assert "pipe:" in said
    assert "socket:" not in said


@pytest.mark.rule("RC-19")
@pytest.mark.parametrize(
    "attack",
    [
        "kill -INT $PPID; kill -TERM $PPID; kill -PIPE $PPID; sleep 0.1",
        "prlimit --pid $PPID --nofile=0",
        "prlimit --pid $PPID --as=4096 --data=0",
    ],
)
def test_command_does_not_silence_it(start: Start, attack: str) -> None:
    assert start("sh", "-c", f"{attack}; exit 3").end() == (b"3", 3, "", "")


def test_command_is_under_the_filter(start: Start) -> None:
    _, code, _, said = start("sh", "-c", "touch f; chmod u+s f").end()

    assert code != 0
    assert "Operation not permitted" in said
