"""In-memory twin of the port ChangeRequests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from fleet.adapters.forge.change_text import Wanted, checked, checked_commit, checked_link, one_line
from fleet.errors import NotFound
from fleet.ports import ChangeOutcome, ChangeRequest, CommitState, EndedChange, OpenedChange

__all__ = ["MemoryChange", "MemoryChangeRequests", "MemoryStatus"]


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """One change request as it stands."""

    number: int
    wanted: Wanted
    state: Literal["open", "closed", "merged"] = "open"


@dataclass(frozen=True, slots=True)
class MemoryStatus:
    """What stands beside a commit."""

    state: CommitState
    description: str
    link: str


class MemoryChangeRequests:
    """Change requests as a table. Implements the port ChangeRequests."""

    def __init__(self) -> None:
        self._branches: dict[str, set[str]] = {}
        self._commits: dict[str, set[str]] = {}
        self._changes: dict[tuple[str, str], MemoryChange] = {}
        self._statuses: dict[tuple[str, str], list[MemoryStatus]] = {}

    def add_repository(self, repository: str, *, branches: set[str], commits: set[str]) -> None:
        """A repository exists with these branches and commit ids."""
        self._branches[repository], self._commits[repository] = set(branches), set(commits)

    def changes(self, repository: str) -> list[MemoryChange]:
        """Every change request, by number."""
        found = [change for (name, _), change in self._changes.items() if name == repository]
        return sorted(found, key=lambda change: change.number)

    def statuses(self, repository: str, commit: str) -> list[MemoryStatus]:
        """Every status that was written, the newest last."""
        return list(self._statuses.get((repository, commit), ()))

    def end(self, repository: str, head: str, *, is_merged: bool) -> None:
        """Somebody merged or closed it."""
        change = self._changes[repository, head]
        self._changes[repository, head] = replace(change, state="merged" if is_merged else "closed")

    async def open_or_update(self, change: ChangeRequest) -> OpenedChange | EndedChange:
        """See `ChangeRequests.open_or_update`."""
        wanted = checked(change)
        missing = {wanted.head, wanted.base} - self._branches.get(wanted.repository, set())
        if missing:
            raise NotFound(f"{wanted.repository} has no branch {sorted(missing)}", repository=wanted.repository)
        key = (wanted.repository, wanted.head)
        present = self._changes.get(key)
        if present is None:
            self._changes[key] = MemoryChange(len(self.changes(wanted.repository)) + 1, wanted)
            return self._opened(key, ChangeOutcome.OPENED)
        if present.state != "open":
            return EndedChange(present.number, _link(*key), is_merged=present.state == "merged")
        labels = tuple(dict.fromkeys([*present.wanted.labels, *wanted.labels]))
        self._changes[key] = replace(present, wanted=replace(wanted, labels=labels))
        is_same = self._changes[key] == present
        return self._opened(key, ChangeOutcome.UNCHANGED if is_same else ChangeOutcome.UPDATED)

    async def set_status(
        self, repository: str, commit: str, *, state: CommitState, description: str, link: str = ""
    ) -> None:
        """See `ChangeRequests.set_status`."""
        status = MemoryStatus(state, one_line(description), checked_link(link))
        if checked_commit(commit) not in self._commits.get(repository, set()):
            raise NotFound(f"{repository} has no commit {commit}", repository=repository, commit=commit)
        written = self._statuses.setdefault((repository, commit), [])
        if written[-1:] != [status]:
            written.append(status)

    def _opened(self, key: tuple[str, str], outcome: ChangeOutcome) -> OpenedChange:
        change = self._changes[key]
        return OpenedChange(change.number, _link(*key), outcome, is_draft=change.wanted.is_draft)


def _link(repository: str, head: str) -> str:
    return f"memory:{repository}/{head}"
