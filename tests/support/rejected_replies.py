"""Recorded replies for the round after a rejection of the demo's task: `python -m tests.support.rejected_replies`.

The replies of examples/demo were recorded without a rejection, and no recording knows a person's words. The prompts of
the round that follows one leave them open, and each has the reply that the model gave to the same member's prompt in
the first round: the team does its work once more, as if nothing new had been said.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fleet.kernel.errors import ModelUnavailable
from fleet.kernel.ids import StoryId
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest
from fleet.models.engines.recorded import WORDS, RecordedChatModel
from fleet.models.prompts.prompt import kind_of
from fleet.story.commands.catalogue import parse_command
from fleet.story.state import StoryState
from tests.support.team import ADA, Team, team
from tests.support.team_models import RECORDED, REPLIES, EveryEngine, demo_repository, demo_story


class _Copying:
    """The recorded replies; for a prompt without one, that to the most similar prompt of the same member, kept."""

    def __init__(self) -> None:
        self.inner, self.written = RecordedChatModel(REPLIES), 0
        self.first = [json.loads(path.read_text()) for path in sorted(REPLIES.glob("*.json"))]

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        try:
            return await self.inner.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        except ModelUnavailable:
            self._keep(request)
            return await self.inner.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)

    def _keep(self, request: ChatRequest) -> None:
        known = [(one, ChatRequest.model_validate(one["request"])) for one in self.first]
        same = [(one, r) for one, r in known if kind_of(r) == kind_of(request) and r.sampling == request.sampling]
        best = max(same, key=lambda pair: _likeness(pair[1], request))[0]
        made = {**best, "request": request.model_dump(mode="json"), "request_digest": str(request.digest)}
        text = json.dumps(made, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (REPLIES / f"{request.digest.hex}.json").write_text(text)
        self.written += 1

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        """See `ChatModel.stream`."""
        yield ChatChunk(reply=await self.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag))

    async def abort(self, request_id: str) -> None:
        """A replay is never under way for long."""

    async def health(self) -> None:
        """The recordings are always there."""


def _likeness(one: ChatRequest, other: ChatRequest) -> float:
    texts = ["\n".join(m.content for m in request.messages).splitlines() for request in (one, other)]
    return difflib.SequenceMatcher(None, *texts, autojunk=False).ratio()


async def decided_by_hand(
    t: Team, story_id: StoryId, reason: str, *, turned_down: tuple[str, ...] = ()
) -> tuple[StoryState, list[tuple[str, str]]]:
    """A person rejects the first work with this reason and grants all else; what it came to, and what was decided.

    The gates of `turned_down` are rejected once, asked for again, and then granted.
    """
    refused: list[str] = []
    said: list[tuple[str, str]] = []
    state = await t.settled(story_id)
    while not state.closed and state.park is None and len(said) < 10:
        (gate,) = [a.request.gate for a in state.approvals.values() if a.status == "requested" and not a.voided]
        if gate in turned_down and gate not in refused:
            refused.append(gate)
            await t.desk.require(
                story_id,
                parse_command("reject", {"gate": gate, "reason": reason}),
                principal=ADA,
                key=f"{story_id}/no-{gate}",
            )
            await t.desk.require(
                story_id, parse_command("request_approval", {"gate": gate}), principal=ADA, key=f"{story_id}/ask-{gate}"
            )
        is_first = gate == "task_acceptance" and gate not in [one for _, one in said]
        body: dict[str, Any] = {"gate": gate} | ({"reason": reason} if is_first else {})
        said.append(("reject" if is_first else "approve", gate))
        await t.desk.require(
            story_id, parse_command(said[-1][0], body), principal=ADA, key=f"{story_id}/gate-{len(said)}"
        )
        state = await t.settled(story_id)
    return state, said


async def _record(model: _Copying, delegate: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        async with team(root, models=EveryEngine(model)) as t:
            story_id = await t.create(demo_story())
            await t.start(story_id, demo_repository(root / "stage"), model=RECORDED, delegate=delegate)
            state, said = await decided_by_hand(t, story_id, WORDS)
    print(f"{delegate}: closed {state.closed}, {state.park}, {said}", file=sys.stderr)


def main() -> None:
    """Write the recordings that are not there."""
    model = _Copying()
    for delegate in ((), ("qa",)):
        asyncio.run(_record(model, delegate))
    print(f"{model.written} replies written", file=sys.stderr)


if __name__ == "__main__":
    main()
