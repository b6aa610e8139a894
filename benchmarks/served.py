"""A model server under the recorded work of the demo: what its prefix cache saves, and whether its replies can be used.

`FLEET_VLLM_BASE_URL` and `FLEET_VLLM_MODEL` name the server; it gets the requests of `examples/sqlparse`, through the
adapter that every run uses. The yardstick is the same request behind a first line of its own, of which nothing is
cached. What the server replies is measured and thrown away: each turn is asked with the recorded turns before it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure
from fleet.kernel.errors import ConfigError
from fleet.models.chat import ChatMessage, ChatReply, ChatRequest
from fleet.models.engine_config import HttpEngine
from fleet.models.engines.openai import OpenAIChatModel
from fleet.models.engines.recorded import Recording, recordings_in

REPLIES = Path(__file__).resolve().parents[1] / "examples" / "sqlparse" / "replies"
REPLY_TOKENS, SHAPED_TOKENS = 256, 512
AT_ONCE = 8
_TIMEOUT_S = 300


@dataclass(frozen=True)
class Asked:
    """One call, and how many seconds its reply took."""

    whole_s: float
    reply: ChatReply


async def measure(folder: Path) -> list[Figure]:
    """Cached share, time of a reply of one token, sessions side by side, and replies that can be used."""
    del folder  # nothing is written
    server = _server()
    await server.health()
    sessions = _sessions()
    await _turns(server, [_apart(turn, "warm") for turn in sessions[0]])
    natural = [await _turns(server, turns, 1) for turns in sessions]
    bare = [
        await _turns(server, [_apart(turn, f"{s}-{t}") for t, turn in enumerate(turns)], 1)
        for s, turns in enumerate(sessions)
    ]
    later, uncached = [[asked for one in each for asked in one[1:]] for each in (natural, bare)]
    shaped = await asyncio.gather(*(_ask(server, request, SHAPED_TOKENS) for request in _shaped()))
    replies = [asked for turns in sessions for asked in await _turns(server, turns)]
    copies = [[_apart(turn, f"copy {n}") for turn in sessions[n % len(sessions)]] for n in range(AT_ONCE)]
    alone_s, _ = await _timed(server, copies[:1])
    fresh = [[_apart(turn, f"again {n}") for turn in sessions[n % len(sessions)]] for n in range(AT_ONCE)]
    together_s, together = await _timed(server, fresh)
    usages = [asked.reply.usage for asked in later]
    # A call that the limit above cuts off says nothing about what the model would have written.
    calls = [asked.reply for asked in replies if asked.reply.finish_reason != "length"]
    return [
        Figure("prompt of later turns, longest", max(usage.tokens_in for usage in usages), "tokens"),
        Figure(
            "of their prompts, from the cache",
            100 * sum(u.tokens_cached for u in usages) / sum(u.tokens_in for u in usages),
            "%",
        ),
        Figure("later turn, reply of one token", _ms(later), "ms", "nothing cached", _ms(uncached)),
        Figure("councils' members, from the cache", _share(shaped), "%", note=f"{len(shaped)} calls at once"),
        Figure(f"{AT_ONCE} sessions at once", together_s, "s", "one alone", alone_s),
        Figure("tokens written meanwhile", sum(a.reply.usage.tokens_out for a in together) / together_s, "tok/s"),
        Figure(
            "turns that call a tool with sound JSON",
            100 * sum(map(_is_call, calls)) / max(1, len(calls)),
            "%",
            note=f"of {len(calls)} that came to an end",
        ),
        Figure(
            "shaped replies that are whole JSON", 100 * sum(_is_object(a.reply.text) for a in shaped) / len(shaped), "%"
        ),
    ]


def _server() -> OpenAIChatModel:
    address, model = os.environ.get("FLEET_VLLM_BASE_URL"), os.environ.get("FLEET_VLLM_MODEL", "auto")
    if not address:
        raise ConfigError(
            "no model server is named: set FLEET_VLLM_BASE_URL to its address, such as http://HOST:8000/v1"
        )
    engine = HttpEngine(
        engine_id="vllm", kind="vllm", base_url=address, model=model, max_output=SHAPED_TOKENS, unpriced=True
    )
    return OpenAIChatModel(engine, base_url=address, model=model, api_key=os.environ.get("FLEET_VLLM_API_KEY", ""))


def _sessions() -> list[list[ChatRequest]]:
    """The sessions of the recording, turn by turn."""
    found: dict[str, dict[int, ChatRequest]] = {}
    for _, one in recordings_in(REPLIES):
        name, _, turn = one.place.rpartition("/")
        if one.request.tools and turn.isdecimal():
            found.setdefault(name, {})[int(turn)] = one.request
    return [[turns[n] for n in sorted(turns)] for _, turns in sorted(found.items())]


def _shaped() -> list[ChatRequest]:
    """The requests whose replies have a form: designs, critiques, ballots, reviews."""
    recordings: Sequence[Recording] = [one for _, one in recordings_in(REPLIES)]
    return [one.request for one in recordings if one.request.json_schema is not None]


def _apart(request: ChatRequest, name: str) -> ChatRequest:
    """The same request behind a first line that no other has."""
    first, *rest = request.messages
    changed = ChatMessage.model_validate(
        {**first.model_dump(), "content": f"Number {name} of its kind.\n{first.content}"}
    )
    return request.model_copy(update={"messages": (changed, *rest)})


async def _ask(server: OpenAIChatModel, request: ChatRequest, most: int = REPLY_TOKENS) -> Asked:
    began = time.monotonic()
    sampling = request.sampling.model_copy(update={"max_tokens": most})
    bounded = request.model_copy(update={"sampling": sampling})
    async for chunk in server.stream(bounded, request_id=f"bench-{began}", timeout_s=_TIMEOUT_S):
        if chunk.reply is not None:
            return Asked(time.monotonic() - began, chunk.reply)
    raise AssertionError("a stream ends with its reply")


async def _turns(server: OpenAIChatModel, turns: Sequence[ChatRequest], most: int = REPLY_TOKENS) -> list[Asked]:
    return [await _ask(server, turn, most) for turn in turns]


async def _timed(server: OpenAIChatModel, sessions: Sequence[Sequence[ChatRequest]]) -> tuple[float, list[Asked]]:
    began = time.monotonic()
    done = await asyncio.gather(*(_turns(server, turns) for turns in sessions))
    return time.monotonic() - began, [asked for one in done for asked in one]


def _ms(calls: Sequence[Asked]) -> float:
    return 1000 * median(asked.whole_s for asked in calls)


def _share(calls: Sequence[Asked]) -> float:
    usages = [asked.reply.usage for asked in calls]
    return 100 * sum(usage.tokens_cached for usage in usages) / sum(usage.tokens_in for usage in usages)


def _is_call(reply: ChatReply) -> bool:
    return bool(reply.tool_uses) and all(_is_object(use.arguments) for use in reply.tool_uses)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
