"""The local Ray cluster: one node inside the supervisor process, on loopback, behind a token of its own."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster.local.identity import ProcessIdentity, descendants, end_all
from cluster.local.process import free_port, private_directory, write_private
from fleet.config.settings import PROXY_ENVIRONMENT
from fleet.kernel.errors import StoreUnavailable

NAMESPACE = "fleet"
"""Ray namespace of all actors of a fleet."""

# A unix socket path holds 107 bytes; Ray appends `/session_<date>_<pid>/sockets/dash_MetricsHead` to its directory.
_TEMP_DIR_MAX = 107 - 70
_LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_GONE_S = 5.0
_A_SERVICE_IS_MISSING = 5
"""The exit code of the command line for a fleet without Ray."""
_TOO_SLOW = "timed out during startup"
"""Ray's words for a node that had not come up when its time was over."""
_STARTS = 2
_VITAL = ("gcs_server", "raylet")
"""Programs without which Ray is no more; nothing starts them again on one machine."""


@dataclass(frozen=True)
class RayAddress:
    """What another process of this machine needs to join, see `ray_environment`."""

    address: str
    """For `ray.init(address=...)`, e.g. `127.0.0.1:38243`."""
    token_path: Path
    """File (0600) with the token."""
    dashboard_url: str | None
    """None when the dashboard was left out."""
    temp_dir: Path
    """Ray's directory for sockets and logs."""


def ray_environment(token_path: Path) -> dict[str, str]:
    """The variables that must be set before `import ray`, in the supervisor and in every process that joins it."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Serve kills a proxy that is not ready within three times this long; its own 5 s are too few on a busy machine.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        **PROXY_ENVIRONMENT,
        # Without it Ray replaces 127.0.0.1 by the address of the network card, opens its ports to the network, and
        # breaks when that address changes.
        _LOOPBACK_ONLY: "0",
    }


class Head(Protocol):
    """The Ray of a fleet, as `RayHead` is."""

    @property
    def temp_dir(self) -> Path | None:
        """Its directory while it runs."""
        ...

    @property
    def dead_part(self) -> str | None:
        """What ended it, if it ended by itself."""
        ...

    def start(self) -> RayAddress:
        """Ray answers. Raises StoreUnavailable."""
        ...

    def stop(self) -> None:
        """Ray and all its processes are gone."""
        ...


class RayHead:
    """Ray with this process as its driver: what it started dies with this process."""

    name = "ray"

    def __init__(
        self,
        home: Path,
        *,
        dashboard: bool = True,
        dashboard_port: int = 0,
        cpus: int | None = None,
        store_mb: int = 100,
    ) -> None:
        self._home = home
        self._dashboard = dashboard
        self._dashboard_port = dashboard_port
        self._cpus = cpus
        self._store_mb = store_mb
        self._temp_dir: Path | None = None
        self._before: frozenset[ProcessIdentity] = frozenset()
        self._vital: dict[str, ProcessIdentity] = {}

    @property
    def temp_dir(self) -> Path | None:
        """Ray's directory while it runs."""
        return self._temp_dir

    @property
    def dead_part(self) -> str | None:
        """The program whose end was the end of Ray; None while Ray lives or was not started.

        Ray itself finds out a minute later, and then ends this process without a word to anybody.
        """
        return next((name for name, process in self._vital.items() if not process.is_alive), None)

    def start(self) -> RayAddress:
        """Ray answers on loopback, apart from every other Ray of this machine.

        Blocks for about 6-10 s and belongs to the main thread: the kernel ends Ray's processes when the thread that
        started them ends.

        Raises:
            StoreUnavailable: Ray did not start; nothing of it is left.
        """
        assert "ray" not in sys.modules or os.environ.get(_LOOPBACK_ONLY) == "0", "ray was imported before this"
        token = private_directory(self._home) / "ray-token"
        write_private(token, secrets.token_hex(32))
        os.environ.update(ray_environment(token))
        for stray in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_NAMESPACE"):
            os.environ.pop(stray, None)
        # Ray gives its own node half a minute, which nothing can change and a busy machine needs once in a while.
        for _ in range(_STARTS):
            try:
                return self._tried(token)
            except StoreUnavailable as error:
                if _TOO_SLOW not in error.message:
                    raise
        raise StoreUnavailable(
            f"Ray's node was not up in half a minute, {_STARTS} times in turn: this machine is too busy for it (load "
            f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors). End what else runs here, or start the fleet "
            f"again later; what Ray said is in {self._home / 'ray-logs'}"
        )

    def _tried(self, token: Path) -> RayAddress:
        self._temp_dir = _short_directory(self._home)
        self._before = frozenset(descendants(os.getpid()))
        try:
            return self._init(token)
        except Exception as error:
            self.stop()
            raise StoreUnavailable(f"Ray did not start: {error}; see {self._home / 'ray-logs'}") from error

    def _init(self, token: Path) -> RayAddress:
        import ray

        assert self._temp_dir is not None
        port = (self._dashboard_port or free_port()) if self._dashboard else None
        context = ray.init(
            address="local",
            namespace=NAMESPACE,
            # What the dashboard calls this driver.
            job_config=ray.job_config.JobConfig(metadata={"job_name": NAMESPACE}),
            num_cpus=self._cpus,
            object_store_memory=self._store_mb * 1_000_000,
            include_dashboard=self._dashboard,
            dashboard_host="127.0.0.1",
            dashboard_port=port,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=str(self._temp_dir),
            _node_ip_address="127.0.0.1",
        )
        address = str(context.address_info["gcs_address"])  # pyright: ignore[reportAttributeAccessIssue]
        assert address.startswith("127."), address
        self._vital = _vital_of(process for process in descendants(os.getpid()) if process not in self._before)
        url = f"http://127.0.0.1:{port}" if port else None
        return RayAddress(address, token, url, self._temp_dir)

    def stop(self) -> None:
        """Ray and all its processes are gone, its socket directory too; its logs lie in `ray-logs` of the home."""
        import ray

        if self._temp_dir is None:
            return
        started = [process for process in descendants(os.getpid()) if process not in self._before]
        if self.dead_part is None:
            ray.shutdown()
        else:
            atexit.register(_leave)
        # Helpers of the dashboard outlive `ray.shutdown` for a second or two.
        end_all(started, grace_s=_GONE_S)
        keep_logs(self._temp_dir, self._home)
        self._temp_dir, self._vital = None, {}


def _leave() -> None:
    """Ends this process before Ray's own last words, which may wait a minute for a head that is no more."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_A_SERVICE_IS_MISSING)


def _vital_of(processes: Iterable[ProcessIdentity]) -> dict[str, ProcessIdentity]:
    found: dict[str, ProcessIdentity] = {}
    for process in processes:
        with suppress(OSError):
            program = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            if (name := Path(program).name) in _VITAL:
                found[name] = process
    return found


def _short_directory(home: Path) -> Path:
    below = home / "ray"
    if len(os.fsencode(below)) <= _TEMP_DIR_MAX:
        return private_directory(below)
    return Path(tempfile.mkdtemp(prefix="fleet-"))


def keep_logs(temp_dir: Path, home: Path) -> None:
    """Ray's directory is gone; the logs of its last session replace `ray-logs` in the home."""
    kept = home / "ray-logs"
    sessions = sorted(path for path in temp_dir.glob("session_*") if path.is_dir() and not path.is_symlink())
    if sessions and (sessions[-1] / "logs").is_dir():
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(sessions[-1] / "logs", kept, ignore_dangling_symlinks=True)
    shutil.rmtree(temp_dir, ignore_errors=True)
