"""Pull requests of Gitea and Forgejo (REST interface version 1).

Endpoints, below `https://<host>/api/v1`:

    GET   /repos/{owner}/{repo}/pulls?state=all                  find: no filter by branch, so all pages (`Link`)
    POST  /repos/{owner}/{repo}/pulls                            title, head, base, body; 409: exists
    PATCH /repos/{owner}/{repo}/pulls/{index}                    title, body, base
    GET   /repos/{owner}/{repo}/labels                           id and name
    POST  /repos/{owner}/{repo}/labels                           name, color
    POST  /repos/{owner}/{repo}/issues/{index}/labels            labels (ids): added to those that are there
    GET   /repos/{owner}/{repo}/commits/{sha}/statuses                    the newest has the highest id
    POST  /repos/{owner}/{repo}/statuses/{sha}                   state, description, target_url, context

A draft is marked by `WIP:` before the title.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from pydantic import BaseModel, ConfigDict

from fleet.extensions.forges.github import owner_and_name
from fleet.extensions.forges.http import ForgeHttp
from fleet.forge.local.change_text import STATUS_NAME, CheckedChange
from fleet.forge.local.keyed import FoundState, HostedChange, Status
from fleet.forge.port import CommitState

_COLOR = "#6a737d"


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Branch(_Answer):
    label: str
    """The branch's name, also when the branch is gone; `ref` then is `refs/pull/<n>/head`."""
    ref: str
    repo_id: int


class _Label(_Answer):
    id: int
    name: str


class _Pull(_Answer):
    number: int
    html_url: str
    state: Literal["open", "closed"]
    merged: bool = False
    title: str
    body: str | None = None
    base: _Branch
    head: _Branch
    labels: tuple[_Label, ...] | None = None
    draft: bool = False

    def found(self) -> HostedChange:
        ended = FoundState.MERGED if self.merged else FoundState.CLOSED
        return HostedChange(
            number=self.number,
            link=self.html_url,
            state=FoundState.OPEN if self.state == "open" else ended,
            title=self.title,
            text=self.body or "",
            base=self.base.ref,
            labels=tuple(label.name for label in self.labels or ()),
            is_draft=self.draft,
        )


class _Status(_Answer):
    id: int
    status: str
    description: str | None = None
    target_url: str | None = None
    context: str


def gitea_headers(token: str) -> dict[str, str]:
    """What each request to Gitea carries."""
    return {"authorization": f"token {token}", "accept": "application/json", "user-agent": "swe-fleet"}


class GiteaApi:
    """The calls that change requests need. Implements HostedApi."""

    draft_follows_edit = True

    def __init__(self, http: ForgeHttp) -> None:
        self._http = http
        # Gitea lets two labels have one name: whoever looks for labels and makes them does so alone.
        self._labels = asyncio.Lock()

    def __repr__(self) -> str:
        return f"GiteaApi({self._http!r})"

    def shown(self, wanted: CheckedChange) -> tuple[str, str]:
        """The title with its mark, the text as it is."""
        return (f"WIP: {wanted.title}" if wanted.is_draft else wanted.title), wanted.text

    async def find(self, repository: str, head: str) -> list[HostedChange]:
        """See `HostedApi.find`."""
        pulls = await self._http.pages(_Pull, "repos", *owner_and_name(repository), "pulls", state="all")
        return [p.found() for p in pulls if head in (p.head.label, p.head.ref) and p.head.repo_id == p.base.repo_id]

    async def create(self, wanted: CheckedChange) -> HostedChange:
        """See `HostedApi.create`."""
        title, text = self.shown(wanted)
        body = {"title": title, "body": text, "head": wanted.head, "base": wanted.base}
        answer = await self._http.write("POST", "repos", *owner_and_name(wanted.repository), "pulls", body=body)
        return answer.as_one(_Pull).found()

    async def edit(self, wanted: CheckedChange, number: int) -> None:
        """See `HostedApi.edit`."""
        title, text = self.shown(wanted)
        path = ("repos", *owner_and_name(wanted.repository), "pulls", number)
        await self._http.write("PATCH", *path, body={"title": title, "body": text, "base": wanted.base})

    async def add_labels(self, repository: str, number: int, labels: tuple[str, ...]) -> None:
        """See `HostedApi.add_labels`; labels go by id, and one that the repository does not have is made first."""
        ids = await self._label_ids(repository, labels)
        path = ("repos", *owner_and_name(repository), "issues", number, "labels")
        await self._http.write("POST", *path, body={"labels": ids})

    async def _label_ids(self, repository: str, labels: tuple[str, ...]) -> list[int]:
        path = ("repos", *owner_and_name(repository), "labels")
        async with self._labels:
            known = {label.name.casefold(): label.id for label in await self._http.pages(_Label, *path)}
            for label in labels:
                if label.casefold() not in known:
                    made = await self._http.write("POST", *path, body={"name": label, "color": _COLOR})
                    known[label.casefold()] = made.as_one(_Label).id
        return [known[label.casefold()] for label in labels]

    async def status(self, repository: str, commit: str) -> Status | None:
        """See `HostedApi.status`."""
        path = ("repos", *owner_and_name(repository), "commits", commit, "statuses")
        found = [s for s in await self._http.pages(_Status, *path) if s.context == STATUS_NAME]
        newest = max(found, key=lambda s: s.id, default=None)
        if newest is None or newest.status not in set(CommitState):
            return None
        return Status(CommitState(newest.status), newest.description or "", newest.target_url or "")

    async def post_status(self, repository: str, commit: str, status: Status) -> None:
        """See `HostedApi.post_status`."""
        path = ("repos", *owner_and_name(repository), "statuses", commit)
        body = {
            "state": status.state.value,
            "description": status.description,
            "target_url": status.link,
            "context": STATUS_NAME,
        }
        await self._http.write("POST", *path, body=body)
