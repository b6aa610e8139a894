"""A story that is over is laid aside: its bytes are kept as a blob, and nothing is done with it any more (LC-93)."""

from __future__ import annotations

from fleet.audit.service.stream_export import commands_of, export_stream
from fleet.events.payload import Payload
from fleet.events.story import StoryArchived
from fleet.kernel.errors import InvalidTransition
from fleet.log.port import Command
from fleet.owner.workbench import Workbench
from fleet.story.approvals import check_notes
from fleet.story.commands import Caller


async def archive_story(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The story is archived, with a reason (`archive_story`, AP-57). Its stream stays in the log until an operator
    takes it out (EV-25).

    Raises PolicyDenied: the caller is no po. InvalidTransition: it is not over, or archived already. InvalidInput: the
    reason has not 10 to 4,000 characters.
    """
    caller.require("po", rule_id="LC-11")
    state = bench.state
    if state.disposition == "archived" or not state.is_over:
        is_now = "archived already" if state.is_over else f"in state {state.state} and {state.disposition}"
        raise InvalidTransition(
            f"story {state.story_id} is {is_now}: one that is closed or cancelled can be archived",
            state=state.state,
            event="archive",
            allowed=[],
        )
    reason = check_notes(str(command.body.get("reason") or ""), "reason")
    events = [event for event, _ in await bench.journal.history()]
    digest = await bench.blobs.put(export_stream(events, commands_of(events)))
    return (StoryArchived(export_digest=digest, reason=reason),)
