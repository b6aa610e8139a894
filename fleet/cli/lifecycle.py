"""`fleet up`, `down`, `status`, `doctor`: the local fleet as a whole."""

from __future__ import annotations

import asyncio
import os
import sys

from cluster.local import (
    Check,
    LocalFleet,
    RunningFleet,
    check_parts,
    find_running,
    memory_report,
    run_until_stopped,
    spawn_detached,
    stop_running,
)
from cluster.local import doctor as local_checks
from fleet.cli.dlq import dead_letters
from fleet.cli.exit_codes import DONE, MISSING
from fleet.cli.fleet_hooks import FleetHooks, endpoints_of
from fleet.cli.output import Output
from fleet.cli.settings import settings
from fleet.config import FleetSettings
from fleet.errors import StoreError

__all__ = ["examine", "show_status", "start", "stop"]


def start(output: Output, *, detach: bool) -> int:
    """The fleet is up; in the foreground this returns when it was stopped."""
    found = settings()
    running = find_running(found.home)
    if running is not None:
        output.note("a fleet is up already")
        _describe(running, output)
        return DONE
    if detach:
        output.note("starting the fleet in the background ...")
        argv = [sys.executable, "-m", "fleet.cli", "up"]
        running = spawn_detached(argv, found.home, environ=os.environ, within_s=found.start_timeout_s)
        _describe(running, output)
        return DONE
    hooks = FleetHooks(found, progress=_line(output), with_serve=True)
    fleet = LocalFleet(found, hooks=hooks, progress=_line(output))

    async def ready(running: RunningFleet) -> None:
        _describe(running, output)
        output.note("ready; stop it with Ctrl-C or `fleet down`")

    asyncio.run(run_until_stopped(fleet, on_ready=ready))
    return DONE


def _line(output: Output):  # noqa: ANN202 - a progress callback of either supervisor
    def tell(name: str, state: str) -> None:
        output.note(f"[dim]{name:<20} {state}[/]")

    return tell


def _describe(running: RunningFleet, output: Output) -> None:
    output.say(f"api        {running.serve_url}")
    output.say(f"dashboard  {running.addresses.dashboard_url}")
    output.say(f"token      {running.home / 'token'}")
    output.result(
        {
            "home": str(running.home),
            "api": running.serve_url,
            "dashboard": running.addresses.dashboard_url,
            "token_file": str(running.home / "token"),
            "pid": running.supervisor.pid,
        }
    )


def stop(output: Output) -> int:
    """Nothing of the fleet runs."""
    found = settings()
    stopped = stop_running(found.home, within_s=found.stop_timeout_s + 20)
    output.say("the fleet is stopped" if stopped else f"no fleet was running in {found.home}")
    output.result({"stopped": stopped})
    return DONE


def show_status(output: Output) -> int:
    """Addresses, parts and memory of the running fleet; exit code 5 when there is none or a part is down."""
    found = settings()
    running = find_running(found.home)
    if running is None:
        output.say(f"no fleet is running in {found.home}; start one with `fleet up --detach`")
        output.result({"running": False})
        return MISSING
    parts = asyncio.run(check_parts(running))
    memory = memory_report(running.supervisor, running.services)
    letters = _dead_letters(found, running)
    output.say(f"api        {running.serve_url}")
    output.say(f"dashboard  {running.addresses.dashboard_url}")
    for part in parts:
        output.say(f"{part.name:<10} {part.state} {part.found}")
    if letters:
        output.say(f"dlq        {letters} dead letter{'s' if letters > 1 else ''}; `fleet dlq list` shows them")
    for process in memory.processes:
        output.say(f"  {process.pss_kb // 1024:>5} MB  {process.role} (pid {process.pid})")
    output.say(f"  {memory.total_kb // 1024:>5} MB  in all (PSS)")
    output.result(
        {
            "running": True,
            "api": running.serve_url,
            "dashboard": running.addresses.dashboard_url,
            "parts": [p.model_dump() for p in parts],
            "dead_letters": letters,
            "processes": [p.model_dump() for p in memory.processes],
            "total_kb": memory.total_kb,
        }
    )
    return DONE if all(p.state == "ok" for p in parts) else MISSING


def _dead_letters(found: FleetSettings, running: RunningFleet) -> int | None:
    """How many there are; None when the log store does not answer, which its own line tells."""
    try:
        return len(asyncio.run(dead_letters(endpoints_of(found, running.addresses))))
    except StoreError:
        return None


def examine(output: Output) -> int:
    """Every check with its mend; exit code 5 when one fails."""
    checks = asyncio.run(local_checks(os.environ, extra=(_sandbox_check,)))
    for check in checks:
        mark = "[green]ok[/]  " if check.ok else "[red]fail[/]"
        output.say(f"{mark} {check.name}: {check.found}" + (f"\n       mend: {check.mend}" if check.mend else ""))
    output.result({"checks": [c.model_dump() for c in checks]})
    return DONE if all(c.ok for c in checks) else MISSING


async def _sandbox_check(found: FleetSettings) -> list[Check]:
    from fleet.adapters.blobs import FileBlobStore
    from fleet.adapters.sandbox import BubblewrapBackend, reachable_state_root

    home = found.home
    backend = BubblewrapBackend(reachable_state_root(home / "sandbox"), FileBlobStore(home / "blobs"))
    health = await backend.health()
    said = ", ".join(f"{k} by {v}" for k, v in health.enforced.items()) or "nothing is enforced"
    if health.unmet:
        said = f"not enforced: {', '.join(health.unmet)}"
    return [Check(name="sandbox", ok=health.status == "ok", found=said, mend="; ".join(health.mend))]
