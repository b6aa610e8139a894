"""How far an act loop has come: replies, and what came of each use of a tool. Pure; every step gives a new state."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Literal

from fleet.kernel.digest import digest_of_json
from fleet.kernel.ids import Digest
from fleet.models.acting.reply import ActReply, UsedTool
from fleet.policy.roles import Acting
from fleet.policy.rules.calls import ToolCall

ObservationKind = Literal["result", "failure", "denial", "problem", "skipped"]
"""What came of a use: a result, a failed call, one that the policy refused, no call at all, one not carried out."""

_SHORT = 200
_REPEATED = "You made this very call before: its result stands above and is still the same. Write your notes now."
_TOO_MANY = "Not executed: a reply may use {limit} tools. Ask for this one again if you still need it."
_NO_REPLY_LEFT = "Not executed: you had no call left."


@dataclass(frozen=True, slots=True)
class Observation:
    """What the model is told of one use."""

    name: str
    """`<tool>.<op>`, or the name that the model made up."""
    kind: ObservationKind
    text: str
    digest: Digest
    """Of the call: equal ones are the same call."""
    about: str = ""
    """The arguments of the call, in short."""
    is_repeat: bool = False
    """The call was made before; it was not carried out again."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One reply, and the observations of its uses in their order."""

    reply: ActReply | None
    """None when the model gave no usable one, even after its repair."""
    problem: str = ""
    """What was wrong then."""
    observations: tuple[Observation, ...] = ()


@dataclass(frozen=True, slots=True)
class ActState:
    """Everything that the next action depends on; the same records give the same state after a crash."""

    limits: Acting
    turns: tuple[Turn, ...] = ()
    tokens: int = 0
    """Used so far by prompts and replies."""
    wall_ms: int = 0
    """Time of replies and calls as recorded; a wait for a next owner counts nothing."""

    @property
    def observations(self) -> tuple[Observation, ...]:
        """All of them, oldest first."""
        return tuple(seen for turn in self.turns for seen in turn.observations)

    @property
    def pending(self) -> UsedTool | None:
        """The use of the last reply that has to be carried out next."""
        last = self.turns[-1] if self.turns else None
        if last is None or last.reply is None or len(last.observations) == len(last.reply.used):
            return None
        return last.reply.used[len(last.observations)]


def begin(limits: Acting) -> ActState:
    """Nothing was said or done yet."""
    return ActState(limits)


def after_reply(state: ActState, reply: ActReply, *, tokens: int, latency_ms: int) -> ActState:
    """The reply is there; uses that are not to be carried out have their observations."""
    return _settled(_with_turn(state, Turn(reply), tokens=tokens, latency_ms=latency_ms))


def after_unusable(state: ActState, problem: str, *, tokens: int, latency_ms: int) -> ActState:
    """The model gave no usable reply, even after its repair."""
    return _with_turn(state, Turn(None, problem), tokens=tokens, latency_ms=latency_ms)


def after_result(state: ActState, kind: ObservationKind, text: str, *, latency_ms: int) -> ActState:
    """The pending use was carried out, refused or failed; this is what the model is told of it."""
    used = state.pending
    assert used is not None, "nothing is pending"
    assert used.call is not None, "only calls are left pending"
    seen = Observation(name_of(used.call), kind, text, call_digest(used.call), about=about(used.call))
    return _settled(replace(_with_observation(state, seen), wall_ms=state.wall_ms + latency_ms))


def name_of(call: ToolCall) -> str:
    """`<tool>.<op>`."""
    return f"{call.tool}.{call.op}"


def call_digest(call: ToolCall) -> Digest:
    """Equal for the same operation with the same arguments, and for no others."""
    return digest_of_json({"tool": call.tool, "op": call.op, "args": call.args})


def about(call: ToolCall) -> str:
    """The arguments of a call in one short line."""
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.args.items())[:_SHORT]


def _with_turn(state: ActState, turn: Turn, *, tokens: int, latency_ms: int) -> ActState:
    turns = (*state.turns, turn)
    return replace(state, turns=turns, tokens=state.tokens + tokens, wall_ms=state.wall_ms + latency_ms)


def _with_observation(state: ActState, seen: Observation) -> ActState:
    last = state.turns[-1]
    changed = replace(last, observations=(*last.observations, seen))
    return replace(state, turns=(*state.turns[:-1], changed))


def _settled(state: ActState) -> ActState:
    """Uses have their observation up to the first one that has to be carried out."""
    while (used := state.pending) is not None and (seen := _known(state, used)) is not None:
        state = _with_observation(state, seen)
    return state


def _known(state: ActState, used: UsedTool) -> Observation | None:
    """What the model is told without anything being carried out; None when the call has to be."""
    if used.call is None:
        digest = digest_of_json({"name": used.use.name, "arguments": used.use.arguments})
        return Observation(used.use.name[:80], "problem", used.problem, digest)
    name, digest = name_of(used.call), call_digest(used.call)
    before = next((seen for seen in state.observations if seen.digest == digest and seen.kind != "skipped"), None)
    if before is not None:
        # Every tool of the loop reads one tree that does not change: again would be the same again.
        return Observation(name, before.kind, _REPEATED, digest, is_repeat=True)
    if len(state.turns) >= state.limits.steps:
        return Observation(name, "skipped", _NO_REPLY_LEFT, digest)
    done = [seen for seen in state.turns[-1].observations if seen.kind not in ("problem", "skipped")]
    if sum(not seen.is_repeat for seen in done) >= state.limits.calls_per_reply:
        return Observation(name, "skipped", _TOO_MANY.format(limit=state.limits.calls_per_reply), digest)
    return None
