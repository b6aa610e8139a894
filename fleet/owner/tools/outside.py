"""What an engineer looks at outside of the files: operations of the policy, each a PURE step on record (RT-37)."""

from __future__ import annotations

from dataclasses import replace

from fleet.engineering.shown import cut_output, fenced, output_lines
from fleet.engineering.state import Outcome, Session
from fleet.engineering.terms import SessionTerms
from fleet.engineering.tools import OFFERS, SessionCall
from fleet.kernel.ids import StepId
from fleet.models.acting.offers import offers_outside
from fleet.models.chat import ToolOffer
from fleet.models.port import AgentRequest
from fleet.models.routing.routing import estimate_tokens
from fleet.owner.journal.steps import Work
from fleet.owner.tools.acting_calls import ActingCalls
from fleet.owner.workbench import Workbench
from fleet.policy.rules.calls import ToolCall
from fleet.policy.rules.matrix import reaching

_FRAME_TOKENS = 1_000
"""Rules and persona, which the agent puts before what the owner sends."""


def terms_as_offered(bench: Workbench, role: str, terms: SessionTerms, request: AgentRequest) -> SessionTerms:
    """The terms with what this role may look at outside now, and the length of the prompt that says so."""
    outside = _offered(bench, role)
    texts = (*request.texts, *(offer.model_dump_json() for offer in (*OFFERS, *outside)))
    prompt = estimate_tokens("".join(texts)) + _FRAME_TOKENS
    return terms.model_copy(update={"prompt": prompt, "outside": outside})


def _offered(bench: Workbench, role: str) -> tuple[ToolOffer, ...]:
    """The looks outside that the policy allows this role now; none where nothing here carries tools out."""
    if bench.tools is None:
        return ()
    policy = bench.journal.policy
    return offers_outside(reaching(policy.policy, role, phase=policy.phase(bench.state)))


async def look_outside(bench: Workbench, step: str, work: Work, call: SessionCall, state: Session) -> Outcome:
    """What came of the look, as the engineer is told it: data between tags, cut to what the session shows of an output.

    Raises:
        SandboxUnavailable, ToolTimeout, StoreUnavailable: nothing could carry it out now; later, by the same name.
    """
    tool, _, op = call.name.partition("__")
    work = replace(work, about=f"{call.name} {call.about}".strip())
    seen = await ActingCalls(bench, work, state.head).call(StepId(step), ToolCall(tool=tool, op=op, args=call.args))
    if seen.kind != "result":
        return Outcome("result", seen.text, state.head, wall_ms=seen.latency_ms)
    lines, output = output_lines(seen.text), None
    shown = cut_output(lines, chars=state.terms.run_chars, output_id=state.next_output)
    if shown != "\n".join(lines):
        output = await bench.blobs.put("\n".join(lines).encode(errors="replace"))
    brief = f"{call.name}; read output {state.next_output}" if output else f"{call.name}; call it again if needed"
    told = fenced(call.name, shown)
    return Outcome("result", told, state.head, brief=brief, output=output, wall_ms=seen.latency_ms)
