"""Packs as people read them: with the tokens of what stands around them when a model is asked (CX-22, CX-23)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fleet.context.port import CountRequest, Pack, PackRequest, Packs
from fleet.kernel.errors import ContextTooLarge
from fleet.kernel.ids import StoryId


class WholePacks:
    """Tokens and budget of a pack are those of all of its blocks together."""

    def __init__(self, packs: Packs) -> None:
        self._packs = packs

    async def beside(self, story_id: StoryId, role: str, around: Sequence[str], *, as_of: int) -> int:
        """The tokens of what the role is told around its pack, in a story that has reached version `as_of`."""
        if not around:
            return 0
        return await self._packs.count(CountRequest(story_id, role, tuple(around), as_of))

    async def pack(self, request: PackRequest, beside: int) -> Pack:
        """The pack that is asked for, with `beside` tokens around it.

        A budget that is asked for has to hold these first; that of the role is for the pack alone, as it is when a
        model is asked, and they come on top of it.

        Raises ContextTooLarge, beside what the port says, with the tokens of what is around among its `sizes`.
        """
        budget = request.token_budget
        if budget is not None:
            request = replace(request, token_budget=max(0, budget - beside))
        try:
            pack = await self._packs.pack(request)
        except ContextTooLarge as error:
            raise _too_large(error, beside, budget) from error
        return replace(pack, token_count=pack.token_count + beside, budget=pack.budget + beside)


def _too_large(error: ContextTooLarge, beside: int, asked_for: int | None) -> ContextTooLarge:
    budget = asked_for if asked_for is not None else int(error.details["budget"]) + beside
    sizes = {**error.details["sizes"], "system and tools": beside}
    return ContextTooLarge(
        f"what may not be left out takes about {sum(sizes.values())} tokens, {beside} of them for the prompt of the "
        f"role and its tools; {budget} are allowed: ask for more, or shorten the criteria, the constraints or the task",
        sizes=sizes,
        budget=budget,
    )
