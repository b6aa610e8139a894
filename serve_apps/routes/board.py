"""Which stories a list shows (AP-52)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Query

from fleet.desk.planning import StoryLine
from fleet.kernel.types import Rigor

Dispositions = Literal["active", "parked", "cancelled", "archived", "closed"]


@dataclass(frozen=True, slots=True)
class BoardFilter:
    """Filters that a story has to meet, all of them; an empty one is met by every story."""

    states: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    epics: tuple[str, ...] = ()
    dispositions: tuple[str, ...] = ()
    rigors: tuple[str, ...] = ()
    text: str = ""

    def takes(self, line: StoryLine) -> bool:
        """Whether the list shows the story."""
        choices = (
            (self.states, line.state),
            (self.projects, line.project_id),
            (self.epics, line.epic_id),
            (self.dispositions, line.disposition),
            (self.rigors, line.rigor),
        )
        named = f"{line.story_id} {line.title} {' '.join(line.tags)}".casefold()
        return all(not names or value in names for names, value in choices) and self.text.casefold() in named


def board_filter(
    state: Annotated[list[str] | None, Query(max_length=20)] = None,
    project: Annotated[list[str] | None, Query(max_length=20)] = None,
    epic: Annotated[list[str] | None, Query(max_length=20)] = None,
    disposition: Annotated[list[Dispositions] | None, Query(max_length=5)] = None,
    rigor: Annotated[list[Rigor] | None, Query(max_length=4)] = None,
    text: Annotated[str, Query(max_length=200)] = "",
) -> BoardFilter:
    """The filters of a request; each may stand several times, and then one of its values is enough."""
    return BoardFilter(
        states=tuple(state or ()),
        projects=tuple(project or ()),
        epics=tuple(epic or ()),
        dispositions=tuple(disposition or ()),
        rigors=tuple(rigor or ()),
        text=text.strip(),
    )
