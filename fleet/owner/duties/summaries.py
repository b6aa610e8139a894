"""Sums up what a role has said and done. It does so once that is long and the role is to be shown it (CX-50)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fleet.context.compress import CompressedSession, compress, with_prose
from fleet.context.history import SUMMING_UP, history_of, is_long, steps_after, text_digests, told_texts, turns_of
from fleet.context.port import CountRequest
from fleet.context.scope import scopes_for
from fleet.context.session import HistoryTurn
from fleet.context.summary_text import outline_of
from fleet.events.context import SummaryRecorded
from fleet.kernel.errors import ArtifactNotFound, ReplyMalformed, ReplyRefused
from fleet.kernel.ids import Digest
from fleet.models.chat import AS_LONG_AS_FITS, Sampling
from fleet.models.port import AgentRequest
from fleet.models.prompts.pack_readers import PACK_READERS
from fleet.owner.journal.steps import Work
from fleet.owner.workbench import Workbench, seat
from fleet.story.state import Step

_MOST_READ = 3_000
"""Tokens of the extract that the model is shown, and of its answer."""
_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"summary": {"type": "string", "minLength": 1, "maxLength": 1200}},
    "required": ["summary"],
    "additionalProperties": False,
}


async def keep_summaries(bench: Workbench, roles: Iterable[str], phase: str) -> None:
    """`keep_summary` for each of these roles."""
    for role in dict.fromkeys(roles):
        await keep_summary(bench, role, phase)


async def keep_summary(bench: Workbench, role: str, phase: str, *, before: str = "") -> None:
    """Record a summary of the role's history. It is made where the pack that comes next shows one and the history is
    long enough.

    It is made anew from the steps themselves, never from an older summary, and holds only what the role itself said
    and was told; where the configuration says so, with some words of its model, which are asked for once. One that
    lost anything that has to survive is not used (CX-55): the story goes on with the last one.

    Args:
        before: the first step that is asked with that pack. Once it has begun, its prompt must not change any more:
            whoever takes the story up asks the same again.
    """
    config, state = bench.rules.context, bench.state
    if before in state.steps:
        return
    if "SUMMARY_LAST" not in scopes_for(config, phase, role, author="architect"):
        return
    role = config.base_role(role)
    steps = history_of(state, config.roles_of(role))
    last = state.summaries.get(role)
    covered = last.covers_to if last else 0
    told = await _heard(bench, role, steps_after(steps, covered))
    if not is_long(steps, config.compression, covered=covered, told=told):
        return
    texts = {digest: await _text(bench, digest) for digest in text_digests(steps)}
    turns = turns_of(state, steps, texts)
    compressed = compress(turns)
    if not compressed.is_whole:
        return
    # By the number of its steps: versions may differ between two runs of the same story, and these may not.
    name = f"summary/{role}/{len(steps)}"
    written = await _told(bench, role, name, compressed, turns) if config.compression.written_by == "model" else None
    await _record(bench, role, name, written or compressed, is_told=written is not None)


async def _heard(bench: Workbench, role: str, new: Sequence[Step]) -> int | None:
    """Count the tokens of what the role was told in these steps. The models that the story began with count them
    (CX-20, CX-50).

    None leaves it to the estimate: a story from before wrote down no readers, and is planned as it was.
    """
    texts, state = told_texts(new), bench.state
    if PACK_READERS not in state.config or not texts:
        return None
    return await bench.packs.count(CountRequest(state.story_id, role, texts, state.version))


async def _told(
    bench: Workbench, role: str, name: str, compressed: CompressedSession, turns: Sequence[HistoryTurn]
) -> CompressedSession | None:
    """The summary with the model's words in it; None when it gave none that can be used."""
    request = prose_request(compressed, role, bench.model)
    work = Work(seat=seat(role), tool="model", op=SUMMING_UP)
    try:
        answer = await bench.journal.ask(f"{name}/prose", request, work)
    except (ReplyMalformed, ReplyRefused):
        return None
    return with_prose(compressed, turns, str(answer.value["summary"]))


def prose_request(compressed: CompressedSession, role: str, model: str | None) -> AgentRequest:
    """What a model is asked for words of its own beside what code took from the history (CX-53)."""
    own = seat(role)
    return AgentRequest(
        kind=SUMMING_UP,
        role=own.role,
        principal=own.principal,
        shared=f"<history>\n{outline_of(compressed.text, tokens=_MOST_READ)}</history>",
        sampling=Sampling(temperature="0", max_tokens=AS_LONG_AS_FITS, seed=1),
        model=model,
        json_schema=_FORM,
    )


async def _record(bench: Workbench, role: str, name: str, compressed: CompressedSession, *, is_told: bool) -> None:
    await bench.journal.record(
        name,
        SummaryRecorded(
            summary_id=bench.new_id("rp", name),
            covers_from=compressed.covers_from,
            covers_to=compressed.covers_to,
            summary_digest=await bench.blobs.put(compressed.text.encode()),
            tokens_before=compressed.tokens_before,
            tokens_after=compressed.tokens_after,
            ratio=_decimal(max(0.0, compressed.ratio)),
            recall={kind: _decimal(share) for kind, share in compressed.recall.items()},
            target_missed=compressed.target_missed,
            as_role=role,
            written_by="model" if is_told else None,
        ),
    )


async def _text(bench: Workbench, digest: Digest) -> str:
    try:
        return (await bench.blobs.get(digest)).decode(errors="replace")
    except ArtifactNotFound:
        return ""


def _decimal(share: float) -> str:
    return f"{share:.3f}".rstrip("0").rstrip(".")
