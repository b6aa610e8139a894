"""What FLEET_HOME remembers of a fleet: its addresses while it runs, and its processes in case it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.local.identity import ProcessIdentity, end_all
from cluster.local.process import private_directory, write_private
from cluster.local.ray_head import keep_logs
from fleet.kernel.errors import ConfigError

_FLEET = "fleet.json"
_REMAINS = "processes.json"


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Addresses(_Stored):
    """Where the parts of a fleet answer; the same for embedded and given servers."""

    redis_url: str = Field(repr=False)
    """Log store, with its password."""
    cache_url: str = Field(repr=False)
    """Cache store, with its password."""
    neo4j_uri: str
    """Graph."""
    neo4j_user: str
    """User at the graph."""
    neo4j_password: str = Field(repr=False)
    """Password of that user."""
    neo4j_database: str
    """Name of the database."""
    ray_address: str | None = None
    """For `ray.init(address=...)`; None when the fleet runs without Ray."""
    ray_token_path: Path | None = None
    """File with Ray's token."""
    dashboard_url: str | None = None
    """Ray dashboard."""


class RunningFleet(_Stored):
    """A fleet that is ready; what `fleet.json` holds."""

    home: Path
    """Its FLEET_HOME."""
    supervisor: ProcessIdentity
    """The process that owns Ray and the embedded services."""
    started_at_ms: int
    """When it was ready, milliseconds since 1970 UTC."""
    addresses: Addresses
    serve_url: str | None = None
    """HTTP front."""
    services: dict[str, ProcessIdentity] = {}
    """Embedded services by name."""


class Remains(_Stored):
    """What would be left if the supervisor died this moment."""

    processes: tuple[ProcessIdentity, ...] = ()
    """All processes below the supervisor."""
    ray_temp_dir: Path | None = None
    """Ray's directory."""

    def save(self, home: Path) -> None:
        """The next start can clean up after a crash."""
        write_private(home / _REMAINS, self.model_dump_json())


class HomeLock:
    """Only one supervisor per FLEET_HOME; the kernel frees the lock when its holder dies."""

    def __init__(self, home: Path) -> None:
        self._path = private_directory(home) / "lock"
        self._descriptor: int | None = None

    def take(self) -> None:
        """This process holds the lock. Raises ConfigError naming the holder when another one has it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise ConfigError(
                f"a fleet already runs, starts or stops in {self._path.parent} (process {holder}); use it, end it with "
                "`fleet down`, or choose another FLEET_HOME",
                path=str(self._path.parent),
                pid=holder,
            ) from error
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """The lock is free; harmless when it was not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def save_fleet(fleet: RunningFleet) -> None:
    """Other commands find the fleet by its home (file mode 0600: it holds passwords)."""
    write_private(fleet.home / _FLEET, fleet.model_dump_json(indent=2))


def forget_fleet(home: Path) -> None:
    """No command finds a fleet here any more."""
    (home / _FLEET).unlink(missing_ok=True)
    (home / _REMAINS).unlink(missing_ok=True)


def find_running(home: Path) -> RunningFleet | None:
    """The fleet that is ready in this home; None when there is none, or only the file of a dead one."""
    try:
        fleet = RunningFleet.model_validate_json((home / _FLEET).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise ConfigError(f"cannot read {home / _FLEET}: it belongs to another user", path=str(home)) from error
    except ValidationError:
        # Written by another version, or damaged: whether its supervisor lives is known by the lock alone.
        return None
    return fleet if fleet.supervisor.is_alive else None


def clean_stale(home: Path) -> int:
    """Nothing is left of a fleet whose supervisor died; returns how many processes had to be ended.

    The caller holds the lock of this home, so that no living fleet can be meant.
    """
    try:
        remains = Remains.model_validate_json((home / _REMAINS).read_bytes())
    except (FileNotFoundError, ValidationError):
        remains = Remains()
    ended = end_all(remains.processes, grace_s=2.0)
    if remains.ray_temp_dir is not None and remains.ray_temp_dir.is_dir():
        keep_logs(remains.ray_temp_dir, home)
    forget_fleet(home)
    return ended


def stop_running(home: Path, *, within_s: float) -> bool:
    """No fleet runs in this home; True when one did. A supervisor that does not stop in time is killed and cleaned up.

    Raises:
        ConfigError: a fleet that just starts or stops holds the home.
    """
    fleet = find_running(home)
    if fleet is not None:
        fleet.supervisor.end(grace_s=within_s)
    if not home.is_dir():
        return False
    lock = HomeLock(home)
    lock.take()
    try:
        ended = clean_stale(home)
    finally:
        lock.release()
    return fleet is not None or ended > 0
