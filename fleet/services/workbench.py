"""What every procedure of a story works with."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from fleet.council import CouncilConfig
from fleet.events import AcceptanceCriterion
from fleet.ids import EntityId, Principal, derive_id
from fleet.planning import PlanningConfig
from fleet.ports import BlobStore, Clock, Forge, Packs
from fleet.rigor import RigorConfig
from fleet.services.journal import Journal, Seat
from fleet.services.report import ReportService
from fleet.story import FsmConfig, StoryState

__all__ = ["Definitions", "Workbench", "seat", "together"]


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Definitions:
    """The configured rules that a story is worked on under (GL-23)."""

    fsm: FsmConfig
    rigor: RigorConfig
    council: CouncilConfig
    planning: PlanningConfig
    assignable_roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Workbench:
    """One story's journal and the ports its procedures use."""

    journal: Journal
    rules: Definitions
    packs: Packs
    forge: Forge
    blobs: BlobStore
    clock: Clock
    reports: ReportService

    @property
    def state(self) -> StoryState:
        """The story as recorded now."""
        return self.journal.state

    @property
    def now_ms(self) -> int:
        """The clock's reading."""
        return self.clock.now_ms()

    def new_id(self, prefix: str, name: str, ordinal: int = 0) -> EntityId:
        """The id of an entity that this story makes under this name; the same on every replay (GL-9)."""
        return derive_id(prefix, self.journal.stream, name, ordinal)

    @property
    def toolchain(self) -> str:
        """The toolchain the story was started with."""
        return self.state.start.toolchain if self.state.start else "python"

    @property
    def model(self) -> str | None:
        """The model profile of the run."""
        return self.state.start.model if self.state.start else None

    @property
    def criteria(self) -> tuple[AcceptanceCriterion, ...]:
        """The acceptance criteria in order."""
        return self.state.content.acceptance_criteria


def seat(role: str, number: int = 1) -> Seat:
    """The seat `agent:<role>-<nnn>`."""
    return Seat(principal=Principal(f"agent:{role}-{number:03d}"), role=role)


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order. The first failure cancels the rest and is raised as itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as failures:
        raise _first(failures) from failures
    return [task.result() for task in tasks]


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    leaf: BaseException = failures
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return leaf  # pyright: ignore[reportUnknownVariableType]
