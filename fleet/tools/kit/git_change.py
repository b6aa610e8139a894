"""Tool `git`, operation open_change_request: the one change request of the agent's story, while it is at work (RT-42).

It goes through the port of the forge, as the story's own one does when it is done (RC-105). Both are found by the head
branch, so there is one: what the agent wrote stands until the story puts its verdict and its report there.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from fleet.forge.port import ChangeRequest, EndedChange, OpenedChange
from fleet.forge.service import ChangeTarget
from fleet.kernel.errors import FleetError, PolicyDenied, ToolFailed
from fleet.policy.commands.git import parse_git_address
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.tools.port import ToolContext

_VERDICT = "not measured: the story is at work"
_REASONS: Mapping[str, str] = {
    "invalid_input": "refused",
    "not_found": "not_found",
    "tool_failed": "no_permission",
    "rate_limited": "unreachable",
    "store_unavailable": "unreachable",
    "commit_unknown": "unreachable",
    "version_conflict": "unreachable",
}
"""Code of the error -> reason of the outcome; any other error says that nothing could carry the call out."""


async def open_change(target: ChangeTarget | None, call: ToolCall, context: ToolContext) -> ToolOutcome:
    """The change request is open and says what the call says, or the forge's refusal as an outcome.

    Raises:
        ToolFailed: the fleet has no hosted forge.
        PolicyDenied: the address is another repository than the forge's.
        InvalidInput: the address is none.
    """
    if target is None or target.repository is None:
        raise ToolFailed(
            "this fleet has no hosted forge for change requests: set `forge` in fleet.yaml; at a local one the story "
            "opens its change request itself when it is done",
            op=call.op,
        )
    _check_repository(target, target.repository, str(call.args["url"]))
    change = ChangeRequest(
        repository=target.repository,
        base=target.base,
        head=str(call.args["branch"]),
        title=str(call.args["title"]),
        body=f"{call.args['body']}\n\nWritten by role {context.role} of story `{context.story_id}`.",
        verdict=_VERDICT,
    )
    try:
        return _outcome(await target.changes.open_or_update(change))
    except FleetError as error:
        if error.code not in _REASONS:
            raise
        return ToolOutcome(outcome="failed", reason=_REASONS[error.code], text=error.message)


def _outcome(change: OpenedChange | EndedChange) -> ToolOutcome:
    content: JsonValue = {"number": change.number, "link": change.link}
    match change:
        case OpenedChange():
            text = f"change request {change.number} is {change.outcome}: {change.link}"
            return ToolOutcome(outcome="succeeded", reason=str(change.outcome), text=text, content=content)
        case EndedChange():
            ended = "merged" if change.is_merged else "closed"
            text = f"change request {change.number} was {ended} by somebody and stays so: {change.link}"
            return ToolOutcome(outcome="failed", reason=ended, text=text, content=content)


def _check_repository(target: ChangeTarget, repository: str, url: str) -> None:
    address = parse_git_address(url)
    if target.push is not None:
        is_same = address.place == parse_git_address(target.push.url).place
    else:
        is_same = address.path.removesuffix(".git").lower() == f"/{repository}".lower()
    if not is_same:
        raise PolicyDenied(
            f"{address.url} is not the repository of this fleet's forge, which is {repository!r}: name that one",
            rule_id="target_not_listed",
            url=address.url,
        )
