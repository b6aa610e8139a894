"""Start a supervisor in the background and wait until its fleet is ready."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.local.identity import ProcessIdentity
from cluster.local.process import last_lines, private_directory
from cluster.local.record import RunningFleet, find_running
from fleet.kernel.errors import ConfigError, FleetError, StoreUnavailable

_POLL_S = 0.05
_BAD_INPUT = 2
_GRACE_S = 60.0


def spawn_detached(argv: Sequence[str], home: Path, *, environ: Mapping[str, str], within_s: float) -> RunningFleet:
    """A supervisor runs in a session of its own, and its fleet is ready.

    Args:
        argv: absolute path of a program that runs a `LocalFleet` in `home`, and its arguments.
        within_s: a supervisor that is not ready by then is stopped again.

    Raises:
        ConfigError: the supervisor ended with status 2; carries its last lines.
        StoreUnavailable: it ended otherwise, or was not ready in time; carries its last lines.
    """
    log = private_directory(home) / "supervisor.log"
    pid = _spawn(argv, log, environ)
    identity = ProcessIdentity.of(pid)
    deadline = time.monotonic() + within_s
    while True:
        fleet = find_running(home)
        if fleet is not None and fleet.supervisor.pid == pid:
            return fleet
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            raise _failed(os.waitstatus_to_exitcode(status), log)
        if time.monotonic() > deadline:
            if identity is not None:
                # Killed before it has stopped its parts, it would leave them.
                identity.end(grace_s=_GRACE_S)
            os.waitpid(pid, 0)
            raise StoreUnavailable(f"the fleet was not ready within {within_s:g} s; it said:\n{last_lines(log, 8)}")
        time.sleep(_POLL_S)


def _spawn(argv: Sequence[str], log: Path, environ: Mapping[str, str]) -> int:
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        return os.posix_spawn(argv[0], list(argv), dict(environ), file_actions=actions, setsid=True)
    except OSError as error:
        raise StoreUnavailable(f"cannot start {argv[0]}: {error.strerror}") from error


def _failed(code: int, log: Path) -> FleetError:
    text = f"the fleet did not start (exit status {code}); it said:\n{last_lines(log, 8)}"
    return ConfigError(text, log=str(log)) if code == _BAD_INPUT else StoreUnavailable(text, log=str(log))
