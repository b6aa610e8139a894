"""Recorded replies of a real model: written once beside the model, replayed without one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fleet.kernel.errors import ModelUnavailable
from fleet.kernel.ids import Digest
from fleet.kernel.types import Frozen
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest, ToolUse
from fleet.models.port import ChatModel

WORDS = "{{the words of a person}}"
"""Stands in a recorded request where a person may have said anything: the reply is the same whatever it was."""
_MOST = 4000
# Work that is rejected is done again, and its prompts are recorded; any other gate is only asked for again.
_TURNED_DOWN = re.compile(r"^- gate (?!task_acceptance )[a-z_]+ rejected by role [a-z]+\n", re.MULTILINE)
_HOW = "record it with `--model PROFILE --record DIR`"


class _Recording(Frozen):
    format: int = 1
    request_digest: Digest
    request: ChatRequest
    """As sent, but for what redaction took out."""
    reply: ChatReply
    """With engine, model and revision of the model that answered."""


def _path(directory: Path, request: ChatRequest) -> Path:
    return directory / f"{request.digest.hex}.json"


def _load(path: Path, request: ChatRequest) -> ChatReply | None:
    try:
        recording = _Recording.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ModelUnavailable(
            f"the recording {path} cannot be read: {str(error)[:300]}; delete it and {_HOW}",
            file=str(path),
            permanent=True,
        ) from error
    if recording.request_digest != request.digest:
        raise ModelUnavailable(
            f"the recording {path} is for another request; delete it and {_HOW}", file=str(path), permanent=True
        )
    return recording.reply


def _with_words(directory: Path, request: ChatRequest) -> ChatReply | None:
    """The reply to a recorded request that is this one but for what a person said. None when there is none."""
    for path in sorted(directory.glob("*.json")):
        try:
            text = path.read_bytes()
            recording = _Recording.model_validate_json(text) if WORDS.encode() in text else None
        except (OSError, ValidationError):
            continue
        if recording is not None and _is_same(recording.request, request):
            return recording.reply
    return None


def _as_if_granted(request: ChatRequest) -> ChatRequest | None:
    """The request without the lines that say which gates were turned down before a grant; None without any."""
    texts = [_TURNED_DOWN.sub("", message.content) for message in request.messages]
    if texts == [message.content for message in request.messages]:
        return None
    messages = tuple(m.model_copy(update={"content": t}) for m, t in zip(request.messages, texts, strict=True))
    return request.model_copy(update={"messages": messages})


def _is_same(recorded: ChatRequest, request: ChatRequest) -> bool:
    """Whether the same words in each place that is left open make the one request of the other."""
    words: str | None = None
    for open_, message in zip(recorded.messages, request.messages, strict=False):
        before, mark, after = open_.content.partition(WORDS)
        if mark and words is None and message.content.startswith(before):
            rest = message.content[len(before) :]
            end = rest.find(after.partition(WORDS)[0])
            words = rest[:end] if 0 < end <= _MOST else None
    if words is None:
        return False
    filled = [m.model_copy(update={"content": m.content.replace(WORDS, words)}) for m in recorded.messages]
    return recorded.model_copy(update={"messages": tuple(filled)}) == request


class RecordedChatModel:
    """`ChatModel` that replays files `<request digest>.json` of one folder; it never invents a reply.

    A recorded request may leave open what a person says (`WORDS`): a replay cannot read it, so it goes on as if the
    person had said nothing new, and whoever makes such recordings says so. It goes on in the same way where a gate was
    turned down first and granted later, and nothing else differs.

    The reply names engine `recorded`, but model, revision and usage of the model that really answered; a replay takes
    no model time, so its latency is 0.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`. A miss names the digest, the folder, and where the nearest recording differs."""
        reply = await asyncio.to_thread(self._found, request)
        granted = _as_if_granted(request)
        if reply is None and granted is not None:
            reply = await asyncio.to_thread(self._found, granted)
        if reply is None:
            raise await asyncio.to_thread(self._miss, request)
        return reply.model_copy(update={"engine": "recorded", "latency_ms": 0})

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        """See `ChatModel.stream`."""
        reply = await self.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        yield ChatChunk(text=reply.text)
        yield ChatChunk(reply=reply)

    async def abort(self, request_id: str) -> None:
        """A replay is never under way for long: nothing to end."""

    async def health(self) -> None:
        """See `ChatModel.health`: the folder exists and holds recordings."""
        if not await asyncio.to_thread(lambda: any(self._directory.glob("*.json"))):
            raise ModelUnavailable(
                f"the folder {self._directory} holds no recorded replies; name another one, or {_HOW}",
                directory=str(self._directory),
                permanent=True,
            )

    def _found(self, request: ChatRequest) -> ChatReply | None:
        return _load(_path(self._directory, request), request) or _with_words(self._directory, request)

    def _miss(self, request: ChatRequest) -> ModelUnavailable:
        first = request.messages[0].content.split("\n", 1)[0][:80]
        nearest = self._nearest(request)
        hint = f" The nearest recording differs at: {nearest!r}." if nearest else ""
        return ModelUnavailable(
            f"no recorded reply for request {request.digest} ({first}) in {self._directory}: the recording was made of "
            "another text, or of other decisions at the gates. Start the story again with a model that answers, or "
            f"{_HOW}.{hint}",
            request_digest=str(request.digest),
            work=first,
            directory=str(self._directory),
            nearest=nearest,
            permanent=True,
        )

    def _nearest(self, request: ChatRequest) -> str:
        """The place where the most similar recorded request stops being equal to this one."""
        wanted = _flat(request)
        best, found = 0, ""
        for path in sorted(self._directory.glob("*.json")):
            try:
                other = _flat(ChatRequest.model_validate(json.loads(path.read_bytes())["request"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue
            common = len(os.path.commonprefix([wanted, other]))
            if common > best:
                best, found = common, f"{wanted[max(0, common - 40) : common + 60]}"
        return found


def _flat(request: ChatRequest) -> str:
    rest: dict[str, Any] = {"sampling": request.sampling.model_dump(mode="json"), "json_schema": request.json_schema}
    return "\n".join([*(message.content for message in request.messages), json.dumps(rest, sort_keys=True)])


class RecordingChatModel:
    """A model whose replies are kept for replay. What is already recorded is replayed: the first recording wins.

    So an interrupted recording goes on where it stopped, and a run while recording equals its replay. Errors and
    aborted replies are not recorded.
    """

    def __init__(self, inner: ChatModel, directory: Path, *, redact: Callable[[str], str] = lambda text: text) -> None:
        self._inner = inner
        self._directory = directory
        self._redact = redact

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        path = _path(self._directory, request)
        known = await asyncio.to_thread(_load, path, request)
        if known is not None:
            return known
        reply = await self._inner.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        if reply.finish_reason == "abort":
            return reply
        kept = reply.model_copy(update={"text": self._redact(reply.text), "tool_uses": self._without(reply.tool_uses)})
        return await asyncio.to_thread(self._keep, path, request, kept)

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        """See `ChatModel.stream`; the text comes in one piece, since it is redacted as a whole."""
        reply = await self.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        yield ChatChunk(text=reply.text)
        yield ChatChunk(reply=reply)

    async def abort(self, request_id: str) -> None:
        """See `ChatModel.abort`."""
        await self._inner.abort(request_id)

    async def health(self) -> None:
        """See `ChatModel.health`."""
        await self._inner.health()

    def _keep(self, path: Path, request: ChatRequest, reply: ChatReply) -> ChatReply:
        recording = _Recording(request_digest=request.digest, request=self._redacted(request), reply=reply)
        text = json.dumps(recording.model_dump(mode="json"), ensure_ascii=False, indent=1, sort_keys=True) + "\n"
        self._directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=self._directory, suffix=".part", delete=False, encoding="utf-8"
        ) as part:
            part.write(text)
        try:
            # A link fails when the name exists, so of two writers the first one wins, whole.
            os.link(part.name, path)
        except FileExistsError:
            return _load(path, request) or reply
        finally:
            Path(part.name).unlink()
        path.chmod(0o644)
        return reply

    def _redacted(self, request: ChatRequest) -> ChatRequest:
        messages = tuple(
            message.model_copy(
                update={"content": self._redact(message.content), "tool_uses": self._without(message.tool_uses)}
            )
            for message in request.messages
        )
        return request.model_copy(update={"messages": messages})

    def _without(self, uses: tuple[ToolUse, ...]) -> tuple[ToolUse, ...]:
        """The same uses, without secrets in what the model wrote as their arguments."""
        return tuple(use.model_copy(update={"arguments": self._redact(use.arguments)}) for use in uses)
