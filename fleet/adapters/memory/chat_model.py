"""A model that answers from a script: the in-memory twin of every engine, for tests of everything above it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from fleet.errors import FleetError, ModelTimeout, ModelUnavailable
from fleet.ids import Digest
from fleet.models import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest, FinishReason, TokenUsage

__all__ = ["Hang", "Rule", "ScriptedChatModel"]


@dataclass(frozen=True, slots=True)
class Hang:
    """Never answers by itself: the request ends by abort, with this text, or by its time limit."""

    partial: str = ""


Outcome = str | ChatReply | FleetError | Hang
When = Digest | Callable[[ChatRequest], bool]


@dataclass(slots=True)
class Rule:
    """For requests that match, the outcomes in turn; the last one repeats."""

    when: When
    outcomes: list[Outcome]
    used: int = 0

    def matches(self, request: ChatRequest) -> bool:
        """Whether the rule is for this request."""
        return request.digest == self.when if isinstance(self.when, str) else self.when(request)

    def next(self) -> Outcome:
        """The outcome of this call."""
        self.used += 1
        return self.outcomes[min(self.used, len(self.outcomes)) - 1]


@dataclass
class ScriptedChatModel:
    """`ChatModel` from rules, the first match answers; `calls` lists all requests in order.

    Texts are counted as one token per word. A request without a rule is ModelUnavailable, like an unrecorded one.
    """

    rules: list[Rule] = field(default_factory=list[Rule])
    engine: str = "scripted"
    calls: list[ChatRequest] = field(default_factory=list[ChatRequest])
    _aborts: dict[str, asyncio.Event] = field(default_factory=dict[str, asyncio.Event])

    @classmethod
    def of(cls, *outcomes: Outcome, engine: str = "scripted") -> ScriptedChatModel:
        """A model that gives these outcomes to whatever comes, the last one for ever."""
        return cls([Rule(lambda request: True, list(outcomes))], engine=engine)

    @classmethod
    def when(cls, *rules: tuple[When, Outcome | list[Outcome]], engine: str = "scripted") -> ScriptedChatModel:
        """A model with one rule per pair of condition and outcome (or outcomes in turn)."""
        return cls([Rule(when, what if isinstance(what, list) else [what]) for when, what in rules], engine=engine)

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        self.calls.append(request)
        rule = next((rule for rule in self.rules if rule.matches(request)), None)
        if rule is None:
            raise ModelUnavailable(
                f"the script has no reply for request {request.digest}; add a rule for it",
                request_digest=str(request.digest),
                permanent=True,
            )
        match outcome := rule.next():
            case FleetError():
                raise outcome
            case ChatReply():
                return outcome
            case Hang(partial=partial):
                return await self._hang(request, partial, request_id=request_id, timeout_s=timeout_s)
            case str():
                return self._reply(request, outcome)

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        """See `ChatModel.stream`; the text comes line by line."""
        reply = await self.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        for piece in reply.text.splitlines(keepends=True):
            yield ChatChunk(text=piece)
        yield ChatChunk(reply=reply)

    async def abort(self, request_id: str) -> None:
        """See `ChatModel.abort`."""
        if request_id in self._aborts:
            self._aborts[request_id].set()

    async def health(self) -> None:
        """A script is always ready."""

    async def _hang(self, request: ChatRequest, partial: str, *, request_id: str, timeout_s: float) -> ChatReply:
        aborted = self._aborts.setdefault(request_id, asyncio.Event())
        try:
            async with asyncio.timeout(timeout_s):
                await aborted.wait()
        except TimeoutError:
            raise ModelTimeout(f"engine {self.engine!r} did not answer in {timeout_s} s", engine=self.engine) from None
        finally:
            del self._aborts[request_id]
        return self._reply(request, partial, finish="abort")

    def _reply(self, request: ChatRequest, text: str, *, finish: FinishReason = "stop") -> ChatReply:
        prompt = sum(len(message.content.split()) for message in request.messages)
        words = text.split(" ")
        if finish == "stop" and len(words) > request.sampling.max_tokens:
            text, finish = " ".join(words[: request.sampling.max_tokens]), "length"
        usage = TokenUsage(tokens_in=prompt, tokens_out=len(text.split()))
        return ChatReply(text=text, finish_reason=finish, usage=usage, engine=self.engine, model="script", revision="1")
