"""`fleet up`, `down`, `status`, `doctor`: the local fleet as a whole."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from cluster.local.record import RunningFleet, find_running, stop_running
from fleet.cli.exit_codes import DONE, MISSING
from fleet.cli.output import Output, shown
from fleet.cli.settings import settings, warnings_of
from fleet.config.settings import FleetSettings
from fleet.kernel.errors import StoreError

# What a command alone needs is imported where it is called: `fleet down` and `fleet up --detach` need none of it.
if TYPE_CHECKING:
    from cluster.local.doctor import Check
    from fleet.cli.local.actor_states import ActorLine
    from fleet.models.figures import EngineFigures
    from fleet.planning.platform_state import FleetPause


def desk_address(url: str | None, token_file: Path, *, is_terminal: bool) -> str | None:
    """Where a browser finds the desk; with the token of the local user after `#`, which no browser sends anywhere.

    Without the token when nobody sits at a terminal (its output is kept in files), when the front is reached from
    other machines, and when there is no token. None when the fleet has no front. The desk takes the token out of the
    address at once (AP-1).
    """
    if url is None:
        return None
    from fleet.web.trust import LOOPBACK

    token = _token(token_file) if is_terminal and urlsplit(url).hostname in LOOPBACK else ""
    return f"{url}/#token={quote(token, safe='')}" if token else url


def _token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def is_desk_built() -> bool:
    """Whether the front of this installation has the pages of the desk; it reads them when it starts."""
    # Found and not imported: the front would load Ray.
    spec = find_spec("serve_apps")
    return spec is not None and spec.origin is not None and _pages(Path(spec.origin).parent).is_file()


def _pages(front: Path) -> Path:
    return front / "ui" / "dist" / "index.html"


_ANSWER_S = 10.0
_ENDS_ITSELF_S = 60.0
"""A supervisor in the background that is not ready in time stops its parts, and says why, before it is stopped."""


def start(output: Output, *, detach: bool) -> int:
    """The fleet is up; in the foreground this returns when it was stopped."""
    fleet_settings = settings()
    running = find_running(fleet_settings.home)
    if running is not None:
        output.note("a fleet is up already")
        _describe(running, output)
        return DONE
    if detach:
        from cluster.local.detach import spawn_detached

        for line in warnings_of(fleet_settings):
            output.note(f"[yellow]warning[/] {shown(line)}")
        output.note("starting the fleet in the background ...")
        argv = [sys.executable, "-m", "fleet.cli", "up"]
        running = spawn_detached(
            argv, fleet_settings.home, environ=os.environ, within_s=fleet_settings.start_timeout_s + _ENDS_ITSELF_S
        )
        _describe(running, output)
        return DONE
    from cluster.local.supervisor import LocalFleet, run_until_stopped
    from fleet.cli.local.fleet_hooks import FleetHooks

    hooks = FleetHooks(fleet_settings, progress=_line(output), with_serve=True)
    fleet = LocalFleet(fleet_settings, hooks=hooks, progress=_line(output))

    async def ready(running: RunningFleet) -> None:
        _describe(running, output)
        output.note("ready; stop it with Ctrl-C or `fleet down`")

    asyncio.run(run_until_stopped(fleet, on_ready=ready))
    return DONE


def _line(output: Output):  # noqa: ANN202 - a progress callback of either supervisor
    def tell(name: str, state: str) -> None:
        output.note(f"[dim]{shown(name.ljust(20))} {shown(state)}[/]")

    return tell


def _describe(running: RunningFleet, output: Output) -> None:
    token_file = running.home / "token"
    output.say(f"api        {running.serve_url}")
    output.say(f"dashboard  {running.addresses.dashboard_url}")
    output.say(f"token      {shown(token_file)}")
    desk = desk_address(running.serve_url, token_file, is_terminal=output.is_terminal)
    if desk is not None:
        output.say(f"desk       {shown(desk)}")
        if not is_desk_built():
            output.say("           its pages are not built: run `make desk` once, and start the fleet again")
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
    fleet_settings = settings()
    stopped = stop_running(fleet_settings.home, within_s=fleet_settings.stop_timeout_s + 20)
    output.say("the fleet is stopped" if stopped else f"no fleet was running in {shown(fleet_settings.home)}")
    output.result({"stopped": stopped})
    return DONE


def show_status(output: Output) -> int:
    """Addresses, parts and memory of the running fleet; exit code 5 when there is none or a part is down."""
    fleet_settings = settings()
    running = find_running(fleet_settings.home)
    if running is None:
        output.say(f"no fleet is running in {shown(fleet_settings.home)}; start one with `fleet up --detach`")
        output.result({"running": False})
        return MISSING
    from cluster.local.status import check_parts, memory_report

    parts = asyncio.run(check_parts(running))
    memory = memory_report(running.supervisor, running.services)
    letters = _dead_letters(fleet_settings, running)
    pause = _pause(fleet_settings, running)
    engines = _engines(fleet_settings, running)
    actors, disk = _actors(running), _disk(running)
    output.say(f"api        {running.serve_url}")
    output.say(f"dashboard  {running.addresses.dashboard_url}")
    for part in parts:
        output.say(f"{shown(part.name.ljust(10))} {part.state} {shown(part.found)}")
    if pause:
        output.say(f"paused     by {shown(pause.by)}: {shown(pause.reason)}; `fleet unpause` lets it go on")
    if letters:
        output.say(f"dlq        {letters} dead letter{'s' if letters > 1 else ''}; `fleet dlq list` shows them")
    for engine in engines or ():
        output.say(f"engine     {shown(engine.engine)}: {shown(engine.line)}")
    for actor in actors or ():
        if actor.state != "running":
            output.say(f"actor      {shown(actor.name)}: {actor.state} {shown(actor.why)}")
    for use in disk or ():
        output.say(f"disk       {shown(disk_line(use))}")
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
            "paused": None if pause is None else {"by": pause.by, "reason": pause.reason, "since_ms": pause.since_ms},
            "engines": None if engines is None else [e.model_dump() for e in engines],
            "actors": None if actors is None else [a.model_dump() for a in actors],
            "disk": disk,
            "processes": [p.model_dump() for p in memory.processes],
            "total_kb": memory.total_kb,
        }
    )
    is_waiting = any(actor.state == "waiting" for actor in actors or ())
    return DONE if all(p.state == "ok" for p in parts) and not is_waiting else MISSING


def _actors(running: RunningFleet) -> tuple[ActorLine, ...] | None:
    """Every actor; None without a dashboard, or when it does not answer, which its own line tells."""
    addresses = running.addresses
    if addresses.dashboard_url is None or addresses.ray_token_path is None:
        return None
    from fleet.cli.local.actor_states import read_actor_lines

    return read_actor_lines(addresses.dashboard_url, addresses.ray_token_path.read_text().strip())


def _disk(running: RunningFleet) -> list[dict[str, Any]] | None:
    """What the fleet has on its disks. None without a front, or when it does not answer, which its own line tells."""
    if running.serve_url is None:
        return None
    import httpx2

    headers = {"Authorization": f"Bearer {_token(running.home / 'token')}"}
    try:
        answer = httpx2.get(f"{running.serve_url}/api/fleet/disk", headers=headers, timeout=_ANSWER_S, trust_env=False)
        return answer.raise_for_status().json()["items"]
    except (httpx2.HTTPError, ValueError, LookupError, TypeError):
        return None


def disk_line(use: Mapping[str, Any]) -> str:
    """What one kind of things takes on the disk of one node, for people."""
    amount = f"{use['kind']} of {use['node']}: {_size(use['used_bytes'])}"
    limit = f" of {_size(use['limit_bytes'])}" if use["limit_bytes"] is not None else ""
    each = f", {_size(use['used_bytes'] // use['count'])} each" if use["kind"] == "folders" and use["count"] else ""
    line = f"{amount}{limit}, {use['count']} in all{each}, {_size(use['held_bytes'])} in use"
    if use["kind"] != "layers":
        return line
    # Layers go while stories that may come back to them stand still, so people are told which.
    gone = [f"{row['name']} ({_size(row['size_bytes'])}) at {row['at']}" for row in reversed(use["evicted"][-3:])]
    return f"{line}, in {use['folder']}" + (f"; removed last: {', '.join(gone)}" if gone else "")


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.1f} MiB"


def _dead_letters(fleet_settings: FleetSettings, running: RunningFleet) -> int | None:
    """How many there are; None when the log store does not answer, which its own line tells."""
    from fleet.cli.endpoints import endpoints_of
    from fleet.cli.store.dlq import dead_letters

    try:
        return len(asyncio.run(dead_letters(endpoints_of(fleet_settings, running.addresses))))
    except StoreError:
        return None


def _pause(fleet_settings: FleetSettings, running: RunningFleet) -> FleetPause | None:
    """What holds all stories back. None when nothing does, or the log store does not answer, as its own line tells."""
    from fleet.cli.endpoints import endpoints_of
    from fleet.cli.local.fleet_pause import read_pause

    try:
        return asyncio.run(read_pause(endpoints_of(fleet_settings, running.addresses)))
    except StoreError:
        return None


def _engines(fleet_settings: FleetSettings, running: RunningFleet) -> tuple[EngineFigures, ...] | None:
    """The models that were used of late; None when the cache store does not answer, which its own line tells."""
    from fleet.cli.endpoints import endpoints_of
    from fleet.wiring.models.figures import read_model_figures

    try:
        return asyncio.run(read_model_figures(endpoints_of(fleet_settings, running.addresses)))
    except StoreError:
        return None


def examine(output: Output) -> int:
    """Every check with its mend; exit code 5 when one fails."""
    from cluster.local.doctor import doctor

    checks = asyncio.run(doctor(os.environ, extra=(_sandbox_check,)))
    for check in checks:
        mark = "[green]ok[/]  " if check.ok else "[red]fail[/]"
        output.say(
            f"{mark} {shown(check.name)}: {shown(check.found)}"
            + (f"\n       mend: {shown(check.mend)}" if check.mend else "")
        )
    output.result({"checks": [c.model_dump() for c in checks]})
    return DONE if all(c.ok for c in checks) else MISSING


async def _sandbox_check(fleet_settings: FleetSettings) -> list[Check]:
    from cluster.local.doctor import Check
    from fleet.wiring.sandbox.lone_sandbox import open_lone_sandbox

    async with open_lone_sandbox(fleet_settings) as lone:
        health = await lone.supervisor.health()
    said = ", ".join(f"{k} by {v}" for k, v in health.enforced.items()) or "nothing is enforced"
    if health.unmet:
        said = f"not enforced: {', '.join(health.unmet)}"
    said += f" ({health.program})" if health.program else ""
    return [Check(name="sandbox", ok=health.status == "ok", found=said, mend="; ".join(health.mend))]
