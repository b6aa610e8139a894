"""`fleet run`: one story from its text to a branch or a gate, with live progress.

Source: docs/design/design.md, section 10.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cluster.local.record import find_running
from cluster.local.supervisor import LocalFleet, supervised
from fleet.cli.endpoints import endpoints_of
from fleet.cli.exit_codes import DONE, FAILED, WAITING
from fleet.cli.local.fleet_hooks import FleetHooks
from fleet.cli.local.local_principals import local_principal
from fleet.cli.models.local_engine import Engine, served, with_actors
from fleet.cli.output import Output, shown
from fleet.cli.story.forecast import show_start
from fleet.cli.story.narrate import TurnLines, narrate
from fleet.cli.story.run_options import RunOptions, check_start, start_command
from fleet.cli.story.story_file import read_story
from fleet.config.environment import config_files, configuration_warnings
from fleet.config.settings import FleetSettings
from fleet.desk.planning import PlanningDesk, request_key
from fleet.desk.summary import summarise
from fleet.events.codec import decode
from fleet.events.envelope import StoredEvent
from fleet.events.story import StoryClosed
from fleet.kernel.errors import InvalidInput, StoreUnavailable
from fleet.kernel.ids import StoryId
from fleet.models.profiles import load_models
from fleet.story.approvals import pending_approvals
from fleet.story.commands.catalogue import parse_command
from fleet.story.state import StoryState
from fleet.wiring.desk.desk import open_desk, open_gate_desk, open_reports
from fleet.wiring.endpoints import Endpoints

if TYPE_CHECKING:
    from fleet.cli.story.gates import GateAsker


def run_story(settings: FleetSettings, options: RunOptions, output: Output) -> int:
    """Runs the story of a file to its end or to a gate; the exit code says which."""
    story = read_story(options.story, options.goal, rigor=options.rigor)
    check_start(settings, options)
    show_start(settings, options, output)
    return asyncio.run(_run(settings, options, story, output))


async def _run(settings: FleetSettings, options: RunOptions, story: dict[str, Any], output: Output) -> int:
    started = time.monotonic()
    async with running_fleet(settings, options, output) as endpoints, open_desk(endpoints) as desk:
        story_id = await desk.story_id_for(story)
        who = local_principal()
        output.note(f"[bold]{shown(story_id)}[/]: {shown(story['title'])}")
        created = await desk.require(
            story_id, parse_command("create_story", {"story": story}), principal=who, key=f"{story_id}/create"
        )
        output.note(f"readiness score {created['score']}" + ("" if created["dor_ok"] else " (too low to start)"))
        start = start_command(options)
        key = request_key(f"{story_id}/start", start.body())
        await desk.require(story_id, start, principal=who, key=key)
        return await watch_to_end(desk, endpoints, story_id, output, after=0, started=started)


@asynccontextmanager
async def running_fleet(settings: FleetSettings, options: RunOptions, output: Output) -> AsyncGenerator[Endpoints]:
    """The fleet that is up, or one of this command's own that ends with it."""
    running = find_running(settings.home)
    if running is not None:
        if options.record is not None:
            raise InvalidInput("--record needs a fleet of its own: stop the running one with `fleet down` first")
        yield endpoints_of(settings, running.addresses)
        return
    engine = _named_engine(settings, options)
    async with (
        served(engine, settings, output) as variables,
        _own_fleet(with_actors(settings, engine), options, output, variables) as endpoints,
    ):
        yield endpoints


def _named_engine(settings: FleetSettings, options: RunOptions) -> Engine | None:
    if options.model is None:
        return None
    return load_models(config_files(settings).document("models.yaml")).engine(options.model)


@asynccontextmanager
async def _own_fleet(
    settings: FleetSettings, options: RunOptions, output: Output, variables: Mapping[str, str]
) -> AsyncGenerator[Endpoints]:
    """A fleet that ends with the block; `variables` name the engines that were started for it."""
    record = options.record.resolve() if options.record else None
    for line in configuration_warnings(settings, os.environ):
        output.note(f"[yellow]warning[/] {shown(line)}")
    hooks = FleetHooks(settings, progress=_quiet, with_serve=False, record_dir=record, served=variables)
    lean = settings.model_copy(update={"ray": settings.ray.model_copy(update={"dashboard": False})})
    fleet = LocalFleet(
        lean, hooks=hooks, progress=lambda name, state: output.note(f"[dim]{shown(name)}: {shown(state)}[/]")
    )
    running = await fleet.start()
    async with supervised(fleet):
        yield endpoints_of(settings, running.addresses, record_dir=record, served=variables)


def _quiet(name: str, state: str) -> None:
    """Actors are many; only trouble is worth a line, and that is raised."""


async def watch_to_end(
    desk: PlanningDesk,
    endpoints: Endpoints,
    story_id: StoryId,
    output: Output,
    *,
    after: int,
    started: float,
    agreed: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Print what happens until the story is closed, parked, or waits for a person.

    Args:
        agreed: gates that the local user said yes to before the story began, each with the note of that yes.
    """
    for other in await desk.beside(story_id):
        output.note(f"[yellow]also on this repository[/] {shown(other.told)}")
    names, turns = dict[str, str](), TurnLines(story_id)
    require_up = fleet_guard(Path(endpoints.home))
    async with _asking(desk, endpoints, output) as asker:
        async for event in watch_patiently(desk, story_id, output, after=after, require_up=require_up):
            if event is not None:
                payload = decode(event)
                lines = turns.tell(payload)
                for line in lines if lines is not None else narrate(event, payload, names):
                    output.note(f"[dim]{time.monotonic() - started:6.1f}s[/] {line}")
                if not isinstance(payload, StoryClosed):
                    continue
            state = await desk.state(story_id)
            if await _approve_agreed(desk, state, agreed):
                continue
            if state.closed or state.disposition != "active" or desk.waiting_for(state) is not None:
                if asker is not None and await asker.decide(state):
                    continue
                return await _finish(desk, endpoints, state, output, started)
    raise AssertionError("unreachable")


@asynccontextmanager
async def _asking(desk: PlanningDesk, endpoints: Endpoints, output: Output) -> AsyncGenerator[GateAsker | None]:
    """Who asks about gates, where somebody at a terminal can be asked."""
    if not output.asks:
        yield None
        return
    from fleet.cli.story.gates import GateAsker

    async with open_gate_desk(endpoints, desk) as gates:
        yield GateAsker(desk, gates, output)


async def _approve_agreed(desk: PlanningDesk, state: StoryState, agreed: Mapping[str, str]) -> bool:
    """Whether a gate that waits is one that the user agreed to before; then its approval is sent."""
    waiting = [a for a in pending_approvals(state) if a.request.gate in agreed]
    for approval in waiting:
        gate, key = approval.request.gate, f"{state.story_id}/agreed/{approval.request.approval_id}"
        sent = parse_command("approve", {"gate": gate, "notes": agreed[gate]})
        await desk.require(state.story_id, sent, principal=local_principal(), key=key)
    return bool(waiting)


def fleet_guard(home: Path) -> Callable[[StoryId], None]:
    """Raises StoreUnavailable once the fleet that is up in this home now is so no more; of one elsewhere nothing."""
    begun = find_running(home)

    def require_up(story_id: StoryId) -> None:
        if begun is not None and not begun.supervisor.is_alive:
            raise StoreUnavailable(
                f"the fleet in {home} has ended; what was recorded is kept: start it with `fleet up --detach`, then "
                f"`fleet resume {story_id}` goes on"
            )

    return require_up


async def watch_patiently(
    desk: PlanningDesk,
    story_id: StoryId,
    output: Output,
    *,
    after: int,
    patience_s: float = 60.0,
    require_up: Callable[[StoryId], None] = lambda _: None,
) -> AsyncGenerator[StoredEvent | None]:
    """As `desk.watch`; stores that are away end it after `patience_s` only: the story goes on without who watches.

    Raises:
        StoreUnavailable: no store answered for that long, or `require_up` raised it: asked whenever nothing happens.
    """
    good = time.monotonic()
    while True:
        try:
            async for event in desk.watch(story_id, after=after, idle_s=2.0):
                good, after = time.monotonic(), event.version if event else after
                if event is None:
                    require_up(story_id)
                yield event
        except StoreUnavailable as error:
            require_up(story_id)
            if time.monotonic() - good >= patience_s:
                raise StoreUnavailable(
                    f"{error.message}; no store answered for {patience_s:g} s, and the story goes on without this "
                    f"command: see `fleet status`, then `fleet resume {story_id}`"
                ) from error
            output.note(f"[yellow]warning[/] {shown(error.message)}; trying again")
            await asyncio.sleep(1.0)


async def _finish(desk: PlanningDesk, endpoints: Endpoints, state: StoryState, output: Output, started: float) -> int:
    waiting = desk.waiting_for(state)
    async with open_reports(endpoints) as reports:
        digest, _, text = await reports.generate(state.story_id, format="md")
        _, _, page = await reports.generate(state.story_id, format="html")
    folder = Path(endpoints.home) / "reports" / state.story_id
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.md"
    path.write_bytes(text)
    (folder / "report.html").write_bytes(page)
    events = await desk.events(state.story_id)
    result = summarise(state, events, waiting_for=waiting) | {
        "report": str(path),
        "report_digest": digest,
        "seconds": round(time.monotonic() - started, 1),
    }
    _print(result, output)
    output.result(result)
    if state.closed:
        return DONE
    return FAILED if state.disposition in ("parked", "cancelled") else WAITING


def _print(result: dict[str, Any], output: Output) -> None:
    mark = {"done": "[bold green]done[/]", "parked": "[bold red]parked[/]"}.get(
        result["outcome"], "[bold yellow]waiting[/]"
    )
    output.say("")
    output.say(f"{mark} {shown(result['title'])}")
    for label, value in result["lines"]:
        output.say(f"  {label:<9} {shown(value)}")
    output.say(f"  {'report':<9} {shown(result['report'])}")
    output.say(f"  {'time':<9} {result['seconds']} s")
