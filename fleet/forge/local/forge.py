"""The forge of local repositories: files are read and written as git would, and git itself never runs here."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fleet.forge.local.layout import find_repository
from fleet.forge.local.objects import check_pack, has_object
from fleet.forge.local.publish import add_pack, check_name, check_old, move_branch
from fleet.forge.local.refs import all_refs, check_branch, pinned, read_ref
from fleet.forge.local.stage import copy_repository, fetched_name, staged_name, write_fetched
from fleet.forge.port import Commit, FetchedRepository, StagedRepository
from fleet.kernel.errors import InvalidInput, StoreUnavailable
from fleet.trees.port import BlobStore


def check_repository(url: str, ref: str | None = None) -> tuple[str, str]:
    """Commit id and branch that a run on this repository would start from; nothing is copied.

    Raises:
        InvalidInput: as `Forge.stage`.
    """
    try:
        return pinned(find_repository(url), ref, url)
    except OSError as error:
        raise InvalidInput(f"{url} cannot be read: {error.strerror} ({error.filename})", url=url) from error


class LocalForge:
    """Repositories in folders of this machine. Implements the port Forge.

    Args:
        state_root: copies are made below `<state_root>/repos`, where the sandbox backend looks for them.
        blobs: where packs come from.
    """

    def __init__(self, state_root: Path, blobs: BlobStore) -> None:
        self._repos = state_root / "repos"
        self._blobs = blobs

    async def stage(self, url: str, ref: str | None = None) -> StagedRepository:
        """Pin the commit of `ref` and copy objects and refs; the repository itself is only read."""
        return await asyncio.to_thread(self._stage, url, ref)

    def _stage(self, url: str, ref: str | None) -> StagedRepository:
        try:
            layout = find_repository(url)
            commit, branch = pinned(layout, ref, url)
            name = staged_name(layout, commit)
            copy_repository(layout, all_refs(layout), commit, self._repos / name)
        except OSError as error:
            raise StoreUnavailable(f"{url} cannot be read: {error.strerror} ({error.filename})", url=url) from error
        return StagedRepository(name=name, commit=commit, branch=branch)

    async def stage_fetched(self, fetched: FetchedRepository) -> StagedRepository:
        """What was fetched, as a staged copy; one that is there is left as it is."""
        name = fetched_name(fetched)
        if not (self._repos / name).is_dir():
            pack, index = await self._blobs.get(fetched.pack), await self._blobs.get(fetched.pack_index)
            await asyncio.to_thread(write_fetched, fetched, pack, index, self._repos / name)
        return StagedRepository(name=name, commit=fetched.commit, branch=fetched.branch)

    async def publish(self, url: str, branch: str, commit: Commit, *, expected_old: str | None) -> None:
        """The branch is at the commit; the same again changes nothing."""
        check_branch(branch)
        pack, index = await self._blobs.get(commit.pack), await self._blobs.get(commit.pack_index)
        await asyncio.to_thread(_publish, url, branch, commit, expected_old, pack, index)


def _publish(url: str, branch: str, commit: Commit, expected_old: str | None, pack: bytes, index: bytes) -> None:
    name = check_pack(pack, index, commit.commit)
    try:
        layout = find_repository(url)
        if read_ref(layout, f"refs/heads/{branch}") == commit.commit:
            return
        check_name(layout, branch)
        if not has_object(layout.objects, commit.base_commit):
            raise InvalidInput(
                f"{url} no longer holds commit {commit.base_commit}, which the work builds on: fetch it again", url=url
            )
        check_old(layout, branch, commit.commit, expected_old)
        add_pack(layout, name, pack, index)
        move_branch(layout, branch, commit.commit, expected_old=expected_old)
    except OSError as error:
        raise StoreUnavailable(f"{url} cannot be written: {error.strerror} ({error.filename})", url=url) from error
