"""One role at work: prompt, chain of engines, parsed reply (MB-3..MB-12).

Between requests it only remembers which engines were slow (MB-8): a new process asks them again, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.kernel.clock import Clock
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import InvalidInput, ModelError, ModelTimeout, ModelUnavailable, RateLimited, ReplyMalformed
from fleet.kernel.ids import Digest
from fleet.models.chat import ChatReply, ChatRequest, Sampling, TokenUsage, ToolUse
from fleet.models.engine_config import Price
from fleet.models.port import AgentAnswer, AgentRequest, ChatModel, PassedOver
from fleet.models.profiles import Chain, ChainEntry, ModelsConfig
from fleet.models.prompts.prompt import PromptSet, build_request, seat_persona, with_problems, with_turns
from fleet.models.replies.replies import parse_reply
from fleet.models.routing.routing import (
    Attempt,
    Call,
    Exhausted,
    Skip,
    estimate_tokens,
    next_call,
    reply_room,
    skips_for,
)
from fleet.models.service.redaction import redacted_chat, redacted_value
from fleet.models.usage import cost_of
from fleet.policy.roles import Role
from fleet.redaction.redact import redact
from fleet.trees.port import BlobStore

SLOW_FOR_MS = 120_000
"""How long the other engines of a chain are asked before one that was too slow."""
_Failure = ModelError | RateLimited


def _always_well(engine_id: str) -> ModelUnavailable | None:
    return None


@dataclass
class _Work:
    """The calls made for one request so far."""

    request: AgentRequest
    request_id: str
    chain: Chain
    deadline_ms: int
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    listed: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """The attempts as they stand in the final error (MB-9)."""
    usage: TokenUsage = TokenUsage()
    latency_ms: int = 0
    gpu_ms: int = 0
    queue_ms: int = 0
    cost_microusd: int | None = 0
    """None once an engine without a price answered."""
    calls: int = 0
    bad_reply: str = ""
    bad_uses: tuple[ToolUse, ...] = ()
    """Tools that it asked for."""
    problems: tuple[str, ...] = ()
    error: _Failure | None = None
    slow: tuple[Skip, ...] = ()
    """Engines that were put behind the others."""
    skips: Mapping[int, Skip] = field(default_factory=dict[int, Skip])
    come_later_s: list[int] = field(default_factory=list[int])
    """When engines that were only busy want to be asked again."""


class RoleAgent:
    """Answers the requests of one role (or profile).

    Args:
        role: the resolved entry of config/roles.yaml.
        models: every engine by id; `recorded:DIR` included where runs may replay.
        policies: config/models.yaml, for the chain of the role.
        prompts: all prompts of config/prompts.
        refusal: why an engine is not to be asked now, None when it may be (MB-3).
    """

    def __init__(
        self,
        role: Role,
        *,
        models: Mapping[str, ChatModel],
        policies: ModelsConfig,
        prompts: PromptSet,
        blobs: BlobStore,
        clock: Clock,
        refusal: Callable[[str], ModelUnavailable | None] = _always_well,
    ) -> None:
        self._role = role
        self._models = models
        self._policies = policies
        self._prompts = prompts
        self._blobs = blobs
        self._clock = clock
        self._refusal = refusal
        self._persona = prompts.persona(role.prompt)
        self._slow: dict[str, tuple[int, str]] = {}
        """Until when an engine stands behind the others, and why."""

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`. The engines of the chain are tried by the rules of `fleet.models.routing.routing`.

        The error of an exhausted chain is the last one, with `attempts` and `skipped` in its details (MB-9).
        """
        if request.role != self._role.name:
            raise InvalidInput(
                f"a request for role {request.role!r} came to the agent of {self._role.name!r}; send it to its own",
                field="role",
                value=request.role,
                allowed=[self._role.name],
            )
        names = () if request.policy else (self._role.name, *self._role.lineage)
        named = request.policy or self._role.model_policy
        chain = self._policies.chain_for(named, request.model, inherits=names)
        chain, slow = self._slow_last(chain)
        work = _Work(request, request_id, chain, self._clock.monotonic_ms() + round(timeout_s * 1000), slow=slow)
        work.skips = self._skips(work)
        while True:
            decision = next_call(chain, work.attempts, skips=work.skips, request_id=request_id)
            if isinstance(decision, Exhausted):
                raise _final(work, decision)
            answer = await self._try(work, decision)
            if answer is not None:
                return answer

    def _slow_last(self, chain: Chain) -> tuple[Chain, tuple[Skip, ...]]:
        """The chain with engines that were too slow behind the others, and which those are (MB-8)."""
        now_ms = self._clock.monotonic_ms()
        self._slow = {name: until for name, until in self._slow.items() if until[0] > now_ms}
        slow = [link for link in chain.entries if link.engine_id in self._slow]
        quick = [link for link in chain.entries if link.engine_id not in self._slow]
        if not slow or not quick:
            return chain, ()
        moved = tuple(Skip(link.engine_id, self._slow[link.engine_id][1]) for link in slow)
        return chain.model_copy(update={"entries": (*quick, *slow)}), moved

    def _skips(self, work: _Work) -> Mapping[int, Skip]:
        chat = self._chat_request(work.request, work.chain.entries[0])
        skips = skips_for(
            work.chain,
            prompt_tokens=_prompt_tokens(work.request, chat),
            max_tokens=chat.sampling.max_tokens,
            needs_schema=work.request.json_schema is not None,
        )
        return {**self._refused(work), **skips}

    def _refused(self, work: _Work) -> Mapping[int, Skip]:
        """The entries whose engine is known to be down; the chain does not wait for them (MB-3)."""
        skips: dict[int, Skip] = {}
        for index, link in enumerate(work.chain.entries):
            refusal = self._refusal(link.engine_id)
            if refusal is not None:
                skips[index] = Skip(link.engine_id, refusal.message)
                work.come_later_s.append(int(refusal.details.get("retry_after_s", 1)))
        return skips

    async def _try(self, work: _Work, call: Call) -> AgentAnswer | None:
        """The answer, or None after a failure that was noted in `work`."""
        link = work.chain.entries[call.entry]
        if call.delay_ms:
            await self._clock.sleep(call.delay_ms / 1000)
        left_s = (work.deadline_ms - self._clock.monotonic_ms()) / 1000
        if left_s <= 0:
            late = ModelTimeout(f"no time is left for request {work.request_id}: the engines took it all")
            raise _listing(work.error or late, work)
        chat = self._chat_request(work.request, link)
        if call.shows_problems:
            chat = with_problems(chat, work.bad_reply, work.problems, work.bad_uses)
        chat = redacted_chat(chat)
        prompt = await self._blobs.put(canonical_json(chat))
        try:
            reply = await self._call(link, chat, work, timeout_s=min(left_s, link.entry.timeout_s))
        except (ModelError, RateLimited) as error:
            _note(work, call, error, link)
            return None
        self._time(link, reply)
        return await self._read(work, call, link, prompt, reply)

    async def _call(self, link: ChainEntry, chat: ChatRequest, work: _Work, *, timeout_s: float) -> ChatReply:
        work.calls += 1
        try:
            model = self._models[link.engine_id]
        except KeyError as error:
            raise ModelUnavailable(f"engine {link.engine_id!r} is not running here", permanent=True) from error
        tag = work.request.tag.model_copy(update={"role": self._role.name})
        name = f"{work.request_id}#{work.calls}"
        try:
            reply = await model.complete(chat, request_id=name, timeout_s=timeout_s, tag=tag)
        except ModelError as error:
            work.gpu_ms += int(error.details.get("gpu_ms", 0))
            raise
        work.usage += reply.usage
        work.latency_ms += reply.latency_ms
        work.gpu_ms += reply.gpu_ms
        work.queue_ms += reply.queue_ms
        work.cost_microusd = _charged(work.cost_microusd, self._policies.engine(link.engine_id).price, reply.usage)
        return reply

    def _time(self, link: ChainEntry, reply: ChatReply) -> None:
        """A reply that took too long is kept, and its engine stands behind the others for a while (MB-8)."""
        most = link.entry.max_latency_ms
        if most is not None and reply.latency_ms > most:
            reason = f"its last reply took {reply.latency_ms} ms where {most} are allowed"
            self._slow[link.engine_id] = (self._clock.monotonic_ms() + SLOW_FOR_MS, reason)

    async def _read(
        self, work: _Work, call: Call, link: ChainEntry, prompt: Digest, reply: ChatReply
    ) -> AgentAnswer | None:
        stored = await self._blobs.put(redact(reply.text).text.encode())
        request = work.request
        try:
            if reply.finish_reason == "abort":
                raise ModelUnavailable(f"request {work.request_id} was aborted", permanent=True)
            value = parse_reply(
                reply.text,
                reply.finish_reason,
                kind=request.kind,
                json_schema=request.json_schema,
                target_paths=request.target_paths,
                new_paths=request.new_paths,
                uses=reply.tool_uses,
                offers=request.tools,
                reasoning=reply.reasoning,
                language=request.language,
            )
        except ModelError as error:
            _note(work, call, error, link, stored=stored, reply=reply)
            return None
        return AgentAnswer(
            value=redacted_value(value, kind=request.kind),
            prompt=prompt,
            reply=stored,
            usage=work.usage,
            engine=reply.engine,
            model=reply.model,
            revision=reply.revision,
            latency_ms=work.latency_ms,
            calls=work.calls,
            gpu_ms=work.gpu_ms,
            queue_ms=work.queue_ms,
            cost_microusd=work.cost_microusd,
            passed_over=_passed_over(work, link, reply),
        )

    def _chat_request(self, request: AgentRequest, link: ChainEntry) -> ChatRequest:
        template = self._prompts.template(request.kind, request.language)
        entry, asked = link.entry, request.sampling
        sampling = Sampling(
            temperature=entry.temperature or asked.temperature,
            top_p=entry.top_p or asked.top_p,
            max_tokens=asked.max_tokens,
            seed=asked.seed,
            stop=asked.stop,
        )
        chat = build_request(
            template,
            seat_persona(self._persona.variant(request.variant), request.persona),
            shared=request.shared,
            own=request.own,
            sampling=sampling,
            json_schema=request.json_schema,
            constrain=entry.json_schema != "off",
        )
        chat = with_turns(chat, request.turns, request.tools) if request.turns or request.tools else chat
        longest = reply_room(request.kind, link, prompt_tokens=_prompt_tokens(request, chat))
        most = min(asked.max_tokens, longest, template.max_tokens or longest)
        return chat.model_copy(update={"sampling": sampling.model_copy(update={"max_tokens": most})})


def _prompt_tokens(request: AgentRequest, chat: ChatRequest) -> int:
    """The tokens of the prompt: what was counted of it as counted, and the rest, or all of it, by estimate (CX-20)."""
    whole = "".join(message.content for message in chat.messages)
    if request.counted is None:
        return estimate_tokens(whole)
    rest = len(whole.encode()) - sum(len(text.encode()) for text in request.texts)
    return request.counted + max(0, rest) // 3 + 1


def _note(
    work: _Work,
    call: Call,
    error: _Failure,
    link: ChainEntry,
    *,
    stored: Digest | None = None,
    reply: ChatReply | None = None,
) -> None:
    """Keep the failure for routing, for the repair and for the final error."""
    work.error = error
    is_busy = bool(error.details.get("queued"))
    if is_busy:
        work.come_later_s.append(int(error.details.get("retry_after_s", 1)))
    # A busy engine is not asked again at once; one of which two replicas were asked had its second call (MB-4).
    is_permanent = is_busy or any(error.details.get(name) for name in ("permanent", "repeated"))
    work.attempts.append(Attempt(call.entry, error.code, is_permanent=is_permanent))
    listed = {"engine": link.engine_id, "code": error.code, "message": error.message}
    work.listed.append(listed if stored is None else {**listed, "reply": str(stored)})
    if isinstance(error, ReplyMalformed):
        work.bad_reply, work.bad_uses = (reply.text, reply.tool_uses) if reply is not None else ("", ())
        work.problems = tuple(error.details.get("problems") or (error.message,))


def _passed_over(work: _Work, link: ChainEntry, reply: ChatReply) -> tuple[PassedOver, ...]:
    """Why other engines did not answer, and which calls of this one failed before (MB-3)."""
    passed = [
        PassedOver(skip.engine_id, skip.reason, asked=False) for skip in work.slow if skip.engine_id != link.engine_id
    ]
    for index, entry in enumerate(work.chain.entries):
        if index in work.skips:
            passed.append(PassedOver(entry.engine_id, work.skips[index].reason, asked=False))
        # The engine that answered has the name that it has in the reply.
        name = reply.engine if entry.engine_id == link.engine_id else entry.engine_id
        passed += [PassedOver(name, attempt.code) for attempt in work.attempts if attempt.entry == index]
    return tuple(passed)


def _final(work: _Work, decision: Exhausted) -> _Failure:
    skips = "; ".join(f"{skip.engine_id}: {skip.reason}" for skip in work.skips.values())
    return _listing(work.error or ModelUnavailable(f"{decision.reason}: {skips or 'the chain is empty'}"), work)


def _charged(so_far: int | None, price: Price | None, usage: TokenUsage) -> int | None:
    if so_far is None or price is None:
        return None
    return so_far + cost_of(price, tokens_in=usage.tokens_in, tokens_out=usage.tokens_out)


def _listing(error: _Failure, work: _Work) -> _Failure:
    """Return the same error with all attempts in its details (MB-9). Where an engine was only busy it says when to come
    again.
    """
    facts: dict[str, Any] = {
        "attempts": work.listed,
        "skipped": [{"engine": skip.engine_id, "reason": skip.reason} for skip in work.skips.values()],
        "usage": work.usage.model_dump(),
        "spent": {
            "calls": work.calls,
            "latency_ms": work.latency_ms,
            "gpu_ms": work.gpu_ms,
            "queue_ms": work.queue_ms,
            "cost_microusd": work.cost_microusd,
        },
    }
    if work.come_later_s:
        facts["retry_after_s"] = min(work.come_later_s)
    listed = type(error)(error.message, **{**error.details, **facts})
    listed.__cause__ = error
    return listed


class LocalAgents:
    """`Agents` in one process: each request goes to the agent of its role."""

    def __init__(self, agents: Mapping[str, RoleAgent]) -> None:
        self._agents = dict(agents)

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        agent = self._agents.get(request.role)
        if agent is None:
            allowed = sorted(self._agents)
            raise InvalidInput(
                f"no agent has the role {request.role!r}: choose one of {', '.join(allowed)}, or add it to "
                "config/roles.yaml",
                field="role",
                value=request.role,
                allowed=allowed,
            )
        return await agent.ask(request, request_id=request_id, timeout_s=timeout_s)
