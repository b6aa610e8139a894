"""Port: the one change request that a story has at a forge, and the status of its commit (RC-105, RC-77)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

__all__ = [
    "ChangeOutcome",
    "ChangeRequest",
    "ChangeRequests",
    "CommitState",
    "EndedChange",
    "OpenedChange",
]


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
