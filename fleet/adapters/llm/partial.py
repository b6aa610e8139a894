"""What has arrived of a reply, and the reply that it makes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fleet.errors import ContextTooLarge, ModelUnavailable, ReplyMalformed, ReplyRefused
from fleet.models import ChatRequest, FinishReason, TokenUsage, ToolUse

__all__ = ["Partial", "PartialUse", "finish_reason", "sound"]

_STOPS: dict[str, FinishReason] = {
    "abort": "abort",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_use",
    "tool_use": "tool_use",
    "function_call": "tool_use",
}


@dataclass
class PartialUse:
    """A use of a tool whose arguments are still coming."""

    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list[str])


@dataclass
class Partial:
    """What has arrived so far."""

    pieces: list[str] = field(default_factory=list[str])
    uses: list[PartialUse] = field(default_factory=list[PartialUse])
    finish: str | None = None
    model: str = ""
    usage: TokenUsage | None = None
    is_forced: bool = False
    """The reply comes as the arguments of a tool that the model was made to use."""
    events: int = 0
    """Events that were understood."""

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self.pieces)

    def add(self, text: str) -> str:
        """The text is kept; what the consumer of the stream may have."""
        clean = sound(text)
        if clean:
            self.pieces.append(clean)
        return clean

    @property
    def tool_uses(self) -> tuple[ToolUse, ...]:
        """The uses as the model wrote them; a server that gives no ids gets numbered ones."""
        return tuple(
            ToolUse(id=use.id or f"call-{n}", name=use.name, arguments=sound("".join(use.pieces)))
            for n, use in enumerate(self.uses, 1)
        )

    def counted(self, request: ChatRequest) -> TokenUsage:
        """Usage as the server counted it; else by pieces and by the length of the prompt, never as zero."""
        if self.usage is not None:
            return self.usage
        prompt = sum(len(message.content.encode("utf-8", "replace")) for message in request.messages)
        written = len(self.pieces) + sum(len(use.pieces) for use in self.uses)
        return TokenUsage(tokens_in=math.ceil(prompt / 3), tokens_out=written)


def sound(text: str) -> str:
    """The text without lone surrogates: JSON may hold them, nothing else of ours can carry them."""
    return text.encode("utf-8", "replace").decode()


def finish_reason(reason: str | None, *, has_uses: bool, where: str, engine: str) -> FinishReason:
    """Why the reply ended, in our words.

    Raises:
        ModelUnavailable: the server gave no reason, so the connection broke; or it says that it failed.
        ReplyRefused: a filter or the model itself withheld the reply.
        ReplyMalformed: the model wrote a call that the server cannot read.
        ContextTooLarge: prompt and reply together filled the context.
    """
    word = (reason or "").lower()
    if reason is None or word == "error":
        what = "ended the reply without a finish reason" if reason is None else "failed in the middle of the reply"
        raise ModelUnavailable(
            f"{where} {what}: the connection may have broken; try again, or look at the server's log", engine=engine
        )
    if "malformed" in word:
        problem = f"{where} could not read the tool call that the model wrote"
        raise ReplyMalformed(problem, problems=[problem], engine=engine)
    if word == "refusal" or "filter" in word or "safety" in word:
        raise ReplyRefused(f"{where} withheld the reply: {word[:80]}", engine=engine)
    if word == "model_context_window_exceeded":
        raise ContextTooLarge(f"{where} filled its context; shorten the prompt", engine=engine)
    found = _STOPS.get(word, "stop")
    # Some servers end a reply that calls tools like any other.
    return "tool_use" if has_uses and found == "stop" else found
