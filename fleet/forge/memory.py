"""The forge in memory, for unit tests and the simulation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

from fleet.forge.local.change_text import CheckedChange, checked, checked_commit, checked_link, one_line
from fleet.forge.port import (
    ChangeOutcome,
    ChangeRequest,
    Commit,
    CommitState,
    EndedChange,
    FetchedRepository,
    OpenedChange,
    StagedRepository,
)
from fleet.kernel.errors import InvalidInput, NotFound, VersionConflict
from fleet.trees.port import BlobStore


class MemoryForge:
    """Repositories as tables of refs. Implements the port Forge; packs are looked up, not opened.

    Args:
        blobs: where packs must lie before they are published.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._refs: dict[str, dict[str, str]] = {}
        self._heads: dict[str, str] = {}
        self._commits: dict[str, set[str]] = {}

    def add_repository(self, url: str, *, head: str = "main", branches: dict[str, str] | None = None) -> None:
        """A repository exists: branch name -> commit id; `head` is checked out and may be unborn."""
        self._refs[url], self._heads[url] = dict(branches or {}), head
        self._commits[url] = set(self._refs[url].values())

    def branches(self, url: str) -> dict[str, str]:
        """Branch name -> commit id."""
        return dict(self._refs[url])

    async def stage(self, url: str, ref: str | None = None) -> StagedRepository:
        """Pin the commit of `ref`."""
        if url not in self._refs:
            raise InvalidInput(f"{url} does not exist: name a repository", url=url)
        branch = self._heads[url] if ref is None else ref
        commit = self._refs[url].get(branch)
        if commit is None and branch in self._commits[url]:
            commit, branch = branch, self._heads[url]
        if commit is None:
            why = "has no commit yet" if ref is None else f"has no branch or commit '{ref}'"
            raise InvalidInput(f"{url} {why}", url=url, ref=ref)
        name = hashlib.sha256(f"{url}\0{commit}".encode()).hexdigest()
        return StagedRepository(name=name, commit=commit, branch=branch)

    async def stage_fetched(self, fetched: FetchedRepository) -> StagedRepository:
        """What was fetched, as a staged copy; only that it is stored is looked at."""
        await self._blobs.get(fetched.pack)
        await self._blobs.get(fetched.pack_index)
        name = hashlib.sha256(f"{fetched.url}\0{fetched.commit}".encode()).hexdigest()
        return StagedRepository(name=name, commit=fetched.commit, branch=fetched.branch)

    async def publish(self, url: str, branch: str, commit: Commit, *, expected_old: str | None) -> None:
        """The branch is at the commit; the same again changes nothing."""
        await self._blobs.get(commit.pack)
        await self._blobs.get(commit.pack_index)
        if url not in self._refs:
            raise InvalidInput(f"{url} does not exist: name a repository", url=url)
        refs = self._refs[url]
        if refs.get(branch) == commit.commit:
            return
        if not branch or ".." in branch or branch.startswith("/") or branch == self._heads[url]:
            raise InvalidInput(f"branch '{branch}' cannot be published: its name is wrong or it is checked out")
        clash = next((r for r in refs if branch.startswith(f"{r}/") or r.startswith(f"{branch}/")), None)
        if clash:
            raise InvalidInput(f"branch '{branch}' cannot exist beside '{clash}'", branch=branch, present=clash)
        if commit.base_commit not in self._commits[url]:
            raise InvalidInput(f"{url} does not hold commit {commit.base_commit}", url=url)
        if refs.get(branch) != expected_old:
            raise VersionConflict(
                f"branch '{branch}' moved: reload and decide again",
                branch=branch,
                expected=expected_old,
                actual=refs.get(branch),
            )
        refs[branch] = commit.commit
        self._commits[url].add(commit.commit)


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """One change request as it stands."""

    number: int
    request: CheckedChange
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
        changes = [change for (name, _), change in self._changes.items() if name == repository]
        return sorted(changes, key=lambda change: change.number)

    def statuses(self, repository: str, commit: str) -> list[MemoryStatus]:
        """Every status that was written, the newest last."""
        return list(self._statuses.get((repository, commit), ()))

    def end(self, repository: str, head: str, *, is_merged: bool) -> None:
        """Somebody merged or closed it."""
        change = self._changes[repository, head]
        self._changes[repository, head] = replace(change, state="merged" if is_merged else "closed")

    async def open_or_update(self, change: ChangeRequest) -> OpenedChange | EndedChange:
        """See `ChangeRequests.open_or_update`."""
        request = checked(change)
        missing = {request.head, request.base} - self._branches.get(request.repository, set())
        if missing:
            raise NotFound(f"{request.repository} has no branch {sorted(missing)}", repository=request.repository)
        key = (request.repository, request.head)
        present = self._changes.get(key)
        if present is None:
            self._changes[key] = MemoryChange(len(self.changes(request.repository)) + 1, request)
            return self._opened(key, ChangeOutcome.OPENED)
        if present.state != "open":
            return EndedChange(present.number, _link(*key), is_merged=present.state == "merged")
        labels = tuple(dict.fromkeys([*present.request.labels, *request.labels]))
        self._changes[key] = replace(present, request=replace(request, labels=labels))
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
        return OpenedChange(change.number, _link(*key), outcome, is_draft=change.request.is_draft)


def _link(repository: str, head: str) -> str:
    return f"memory:{repository}/{head}"
