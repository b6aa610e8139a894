"""Steps and messages of a trajectory: each step is one row, once it is over."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, lru_cache
from typing import Any, TypeVar, cast, get_type_hints

from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.step import Cost, Provenance, StepFinished, StepOutcomeUnknown, StepResolved, StepStarted, ToolDenied
from fleet.kernel.errors import ArtifactNotFound, FleetError
from fleet.kernel.ids import Digest, StepId
from fleet.report.service.trajectories.rows import JsonText, MessageRow, ToolAsked, WorkRow
from fleet.secrets.service import KnownSecrets
from fleet.trees.port import BlobStore

T = TypeVar("T")
_SHORT = 100
"""Characters of a text whose redaction is remembered."""


class TrajectoryTexts:
    """Reads blobs and cleans rows. `missing` counts the blobs that nobody has any more.

    Args:
        secrets: what is taken out of every row.
    """

    def __init__(self, blobs: BlobStore, secrets: KnownSecrets) -> None:
        self._blobs, self._secrets = blobs, secrets
        # Names of fields, ids and kinds come again and again.
        self._redact_short = lru_cache(maxsize=10_000)(self._redact_long)
        self.missing = 0

    async def text(self, digest: Digest | None) -> str | None:
        """The blob as text; None when there is none."""
        if digest is None:
            return None
        try:
            return (await self._blobs.get(digest)).decode(errors="replace")
        except ArtifactNotFound:
            self.missing += 1
            return None

    async def value(self, digest: Digest | None) -> Any:
        """The blob as data; its text where it is no JSON, None when there is none."""
        text = await self.text(digest)
        try:
            return None if text is None else json.loads(text)
        except ValueError:
            return text

    def json(self, value: Any) -> JsonText:
        """The value without secrets as JSON: keys sorted, no insignificant space."""
        plain = self._secrets.redact_json(value)
        return JsonText(json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":")))

    def json_or_none(self, value: Any) -> JsonText | None:
        """As `json`; None stays None."""
        return None if value is None else self.json(value)

    def cleaned(self, row: T) -> T:
        """The row with every secret in its texts replaced; JSON was cleaned when it was made."""
        return cast("T", self._all(row))

    def _redact_long(self, text: str) -> str:
        return self._secrets.redact(text).text

    def _redact(self, text: str) -> str:
        return self._redact_short(text) if len(text) <= _SHORT else self._redact_long(text)

    def _all(self, value: Any) -> Any:
        match value:
            case str():
                return self._redact(value)
            case Mapping():
                items = cast("Mapping[str, Any]", value).items()
                return {self._redact(name): self._all(item) for name, item in items}
            case list():
                return [self._all(item) for item in cast("Sequence[Any]", value)]
            case tuple():
                return tuple(self._all(item) for item in cast("Sequence[Any]", value))
            case _ if is_dataclass(value) and not isinstance(value, type):
                return replace(value, **{name: self._all(getattr(value, name)) for name in _text_fields(type(value))})
            case _:
                return value


@cache
def _text_fields(kind: type[Any]) -> tuple[str, ...]:
    hints = get_type_hints(kind)
    return tuple(f.name for f in fields(kind) if hints[f.name] not in (JsonText, JsonText | None, int, bool))


@dataclass(slots=True)
class _Open:
    event: StoredEvent
    started: StepStarted
    is_unknown: bool = False


class StepRows:
    """Takes the events of one story in order; only steps under way are held."""

    def __init__(self, story_id: str, texts: TrajectoryTexts) -> None:
        self._story_id, self._texts = story_id, texts
        self._open: dict[StepId, _Open] = {}
        self._done: set[StepId] = set()

    @property
    def count(self) -> int:
        """Steps that were begun so far."""
        return len(self._done) + len(self._open)

    async def take(self, event: StoredEvent, payload: Payload) -> list[WorkRow | MessageRow]:
        """The rows that are complete with this event."""
        match payload:
            case StepStarted():
                before = self._open.pop(payload.step_id, None)
                self._open[payload.step_id] = _Open(event, payload)
                # Begun anew: somebody said that the try before it did not happen.
                return [] if before is None or payload.step_id in self._done else [self._row(before, "unknown")]
            case StepFinished() if payload.step_id in self._open and payload.step_id not in self._done:
                self._done.add(payload.step_id)
                return await self._finished(self._open.pop(payload.step_id), event, payload)
            case StepOutcomeUnknown() | StepResolved() if payload.step_id in self._open:
                self._open[payload.step_id].is_unknown = isinstance(payload, StepOutcomeUnknown)
                return []
            case ToolDenied():
                return [self._denied(event, payload)]
            case _:
                return []

    def end(self) -> list[WorkRow | MessageRow]:
        """The rows of steps that are not over."""
        left = sorted(self._open.values(), key=lambda step: step.event.version)
        return [self._row(step, "unknown" if step.is_unknown else "unfinished") for step in left]

    async def _finished(self, step: _Open, event: StoredEvent, done: StepFinished) -> list[WorkRow | MessageRow]:
        result: Any = await self._texts.value(done.result_digest)
        if step.started.kind != "model":
            return [self._row(step, done.outcome, done=done, at_ms=event.ts_ms, result=result)]
        asked: Any = await self._texts.value(done.provenance.prompt_digest)
        request, answer = _mapping(asked), _mapping(result)
        row = self._row(
            step,
            done.outcome,
            done=done,
            at_ms=event.ts_ms,
            result=answer.get("value", result),
            request={name: value for name, value in request.items() if name != "messages"} or None,
        )
        messages = [*_prompt(request), *await self._replies(answer)]
        return [row, *(self._message(step, position, m) for position, m in enumerate(messages))]

    async def _replies(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What the model said: the reply that counts, or those that were of no use."""
        used = answer.get("reply")
        attempts = _mapping(answer.get("details")).get("attempts", [])
        digests = [(used, True)] if used else [(a["reply"], False) for a in attempts if _mapping(a).get("reply")]
        return [
            {"role": "assistant", "content": await self._reply(str(d)), "is_reply": True, "is_used": is_used}
            for d, is_used in digests
        ]

    async def _reply(self, digest: str) -> str | None:
        try:
            return await self._texts.text(Digest(digest))
        except FleetError as error:
            if isinstance(error, ArtifactNotFound) or error.code == "invalid_input":
                return None
            raise

    def _message(self, step: _Open, position: int, message: Mapping[str, Any]) -> MessageRow:
        uses = cast("Iterable[Mapping[str, Any]]", message.get("tool_uses") or ())
        return MessageRow(
            story_id=self._story_id,
            step_id=step.started.step_id,
            position=position,
            role=str(message.get("role", "")),
            content=message.get("content"),
            is_reply=bool(message.get("is_reply", False)),
            is_used=bool(message.get("is_used", True)),
            tool_use_id=message.get("tool_use_id"),
            tool_uses=tuple(ToolAsked(str(u["id"]), str(u["name"]), str(u["arguments"])) for u in uses),
        )

    def _row(
        self,
        step: _Open,
        outcome: str,
        *,
        done: StepFinished | None = None,
        at_ms: int | None = None,
        result: Any = None,
        request: Any = None,
    ) -> WorkRow:
        started, cost = step.started, done.cost if done else Cost()
        made = done.provenance if done else Provenance()
        return WorkRow(
            story_id=self._story_id,
            step_id=started.step_id,
            version=step.event.version,
            started_ms=step.event.ts_ms,
            finished_ms=at_ms,
            kind=started.kind,
            tool=started.tool,
            op=started.op,
            effect=started.effect,
            role=started.as_role,
            principal=started.principal,
            task_id=started.task_id,
            council_id=started.council_id,
            outcome=outcome,
            error_code=done.error_code if done else None,
            reason=done.reason if done else None,
            exit_code=done.exit_code if done else None,
            excerpt=done.excerpt if done else None,
            result=self._texts.json_or_none(result),
            request=self._texts.json_or_none(request),
            engine=made.engine,
            model=made.model,
            revision=made.revision,
            seed=made.seed,
            tree_in=made.tree_in_digest,
            tree_out=made.tree_out_digest,
            calls=calls_of(started, cost) if done else 0,
            tokens_in=cost.tokens_in,
            tokens_out=cost.tokens_out,
            tokens_cached=cost.tokens_cached,
            latency_ms=cost.latency_ms,
            gpu_ms=cost.gpu_ms,
            cost_microusd=cost.cost_microusd if cost.priced else None,
        )

    def _denied(self, event: StoredEvent, denied: ToolDenied) -> WorkRow:
        return WorkRow(
            story_id=self._story_id,
            step_id=None,
            version=event.version,
            started_ms=event.ts_ms,
            finished_ms=event.ts_ms,
            kind=None,
            tool=denied.tool,
            op=denied.op,
            effect=None,
            role=denied.as_role,
            principal=denied.principal,
            task_id=denied.task_id,
            council_id=None,
            outcome="denied",
            error_code="policy_denied",
            reason=f"{denied.rule_id}: {denied.reason}",
            exit_code=None,
            excerpt=None,
            result=None,
            request=None,
            engine=None,
            model=None,
            revision=None,
            seed=None,
            tree_in=None,
            tree_out=None,
            calls=0,
            tokens_in=0,
            tokens_out=0,
            tokens_cached=0,
            latency_ms=0,
            gpu_ms=0,
            cost_microusd=None,
        )


def calls_of(started: StepStarted, cost: Cost) -> int:
    """Model calls that were made for a step, as the ledger counts them (MB-30)."""
    return cost.calls if cost.calls is not None else int(started.kind == "model")


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _prompt(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = request.get("messages", [])
    return [cast("dict[str, Any]", m) for m in messages if isinstance(m, dict)]
