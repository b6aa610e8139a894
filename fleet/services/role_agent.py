"""One role at work: prompt, chain of engines, parsed reply (MB-3..MB-12). Nothing here is kept between requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.digest import canonical_json
from fleet.errors import InvalidInput, ModelError, ModelTimeout, ModelUnavailable, ReplyMalformed
from fleet.ids import Digest
from fleet.models import (
    Attempt,
    Call,
    Chain,
    ChatReply,
    ChatRequest,
    Exhausted,
    ModelsConfig,
    PromptSet,
    Sampling,
    Skip,
    TokenUsage,
    build_request,
    estimate_tokens,
    next_call,
    parse_reply,
    skips_for,
    with_problems,
)
from fleet.models.profiles import ChainEntry
from fleet.ports import AgentAnswer, AgentRequest, BlobStore, ChatModel, Clock
from fleet.tools.roles import Role

__all__ = ["LocalAgents", "RoleAgent"]


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
    calls: int = 0
    bad_reply: str = ""
    problems: tuple[str, ...] = ()
    error: ModelError | None = None


class RoleAgent:
    """Answers the requests of one role (or profile).

    Args:
        role: the resolved entry of config/roles.yaml.
        models: every engine by id; `recorded:DIR` included where runs may replay.
        policies: config/models.yaml, for the chain of the role.
        prompts: all prompts of config/prompts.
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
    ) -> None:
        self._role = role
        self._models = models
        self._policies = policies
        self._prompts = prompts
        self._blobs = blobs
        self._clock = clock
        self._persona = prompts.persona(role.prompt)

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`. The engines of the chain are tried by the rules of `fleet.models.routing`.

        The error of an exhausted chain is the last one, with `attempts` and `skipped` in its details (MB-9).
        """
        if request.role != self._role.name:
            raise InvalidInput(
                f"a request for role {request.role!r} came to the agent of {self._role.name!r}; send it to its own",
                field="role",
                value=request.role,
                allowed=[self._role.name],
            )
        names = (self._role.name, *self._role.lineage)
        chain = self._policies.chain_for(self._role.model_policy, request.model, inherits=names)
        work = _Work(request, request_id, chain, self._clock.monotonic_ms() + round(timeout_s * 1000))
        skips = self._skips(work)
        while True:
            decision = next_call(chain, work.attempts, skips=skips, request_id=request_id)
            if isinstance(decision, Exhausted):
                raise _final(work, decision, list(skips.values()))
            answer = await self._try(work, decision)
            if answer is not None:
                return answer

    def _skips(self, work: _Work) -> Mapping[int, Skip]:
        chat = self._chat_request(work.request, work.chain.entries[0])
        text = "".join(message.content for message in chat.messages)
        return skips_for(
            work.chain,
            prompt_tokens=estimate_tokens(text),
            max_tokens=chat.sampling.max_tokens,
            needs_schema=work.request.json_schema is not None,
        )

    async def _try(self, work: _Work, call: Call) -> AgentAnswer | None:
        """The answer, or None after a failure that was noted in `work`."""
        link = work.chain.entries[call.entry]
        if call.delay_ms:
            await self._clock.sleep(call.delay_ms / 1000)
        left_s = (work.deadline_ms - self._clock.monotonic_ms()) / 1000
        if left_s <= 0:
            late = ModelTimeout(f"no time is left for request {work.request_id}: the engines took it all")
            raise _listing(work.error or late, work, skips=())
        chat = self._chat_request(work.request, link)
        if call.shows_problems:
            chat = with_problems(chat, work.bad_reply, work.problems)
        prompt = await self._blobs.put(canonical_json(chat))
        try:
            reply = await self._call(link, chat, work, timeout_s=min(left_s, link.entry.timeout_s))
        except ModelError as error:
            _note(work, call, error, link)
            return None
        return await self._read(work, call, link, prompt, reply)

    async def _call(self, link: ChainEntry, chat: ChatRequest, work: _Work, *, timeout_s: float) -> ChatReply:
        work.calls += 1
        try:
            model = self._models[link.engine_id]
        except KeyError as error:
            raise ModelUnavailable(f"engine {link.engine_id!r} is not running here", permanent=True) from error
        reply = await model.complete(chat, request_id=f"{work.request_id}#{work.calls}", timeout_s=timeout_s)
        work.usage += reply.usage
        work.latency_ms += reply.latency_ms
        return reply

    async def _read(
        self, work: _Work, call: Call, link: ChainEntry, prompt: Digest, reply: ChatReply
    ) -> AgentAnswer | None:
        stored = await self._blobs.put(reply.text.encode())
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
            )
        except ModelError as error:
            _note(work, call, error, link, reply=stored, text=reply.text)
            return None
        return AgentAnswer(
            value=value,
            prompt=prompt,
            reply=stored,
            usage=work.usage,
            engine=reply.engine,
            model=reply.model,
            revision=reply.revision,
            latency_ms=work.latency_ms,
            calls=work.calls,
        )

    def _chat_request(self, request: AgentRequest, link: ChainEntry) -> ChatRequest:
        template = self._prompts.template(request.kind)
        entry, asked = link.entry, request.sampling
        sampling = Sampling(
            temperature=entry.temperature or asked.temperature,
            top_p=entry.top_p or asked.top_p,
            max_tokens=min(asked.max_tokens, template.max_tokens, entry.max_tokens),
            seed=asked.seed,
            stop=asked.stop,
        )
        return build_request(
            template,
            self._persona.variant(request.variant),
            shared=request.shared,
            own=request.own,
            sampling=sampling,
            json_schema=request.json_schema,
            constrain=entry.json_schema != "off",
        )


def _note(
    work: _Work, call: Call, error: ModelError, link: ChainEntry, *, reply: Digest | None = None, text: str = ""
) -> None:
    """Keep the failure for routing, for the repair and for the final error."""
    work.error = error
    work.attempts.append(Attempt(call.entry, error.code, is_permanent=bool(error.details.get("permanent"))))
    listed = {"engine": link.engine_id, "code": error.code, "message": error.message}
    work.listed.append(listed if reply is None else {**listed, "reply": str(reply)})
    if isinstance(error, ReplyMalformed):
        work.bad_reply = text
        work.problems = tuple(error.details.get("problems") or (error.message,))


def _final(work: _Work, decision: Exhausted, skips: Sequence[Skip]) -> ModelError:
    nothing = ModelUnavailable(
        f"{decision.reason}: {'; '.join(f'{skip.engine_id}: {skip.reason}' for skip in skips) or 'the chain is empty'}"
    )
    return _listing(work.error or nothing, work, skips)


def _listing(error: ModelError, work: _Work, skips: Sequence[Skip]) -> ModelError:
    """The same error, with all attempts in its details (MB-9)."""
    skipped = [{"engine": skip.engine_id, "reason": skip.reason} for skip in skips]
    facts = {"attempts": work.listed, "skipped": skipped, "usage": work.usage.model_dump()}
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
