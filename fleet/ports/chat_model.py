"""Port: a model that answers (docs/design/design.md, section 7, MB-12)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from fleet.models import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest

__all__ = ["ChatModel"]


class ChatModel(Protocol):
    """One engine. Usage is always counted. Stateless: the same request may be sent again after a crash."""

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """The whole reply. A reply cut off at `max_tokens` is a reply with `finish_reason` `length`, not an error.

        Raises ModelUnavailable, ModelTimeout, ContextTooLarge, ReplyRefused. A recorded engine that lacks the request
        raises ModelUnavailable with `request_digest`; no engine ever invents an answer.
        """
        ...

    def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        """The reply in pieces; the last chunk carries the whole reply. Errors as in `complete`."""
        ...

    async def abort(self, request_id: str) -> None:
        """The request ends now with finish_reason `abort` and its partial text; unknown ids are ignored."""
        ...

    async def health(self) -> None:
        """Returns when the engine could answer now; ModelUnavailable says why not and what to do."""
        ...
