"""In-memory twin of the port Forge."""

from __future__ import annotations

import hashlib

from fleet.errors import InvalidInput, VersionConflict
from fleet.ports import BlobStore, Commit, FetchedRepository, StagedRepository

__all__ = ["MemoryForge"]


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
