"""A supervised child process: own session, dies with its parent, holds a lock while it lives, ended by identity."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.local.identity import ProcessIdentity
from fleet.kernel.errors import ConfigError, StoreUnavailable

# Between the workers of Ray (10002-19999) and the kernel's ephemeral ports (32768 and up): no outgoing connection can
# take the port of a service while that service restarts.
_PORTS = range(20_000, 32_768)
_LOCK_WAIT_S = 5.0
_POLL_S = 0.02
_TAIL_BYTES = 8_192

# Runs in the child between fork and exec. A launcher instead of preexec_fn, which is not safe in a process with
# threads. The parent may die before prctl: then nobody would ever end the child, hence the look at getppid.
_LAUNCHER = (
    "import ctypes,os,signal,sys;"
    "ctypes.CDLL(None).prctl(1,signal.SIGKILL,0,0,0);"
    "os.getppid()==int(sys.argv[1]) or os._exit(125);"
    "os.execve(sys.argv[2],sys.argv[2:],dict(os.environ))"
)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What to start and where its traces go."""

    name: str
    """Name in messages, e.g. `log store`."""
    argv: Sequence[str]
    """Absolute path of the program and its arguments; secrets never stand here, because `ps` shows them."""
    cwd: Path
    """Working directory."""
    log: Path
    """File for stdout and stderr; the one of the run before is kept as `<log>.1`."""
    pid_file: Path
    """Holds the identity of the child as JSON and a lock that lives exactly as long as the child."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    """The whole environment of the child: nothing is inherited."""


class Child:
    """A started child process; `stop` ends exactly this process and nothing else."""

    def __init__(self, launch: Launch, popen: subprocess.Popen[bytes], identity: ProcessIdentity) -> None:
        self._launch = launch
        self._popen = popen
        self.identity = identity

    @property
    def pid(self) -> int:
        """The pid of the program itself (the launcher was replaced by it)."""
        return self._popen.pid

    @property
    def is_alive(self) -> bool:
        """True while the program runs."""
        return self._popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    def log_tail(self, lines: int = 5) -> str:
        """The last lines that the program printed."""
        return last_lines(self._launch.log, lines)

    async def wait(self) -> int:
        """The exit status, once the program has ended."""
        while (code := self._popen.poll()) is None:
            await asyncio.sleep(_POLL_S)
        return code

    async def stop(self, *, grace_s: float) -> int:
        """The program is gone: SIGTERM, and SIGKILL when it still lives after `grace_s`; returns its exit status."""
        if self.is_alive:
            self._popen.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.wait(), grace_s)
            except TimeoutError:
                self._popen.kill()
        code = await self.wait()
        self._launch.pid_file.unlink(missing_ok=True)
        return code

    def kill(self) -> None:
        """SIGKILL was sent, as a crash would look; the pid file stays, as it would."""
        self._popen.kill()


def spawn(launch: Launch) -> Child:
    """Start the program in a session of its own; it is killed when this process ends, however it ends.

    The kernel binds that promise to the *thread* that starts the child: call it from the main thread. An earlier child
    that still holds the pid file's lock is ended first, by its recorded identity.

    Raises:
        StoreUnavailable: the program is missing or does not start, or another process holds its directory.
    """
    lock = _lock(launch)
    try:
        popen = _start(launch, lock)
        identity = ProcessIdentity.of(popen.pid)
        if identity is None:
            popen.wait()
            raise StoreUnavailable(
                f"the {launch.name} ended at once; its output is in {launch.log}", log=str(launch.log)
            )
        os.truncate(lock, 0)
        os.pwrite(lock, identity.model_dump_json().encode(), 0)
        return Child(launch, popen, identity)
    finally:
        os.close(lock)


def end_leftover(launch: Launch) -> None:
    """No earlier child holds the pid file's lock, or its port. Raises StoreUnavailable as `spawn` does."""
    os.close(_lock(launch))


def _start(launch: Launch, lock: int) -> subprocess.Popen[bytes]:
    if launch.log.exists():
        launch.log.replace(launch.log.with_name(launch.log.name + ".1"))
    output = os.open(launch.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *launch.argv],
            cwd=launch.cwd,
            env=dict(launch.env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock,),
        )
    except OSError as error:
        raise StoreUnavailable(f"cannot start the {launch.name} ({launch.argv[0]}): {error.strerror}") from error
    finally:
        os.close(output)


def _lock(launch: Launch) -> int:
    """A descriptor that holds the pid file's lock; the child inherits it, so the lock lives as long as the child."""
    lock = os.open(launch.pid_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                os.close(lock)
                raise
        leftover = _recorded(lock)
        if leftover is not None:
            leftover.end(grace_s=2.0)
        if time.monotonic() > deadline:
            os.close(lock)
            raise StoreUnavailable(
                f"another process holds {launch.pid_file}, so the {launch.name} cannot start there; "
                "end it (`fleet down`) or choose another FLEET_HOME",
                pid_file=str(launch.pid_file),
            )
        time.sleep(_POLL_S)


def _recorded(lock: int) -> ProcessIdentity | None:
    raw = os.pread(lock, 4096, 0)
    try:
        return ProcessIdentity.model_validate_json(raw)
    except ValueError:
        return None


def last_lines(path: Path, lines: int) -> str:
    """The last lines of a text file; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def free_port() -> int:
    """A free loopback TCP port outside the ranges of Ray's workers and of outgoing connections."""
    for _ in range(200):
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        if can_bind(port):
            return port
    raise StoreUnavailable(
        f"found no free port on 127.0.0.1 between {_PORTS.start} and {_PORTS.stop - 1}; end something"
    )


def check_port_free(port: int, *, what: str, key: str) -> None:
    """Nothing happens when the port is free.

    Raises:
        ConfigError: something listens on it; names the setting that chooses another.
    """
    if not can_bind(port):
        raise ConfigError(
            f"port {port} on 127.0.0.1 is in use, so {what} cannot listen there; free it, or set {key} to another port "
            "(0 takes any free one)",
            port=port,
            key=key,
        )


def can_bind(port: int, *, host: str = "127.0.0.1") -> bool:
    """Whether a server may listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a connection that is only closing (TIME_WAIT) does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def private_directory(path: Path) -> Path:
    """The directory exists and only its owner may enter.

    Raises:
        ConfigError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"cannot write below {path}: {error.strerror}; set FLEET_HOME to a directory of your own", path=str(path)
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot write below {path}; set FLEET_HOME to a directory of your own", path=str(path))
    return path


def write_private(path: Path, text: str) -> None:
    """The file holds the text, readable by its owner alone; a reader sees the old text or the new, never a part."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
