"""What every procedure of a story works with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from fleet.context.port import Packs
from fleet.deploy.port import Deployments
from fleet.events.story import AcceptanceCriterion
from fleet.forge.port import Forge
from fleet.forge.service import ChangeTarget
from fleet.kernel.clock import Clock
from fleet.kernel.errors import BudgetExceeded
from fleet.kernel.ids import EntityId, Principal, derive_id
from fleet.knowledge.service import CodeKnowledge
from fleet.models.service.usage_logs import UsageLogs
from fleet.owner.definitions import Definitions, KeptDefinitions
from fleet.owner.journal.journal import Journal
from fleet.owner.journal.steps import Seat
from fleet.report.service.reports import ReportService
from fleet.story.state import StoryState
from fleet.tools.port import ToolHost
from fleet.trees.port import BlobStore
from fleet.workspace.service.repository_environment import Environments

T = TypeVar("T")


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
    tools: ToolHost | None = None
    """Carries out tool calls that were asked for within the story; None refuses them all."""
    target: ChangeTarget | None = None
    """Where the change request is opened; None opens none."""
    deployments: Deployments | None = None
    """The environments of this fleet; None has none."""
    environments: Environments | None = None
    """Fetches what the lockfile of a repository asks for; None leaves every story with the fleet's own programs."""
    definitions: KeptDefinitions[Any] | None = None
    """Where `rules` are from; None in a fleet whose stories all follow the files in force."""
    knowledge: CodeKnowledge | None = None
    """Chooses the files that a prompt shows of a large repository; None shows the first ones by path."""
    usage: UsageLogs | None = None
    """The logs of the engines that this fleet runs itself; None where it runs none."""
    holders: Callable[[str, str], tuple[Principal, ...]] | None = None
    """Who holds a role and sees a project; None where nobody is told of time limits by name."""
    staffed: frozenset[str] | None = None
    """The roles and profiles that agents of this fleet serve; None is every one."""

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

    def anew(self, name: str) -> str:
        """The name for work that may be done again in the same words once the tree was set back (PL-47)."""
        return f"{name}/restored-{self.state.restored}" if self.state.restored else name

    @property
    def toolchain(self) -> str:
        """The programs of the story's runs: those that it was started with, else those that its base asks for."""
        return self.state.toolchain

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
    """The results in order. The first failure cancels the rest and is raised as itself, not in a group.

    A call that the budget refuses cancels nothing: it costs nothing, and those under way may finish (MB-25).
    """
    coroutines, current = list(calls), asyncio.current_task()
    before = current.cancelling() if current else 0
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_within_budget(call)) for call in coroutines]
    except BaseExceptionGroup as failures:
        # A group that fails while it is waited for cancels its parent and, before Python 3.13, never takes that back.
        while current is not None and current.cancelling() > before:
            current.uncancel()
        raise _first(failures) from failures
    finally:
        for call in coroutines:
            call.close()  # one that was cancelled before it began would be taken for forgotten
    results: list[T] = []
    for task in tasks:
        result = task.result()
        if isinstance(result, _Refused):
            raise result.error
        results.append(result)
    return results


@dataclass(frozen=True, slots=True)
class _Refused:
    error: BudgetExceeded


async def _within_budget(call: Coroutine[Any, Any, T]) -> T | _Refused:
    try:
        return await call
    except BudgetExceeded as error:
        return _Refused(error)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    leaf: BaseException = failures
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return leaf  # pyright: ignore[reportUnknownVariableType]
