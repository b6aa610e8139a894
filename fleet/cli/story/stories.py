"""Commands on stories: they need the log of a running fleet, and its owner for what changes something."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from fleet.cli.endpoints import endpoints_of
from fleet.cli.exit_codes import DONE
from fleet.cli.local.local_principals import local_principal
from fleet.cli.output import Output, name_damaged, shown
from fleet.cli.settings import needed_addresses, settings
from fleet.cli.story.narrate import narrate, tell_criteria
from fleet.cli.story.story_file import read_story
from fleet.desk.planning import PlanningDesk, request_key
from fleet.events.codec import decode, published
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import StoryId
from fleet.kernel.types import WaivableDimension
from fleet.story.commands.catalogue import parse_command
from fleet.story.commands.command import StoryCommand
from fleet.story.commands.gates import Approve, FireEvent, Reject, Revoke, WaiveCriterion
from fleet.story.commands.interventions import Cancel, PauseStory, ResumeStory, Unpark
from fleet.story.commands.request_approval import RequestApproval
from fleet.story.commands.waivers import WaiveDimension
from fleet.wiring.desk.desk import open_desk, open_reports
from fleet.wiring.endpoints import Endpoints

if TYPE_CHECKING:
    from fleet.cli.story.run_options import RunOptions


def with_desk(work: Callable[[PlanningDesk, Endpoints], Awaitable[int]]) -> int:
    """The exit code of the work, done with the desk of the running fleet; StoreUnavailable when none runs."""

    async def body() -> int:
        fleet_settings = settings()
        endpoints = endpoints_of(fleet_settings, needed_addresses(fleet_settings))
        async with open_desk(endpoints) as desk:
            return await work(desk, endpoints)

    return asyncio.run(body())


def create(output: Output, path: Path) -> int:
    """The story of the file exists and has a score."""
    text = read_story(path, None)

    async def work(desk: PlanningDesk, _: Endpoints) -> int:
        story_id = await desk.story_id_for(text)
        result = await desk.require(
            story_id,
            parse_command("create_story", {"story": text}),
            principal=local_principal(),
            key=f"{story_id}/create",
        )
        output.say(f"{story_id}: state {result['state']}, readiness score {result['score']}")
        state = await desk.state(story_id)
        for finding in state.score.findings if state.score else ():
            output.say(f"  {finding.code} -{finding.points_lost}: {shown(finding.message)}")
        output.note(f"`fleet story start {story_id} --repo DIR --model MODEL` begins the work on it")
        output.result(result)
        return DONE

    return with_desk(work)


def list_all(output: Output) -> int:
    """Every story is printed, one a line."""

    async def work(desk: PlanningDesk, _: Endpoints) -> int:
        lines = await desk.stories()
        for line in lines:
            output.say(f"{line.story_id}  {line.state:<8} {line.disposition:<9} {shown(line.title)}")
        if not lines and not desk.damaged:
            output.say("there is no story yet; `fleet story create STORY.yaml` makes one")
        output.result({"stories": [asdict(line) for line in lines], "damaged": [asdict(one) for one in desk.damaged]})
        return name_damaged(output, desk.damaged)

    return with_desk(work)


def show(output: Output, story_id: str) -> int:
    """One story is printed as recorded now."""

    async def work(desk: PlanningDesk, _: Endpoints) -> int:
        state = await desk.state(StoryId(story_id))
        line = desk.line(state)
        output.say(f"[bold]{shown(line.title)}[/]\n  id        {shown(line.story_id)}")
        output.say(f"  state     {line.state} ({line.disposition})")
        output.say(f"  rigor     {line.rigor}\n  score     {line.score}\n  version   {line.version}")
        if line.waiting_for:
            can_start = state.start is None and state.park is None and not state.is_paused
            way = f": `fleet story start {line.story_id} --repo DIR --model MODEL`" if can_start else ""
            output.say(f"  next      {shown(line.waiting_for)}{way}")
        for task in state.tasks.values():
            output.say(f"  task      {shown(task.task.title)}: {task.state}")
        for said in tell_criteria(state):
            output.say(f"  criterion {shown(said)}")
        for name, approval in state.approvals.items():
            output.say(f"  approval  {shown(approval.request.gate)}: {approval.status} ({shown(name)})")
        output.result(asdict(line))
        return DONE

    return with_desk(work)


def decide(output: Output, story_id: str, gate: str, *, approve: bool, text: str, back: str | None = None) -> int:
    """The gate is decided by the local user. A rejection takes the story back by the event `back`, if one is named."""

    async def work(desk: PlanningDesk, _: Endpoints) -> int:
        sent = Approve(gate=gate, notes=text) if approve else _rejection(gate, text, back)
        key = f"{story_id}/{sent.command}/{secrets.token_hex(8)}"
        result = await desk.require(StoryId(story_id), sent, principal=local_principal(), key=key)
        output.say(f"{gate} {'approved' if approve else 'rejected'}; story {story_id} is in state {result['state']}")
        output.result(result)
        return DONE

    return with_desk(work)


def _rejection(gate: str, reason: str, back: str | None) -> Reject:
    return Reject(gate=gate, reason=reason) if back is None else Reject(gate=gate, reason=reason, back=back)


def ask_again(output: Output, story_id: str, gate: str) -> int:
    """The gate waits for a decision again, asked for by the local user (AP-76)."""

    async def work(desk: PlanningDesk, _: Endpoints) -> int:
        key = f"{story_id}/ask/{secrets.token_hex(8)}"
        sent = RequestApproval(gate=gate)
        result = await desk.require(StoryId(story_id), sent, principal=local_principal(), key=key)
        output.say(f"{gate} waits for a decision: `fleet story approve|reject {story_id} {gate}`")
        output.result(result)
        return DONE

    return with_desk(work)


def revoke(output: Output, story_id: str, approval: str, *, reason: str) -> int:
    """The local user's yes to a tool call, or another person's, holds no longer (LC-71)."""

    async def work(desk: PlanningDesk, _: Endpoints) -> int:
        sent = Revoke(gate=approval, reason=reason)
        key = f"{story_id}/revoke/{secrets.token_hex(8)}"
        result = await desk.require(StoryId(story_id), sent, principal=local_principal(), key=key)
        output.say(f"{approval} is revoked; the call needs a new approval")
        output.result(result)
        return DONE

    return with_desk(work)


def resolve(output: Output, story_id: str, step_id: str, *, outcome: str, note: str) -> int:
    """The local user has said whether a step of unknown outcome happened."""

    async def work(desk: PlanningDesk, _: Endpoints) -> int:
        sent = parse_command("resolve_step", {"step_id": step_id, "outcome": outcome, "note": note})
        key = f"{story_id}/resolve/{secrets.token_hex(8)}"
        result = await desk.require(StoryId(story_id), sent, principal=local_principal(), key=key)
        output.say(f"step {step_id} is resolved as {outcome}; `fleet resume {story_id}` lets the story go on")
        output.result(result)
        return DONE

    return with_desk(work)


def show_events(output: Output, story_id: str, *, after: int) -> int:
    """The events of the story are printed in order."""

    async def work(desk: PlanningDesk, _: Endpoints) -> int:
        for event in await desk.events(StoryId(story_id), after=after):
            if output.as_json:
                sys.stdout.write(json.dumps(published(event), ensure_ascii=False) + "\n")
                continue
            told = narrate(event, decode(event))
            output.say(f"{event.version:>5}  {event.type:<24} {event.actor}" + (f"  {told[0].strip()}" if told else ""))
        return DONE

    return with_desk(work)


def show_report(output: Output, story_id: str, *, form: str) -> int:
    """The report is printed on standard output."""
    if form not in ("md", "html", "json"):
        raise InvalidInput(f"{form!r} is no report format; allowed: md, html, json", field="format")

    async def work(desk: PlanningDesk, endpoints: Endpoints) -> int:
        await desk.state(StoryId(story_id))
        async with open_reports(endpoints) as reports:
            digest, _, data = await reports.generate(StoryId(story_id), format=form)  # pyright: ignore[reportArgumentType]
        sys.stdout.write(data.decode())
        output.result({"story_id": story_id, "digest": digest})
        return DONE

    return with_desk(work)


def resume_story(output: Output, story_id: str, *, note: str) -> int:
    """The story goes on and is watched to its end or the next gate."""
    from fleet.cli.story.run import watch_to_end

    async def work(desk: PlanningDesk, endpoints: Endpoints) -> int:
        story = StoryId(story_id)
        state = await desk.state(story)
        if state.disposition == "parked":
            sent = Unpark(note=note or "continued by fleet resume")
            key = request_key(f"{story_id}/unpark/{state.version}", sent.body())
            await desk.require(story, sent, principal=local_principal(), key=key)
        return await watch_to_end(desk, endpoints, story, output, after=state.version, started=time.monotonic())

    return with_desk(work)


def send_back(output: Output, story_id: str, event: str, *, reason: str) -> int:
    """The story is in an earlier state again, with the reason."""
    return _sent(output, story_id, FireEvent(event=event, reason=reason), said=event)


def pause(output: Output, story_id: str, *, reason: str) -> int:
    """No step of the story starts from here on."""
    return _sent(output, story_id, PauseStory(reason=reason), said="paused")


def unpause(output: Output, story_id: str, *, note: str) -> int:
    """The paused story goes on."""
    return _sent(output, story_id, ResumeStory(note=note), said="goes on")


def cancel(output: Output, story_id: str, *, reason: str) -> int:
    """The story is given up; its running steps are ended."""
    return _sent(output, story_id, Cancel(reason=reason), said="cancelled")


def waive(output: Output, story_id: str, criterion: str, *, reason: str, days: int | None = None) -> int:
    """The criterion may pass although no test shows it, or the dimension counts in no score until the waiver ends."""
    dimension = next((name for name in get_args(WaivableDimension) if name == criterion), None)
    command = (
        WaiveDimension(dimension=dimension, reason=reason, **({"days": days} if days is not None else {}))
        if dimension is not None
        else WaiveCriterion(ac_id=criterion, reason=reason)
    )
    if dimension is None and days is not None:
        raise InvalidInput("a waiver of a criterion ends with a new text of it: leave out --days", field="days")
    return _sent(output, story_id, command, said=f"{shown(criterion)} is waived")


def _sent(output: Output, story_id: str, sent: StoryCommand, *, said: str) -> int:
    async def work(desk: PlanningDesk, _: Endpoints) -> int:
        key = f"{story_id}/{sent.command}/{secrets.token_hex(8)}"
        result = await desk.require(StoryId(story_id), sent, principal=local_principal(), key=key)
        output.say(f"{said}; story {story_id} is in state {result['state']}")
        output.result(result)
        return DONE

    return with_desk(work)


def start_story(output: Output, story_id: str, options: RunOptions) -> int:
    """The story runs to its end or to a gate; the exit code says which."""
    from fleet.cli.story.run import watch_to_end
    from fleet.cli.story.run_options import check_start, start_command

    check_start(settings(), options)

    async def work(desk: PlanningDesk, endpoints: Endpoints) -> int:
        story, started = StoryId(story_id), time.monotonic()
        before = (await desk.state(story)).version
        start = start_command(options)
        key = request_key(f"{story_id}/start/{before}", start.body())
        await desk.require(story, start, principal=local_principal(), key=key)
        return await watch_to_end(desk, endpoints, story, output, after=before, started=started)

    return with_desk(work)
