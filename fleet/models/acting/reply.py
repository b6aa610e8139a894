"""What a model said in one step of its act loop: words, and the tools that it wants used."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.kernel.errors import ReplyMalformed
from fleet.kernel.types import Frozen
from fleet.models.chat import ToolOffer, ToolUse
from fleet.models.replies.tool_calls import parse_tool_use
from fleet.policy.rules.calls import ToolCall

_MAX_USES = 16
"""Uses of one reply that are read; a model that writes more is told so."""
_EMPTY = "the reply is empty: call a tool, or write what you found"


class UsedTool(Frozen):
    """One use of a tool: the call that it stands for, or why it is none."""

    use: ToolUse
    call: ToolCall | None = None
    problem: str = ""
    """What the model is told where there is no call."""


class ActReply(Frozen):
    """A usable reply: at least one call, or words. Without any use of a tool the words are what the agent found."""

    text: str
    used: tuple[UsedTool, ...] = ()


def act_reply(text: str, uses: Sequence[ToolUse], offers: Sequence[ToolOffer]) -> ActReply:
    """The reply as read. A use that is no call keeps its place, so that each use gets its answer (MB-14).

    Raises:
        ReplyMalformed: it is empty, or none of its uses is a call; `problems` has one text per use (MB-6).
    """
    if not uses and not text.strip():
        raise ReplyMalformed(_EMPTY, problems=[_EMPTY])
    used = tuple(_read(index, use, offers) for index, use in enumerate(uses))
    if used and all(one.call is None for one in used):
        listed = [one.problem for one in used]
        raise ReplyMalformed(f"no call of the reply can be carried out: {'; '.join(listed)[:2000]}", problems=listed)
    return ActReply(text=text, used=used)


def _read(index: int, use: ToolUse, offers: Sequence[ToolOffer]) -> UsedTool:
    if index >= _MAX_USES:
        return UsedTool(use=use, problem=f"Not executed: a reply may hold {_MAX_USES} calls; ask for this one again.")
    parsed = parse_tool_use(use, offers)
    return UsedTool(use=use, call=parsed) if isinstance(parsed, ToolCall) else UsedTool(use=use, problem=parsed.text)
