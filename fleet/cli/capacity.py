"""`fleet capacity`: how large a fleet has to be for so many stories an hour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from fleet.capacity import MEASURED, CapacityPlan, Workload, plan_capacity
from fleet.cli.output import Output, guarded
from fleet.errors import InvalidInput

__all__ = ["capacity_command"]

_ANSWERS = {  # Given on the command line, these replace what was measured.
    "solo_calls": "calls_per_story",
    "calls_per_seat": "calls_per_story",
    "tokens_in": "tokens_in",
    "tokens_out": "tokens_out",
    "engine_tokens_out_per_s": "engine_tokens_out_per_s",
    "engine_tokens_in_per_s": "engine_tokens_in_per_s",
}


def capacity_command(
    stories: Annotated[float, typer.Argument(help="Stories that begin in an hour.", metavar="STORIES_PER_HOUR")],
    council: Annotated[int, typer.Option("--council", help="Members of each council.")] = 3,
    calls: Annotated[float | None, typer.Option("--calls", help="Model calls of a story.")] = None,
    tokens_in: Annotated[float | None, typer.Option("--tokens-in", help="Tokens of a prompt.")] = None,
    tokens_out: Annotated[float | None, typer.Option("--tokens-out", help="Tokens of a reply.")] = None,
    speed_out: Annotated[
        float | None, typer.Option("--engine-out", help="Reply tokens a second of one engine, all slots at work.")
    ] = None,
    speed_in: Annotated[
        float | None, typer.Option("--engine-in", help="Prompt tokens a second that one engine reads.")
    ] = None,
    cached: Annotated[float, typer.Option("--cached", help="Share of prompt tokens in the prefix cache.")] = 0.0,
    slots: Annotated[int, typer.Option("--slots", help="Calls that one engine works on at a time.")] = 1,
    gpus: Annotated[int, typer.Option("--gpus", help="GPUs of one engine; 0 for engines without.")] = 1,
    days: Annotated[float, typer.Option("--days", help="Days until stories are archived.")] = 90,
    hours: Annotated[float, typer.Option("--hours", help="Hours a day in which stories come.")] = 24,
    target: Annotated[float, typer.Option("--target", help="Share of the time that parts may be at work.")] = 0.7,
    wait: Annotated[float, typer.Option("--wait", help="Longest mean wait, in times of a call.")] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Say which engines, stores and shards so many stories an hour need, and from which figures."""
    output = Output(as_json=as_json)
    given = {
        "stories_per_hour": stories,
        "council_size": council,
        "calls_per_story": calls,
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "engine_tokens_out_per_s": speed_out,
        "engine_tokens_in_per_s": speed_in,
        "cached_share": cached,
        "engine_slots": slots,
        "gpus_per_engine": gpus,
        "kept_days": days,
        "hours_per_day": hours,
        "target_utilisation": target,
        "wait_share": wait,
    }
    guarded(output, lambda: _capacity(output, given))


def _capacity(output: Output, given: dict[str, Any]) -> int:
    work = _workload(given)
    plan = plan_capacity(work)
    figures = list(_figures(work))
    for line in (*_lines(work, plan), "", "from these figures:", *_sources(figures)):
        output.say(line)
    output.result({"workload": work.model_dump(), "plan": asdict(plan), "figures": figures})
    return 0


def _workload(given: dict[str, Any]) -> Workload:
    try:
        return Workload.model_validate(given)
    except ValidationError as error:
        found = [{"path": str(item["loc"][0]), "reason": item["msg"]} for item in error.errors()]
        listed = "; ".join(f"{problem['path']}: {problem['reason']}" for problem in found)
        raise InvalidInput(f"capacity: {listed}; see `fleet capacity --help`", problems=found) from None


def _lines(work: Workload, plan: CapacityPlan) -> Iterator[str]:
    load = plan.load
    yield f"{work.stories_per_hour:g} stories an hour, councils of {work.council_size}"
    yield f"  {load.calls_per_s:.2f} model calls and {load.tokens_per_s:,.0f} tokens a second"
    yield f"  a story takes {load.story_s / 60:.1f} min beside people, so {load.stories_at_once:.1f} are under way"
    yield f"engines        {plan.engines.count}, {_percent(plan.engines.utilisation)} at work; GPUs: {plan.gpus}"
    yield f"  a call takes {load.call_s:.1f} s after a wait of {load.wait_s:.1f} s on average"
    yield f"council shards {plan.shards.count}, {_percent(plan.shards.utilisation)} at work"
    yield f"sandbox cores  {plan.sandbox_cores.count}, {_percent(plan.sandbox_cores.utilisation)} at work"
    yield f"log store      {plan.log_commands_per_s:,.0f} commands/s, {_percent(plan.log_utilisation)} of one server"
    yield f"  memory {_bytes(plan.log_memory_bytes)}, disk {_bytes(plan.log_disk_bytes)} for {work.kept_days:g} days"
    yield f"blobs          {_bytes(plan.blob_bytes)}"
    yield f"graph          {plan.graph_nodes:,} nodes, {plan.graph_relations:,} relations, {_bytes(plan.graph_bytes)}"
    if plan.log_utilisation > work.target_utilisation:
        yield "[bold red]the log is one server and would be too slow[/]: a faster disk, or two fleets"


def _figures(work: Workload) -> Iterator[dict[str, Any]]:
    """What the plan was worked out from: a figure that was given stands in the workload and not here."""
    for name, figure in MEASURED.named():
        if name not in _ANSWERS or getattr(work, _ANSWERS[name]) is None:
            yield {"name": name, **asdict(figure)}


def _sources(figures: list[dict[str, Any]]) -> Iterator[str]:
    for figure in figures:
        yield f"  {figure['name']} {figure['value']:,.4g} {figure['unit']} ({figure['source']})"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "below 1%"


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
