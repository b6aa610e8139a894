# ruff: noqa: PTH123, PTH118, PTH103, PTH207
"""Start side services, wait until each can be used, run the command beside them (RC-102, RC-103).

Usage: with_services.py CONTROL LOG... COMMAND...   Numbers are inherited descriptors: a socket to the supervisor, on
which it sends the plan as one JSON line, and one pipe per service that takes its log. Exits with the code of the
command; says `{"service", "why", "started"}` on the socket and exits with 125 when a service cannot be used.
Everything ends with this process: the sandbox has its own process space. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any, NoReturn

_PR_SET_DUMPABLE = 4
_POLL_S = 0.05
_UNAVAILABLE = 125


class Unavailable(Exception):
    """A service cannot be used."""

    def __init__(self, service: str, why: str) -> None:
        super().__init__(why)
        self.service, self.why = service, why


class Services:
    """The started services: pid -> name. The invariant: whoever ended is noticed at the next `look`."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._logs: list[int] = []

    def start(self, plan: dict[str, Any], log: int, exported: dict[str, str]) -> None:
        """The service can be used, or Unavailable says why not."""
        name, deadline = plan["name"], time.monotonic() + plan["timeout_s"]
        environment = {**os.environ, **exported, **plan["exported"], **plan["env"]}
        # What the package of the fleet brings goes before the system's.
        more: list[str] = [path for pattern in plan["paths"] for path in sorted(glob.glob(pattern), reverse=True)]
        environment["PATH"] = ":".join(["/fleet/services", environment["PATH"], *more])
        self._prepare(plan)
        for argv in (plan["prepare"], plan["argv"]):
            if argv and shutil.which(argv[0], path=environment["PATH"]) is None:
                raise Unavailable(name, f"there is no program {argv[0]} in the sandbox. {plan['install']}".strip())
        self._check_version(plan, environment)
        if plan["prepare"]:
            code = self._run(plan["prepare"], name, log, environment, deadline)
            if code != 0:
                raise Unavailable(name, f"{plan['prepare'][0]} {_ended(code)}; see its log")
        process = self._spawn(plan["argv"], name, log, environment)
        self._names[process.pid] = name
        while self._run(plan["ready"], name, log, environment, deadline) != 0:
            self.look()
            if time.monotonic() >= deadline:
                raise Unavailable(name, f"it was not ready within {plan['timeout_s']} s; see its log")
            time.sleep(_POLL_S)
        self.look()

    def look(self, command: int | None = None) -> int | None:
        """Wait status of the command if it ended; Unavailable when a service did."""
        result: int | None = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return result
            if pid == 0:
                return result
            if pid == command:
                result = status
            elif pid in self._names:
                raise Unavailable(self._names[pid], f"it {_ended(os.waitstatus_to_exitcode(status))}; see its log")

    def _prepare(self, plan: dict[str, Any]) -> None:
        os.makedirs(plan["folder"], mode=0o700)
        for name, text in plan["files"].items():
            path = f"{plan['folder']}/{name}"
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(text)

    def _check_version(self, plan: dict[str, Any], environment: dict[str, str]) -> None:
        if plan["version"] is None:
            return
        if not plan["version_argv"]:
            raise Unavailable(plan["name"], "its kind cannot tell its version: leave version out")
        try:
            told = subprocess.run(
                plan["version_argv"], env=environment, capture_output=True, timeout=20, check=False
            ).stdout.decode(errors="replace")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(plan["name"], f"its version cannot be found: {error}") from error
        words = [word.strip("v=(),") for word in told.split()]
        version = plan["version"]
        if not any(word == version or word.startswith(f"{version}.") for word in words):
            raise Unavailable(plan["name"], f"version {version} was asked for, here is: {told.strip()[:200]}")

    def _spawn(self, argv: list[str], name: str, log: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        program = shutil.which(argv[0], path=environment["PATH"]) or argv[0]
        try:
            return subprocess.Popen(
                argv,
                executable=program,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(name, f"{argv[0]} cannot be started: {error.strerror}") from error

    def _run(self, argv: list[str], name: str, log: int, environment: dict[str, str], deadline: float) -> int:
        """Exit code of a command that is to end; 124 when it did not within its time."""
        process = self._spawn(argv, name, log, environment)
        while True:
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return process.returncode
            if time.monotonic() >= deadline:
                process.kill()
                process.wait()
                return 124
            time.sleep(_POLL_S / 5)


def _ended(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with {code}"


def _read_line(control: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        more = control.recv(1 << 16)
        if not more:
            sys.exit(_UNAVAILABLE)
        data += more
    return data


def run_command(argv: list[str], exported: dict[str, str], services: Services) -> int:
    """Exit code of the command, 128 + signal when one ended it; Unavailable when a service ended meanwhile."""
    # Woken by every child that ends and by every signal that has to be passed on.
    wakeups, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    try:
        process = subprocess.Popen(argv, env={**os.environ, **exported})
    except OSError as error:
        sys.stderr.write(f"launcher: failed to execute {argv[0]}: {error.strerror}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda n, _: _send(process.pid, n))
    while True:
        try:
            status = services.look(process.pid)
        except Unavailable:
            _send(process.pid, signal.SIGKILL)
            raise
        if status is not None:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        os.read(wakeups, 4096)


def _send(pid: int, number: int) -> None:
    # Not by Popen: it would take the exit status, which `look` waits for.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def main() -> NoReturn:
    # No other process of the run may read our memory or take our descriptors.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    plans: list[dict[str, Any]] = json.loads(_read_line(control))
    logs = [int(text) for text in sys.argv[2 : 2 + len(plans)]]
    for log in logs:
        os.set_inheritable(log, False)
    services, exported, is_started = Services(), dict[str, str](), False
    try:
        for plan, log in zip(plans, logs, strict=True):
            services.start(plan, log, exported)
            exported.update(plan["exported"])
        is_started = True
        code = run_command(sys.argv[2 + len(plans) :], exported, services)
    except Unavailable as failure:
        told = {"service": failure.service, "why": failure.why[:1000], "started": is_started}
        control.sendall(json.dumps(told).encode())
        sys.stderr.write(f"service {failure.service} is unavailable: {failure.why}\n")
        code = _UNAVAILABLE
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
