"""Recorded replies of a real model: written once beside the model, replayed without one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from fleet.kernel.errors import ModelUnavailable
from fleet.kernel.ids import Digest
from fleet.kernel.types import Frozen
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest, Reasoning, ToolUse
from fleet.models.engine_config import AnyEngine, Strategy
from fleet.models.port import ChatModel

WORDS = "{{the words of a person}}"
"""Stands in a recorded request where a person may have said anything: the reply is the same whatever it was."""
_MOST = 4000
_BEFORE, _SHOWN = 60, 240
"""Characters of a line that are shown: before the place where two lines part, and in all."""
# Work that is rejected is done again, and its prompts are recorded; any other gate is only asked for again.
_TURNED_DOWN = re.compile(r"^- gate (?!task_acceptance )[a-z_]+ rejected by role [a-z]+\n", re.MULTILINE)
_HOW = "record it with `--model PROFILE --record DIR`"


class Recording(Frozen):
    """One file of a recording: a request, the reply to it, and where in the work it was asked."""

    format: int = 2
    request_digest: Digest
    request: ChatRequest
    """As sent, but for what redaction took out."""
    reply: ChatReply
    """With engine, model and revision of the model that answered."""
    place: str = ""
    """Session and turn, or the name of the step; "" in recordings of format 1, which knew none."""


class ToolVersions(Frozen):
    """The versions that the outputs of tools in a recording come from."""

    python: str
    pytest: str


class About(Frozen):
    """What a replay has to be like: `recording.json` of the folder."""

    format: int = 2
    strategy: Strategy = "draft"
    max_context: int
    """Of the engine that was recorded, in tokens: what sessions are shown is cut to it."""
    max_output: int
    toolchain: ToolVersions


_ABOUT = "recording.json"
_IDS = re.compile(r"^([a-z]{2})-[a-z2-7]{13}$")
_TREES = re.compile(r"^[0-9a-f]{16,64}$")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_MAX_SEGMENT = 80


def place_of(request_id: str) -> str:
    """Session and turn of a request, as they are called in every run of the same story.

    The ids of a story, its councils, tasks and trees follow from its name and number, which another run does not share;
    of each only its kind stays. The second call for one answer, which repairs the first, has a place of its own.
    """
    name, _, call = request_id.partition("#")
    parts = name.split("/")
    if parts[0].startswith("st-") and len(parts) > 1:
        parts = parts[1:]
    segments = [_IDS.sub(r"\1", part) for part in parts]
    segments = [
        "tree" if _TREES.match(part) else _UNSAFE.sub("_", part)[:_MAX_SEGMENT].strip(".") or "_" for part in segments
    ]
    return "/".join([*segments, *([f"call-{call}"] if call.isdecimal() and call != "1" else [])])


def present_toolchain() -> ToolVersions:
    """The versions that tools of this environment run with."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        return ToolVersions(python=python, pytest=version("pytest"))
    except PackageNotFoundError:
        return ToolVersions(python=python, pytest="none")


def read_about(directory: Path) -> About | None:
    """What the recording in this folder says of itself; None for one of format 1.

    Raises:
        ModelUnavailable: the file is there and cannot be read.
    """
    path = directory / _ABOUT
    try:
        return About.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ModelUnavailable(
            f"{path} cannot be read: {str(error)[:300]}; {_HOW} once more", file=str(path), permanent=True
        ) from error


def recordings_in(directory: Path) -> Iterator[tuple[Path, Recording]]:
    """All recordings that can be read, by path."""
    for path in sorted(directory.rglob("*.json")):
        try:
            if path.name != _ABOUT:
                yield path, Recording.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue


def path_in(directory: Path, place: str, digest: Digest) -> Path:
    """Where the reply to this request is kept."""
    return directory / place / f"{digest.hex}.json"


class Difference(NamedTuple):
    """The first line in which a request is not the recorded one."""

    where: str
    recorded: str
    asked: str

    def __str__(self) -> str:
        return f"{self.where}:\n  recorded: {self.recorded}\n  asked:    {self.asked}"


_NOTHING = "(nothing)"


def first_difference(recorded: ChatRequest, asked: ChatRequest) -> Difference | None:
    """Where the two stop being equal; None for equal ones."""
    for one, other in zip_longest(lines_of(recorded), lines_of(asked), fillvalue=("", _NOTHING)):
        if one != other:
            start = max(0, len(os.path.commonprefix([one[1], other[1]])) - _BEFORE)
            return Difference(other[0] or one[0], _part(one[1], start), _part(other[1], start))
    return None


def _part(line: str, start: int) -> str:
    return f"{'...' if start else ''}{line[start : start + _SHOWN]}"


def lines_of(request: ChatRequest) -> Iterator[tuple[str, str]]:
    """The request line by line, each with the place where it stands."""
    for number, message in enumerate(request.messages, 1):
        where = f"message {number} ({message.role})"
        yield from ((f"{where}, line {at}", line) for at, line in enumerate(message.content.split("\n"), 1))
        for use in message.tool_uses:
            yield f"{where}, call of {use.name}", json.dumps([use.id, use.arguments], ensure_ascii=False)
        if message.tool_use_id:
            yield f"{where}, call", message.tool_use_id
    for tool in request.tools:
        yield f"tool {tool.name}", json.dumps(tool.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
    yield "sampling", json.dumps(request.sampling.model_dump(mode="json"), sort_keys=True)
    yield "schema of the reply", json.dumps(request.json_schema, sort_keys=True)


def _load(path: Path, request: ChatRequest) -> ChatReply | None:
    try:
        recording = Recording.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
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
            recording = Recording.model_validate_json(text) if WORDS.encode() in text else None
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
    """`ChatModel` that replays the recordings of one folder; it never invents a reply.

    A reply is kept as `<session>/<turn>/<digest of the request>.json`, in recordings of format 1 as `<digest>.json`.
    The same question has its recorded reply. Another question at a place that is recorded is an error with the first
    line that differs: a reply is never given to a question that it does not answer.

    A recorded request of format 1 may leave open what a person says (`WORDS`): a replay cannot read it, so it goes on
    as if the person had said nothing new, and whoever makes such recordings says so. It goes on in the same way where a
    gate was turned down first and granted later, and nothing else differs.

    The reply names engine `recorded`, but model, revision and usage of the model that really answered; a replay takes
    no model time, so its latency is 0.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`. A miss names the digest, the folder, and the first line that differs."""
        place = place_of(request_id)
        reply = await asyncio.to_thread(self._found, request, place)
        granted = _as_if_granted(request)
        if reply is None and granted is not None:
            reply = await asyncio.to_thread(self._found, granted, place)
        if reply is None:
            raise await asyncio.to_thread(self._miss, request, place)
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
        if not await asyncio.to_thread(lambda: any(self._directory.rglob("*.json"))):
            raise ModelUnavailable(
                f"the folder {self._directory} holds no recorded replies; name another one, or {_HOW}",
                directory=str(self._directory),
                permanent=True,
            )

    def _found(self, request: ChatRequest, place: str) -> ChatReply | None:
        reply = _load(path_in(self._directory, place, request.digest), request)
        return reply or _elsewhere(self._directory, request) or _with_words(self._directory, request)

    def _miss(self, request: ChatRequest, place: str) -> ModelUnavailable:
        first = request.messages[0].content.split("\n", 1)[0][:80]
        here = [one for _, one in recordings_in(self._directory / place)]
        nearest = _nearest(here or [one for _, one in recordings_in(self._directory)], request)
        hint = f"\nThe nearest recording differs at {nearest}" if nearest else ""
        what = f"the recording has another request at {place}" if here else f"nothing is recorded at {place}"
        return ModelUnavailable(
            f"no recorded reply for request {request.digest} ({first}) in {self._directory}: {what}, of another text, "
            "another version of the fleet, or other decisions at the gates. Start the story again with a model that "
            f"answers, or {_HOW}.{self._other_versions()}{hint}",
            request_digest=str(request.digest),
            work=first,
            place=place,
            directory=str(self._directory),
            nearest=str(nearest or ""),
            permanent=True,
        )

    def _other_versions(self) -> str:
        """Says so when tools here have other versions than those that were recorded; their output may differ."""
        about, now = read_about(self._directory), present_toolchain()
        if about is None or about.toolchain == now:
            return ""
        was = about.toolchain
        return (
            f" It was recorded with Python {was.python} and pytest {was.pytest}, and here are Python {now.python} and "
            f"pytest {now.pytest}."
        )


def write_once(path: Path, value: Frozen) -> bool:
    """Whether this call wrote the file: of two writers the first one wins, whole."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value.model_dump(mode="json"), ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8") as part:
        part.write(text)
    try:
        # A link fails when the name exists.
        os.link(part.name, path)
    except FileExistsError:
        return False
    finally:
        Path(part.name).unlink()
    path.chmod(0o644)
    return True


def _elsewhere(directory: Path, request: ChatRequest) -> ChatReply | None:
    """The reply to the very same request at another place, or of format 1."""
    for path in sorted(directory.rglob(f"{request.digest.hex}.json")):
        return _load(path, request)
    return None


def _nearest(recordings: Iterable[Recording], request: ChatRequest) -> Difference | None:
    """Where the recording that is equal for longest stops being so."""
    wanted = [line for _, line in lines_of(request)]
    best: tuple[int, Recording] | None = None
    for recording in recordings:
        lines = (line for _, line in lines_of(recording.request))
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(wanted, lines, strict=False)))
        if best is None or common > best[0]:
            best = common, recording
    return first_difference(best[1].request, request) if best is not None else None


class RecordingChatModel:
    """A model whose replies are kept for replay. What is already recorded is replayed: the first recording wins.

    So an interrupted recording goes on where it stopped, and a run while recording equals its replay. Errors and
    aborted replies are not recorded.

    Args:
        engine: what the model runs on; its terms are kept, because a replay is only the same under the same ones.
            None keeps none: then a replay has the terms of a draft.
    """

    def __init__(
        self,
        inner: ChatModel,
        directory: Path,
        *,
        engine: AnyEngine | None = None,
        redact: Callable[[str], str] = lambda text: text,
    ) -> None:
        self._inner, self._engine = inner, engine
        self._directory = directory
        self._redact = redact

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        place = place_of(request_id)
        recorded = await asyncio.to_thread(self._known, request, place)
        if recorded is not None:
            return recorded
        reply = await self._inner.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        if reply.finish_reason == "abort":
            return reply
        redacted = {
            "text": self._redact(reply.text),
            "tool_uses": self._without(reply.tool_uses),
            "reasoning": self._thoughts(reply.reasoning),
        }
        kept = reply.model_copy(update=redacted)
        return await asyncio.to_thread(self._keep, place, request, kept)

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

    def _known(self, request: ChatRequest, place: str) -> ChatReply | None:
        return _load(path_in(self._directory, place, request.digest), request) or _load(
            self._directory / f"{request.digest.hex}.json", request
        )

    def _keep(self, place: str, request: ChatRequest, reply: ChatReply) -> ChatReply:
        if self._engine is not None:
            self._say_about(self._engine)
        kept = Recording(request_digest=request.digest, request=self._redacted(request), reply=reply, place=place)
        path = path_in(self._directory, place, request.digest)
        return reply if write_once(path, kept) else _load(path, request) or reply

    def _say_about(self, engine: AnyEngine) -> None:
        about = About(
            strategy=engine.strategy,
            max_context=engine.max_context,
            max_output=engine.max_output,
            toolchain=present_toolchain(),
        )
        write_once(self._directory / _ABOUT, about)

    def _redacted(self, request: ChatRequest) -> ChatRequest:
        messages = tuple(
            message.model_copy(
                update={
                    "content": self._redact(message.content),
                    "tool_uses": self._without(message.tool_uses),
                    "reasoning": self._thoughts(message.reasoning),
                }
            )
            for message in request.messages
        )
        return request.model_copy(update={"messages": messages})

    def _thoughts(self, parts: tuple[Reasoning, ...]) -> tuple[Reasoning, ...]:
        """What a model thought, or nothing: with a secret in it no part is kept, since an API refuses a part."""
        return () if any(self._redact(part.text) != part.text for part in parts) else parts

    def _without(self, uses: tuple[ToolUse, ...]) -> tuple[ToolUse, ...]:
        """The same uses, without secrets in what the model wrote as their arguments."""
        return tuple(use.model_copy(update={"arguments": self._redact(use.arguments)}) for use in uses)
