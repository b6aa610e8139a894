"""Merge requests of GitLab (REST interface version 4).

Endpoints, below `https://<host>/api/v4`; `{id}` is the path of the project with `/` as `%2F`:

    GET  /projects/{id}/merge_requests?source_branch={branch}&state=all&scope=all    find, with pages (`Link`)
    POST /projects/{id}/merge_requests                    source_branch, target_branch, title, description, labels
                                                          409: another open one exists for this source branch
    PUT  /projects/{id}/merge_requests/{iid}              title, description, target_branch; add_labels
    GET  /projects/{id}/repository/commits/{sha}/statuses?name={name}    newest of each name
    POST /projects/{id}/statuses/{sha}                    state, description, target_url, name
                                                          400: cannot transition (it is in this state already)

A draft is marked by `Draft:` before the title.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict

from fleet.extensions.forges.http import ForgeHttp
from fleet.forge.local.change_text import STATUS_NAME, CheckedChange
from fleet.forge.local.keyed import FoundState, HostedChange, Status
from fleet.forge.port import CommitState
from fleet.kernel.errors import InvalidInput

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}"
_PROJECT = re.compile(rf"{_PART}(/{_PART})+")
# A line that starts with `/` is a command there (`/merge`, `/approve`), and this text may come from a model.
_QUICK_ACTION = re.compile(r"^(\s*)/(?=\S)", re.MULTILINE)
_TO_GITLAB: dict[CommitState, str] = {
    CommitState.PENDING: "pending",
    CommitState.SUCCESS: "success",
    CommitState.FAILURE: "failed",
    CommitState.ERROR: "canceled",
}
_FROM_GITLAB = {name: state for state, name in _TO_GITLAB.items()} | {"running": CommitState.PENDING}


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _MergeRequest(_Answer):
    iid: int
    web_url: str
    state: Literal["opened", "closed", "locked", "merged"]
    title: str
    description: str | None = None
    source_branch: str
    target_branch: str
    source_project_id: int | None = None
    target_project_id: int
    labels: tuple[str, ...] = ()
    draft: bool = False

    def found(self) -> HostedChange:
        return HostedChange(
            number=self.iid,
            link=self.web_url,
            state=_STATES[self.state],
            title=self.title,
            text=self.description or "",
            base=self.target_branch,
            labels=self.labels,
            is_draft=self.draft,
        )


# Locked: it is being merged at this moment.
_STATES = {
    "opened": FoundState.OPEN,
    "closed": FoundState.CLOSED,
    "locked": FoundState.MERGED,
    "merged": FoundState.MERGED,
}


class _Status(_Answer):
    id: int
    status: str
    name: str
    description: str | None = None
    target_url: str | None = None


def gitlab_headers(token: str) -> dict[str, str]:
    """What each request to GitLab carries; personal, project, group and OAuth tokens all go this way."""
    return {"authorization": f"Bearer {token}", "accept": "application/json", "user-agent": "swe-fleet"}


class GitLabApi:
    """The calls that change requests need. Implements HostedApi."""

    draft_follows_edit = True

    def __init__(self, http: ForgeHttp) -> None:
        self._http = http

    def __repr__(self) -> str:
        return f"GitLabApi({self._http!r})"

    def shown(self, wanted: CheckedChange) -> tuple[str, str]:
        """The title with its mark; lines of the text that would be carried out as commands are shown instead."""
        title = f"Draft: {wanted.title}" if wanted.is_draft else wanted.title
        return title, _QUICK_ACTION.sub(r"\1\\/", wanted.text)

    async def find(self, repository: str, head: str) -> list[HostedChange]:
        """See `HostedApi.find`."""
        path = ("projects", _project(repository), "merge_requests")
        # Without scope GitLab lists only what this token's own user opened.
        requests = await self._http.pages(_MergeRequest, *path, source_branch=head, state="all", scope="all")
        return [r.found() for r in requests if r.source_branch == head and r.source_project_id == r.target_project_id]

    async def create(self, wanted: CheckedChange) -> HostedChange:
        """See `HostedApi.create`."""
        title, text = self.shown(wanted)
        body = {
            "source_branch": wanted.head,
            "target_branch": wanted.base,
            "title": title,
            "description": text,
            "labels": ",".join(wanted.labels),
        }
        path = ("projects", _project(wanted.repository), "merge_requests")
        return (await self._http.write("POST", *path, body=body)).as_one(_MergeRequest).found()

    async def edit(self, wanted: CheckedChange, number: int) -> None:
        """See `HostedApi.edit`."""
        title, text = self.shown(wanted)
        path = ("projects", _project(wanted.repository), "merge_requests", number)
        body = {"title": title, "description": text, "target_branch": wanted.base}
        await self._http.write("PUT", *path, body=body)

    async def add_labels(self, repository: str, number: int, labels: tuple[str, ...]) -> None:
        """See `HostedApi.add_labels`; GitLab makes labels that the project does not have yet."""
        path = ("projects", _project(repository), "merge_requests", number)
        await self._http.write("PUT", *path, body={"add_labels": ",".join(labels)})

    async def status(self, repository: str, commit: str) -> Status | None:
        """See `HostedApi.status`."""
        path = ("projects", _project(repository), "repository", "commits", commit, "statuses")
        found = [s for s in await self._http.pages(_Status, *path, name=STATUS_NAME) if s.name == STATUS_NAME]
        newest = max(found, key=lambda s: s.id, default=None)
        if newest is None or newest.status not in _FROM_GITLAB:
            return None
        return Status(_FROM_GITLAB[newest.status], newest.description or "", newest.target_url or "")

    async def post_status(self, repository: str, commit: str, status: Status) -> None:
        """See `HostedApi.post_status`."""
        body = {"state": _TO_GITLAB[status.state], "description": status.description, "name": STATUS_NAME}
        path = ("projects", _project(repository), "statuses", commit)
        await self._http.write("POST", *path, body=body | ({"target_url": status.link} if status.link else {}))


def _project(repository: str) -> str:
    if len(repository) > 1000 or not _PROJECT.fullmatch(repository):
        raise InvalidInput(
            f"{repository[:120]!r} is no project of GitLab: name it as group/name", repository=repository[:200]
        )
    return repository
