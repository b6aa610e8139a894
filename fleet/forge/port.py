"""The ports of the forge: repositories and change requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Generic, Protocol

from fleet.kernel.ids import Digest
from fleet.kernel.plugin import Options, Plugin


@dataclass(frozen=True, slots=True)
class StagedRepository:
    """A pinned copy of a repository's objects and refs, without its config and hooks.

    `name` is 64 hex digits and is what RepoMount names; `commit` is the pinned commit id; `branch` the branch it was
    read from.
    """

    name: str
    commit: str
    branch: str


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that left the sandbox: its id, the commit it builds on, and the pack that holds its new objects."""

    commit: str
    base_commit: str
    pack: Digest
    pack_index: Digest


@dataclass(frozen=True, slots=True)
class FetchedRepository:
    """What a run brought of a repository on another machine: one pack with the whole history of the commit (RC-70)."""

    url: str
    """In its one form (`GitAddress.url`)."""
    commit: str
    branch: str
    pack: Digest
    pack_index: Digest
    refs: Mapping[str, str] = field(default_factory=dict[str, str])
    """Full name -> object id of the refs that were fetched."""


class Forge(Protocol):
    """Repositories of this machine, and copies of those that runs fetched. Never runs git itself."""

    async def stage(self, url: str, ref: str | None = None) -> StagedRepository:
        """Pin the commit of `ref`, or of the current branch when None. What a run needs to see of the repository is
        copied.

        Raises InvalidInput: missing path, not a repository, bare repository without commits, unborn branch, unknown
        ref, unsupported object format. The user's repository is only read.
        """
        ...

    async def stage_fetched(self, fetched: FetchedRepository) -> StagedRepository:
        """What was fetched, as a staged copy; the same again changes nothing, and a lost copy is made anew.

        Raises InvalidInput when pack and index are damaged, do not fit or do not hold the commit; ArtifactNotFound
        when they are no longer stored.
        """
        ...

    async def publish(self, url: str, branch: str, commit: Commit, *, expected_old: str | None) -> None:
        """`refs/heads/<branch>` of the repository is at `commit`; done again it changes nothing (KEYED).

        The pack is copied and the ref created by lock file; nothing else in the repository is touched.
        Raises VersionConflict when the ref is neither at `expected_old` (None: absent) nor at the commit already;
        InvalidInput when the name cannot exist beside present refs.
        """
        ...


class ChangeOutcome(StrEnum):
    """What `open_or_update` did: opened it, changed it, or found everything as asked."""

    OPENED = "opened"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


class CommitState(StrEnum):
    """The verdict as a forge shows it beside a commit."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """What a story asks its reviewers to take in; the key is (repository, head).

    `repository` is `owner/name` at a hosted forge (GitLab: any number of groups) and the folder of a repository for
    `local`. `title`, `body`, `verdict` and `labels` may come from a model: they are data, never a command or a piece
    of an address. A title is made one line and cut at 240 characters. The text is the verdict and the link to the
    report, then `body`, cut at 60,000 characters. `patch` is the change as a unified diff: `local` writes it down, a
    forge that has the branch ignores it.
    """

    repository: str
    base: str
    head: str
    title: str
    body: str
    verdict: str = ""
    report_link: str = ""
    labels: tuple[str, ...] = ()
    is_draft: bool = False
    patch: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class OpenedChange:
    """The story's change request is open and says what was asked.

    `number` is what people call it by, `link` its page (a file's address for `local`). `is_draft` is what is true now:
    GitHub's REST interface cannot change it on a request that is open already.
    """

    number: int
    link: str
    outcome: ChangeOutcome
    is_draft: bool = False


@dataclass(frozen=True, slots=True)
class EndedChange:
    """The story had its change request, and somebody merged or closed it: nothing was changed, nothing reopened."""

    number: int
    link: str
    is_merged: bool


class ChangeRequests(Protocol):
    """Change requests of one forge; found again by their head branch, so every call may be repeated (KEYED).

    Errors of both methods: InvalidInput (a name, link or label of wrong form; the forge refuses the content),
    NotFound (no such repository, branch or commit, or it is hidden from this token), ToolFailed (the token is refused
    or may not do this; the address is wrong), RateLimited (details `retry_after_s` when the forge says it),
    StoreUnavailable (the forge does not answer or answers nonsense; nothing was written), CommitUnknown (the answer
    to a write was lost: repeat the call), VersionConflict (the forge says it exists, and shows it to nobody yet).
    No error, log line or repr holds the token.
    """

    async def open_or_update(self, change: ChangeRequest) -> OpenedChange | EndedChange:
        """The one change request of this head branch exists and says what `change` says.

        The branch is published before (`Forge.publish`). Labels are added and never taken away. One that was closed or
        merged is an answer, not an error, and stays as it is. A request from another repository (a fork) whose branch
        has the same name is somebody else's and is not touched. After a lost reply or a race the same call finds what
        the other one opened: there is one per head branch, ever.
        """
        ...

    async def set_status(
        self, repository: str, commit: str, *, state: CommitState, description: str, link: str = ""
    ) -> None:
        """The commit shows this state under the name `fleet/verdict`; when it does already, nothing is written.

        Args:
            commit: 40 or 64 hexadecimal digits; the forge has it.
            description: made one line and cut at 140 characters.
            link: address of the report (http or https), or nothing.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgeParts:
    """What the change requests of a forge are made from."""

    home: Path
    """Folder of the fleet's data on this machine."""
    token: Callable[[], Awaitable[str]] | None
    """Reads the present token; to be asked before each request. None where the configuration names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgePlugin(Plugin[Options, ForgeParts, ChangeRequests], Generic[Options]):
    """What an entry point of the group `swe_fleet.forges` leads to."""
