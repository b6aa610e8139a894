"""A model adapter: answers from a table, and says so when it has no answer."""

from collections.abc import AsyncIterator, Mapping

from fleet.kernel.errors import ModelUnavailable
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest, TokenUsage


class CannedModel:
    """Implements the port ChatModel. The last message decides; no answer is ever made up."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = answers

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """The answer of the table; ModelUnavailable when there is none."""
        asked = request.messages[-1].content
        if asked not in self._answers:
            raise ModelUnavailable(f"the table has no answer to {asked[:60]!r}: add one")
        text = self._answers[asked]
        usage = TokenUsage(
            tokens_in=sum(len(m.content.split()) for m in request.messages), tokens_out=len(text.split())
        )
        return ChatReply(text=text, finish_reason="stop", usage=usage, engine="canned", model="table-1")

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        """The answer in one piece."""
        reply = await self.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        yield ChatChunk(text=reply.text, reply=reply)

    async def abort(self, request_id: str) -> None:
        """Nothing is ever under way."""

    async def health(self) -> None:
        """It can always answer."""
