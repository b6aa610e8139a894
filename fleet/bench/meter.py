"""The token budget of one arm on one task: every call counts, whatever its reply was worth."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleet.kernel.errors import BudgetExceeded
from fleet.models.chat import ChatMessage, ChatReply, ChatRequest

_PER_MESSAGE = 16
"""Tokens that a chat template may put around one message, at most."""
_MARGIN = (11, 10)
"""An observed ratio of bytes to tokens is trusted up to a tenth more tokens, where there are words only."""
_MARK = re.compile(rb"[^A-Za-z\s]|\s+(?=[^A-Za-z\s])")
"""What may be a token each: digits, signs, bytes of other scripts, and the space before them. `[1, 3, 5]` has as many
tokens as bytes with some tokenizers, so that no ratio of ordinary text says anything about what a test printed."""


@dataclass(frozen=True, slots=True)
class MeteredCall:
    """One settled call."""

    stage: str
    tokens_in: int
    tokens_out: int
    latency_ms: int
    is_usable: bool = True


@dataclass(slots=True)
class TokenMeter:
    """Reserves an upper bound before each call and settles what the engine counted.

    A prompt is bounded by its bytes, since no token of a text is shorter than a byte; once the engine has counted
    prompts of this arm, by one token for each mark, and for its words by the densest of them and a margin. A prompt
    that was counted before is known exactly.
    """

    budget: int
    calls: list[MeteredCall] = field(default_factory=list[MeteredCall])
    _known: dict[Sequence[ChatMessage], int] = field(default_factory=dict[Sequence[ChatMessage], int])
    _densest: tuple[int, int] | None = None
    """Tokens and bytes of the prompt with the most tokens for its bytes."""

    @property
    def spent(self) -> int:
        """Prompt and reply tokens of all calls."""
        return sum(c.tokens_in + c.tokens_out for c in self.calls)

    @property
    def unspent(self) -> int:
        """Tokens that are left; below zero when a bound did not hold, which the row then says."""
        return self.budget - self.spent

    @property
    def by_stage(self) -> Mapping[str, int]:
        """Tokens of each stage; their sum is `spent`."""
        found: dict[str, int] = {}
        for call in self.calls:
            found[call.stage] = found.get(call.stage, 0) + call.tokens_in + call.tokens_out
        return found

    def fitted(self, request: ChatRequest) -> ChatRequest:
        """The request as it may be sent: its reply bound is lowered to what is left, never below half of it.

        Raises:
            BudgetExceeded: the call could need more than is left.
        """
        wanted = request.sampling.max_tokens
        prompt = self.bound(request)
        room = self.unspent - prompt
        if room < max(1, wanted // 2):
            raise BudgetExceeded(
                f"the next call may need {prompt} prompt tokens and {max(1, wanted // 2)} of a reply, and "
                f"{self.unspent} of {self.budget} tokens are left: the arm ends here",
                scope="arm",
                quantity="tokens",
                limit=self.budget,
                used=self.spent,
            )
        if room >= wanted:
            return request
        return request.model_copy(update={"sampling": request.sampling.model_copy(update={"max_tokens": room})})

    def bound(self, request: ChatRequest) -> int:
        """The most prompt tokens that this request may cost."""
        if (known := self._known.get(request.messages)) is not None:
            return known
        size = _size(request)
        frame = _PER_MESSAGE * len(request.messages)
        if self._densest is None:
            return size + frame
        tokens, of_bytes = self._densest
        marks = sum(len(_MARK.findall(message.content.encode())) for message in request.messages)
        words = -(-(size - marks) * tokens * _MARGIN[0] // (of_bytes * _MARGIN[1]))
        return min(size, marks + words) + frame

    def settle(self, request: ChatRequest, reply: ChatReply, *, stage: str, is_usable: bool = True) -> None:
        """The call is on the bill with the engine's own figures."""
        usage = reply.usage
        self._known[request.messages] = max(usage.tokens_in, self._known.get(request.messages, 0))
        size = max(1, _size(request))
        if self._densest is None or usage.tokens_in * self._densest[1] > self._densest[0] * size:
            self._densest = (usage.tokens_in, size)
        self.calls.append(MeteredCall(stage, usage.tokens_in, usage.tokens_out, reply.latency_ms, is_usable))

    def spoil(self) -> None:
        """The reply of the last call was of no use; its tokens stay on the bill."""
        last = self.calls[-1]
        self.calls[-1] = MeteredCall(last.stage, last.tokens_in, last.tokens_out, last.latency_ms, False)


def _size(request: ChatRequest) -> int:
    return sum(len(message.content.encode()) for message in request.messages)
