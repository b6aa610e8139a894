# ruff: noqa: PTH123, PTH108, PTH103
"""PID 1 of a container: starts the command, reaps what is left over, and ends everything when its supervisor is gone.

Standard input is the supervisor's line. First a JSON object on one line: `{argv, env, cwd, stdin, files, deadline_s}`
(`stdin`: path of the file that the command reads, `files`: path -> text, mode 0400). Then one letter per wish: `T`
sends SIGTERM to the command. End of file means that the supervisor died: everything is killed, as it is `deadline_s`
seconds after the start. Exits with the code of the command, 128 + signal when a signal ended it.

Before it exits it tells the supervisor that code through a socket, and waits shortly until the supervisor closes it:
what the kernel counted for this container is gone when its PID 1 is, and an end without this word was not the
command's own. It connects before there is a command, and exec closes the connection: no command can speak for it.

Arguments: the file with the system-call filter, the supervisor's socket, then paths to hide where the engine itself
cannot: `must` or `may` (go on without), and the paths. Standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 22, 24, 38
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND = 1, 2, 4, 8, 32, 4096
_CAPABILITY_VERSION_3 = 0x20080522
_SECCOMP_MODE_FILTER = 2
_KILLED = 137
_CHUNK = 1 << 16
_ANSWER_S = 2.0


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install_filter(content: bytes) -> None:
    """Every later system call of this process and its children goes through the filter."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(content, len(content))
    program = _Program(len(content) // 8, ctypes.cast(code, ctypes.c_void_p))
    steps: tuple[tuple[Any, ...], ...] = (
        (_PR_SET_DUMPABLE, 0, 0, 0, 0),  # no other process may read our memory: it holds what the supervisor sent
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    )
    for step in steps:
        if libc.prctl(*step) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({step[0]})")


def hide(paths: list[str]) -> None:
    """The paths are empty for this process and its children: folders as folders, all else as /dev/null.

    No file of the workspace is setuid or a device for them. Mounts take a user namespace of our own; every right in it
    is given up again before this ends, however it ends.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    _call(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS), "unshare")
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
        for path in map(os.fsencode, filter(os.path.lexists, paths)):
            _cover(libc, path)
        flags = _MS_REMOUNT | _MS_BIND | _MS_NOSUID | _MS_NODEV
        _call(libc.mount(None, b"/workspace", None, flags, None), "mount /workspace")
    finally:
        _give_up_rights(libc)


def _cover(libc: ctypes.CDLL, path: bytes) -> None:
    if os.path.isdir(path):  # noqa: PTH112
        flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        _call(libc.mount(b"tmpfs", path, b"tmpfs", flags, b"size=4k,mode=755"), f"mount {path!r}")
    else:
        _call(libc.mount(b"/dev/null", path, None, _MS_BIND, None), f"mount {path!r}")


def _give_up_rights(libc: ctypes.CDLL) -> None:
    number = 0
    while libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) == 0:
        number += 1
    header, nothing = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    try:
        _call(libc.capset(header, nothing), "capset")
    except OSError:
        os._exit(_KILLED)  # no command runs with rights, wherever they count


def _call(code: int, name: str) -> None:
    if code != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def read_request() -> tuple[dict[str, Any], bytes]:
    """The supervisor's JSON line and the bytes that came behind it."""
    data = b""
    while b"\n" not in data:
        more = os.read(0, _CHUNK)
        if not more:
            os._exit(_KILLED)
        data += more
    line, _, rest = data.partition(b"\n")
    return json.loads(line), rest


def put_files(files: dict[str, str]) -> None:
    """The files are there, for their owner alone to read."""
    for path, text in files.items():
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)  # noqa: PTH120
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400), "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))


def start(request: dict[str, Any]) -> int:
    """Pid of the command, in a session of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            become(request)
        except OSError as error:
            sys.stderr.write(f"{request['argv'][0]}: {error.strerror}\n")
            sys.stderr.flush()
        os._exit(127)
    return pid


def become(request: dict[str, Any]) -> NoReturn:
    """This process is the command."""
    os.setsid()
    os.dup2(os.open(request["stdin"] or "/dev/null", os.O_RDONLY), 0)
    os.chdir(request["cwd"])
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.execvpe(request["argv"][0], request["argv"], request["env"])


def reaped(command: int) -> int | None:
    """The command's exit code if it ended; whatever else ended is reaped too."""
    code: int | None = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
            if ended[0] == command:
                code = os.waitstatus_to_exitcode(ended[1])
    return code if code is None or code >= 0 else 128 - code


def noted(number: int, frame: object) -> None:
    """A child ended: the wakeup descriptor says so."""


def watch(command: int, wishes: bytes, deadline: float, wakeups: int) -> int:
    """The command's exit code, once it ended; ends this process itself when the supervisor or the time is gone."""
    while True:
        if b"T" in wishes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(command, signal.SIGTERM)
        left = deadline - time.monotonic()
        if left <= 0:
            os._exit(_KILLED)
        ready = select.select([0, wakeups], [], [], left)[0]
        wishes = b""
        if wakeups in ready:
            os.read(wakeups, _CHUNK)
            if (code := reaped(command)) is not None:
                return code
        if 0 in ready and not (wishes := os.read(0, _CHUNK)):
            os._exit(_KILLED)


def connected(place: str) -> socket.socket:
    """The connection to the supervisor; the kernel tells it who we are."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.connect(place)
    return link


def tell(link: socket.socket, code: int) -> None:
    """The supervisor knows the code and has looked at the container, or is gone, or took too long."""
    # Not by a timeout of the socket: that is poll(), which fails when the command took our descriptors by prlimit().
    with contextlib.suppress(OSError):
        link.send(b"%d" % code)
        select.select([link], [], [], _ANSWER_S)


def main() -> NoReturn:
    # What other processes could send us; every other signal without a handler is nothing to a PID 1.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    link = connected(sys.argv[2])
    if hidden := sys.argv[4:]:
        with contextlib.suppress(*([OSError] if sys.argv[3] == "may" else [])):
            hide(hidden)
    with open(sys.argv[1], "rb") as file:
        install_filter(file.read())
    wakeups, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    request, rest = read_request()
    signal.signal(signal.SIGCHLD, noted)
    put_files(request["files"])
    deadline = time.monotonic() + request["deadline_s"]
    command = start(request)
    try:
        code = watch(command, rest, deadline, wakeups)
    except Exception:  # only what the command did to us, such as a limit that it set for its PID 1
        code = _KILLED
    tell(link, code)
    # Not by sys.exit: nothing of the interpreter may run any more once the code is known.
    os._exit(code)


if __name__ == "__main__":
    main()
