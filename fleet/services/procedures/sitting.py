"""One turn of a council: what was recorded when its duties fell due."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fleet import council as cn
from fleet.errors import ModelError, Retry
from fleet.events import CouncilOpened, Payload, RosterMember
from fleet.ids import Digest, EntityId, Principal
from fleet.services.workbench import Workbench
from fleet.story import CouncilRecord, StoryState

__all__ = ["Sitting", "unless_final"]


@dataclass(frozen=True, slots=True)
class Sitting:
    """A council as it stands, with what all its members are shown."""

    bench: Workbench
    record: CouncilRecord
    state: cn.CouncilState
    shared: str = ""
    asked: str = ""
    """The question of a council on request, which its voters see too; the story's own councils have none."""

    @property
    def opened(self) -> CouncilOpened:
        """What was fixed when the council opened."""
        return self.record.opened

    @property
    def council_id(self) -> EntityId:
        """The council's id, with which its steps begin."""
        return self.record.opened.council_id

    @property
    def is_code(self) -> bool:
        """Whether candidates are changes that can be executed."""
        return self.opened.output_kind == "code_patch"

    def seat(self, member_id: str) -> RosterMember:
        """The member of this id."""
        return next(m for m in self.opened.roster if m.member_id == member_id)

    async def load(self, digest: Digest) -> dict[str, Any]:
        """What a member delivered."""
        return json.loads(await self.bench.blobs.get(digest))

    async def say(self, name: str, *payloads: Payload, by: Principal) -> None:
        """The payloads are on record once, under this name; nothing is said in a council that a person ended."""
        await self.bench.journal.record(f"{self.council_id}/{name}", *payloads, actor=by, only_if=self._goes_on)

    def _goes_on(self, story: StoryState) -> bool:
        return story.councils[self.council_id].status == "IN_PROGRESS"


def unless_final(error: ModelError) -> None:
    """Nothing, when this reply stays as bad as it is; raises the error when asking again later may help."""
    if error.retry is Retry.LATER:
        raise error
