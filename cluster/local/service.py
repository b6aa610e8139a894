"""What the supervisor knows of an embedded service, and the waiting that all of them share."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from cluster.local.identity import ProcessIdentity
from cluster.local.process import Child, write_private
from fleet.kernel.errors import ConfigError, StoreUnavailable

_PROBE_S = 0.03
_SLOWEST_PROBE_S = 0.25
_LONGEST_PROBE_S = 1.0

Probe = Callable[[], Awaitable[bool]]
"""One look at a service: True when ready, False for "not yet"; anything that waiting cannot mend is raised."""


class EmbeddedService(Protocol):
    """A store that runs as our child process; `start` after a crash brings it back with the same address and data."""

    @property
    def name(self) -> str:
        """Name in messages and in `fleet status`."""
        ...

    @property
    def address(self) -> str:
        """URL for clients, without the password."""
        ...

    @property
    def identity(self) -> ProcessIdentity | None:
        """The running process; None before the first start and after `stop`."""
        ...

    @property
    def is_alive(self) -> bool:
        """True while the process runs (it may still be starting)."""
        ...

    async def start(self) -> None:
        """The service answers requests. Raises StoreUnavailable, with nothing left running, when it does not."""
        ...

    async def stop(self) -> None:
        """The process is gone and its data is on disk; harmless when it did not run."""
        ...


async def await_ready(child: Child, probe: Probe, *, name: str, within_s: float) -> None:
    """The probe said True while exactly this child lives; otherwise the child is ended.

    Raises:
        StoreUnavailable: the child died (with the last lines of its output) or was not ready in time.
    """
    silent_s, pause_s = 0.0, _PROBE_S
    try:
        while True:
            began = time.monotonic()
            if not child.is_alive:
                raise StoreUnavailable(
                    f"the {name} ended while it started (exit status {child.returncode}); it said:\n{child.log_tail()}",
                    name=name,
                )
            if await probe():
                return
            if silent_s > within_s:
                raise StoreUnavailable(
                    f"the {name} did not answer within {within_s:g} s; it said:\n{child.log_tail()}", name=name
                )
            # A look costs time of the processor, which a slow start has none to spare of.
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.2, _SLOWEST_PROBE_S)
            # Ray starts in this process and blocks its loop, on a busy machine for longer than `within_s`: that time
            # is no silence of the child.
            silent_s += min(time.monotonic() - began, _LONGEST_PROBE_S)
    except BaseException:
        await child.stop(grace_s=1.0)
        raise


def package_directory(package: str) -> Path:
    """Where an installed package lies, found without importing it.

    Raises:
        StoreUnavailable: it is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise StoreUnavailable(
            f"the Python package {package.replace('_', '-')} is not installed; install it, or point the fleet at a "
            "real server (FLEET_REDIS_URL, FLEET_NEO4J_URI)",
            package=package,
        )
    return Path(spec.submodule_search_locations[0])


def recorded_secret(path: Path) -> str:
    """The password in this file (mode 0600), made on first use. Raises ConfigError when it cannot be read."""
    try:
        if not path.exists():
            write_private(path, secrets.token_urlsafe(24))
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"cannot read the password in {path}: {error.strerror}; restore that file", path=str(path)
        ) from error
