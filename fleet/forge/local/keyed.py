"""One change request per head branch over any hosted forge: look, open, look again when the answer was lost (KEYED)."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from fleet.forge.local.change_text import CheckedChange, checked, checked_commit, checked_link, one_line
from fleet.forge.port import ChangeOutcome, ChangeRequest, CommitState, EndedChange, OpenedChange
from fleet.kernel.errors import CommitUnknown, FleetError, InvalidInput, VersionConflict

T = TypeVar("T")


class FoundState(StrEnum):
    """Whether it still takes reviews."""

    OPEN = "open"
    CLOSED = "closed"
    MERGED = "merged"


@dataclass(frozen=True, slots=True)
class HostedChange:
    """A change request as the forge holds it; `title` with the forge's mark for drafts where it has one."""

    number: int
    link: str
    state: FoundState
    title: str
    text: str
    base: str
    labels: tuple[str, ...]
    is_draft: bool


@dataclass(frozen=True, slots=True)
class Status:
    """What stands beside a commit."""

    state: CommitState
    description: str
    link: str


class HostedApi(Protocol):
    """What differs from forge to forge. Errors are those of the port ChangeRequests."""

    @property
    def draft_follows_edit(self) -> bool:
        """Whether `edit` makes it a draft or takes that back, as a mark in the title does."""
        ...

    def shown(self, wanted: CheckedChange) -> tuple[str, str]:
        """Title and text as this forge has to be given them: draft mark, and nothing that it would carry out."""
        ...

    async def find(self, repository: str, head: str) -> list[HostedChange]:
        """Every change request whose head is this branch of this very repository, in any state."""
        ...

    async def create(self, wanted: CheckedChange) -> HostedChange:
        """A new one."""
        ...

    async def edit(self, wanted: CheckedChange, number: int) -> None:
        """Title, text and base are as wanted."""
        ...

    async def add_labels(self, repository: str, number: int, labels: tuple[str, ...]) -> None:
        """These labels are there too."""
        ...

    async def status(self, repository: str, commit: str) -> Status | None:
        """What the commit shows under our name now."""
        ...

    async def post_status(self, repository: str, commit: str, status: Status) -> None:
        """The commit shows this under our name."""
        ...


class HostedChangeRequests:
    """Change requests of a hosted forge. Implements the port ChangeRequests."""

    def __init__(self, api: HostedApi) -> None:
        self._api = api

    def __repr__(self) -> str:
        return f"HostedChangeRequests({self._api!r})"

    async def open_or_update(self, change: ChangeRequest) -> OpenedChange | EndedChange:
        """See `ChangeRequests.open_or_update`."""
        request = checked(change)
        outcome = ChangeOutcome.UPDATED
        present = await self._newest(request)
        if present is None:
            present, outcome = await self._opened(request)
        if present.state is not FoundState.OPEN:
            return EndedChange(present.number, present.link, is_merged=present.state is FoundState.MERGED)
        has_changed = await self._brought_up(request, present)
        if outcome is ChangeOutcome.UPDATED and not has_changed:
            outcome = ChangeOutcome.UNCHANGED
        is_draft = request.is_draft if self._api.draft_follows_edit else present.is_draft
        return OpenedChange(present.number, present.link, outcome, is_draft=is_draft)

    async def set_status(
        self, repository: str, commit: str, *, state: CommitState, description: str, link: str = ""
    ) -> None:
        """See `ChangeRequests.set_status`."""
        commit, status = checked_commit(commit), Status(state, one_line(description), checked_link(link))
        if await self._api.status(repository, commit) == status:
            return
        try:
            await self._api.post_status(repository, commit, status)
        except (CommitUnknown, InvalidInput) as error:
            # The answer was lost, or the forge refuses to be told again what it shows already.
            if await _looked_up(self._api.status(repository, commit), after=error) != status:
                raise

    async def _newest(self, request: CheckedChange) -> HostedChange | None:
        """The open one, else the newest of those that ended."""
        changes = await self._api.find(request.repository, request.head)
        return max(changes, key=lambda f: (f.state is FoundState.OPEN, f.number), default=None)

    async def _opened(self, request: CheckedChange) -> tuple[HostedChange, ChangeOutcome]:
        try:
            return await self._api.create(request), ChangeOutcome.OPENED
        except (CommitUnknown, InvalidInput, VersionConflict) as error:
            # Somebody else opened it in between, or we did and the answer was lost.
            present = await _looked_up(self._newest(request), after=error)
            if present is None:
                raise
            return present, ChangeOutcome.UPDATED

    async def _brought_up(self, request: CheckedChange, present: HostedChange) -> bool:
        """Whether anything had to be written so that it says what is wanted."""
        is_same = (present.title, _normal(present.text), present.base) == self._goal(request)
        if not is_same:
            await self._api.edit(request, present.number)
        missing = missing_labels(request.labels, present.labels)
        if missing:
            await self._api.add_labels(request.repository, present.number, missing)
        return not is_same or bool(missing)

    def _goal(self, request: CheckedChange) -> tuple[str, str, str]:
        title, text = self._api.shown(request)
        return title, _normal(text), request.base


async def _looked_up(look: Awaitable[T], *, after: FleetError) -> T:
    """What is there after a write failed; when that cannot be seen either, the error of the write stands."""
    try:
        return await look
    except FleetError:
        raise after from None


def missing_labels(labels: Iterable[str], present: Iterable[str]) -> tuple[str, ...]:
    """The wanted labels that are not there; GitHub does not tell upper case from lower."""
    there = {label.casefold() for label in present}
    return tuple(label for label in labels if label.casefold() not in there)


def _normal(text: str) -> str:
    # Forges keep line ends and outer space as they like.
    return text.replace("\r\n", "\n").strip()
