"""The toolbox: claims calls by key, runs the tool, records the outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from pydantic import JsonValue

from fleet.kernel.clock import Clock
from fleet.kernel.digest import canonical_json, digest_of_json
from fleet.kernel.errors import (
    ConfigError,
    FleetError,
    InvalidInput,
    OutcomeUnknown,
    PolicyDenied,
    SandboxUnavailable,
    StoreUnavailable,
    ToolFailed,
    ToolTimeout,
)
from fleet.kernel.ids import Digest, RunKey
from fleet.policy.catalogue import WRITE_OPS
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import EXCERPT_CHARS, ToolOutcome, excerpt_of, plain_text
from fleet.sandbox.port import RunLedger
from fleet.sandbox.service.keyed_work import KeyClaim, KeyedWork, Live
from fleet.secrets.service import KnownSecrets
from fleet.tools.port import PreviewableTool, Tool, ToolContext
from fleet.trees.port import BlobStore


async def finished(
    outcome: ToolOutcome, *, blobs: BlobStore, limit_bytes: int, secrets: KnownSecrets | None
) -> ToolOutcome:
    """The outcome as it is recorded: redacted, `text` an excerpt, the whole output a blob where the excerpt is less.

    Args:
        outcome: of a tool, which may hand over its whole output as `text`, or as a blob beside a text of its own.
        limit_bytes: of output and of data that are kept; of a longer output the first and last parts.

    Raises:
        ToolFailed: the data are over the limit, or no JSON; a tool pages what may be large.
    """
    whole = await _whole(outcome, blobs)
    secrets = secrets or KnownSecrets()
    whole = secrets.redact(whole).text
    kept = _within(plain_text(whole), limit_bytes)
    stored = await blobs.put(kept.encode()) if len(kept) > EXCERPT_CHARS or outcome.output else None
    shown = kept if outcome.output is None else secrets.redact(outcome.text).text or kept
    return outcome.model_copy(
        update={
            "text": excerpt_of(shown),
            "output": stored,
            "content": _checked(secrets.redact_json(outcome.content), limit_bytes),
            "reason": secrets.redact(outcome.reason).text,
        }
    )


async def _whole(outcome: ToolOutcome, blobs: BlobStore) -> str:
    if outcome.output is None:
        return outcome.text
    return (await blobs.get(Digest(outcome.output))).decode(errors="replace")


def _within(text: str, limit_bytes: int) -> str:
    data = text.encode(errors="replace")
    if len(data) <= limit_bytes:
        return data.decode()
    head, tail = limit_bytes * 6 // 10, limit_bytes * 3 // 10
    line = f"\n[... {len(data) - head - tail} bytes left out: over the output limit ...]\n"
    return data[:head].decode(errors="ignore") + line + data[-tail:].decode(errors="ignore")


def _checked(content: JsonValue, limit_bytes: int) -> JsonValue:
    try:
        size = len(canonical_json(content))
    except (TypeError, UnicodeEncodeError) as error:
        raise ToolFailed("the tool's data have no canonical form: use texts and integers") from error
    if size > limit_bytes:
        raise ToolFailed(
            f"the tool's data have {size} bytes, at most {limit_bytes}: ask for less", limit=limit_bytes, size=size
        )
    return content


_SKEW_S = 60
"""Between the ledger's clock and ours."""
_NOTHING_HAPPENED = (PolicyDenied, InvalidInput, SandboxUnavailable, ToolFailed, StoreUnavailable)
"""Errors of a tool that say that nothing was carried out."""


def call_digest(call: ToolCall, context: ToolContext) -> Digest:
    """What a key stands for: the call and the place that it is about (RC-12), whatever the policy obliges to."""
    return digest_of_json(
        {
            "tool": call.tool,
            "op": call.op,
            "args": call.args,
            "role": context.role,
            "tree": context.tree,
            "base_tree": context.base_tree,
            "repository": context.repository,
            "toolchain": context.toolchain,
            "language": context.language,
            "environment": context.environment,
        }
    )


class Toolbox:
    """The tools of one process behind the run ledger. Implements the port ToolHost.

    A PURE or KEYED call whose caller died runs again; the key of an UNSAFE one stays taken from the moment at which it
    was sent, and whoever finds it so learns OutcomeUnknown.

    Args:
        tools: by their own names.
        later: what makes further tools, by name; each is made by its first call, in a thread.
        name: of this host in the ledger; a restarted one has the same name and takes its own calls up again.
        secrets: what is taken out of every outcome before it is recorded or shown (RT-66).
        queue_s: seconds that a call may wait for its place, beyond the time that it has for itself. A tool that keeps
            its own time, as a run does, ends before this one ends it.
    """

    def __init__(
        self,
        tools: Iterable[Tool],
        *,
        later: Mapping[str, Callable[[], Tool]] = MappingProxyType({}),
        ledger: RunLedger,
        blobs: BlobStore,
        clock: Clock,
        name: str,
        secrets: KnownSecrets | None = None,
        queue_s: float = 120,
    ) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            if tool.name in self._tools:
                raise ConfigError(f"two tools are named {tool.name!r}: rename one of them", tool=tool.name)
            self._tools[tool.name] = tool
        self._later = dict(later)
        if both := sorted(self._tools.keys() & self._later.keys()):
            raise ConfigError(f"two tools are named {both[0]!r}: rename one of them", tool=both[0])
        self._blobs, self._secrets, self._queue_s = blobs, secrets, queue_s
        self._work = KeyedWork[ToolOutcome](ledger, clock, name, read=self._recorded)

    @property
    def names(self) -> frozenset[str]:
        """The tools that can be called here."""
        return frozenset({*self._tools, *self._later})

    @property
    def active(self) -> int:
        """Calls under way here."""
        return len(self._work.live)

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """The outcome of this call; it goes on when the caller is cancelled.

        Raises:
            OwnershipLost, IdempotencyMismatch: see the port.
            PolicyDenied, SandboxUnavailable, ToolFailed, StoreUnavailable: nothing was carried out; the key is free.
            ToolTimeout: a KEYED call was not answered in time; the same key asks again.
            OutcomeUnknown: an UNSAFE call was sent and nobody knows what came of it.
        """
        tool = await self._tool(call.tool)
        if tool is None:
            raise ToolFailed(
                f"no tool {call.tool!r} is wired here; there are {', '.join(sorted(self.names))}", tool=call.tool
            )
        is_unsafe = context.obligations.effect == "UNSAFE"
        claim = KeyClaim(
            key=context.key,
            story=context.story_id,
            epoch=context.epoch,
            spec=call_digest(call, context),
            ttl_s=context.obligations.timeout_s + int(self._queue_s) + _SKEW_S,
            name=f"call {call.tool}.{call.op} {context.key[:12]}",
            unknown=partial(_unknown, call, context) if is_unsafe else None,
        )
        return await self._work.result(
            claim, partial(self._once if is_unsafe else self._again, tool, call, context, claim)
        )

    async def preview(self, call: ToolCall, context: ToolContext) -> ToolOutcome | None:
        """What the call would do; None when its tool cannot say, or when it only reads. See the port."""
        tool = await self._tool(call.tool)
        if not isinstance(tool, PreviewableTool) or call.op not in WRITE_OPS.get(call.tool, ()):
            return None
        try:
            async with asyncio.timeout(context.obligations.timeout_s):
                outcome = await tool.preview(call, context)
        except TimeoutError as error:
            raise ToolTimeout(f"{call.tool}.{call.op} could not be tried in time", tool=call.tool) from error
        limit = context.obligations.output_limit_kb * 1024
        return await finished(outcome, blobs=self._blobs, limit_bytes=limit, secrets=self._secrets)

    async def _tool(self, name: str) -> Tool | None:
        if name not in self._tools and name in self._later:
            # Its driver may take seconds to import, and other calls go on meanwhile.
            self._tools[name] = await asyncio.to_thread(self._later[name])
        return self._tools.get(name)

    async def cancel(self, key: RunKey) -> bool:
        """End the call of this key if it is under way here; its outcome is recorded as `cancelled`.

        False when there is none, or when it is UNSAFE: cut off half-way nobody would know what it did.
        """
        live = self._work.live.get(key)
        if live is None or live.is_once:
            return False
        live.wants_end.set()
        return True

    async def _again(
        self, tool: Tool, call: ToolCall, context: ToolContext, claim: KeyClaim, live: Live[ToolOutcome]
    ) -> ToolOutcome:
        """The outcome of a call that may be made again: done again under this key it counts once."""
        try:
            outcome = await self._within_time(tool, call, context, live.wants_end)
            return await self._record(outcome, context, claim)
        except (FleetError, asyncio.CancelledError):
            await self._work.forget(context.key)  # the first error is the one to tell
            raise

    async def _within_time(self, tool: Tool, call: ToolCall, context: ToolContext, stop: asyncio.Event) -> ToolOutcome:
        obligations = context.obligations
        work = asyncio.ensure_future(tool.call(call, context))
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait(
                {work, stopped}, timeout=obligations.timeout_s + self._queue_s, return_when=asyncio.FIRST_COMPLETED
            )
            if work.done():
                return work.result()
        finally:
            await _settled((work, stopped))
        if stop.is_set():
            return ToolOutcome(outcome="cancelled", reason="cancelled", text="it was cancelled before its end")
        if obligations.effect == "KEYED":
            raise ToolTimeout(
                f"{call.tool}.{call.op} did not answer within {obligations.timeout_s} s: ask again by its key",
                timeout_s=obligations.timeout_s,
            )
        return ToolOutcome(outcome="timed_out", reason="timeout", text="no answer in time; nothing was changed")

    async def _once(
        self, tool: Tool, call: ToolCall, context: ToolContext, claim: KeyClaim, live: Live[ToolOutcome]
    ) -> ToolOutcome:
        """The outcome of a call that must not be sent twice: its claim is given back only when nothing was sent."""
        try:
            async with asyncio.timeout(context.obligations.timeout_s + self._queue_s):
                outcome = await tool.call(call, context)
        except _NOTHING_HAPPENED:
            await self._work.forget(context.key)
            raise
        except (TimeoutError, ToolTimeout) as error:
            raise _unknown(call, context, "it was sent and not answered in time") from error
        try:
            return await self._record(outcome, context, claim)
        except FleetError as error:
            raise _unknown(call, context, f"it was carried out, and its outcome was lost: {error.message}") from error

    async def _record(self, outcome: ToolOutcome, context: ToolContext, claim: KeyClaim) -> ToolOutcome:
        limit = context.obligations.output_limit_kb * 1024
        kept = await finished(outcome, blobs=self._blobs, limit_bytes=limit, secrets=self._secrets)
        return await self._work.finish(claim, await self._blobs.put(kept.model_dump_json().encode()), kept)

    async def _recorded(self, digest: Digest) -> ToolOutcome:
        return ToolOutcome.model_validate_json(await self._blobs.get(digest))


async def _settled(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """The tasks are over; what they still wanted to say is left unsaid."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()


def _unknown(call: ToolCall, context: ToolContext, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{call.tool}.{call.op} of story {context.story_id} may or may not have happened ({why}): look at its target "
        "and record what you find",
        tool=call.tool,
        op=call.op,
        story_id=context.story_id,
        key=context.key,
    )
