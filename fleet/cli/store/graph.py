"""`fleet graph`: how far the decision graph is, what it answers, and its rebuild (GR-7)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from fleet.cli.endpoints import endpoints_of
from fleet.cli.exit_codes import DONE, FAILED
from fleet.cli.output import Output, shown
from fleet.cli.settings import needed_addresses, settings
from fleet.graph.queries import plan_query
from fleet.graph.service.projector import GraphStatus, Projector
from fleet.kernel.errors import InvalidInput, StoreUnavailable
from fleet.wiring.stores.projection import open_projector
from fleet.wiring.stores.stores import make_graph

_LOOK_S = 0.5
_STALLED_S = 60.0
_TOLD = {
    "equal": "it equals the one before it",
    "different": "it differs from the one before it, which did not hold what the log says",
    "impossible": "it could not be compared with the one before it, whose streams stood at other versions",
    "first": "there was none before it",
}


def _with_projector(work: Callable[[Projector], Awaitable[int]]) -> int:
    async def body() -> int:
        fleet_settings = settings()
        endpoints = endpoints_of(fleet_settings, needed_addresses(fleet_settings))
        async with open_projector(endpoints) as projector:
            return await work(projector)

    return asyncio.run(body())


def show_graph(output: Output) -> int:
    """The active projection, what it lacks, and the streams that are set aside are printed."""

    async def work(projector: Projector) -> int:
        status = await projector.status()
        _say(output, status)
        output.result(_plain(status))
        return FAILED if status.set_aside else DONE

    return _with_projector(work)


def _say(output: Output, status: GraphStatus) -> None:
    state = status.state
    output.say(f"projection {state.active}, rules {state.version}: {_TOLD[state.comparison]}")
    output.say(f"  {status.events} events in {len(status.lag)} streams, {status.lag_total} not in the graph yet")
    for stream, behind in sorted(status.lag.items()):
        if behind:
            output.say(f"  {stream}: " + (f"{behind} behind" if behind > 0 else f"the log lost {-behind}"))
    for stream, why in sorted(status.set_aside.items()):
        letter = f"; `fleet dlq retry {why.letter_id}`" if why.letter_id else ""
        output.say(f"  {stream} is set aside ({why.code}): {shown(why.reason)}{letter}")
    if state.is_rebuild_wanted:
        output.say(f"  projection {state.wanted} is being built: {status.rebuilt} of {status.events} events")


def _plain(status: GraphStatus) -> dict[str, Any]:
    return {
        **asdict(status),
        "lag_total": status.lag_total,
        "streams_behind": status.streams_behind,
    }


def rebuild_graph(output: Output) -> int:
    """A new projection was built from the log and is the one that queries read.

    Raises StoreUnavailable when nobody works on it: the projector does not run, or cannot go on.
    """

    async def work(projector: Projector) -> int:
        projection = (await projector.ask_for_rebuild()).wanted
        status = await watched(output, projector, projection)
        output.say(f"projection {status.state.active} is active; {_TOLD[status.state.comparison]}")
        output.result({"projection": status.state.active, "comparison": status.state.comparison})
        return DONE

    return _with_projector(work)


async def watched(
    output: Output, projector: Projector, projection: int, *, stalled_s: float = _STALLED_S
) -> GraphStatus:
    """The status once this projection, or a later one, is active.

    Raises StoreUnavailable when nothing changes for `stalled_s`.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=output.console, transient=True) as progress:
        bar = progress.add_task(f"building projection {projection}", total=None)
        seen, since = (-1, ""), time.monotonic()
        while True:
            status = await projector.status()
            if status.state.active >= projection:
                return status
            progress.update(bar, completed=status.rebuilt, total=status.events)
            if (now := (status.rebuilt, status.state.spare.value)) != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > stalled_s:
                raise StoreUnavailable(
                    f"nothing was done for projection {projection} in {stalled_s:g} s ({status.rebuilt} of "
                    f"{status.events} events): see actor `projector` in `fleet status`; the rebuild stays wanted",
                    projection=projection,
                )
            await asyncio.sleep(_LOOK_S)


_NUMBERS = frozenset({"limit", "skip", "depth", "now_ms", "older_than_s", "from", "to"})
_NEEDS_TIME = "unanswered_questions"


def ask_graph(output: Output, name: str, given: Sequence[str]) -> int:
    """The rows of the query are printed, one a line; with `--json` as one list.

    Raises:
        InvalidInput: no query has this name, or it does not take these parameters.
    """
    params = parameters(given)
    if name == _NEEDS_TIME:
        params.setdefault("now_ms", time.time_ns() // 10**6)
    plan_query(name, params)

    async def body() -> list[dict[str, Any]]:
        fleet_settings = settings()
        graph = make_graph(endpoints_of(fleet_settings, needed_addresses(fleet_settings)))
        try:
            return await graph.query(name, params)
        finally:
            await graph.close()

    rows = asyncio.run(body())
    for row in rows:
        output.say(shown(json.dumps(row, ensure_ascii=False, default=str)))
    if not rows:
        output.say("nothing found")
    output.result({"query": name, "rows": rows})
    return DONE


def parameters(given: Sequence[str]) -> dict[str, Any]:
    """`name=value` as parameters of a query; numbers where a parameter is one."""
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(f"{text[:100]!r} is no parameter: write name=value, as in story_id=st-auth-7")
        is_number = name in _NUMBERS and value.isascii() and value.isdigit() and len(value) < 20
        values[name] = int(value) if is_number else value
    return values
