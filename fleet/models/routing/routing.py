"""Which engine is called next, after which failure (MB-3..MB-10). Pure: a fold over the attempts so far."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fleet.models.profiles import Chain, ChainEntry
from fleet.models.routing.budget import MIN_USEFUL_TOKENS

BACKOFF_MS = 500
"""First wait before the same engine is asked again; doubles with each failure (MB-4)."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call that gave no usable reply."""

    entry: int
    """Index in the chain."""
    code: str
    """Error code of the failure: `model_unavailable`, `reply_malformed`, ..."""
    is_permanent: bool = False
    """Asking the same engine again cannot help: a refused key, a reply that was never recorded."""


@dataclass(frozen=True, slots=True)
class Call:
    """Ask this entry, after a wait."""

    entry: int
    delay_ms: int = 0
    shows_problems: bool = False
    """The request shows the last reply and the parser's findings (MB-6)."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Nothing is left to ask: the step fails with the last error (MB-9)."""

    reason: str


_SHORT_WORK = frozenset({"act", "critique", "vote", "review", "summarize"})
"""Kinds of work whose reply is a verdict or a few lines, however able the engine is."""
_SHORT_SHARE = 3
_WORK_OF_ENGINEERS = frozenset({"engineer", "change"})


class Skip(NamedTuple):
    """An entry that is never asked for this step, and why (MB-3)."""

    engine_id: str
    reason: str


def estimate_tokens(text: str) -> int:
    """An upper guess of the tokens of a prompt: one for three bytes. Engines count exactly; this only routes."""
    return len(text.encode()) // 3 + 1


def reply_room(kind: str, link: ChainEntry, *, prompt_tokens: int) -> int:
    """How long a reply to this kind of work may be on the engine, in tokens (MB-44).

    It is the engine's longest reply, a third of it for a verdict or a few lines, within what the prompt leaves of the
    window. An estimate of the prompt may be too high, so a useful reply is always asked for.
    """
    # An entry's bound was made for replies of one piece; the whole of a large file is one call of a session.
    own = None if kind in _WORK_OF_ENGINEERS else link.entry.max_tokens
    longest = min(link.max_output, own or link.max_output)
    if kind in _SHORT_WORK:
        longest = max(min(longest, MIN_USEFUL_TOKENS), longest // _SHORT_SHARE)
    return min(longest, max(MIN_USEFUL_TOKENS, link.max_context - prompt_tokens))


def skips_for(chain: Chain, *, prompt_tokens: int, max_tokens: int, needs_schema: bool) -> Mapping[int, Skip]:
    """The entries that cannot serve the step: context or step limit too small, or no schema where one is required."""
    whole = [prompt_tokens + min(max_tokens, link.entry.max_tokens or link.max_output) for link in chain.entries]
    holds = [needed <= link.max_context for needed, link in zip(whole, chain.entries, strict=True)]
    skips: dict[int, Skip] = {}
    for index, link in enumerate(chain.entries):
        # A reply is cut down to what the window leaves where no later engine has room for all of it.
        least = prompt_tokens + min(max_tokens, link.max_output, MIN_USEFUL_TOKENS)
        needed = whole[index] if any(holds[index:]) else least
        limit = link.entry.max_tokens_per_step
        if needed > link.max_context:
            skips[index] = Skip(link.engine_id, f"context of {link.max_context} tokens is below the {needed} needed")
        elif limit is not None and needed > limit:
            skips[index] = Skip(link.engine_id, f"limit of {limit} tokens for a step is below the {needed} needed")
        elif needs_schema and link.entry.json_schema == "required" and "json_schema" not in link.capabilities:
            skips[index] = Skip(link.engine_id, "a JSON schema is required and the engine cannot keep to one")
    return skips


def backoff_ms(failures: int, *, key: str) -> int:
    """The wait after the n-th failure in a row: 0.5 s * 2^(n-1) and up to half of it more, drawn from `key` (MB-4)."""
    wait = BACKOFF_MS * 2 ** max(0, failures - 1)
    draw = hashlib.sha256(f"{key}/{failures}".encode()).digest()[0]
    return wait + wait * draw // 512


def next_call(
    chain: Chain, attempts: Sequence[Attempt], *, skips: Mapping[int, Skip], request_id: str
) -> Call | Exhausted:
    """What to do after these failed attempts; the first call when there are none.

    Unavailable or late: the same entry once more after a wait, then the next (MB-4). Too large: the next entry with a
    larger context (MB-5). Malformed: repairs on the same entry, then the next (MB-6). Refused: the next entry, once
    (MB-7).
    """
    if not attempts:
        return _advance(chain, -1, skips)
    last = attempts[-1]
    same = [attempt.code for attempt in attempts if attempt.entry == last.entry]
    match last.code:
        case "model_unavailable" | "model_timeout":
            failures = sum(code in ("model_unavailable", "model_timeout") for code in same)
            if failures < 2 and not last.is_permanent:
                repeats = len(same) > 1 and same[-2] == "reply_malformed"
                return Call(last.entry, backoff_ms(failures, key=request_id), shows_problems=repeats)
        case "rate_limited":
            pass  # the next engine may have room for it; without one the step comes again later (MB-28)
        case "context_too_large":
            return _advance(chain, last.entry, skips, larger_than=chain.entries[last.entry].max_context)
        case "reply_malformed":
            if same.count("reply_malformed") <= chain.repairs:
                return Call(last.entry, shows_problems=True)
        case "reply_refused":
            if sum(attempt.code == "reply_refused" for attempt in attempts) > 1:
                return Exhausted("two engines refused to answer")
        case _:
            return Exhausted(f"{last.code} is no failure that another engine could mend")
    return _advance(chain, last.entry, skips)


def _advance(chain: Chain, after: int, skips: Mapping[int, Skip], *, larger_than: int = 0) -> Call | Exhausted:
    for index in range(after + 1, len(chain.entries)):
        if index not in skips and chain.entries[index].max_context > larger_than:
            return Call(index)
    return Exhausted("no engine of the chain is left" if after >= 0 else "no engine of the chain can take this step")
