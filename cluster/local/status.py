"""What a running fleet takes and how its parts are."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, SecretStr

from cluster.local.identity import ProcessIdentity, descendants
from cluster.local.preflight import ping_graph, ping_redis
from cluster.local.record import Addresses, RunningFleet
from fleet.kernel.errors import FleetError

_PROC = Path("/proc")
# What a command line holds, and the name that a person knows it by; the first match counts.
_ROLES = (
    ("/gcs/gcs_server", "ray gcs"),
    ("/raylet/raylet", "ray raylet"),
    ("log_monitor.py", "ray log monitor"),
    ("autoscaler/_private/monitor.py", "ray monitor"),
    ("dashboard/dashboard.py", "ray dashboard"),
    ("ray-dashboard-", "ray dashboard"),
    ("ray.dashboard", "ray dashboard"),
    ("multiprocessing.", "ray dashboard"),
    ("jvm.args", "graph store"),
    ("llama_cpp", "local model"),
    ("bwrap", "sandbox run"),
)


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProcessMemory(_Row):
    """Memory of one process; shared pages are counted in proportion (PSS), so that sums are true."""

    pid: int
    role: str
    pss_kb: int


class MemoryReport(_Row):
    """Memory of a fleet, the largest first."""

    processes: tuple[ProcessMemory, ...]

    @property
    def total_kb(self) -> int:
        """Sum over all processes, in KiB."""
        return sum(process.pss_kb for process in self.processes)


class PartHealth(_Row):
    """How one part of a fleet is."""

    name: str
    state: Literal["ok", "failed"]
    found: str


def memory_report(supervisor: ProcessIdentity, services: dict[str, ProcessIdentity]) -> MemoryReport:
    """Memory of the supervisor and of all below it; a process that ends meanwhile is left out."""
    names = {identity.pid: name for name, identity in services.items()}
    names[supervisor.pid] = "supervisor"
    pids = [supervisor.pid, *(process.pid for process in descendants(supervisor.pid))]
    rows = [
        ProcessMemory(pid=pid, role=names.get(pid) or role_of(_arguments(pid)), pss_kb=pss)
        for pid in pids
        if (pss := _pss_kb(pid)) is not None
    ]
    return MemoryReport(processes=tuple(sorted(rows, key=lambda row: -row.pss_kb)))


def role_of(arguments: Sequence[str]) -> str:
    """The name that a person knows a process by: an actor's own name, a part of Ray, or the program."""
    line = " ".join(arguments)
    if line.startswith("ray::"):
        return line[5:].split("(")[0].split(" ")[0]
    for text, role in _ROLES:
        if text in line:
            return role
    return Path(arguments[0]).name if arguments and arguments[0] else "unknown"


async def check_parts(fleet: RunningFleet) -> list[PartHealth]:
    """One row for each part that has an address: did it answer just now?"""
    addresses = fleet.addresses
    rows = [
        await _checked("log store", ping_redis(SecretStr(addresses.redis_url), key="the log store")),
        await _checked("cache store", ping_redis(SecretStr(addresses.cache_url), key="the cache store")),
        await _checked("graph store", _graph(addresses)),
    ]
    if addresses.dashboard_url is not None:
        # The one page that Ray serves without a token.
        rows.append(await _http("ray", f"{addresses.dashboard_url}/api/gcs_healthz"))
    if fleet.serve_url is not None:
        rows.append(await _http("front", f"{fleet.serve_url.rstrip('/')}/healthz"))
    return rows


async def _graph(addresses: Addresses) -> None:
    password = SecretStr(addresses.neo4j_password)
    await ping_graph(addresses.neo4j_uri, addresses.neo4j_user, password, addresses.neo4j_database)


async def _checked(name: str, check: Awaitable[None]) -> PartHealth:
    try:
        await check
    except FleetError as error:
        return PartHealth(name=name, state="failed", found=error.message)
    return PartHealth(name=name, state="ok", found="answers")


async def _http(name: str, url: str) -> PartHealth:
    from fleet.web.answers import Unanswered
    from fleet.web.http import HttpExchanges

    try:
        answer = await HttpExchanges(timeout_s=5.0).ask("GET", url, headers={}, most=0)
    except Unanswered as error:
        return PartHealth(name=name, state="failed", found=f"{url} does not answer ({error.kind})")
    state = "ok" if answer.is_success else "failed"
    return PartHealth(name=name, state=state, found=f"{url} answers {answer.status}")


def _arguments(pid: int) -> list[str]:
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [part for part in raw.decode(errors="replace").split("\0") if part]


def _pss_kb(pid: int) -> int | None:
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), None)
