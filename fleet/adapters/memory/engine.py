"""An engine without a model: a token-latency model on the Clock port, and a real prefix cache of block hashes.

Which blocks hit is exact, so ways to route and to order prompts are compared by hit counts on any machine.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field

from fleet.errors import ContextTooLarge, ModelUnavailable
from fleet.models import ActorEngine, CallTag, ChatRequest, FinishReason, TokenUsage, ToolUse
from fleet.ports import Clock
from fleet.ports.engine import LoadedModel, TokenPiece
from fleet.services.model_engine import ModelEngine

__all__ = ["BlockCache", "FakeTokens", "MemoryTokenSource", "memory_engine"]

_WORD = re.compile(r"\S+\s*|\s+")
_BITE_TOKENS = 8
"""Tokens that are generated between two looks at whether the call was aborted."""


class BlockCache:
    """Prefixes by the hashes of their blocks, least recently used first out; as vLLM keeps them.

    Args:
        block_size: tokens of one block; a rest that fills none is never kept.
        blocks: how many blocks there is room for.
    """

    def __init__(self, *, block_size: int, blocks: int) -> None:
        self._size, self._room = block_size, blocks
        self._held: OrderedDict[bytes, None] = OrderedDict()

    def use(self, tokens: Iterable[str], *, salt: str = "") -> int:
        """How many tokens of this prompt were held; from now on all its whole blocks are.

        The last token is never taken from the cache: computing it is what gives the first token of the reply.
        """
        listed = list(tokens)
        keys = self._keys(listed, salt)
        usable = max(0, len(listed) - 1) // self._size
        hits = 0
        for key in keys[:usable]:
            if key not in self._held:
                break
            hits += 1
        for key in keys:
            self._held[key] = None
            self._held.move_to_end(key)
        while len(self._held) > self._room:
            self._held.popitem(last=False)
        return hits * self._size

    def _keys(self, tokens: list[str], salt: str) -> list[bytes]:
        keys: list[bytes] = []
        parent = salt.encode()
        for start in range(0, len(tokens) - self._size + 1, self._size):
            block = "\0".join(tokens[start : start + self._size]).encode()
            parent = hashlib.sha256(parent + b"\0" + block).digest()
            keys.append(parent)
        return keys


@dataclass(frozen=True, slots=True)
class FakeTokens:
    """How fast a fake engine is, and what it holds."""

    prefill_ms: float = 0.2
    """For each prompt token that the cache does not hold."""
    decode_ms: float = 20.0
    """For each token of the reply, however many calls run."""
    block_size: int = 16
    blocks: int = 4096
    load_s: float = 0.0


def _echo(request: ChatRequest) -> str:
    return "".join(f"word{number} " for number in range(request.sampling.max_tokens))


@dataclass
class MemoryTokenSource:
    """Port `TokenSource`: replies are what `reply` makes of a request, one token for each word.

    A test may set `failure` (the next loads and calls raise it), `dead` (the library died) and `is_stuck` (calls
    neither go on nor react to an abort).
    """

    config: ActorEngine
    clock: Clock
    speed: FakeTokens = FakeTokens()
    reply: Callable[[ChatRequest], str | TokenPiece] = _echo
    failure: Exception | None = None
    dead: str = ""
    is_stuck: bool = False
    aborted: set[str] = field(default_factory=set[str])
    is_open: bool = False

    def __post_init__(self) -> None:
        self._cache = BlockCache(block_size=self.speed.block_size, blocks=self.speed.blocks)

    async def load(self) -> LoadedModel:
        """See `TokenSource.load`; takes `load_s`."""
        await self.clock.sleep(self.speed.load_s)
        if self.failure is not None:
            raise self.failure
        self.dead, self.is_open = "", True
        self._cache = BlockCache(block_size=self.speed.block_size, blocks=self.speed.blocks)
        return LoadedModel("fake 1", "sha256:fake", self.config.max_context, self.speed.block_size)

    async def generate(
        self, request: ChatRequest, *, call_id: str, tag: CallTag, is_whole: bool
    ) -> AsyncGenerator[TokenPiece]:
        """See `TokenSource.generate`."""
        self.check()
        prompt = [token for message in request.messages for token in (message.role, *_WORD.findall(message.content))]
        room = self.config.max_context - request.sampling.max_tokens
        if len(prompt) > room:
            raise ContextTooLarge(
                f"the prompt has {len(prompt)} tokens and {request.sampling.max_tokens} are wanted; "
                f"{self.config.max_context} fit",
                prompt_tokens=len(prompt),
                max_context=self.config.max_context,
            )
        cached = self._cache.use(prompt)
        await self._spend((len(prompt) - cached) * self.speed.prefill_ms)
        text, tools = self._text_of(request)
        words = _WORD.findall(text)
        finish: FinishReason = "tool_use" if tools else "stop"
        if len(words) >= request.sampling.max_tokens and not tools:
            words, finish = words[: request.sampling.max_tokens], "length"
        bite = len(words) if is_whole else _BITE_TOKENS
        done = 0
        whole = ""
        while done < len(words):
            taken = words[done : done + min(bite, _BITE_TOKENS)]
            await self._spend(len(taken) * self.speed.decode_ms)
            self.check()
            done += len(taken)
            whole += "".join(taken)
            usage = TokenUsage(tokens_in=len(prompt), tokens_out=done, tokens_cached=cached)
            if call_id in self.aborted:
                self.aborted.discard(call_id)
                yield TokenPiece(whole if is_whole else "".join(taken), usage, finish="abort")
                return
            if not is_whole:
                yield TokenPiece("".join(taken), usage)
        usage = TokenUsage(tokens_in=len(prompt), tokens_out=done, tokens_cached=cached)
        yield TokenPiece(whole if is_whole else "", usage, finish=finish, tool_uses=tools)

    async def abort(self, call_id: str) -> None:
        """See `TokenSource.abort`."""
        if not self.is_stuck:
            self.aborted.add(call_id)

    def check(self) -> None:
        """See `TokenSource.check`."""
        if self.dead:
            raise ModelUnavailable(f"engine {self.config.engine_id!r} died: {self.dead}", reason="dead")

    async def close(self) -> None:
        """See `TokenSource.close`."""
        self.is_open = False

    def _text_of(self, request: ChatRequest) -> tuple[str, tuple[ToolUse, ...]]:
        made = self.reply(request)
        return (made, ()) if isinstance(made, str) else (made.text, made.tool_uses)

    async def _spend(self, ms: float) -> None:
        while self.is_stuck:
            await self.clock.sleep(0.05)
        await self.clock.sleep(ms / 1000)


def memory_engine(config: ActorEngine, clock: Clock, *, speed: FakeTokens = FakeTokens()) -> ModelEngine:
    """A fake engine that has yet to be loaded."""
    return ModelEngine(MemoryTokenSource(config, clock, speed), config, clock=clock)
