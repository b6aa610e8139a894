"""Where change requests go, and where branches are pushed to before (RC-77, RC-105)."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.forge.port import ChangeRequests


@dataclass(frozen=True, slots=True)
class PushTarget:
    """The hosted repository that branches of stories are pushed to (RC-77)."""

    url: str
    """`https://<host>/...` without user and token, or an ssh address, whose key and host keys stand in targets.git."""
    user: str
    token: str | None
    """`secret://<name>`, granted to role devops for git.push_branch; None pushes without."""


@dataclass(frozen=True, slots=True)
class ChangeTarget:
    """Where a story that is done asks for its change to be taken in (RC-105)."""

    changes: ChangeRequests
    base: str
    """Branch that the change shall be merged into."""
    repository: str | None = None
    """`owner/name` at the forge; None is the repository that the story works on."""
    push: PushTarget | None = None
    """Where the branch is pushed to before; None pushes none, because the forge has it already."""
    waits_s: tuple[float, ...] = (2, 10, 60)
    """Seconds between the tries while the forge is down; after the last one the story closes without it."""
