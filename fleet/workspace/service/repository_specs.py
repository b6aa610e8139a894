"""What is asked of the sandbox about a repository on another machine: builders of RunSpec (RC-70, RC-77, RT-42)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet.forge.port import FetchedRepository
from fleet.kernel.ids import Digest
from fleet.policy.commands.git import GitAddress, GitTarget, require_keys
from fleet.policy.runs.spec import BlobMount, Grantee, Limits, RepoMount, RunSpec

EXIT_TOO_LARGE, EXIT_AGAIN, EXIT_NO_PERMISSION = 3, 75, 77
"""Exit codes of the scripts, beside 0 and 1: larger than the limit, ask again, the token will not do."""
_FOLDER = ".fleet-out"
FETCHED = (f"{_FOLDER}/fetch.json", f"{_FOLDER}/fetched.pack", f"{_FOLDER}/fetched.idx")
"""Artifacts of a fetch: facts, pack, index."""
_INSIDE = "/fleet/inside"
_MAX_PACK = 512 << 20
_LIMITS = Limits(overall_s=600, idle_s=600, memory_bytes=2 << 30, disk_bytes=2 << 30, file_bytes=_MAX_PACK)


_Id = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
# What a server calls its branches ends up in a file of the staged copy: nothing that ends a line or a field.
_Name = Annotated[str, Field(pattern=r"^[^\x00-\x20\x7f]{1,400}$")]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True)

    commit: _Id
    branch: _Name
    refs: dict[_Name, _Id]


def fetch_spec(
    address: GitAddress,
    target: GitTarget,
    *,
    ref: str | None = None,
    is_listing: bool = False,
    grantee: Grantee | None = None,
    beside: str | None = None,
    limits: Limits = _LIMITS,
    toolchain: str = "python",
) -> RunSpec:
    """One ref of the repository as a pack, or the list of its refs. A run that reaches the repository's host alone.

    Exit codes are those of `inside/git_fetch.py`.

    Args:
        ref: branch, tag, full ref or commit id; None is the branch that HEAD names.
        grantee: for whom the secret of the target is delivered; by default devops, who pins commits (git.fetch).
        beside: name of the staged repository whose objects need not be sent again.
        limits: `file_bytes` is the size of the largest pack.
    """
    what = ("--list",) if is_listing else ("--ref", ref) if ref else ()
    return RunSpec(
        argv=(
            *("python", f"{_INSIDE}/git_fetch.py", *_reached(address, target), *what),
            *("--max-bytes", str(limits.file_bytes), "--out", f"/workspace/{_FOLDER}"),
        ),
        mounts=(RepoMount(repo=beside),) if beside else (),
        limits=limits,
        artifacts=() if is_listing else FETCHED,
        discard=(_FOLDER,),
        hosts=(address.authority,),
        grantee=_grantee(target, grantee or Grantee(role="devops", tool="git", op="fetch")),
        toolchain=toolchain,
    )


def push_spec(
    repository: str,
    packs: Sequence[Digest],
    *,
    address: GitAddress,
    target: GitTarget,
    branch: str,
    commit: str,
    expected_old: str | None,
    role: str = "devops",
    limits: Limits = _LIMITS,
) -> RunSpec:
    """The branch of the repository is at the commit (RC-77): a run that sees commits and no workspace.

    It reaches the host of the address alone. Exit codes are those of `inside/git_push.py`.

    Args:
        repository: name of the staged repository, which holds the base.
        packs: what was committed since the base.
        expected_old: where the branch must be; None: it must not exist.
        role: for whom the secret of the target is delivered, for git.push_branch.
    """
    expected = ("--expected", expected_old) if expected_old else ()
    what = ("--ref", f"refs/heads/{branch}", "--commit", commit)
    mounts = tuple(BlobMount(blob=blob, target=f"/inputs/pack-{n}.pack") for n, blob in enumerate(packs, 1))
    return RunSpec(
        argv=("python", f"{_INSIDE}/git_push.py", *_reached(address, target), *what, *expected),
        mounts=(RepoMount(repo=repository), *mounts),
        limits=limits,
        hosts=(address.authority,),
        grantee=_grantee(target, Grantee(role=role, tool="git", op="push_branch")),
    )


def _reached(address: GitAddress, target: GitTarget) -> tuple[str, ...]:
    """Arguments with the address and what opens it; InvalidInput for an ssh address without key or host keys."""
    secret = ("--token", target.credentials) if target.credentials else ()
    if address.scheme != "ssh":
        return ("--url", address.url, *(("--user", target.user, *secret) if secret else ()))
    require_keys(address, target)
    complete = GitAddress(address.scheme, address.host, address.port, address.path, address.user or target.user)
    return ("--url", complete.url, *secret, *(part for key in target.host_keys for part in ("--host-key", key)))


def fetched_of(address: GitAddress, facts: bytes, *, pack: Digest, pack_index: Digest) -> FetchedRepository | None:
    """What a fetch left, as the forge takes it; None when the facts are not those of a fetch."""
    try:
        fetched = _Facts.model_validate_json(facts)
    except ValidationError:
        return None
    return FetchedRepository(address.url, fetched.commit, fetched.branch, pack, pack_index, fetched.refs)


def _grantee(target: GitTarget, grantee: Grantee) -> Grantee | None:
    return grantee if target.credentials else None
