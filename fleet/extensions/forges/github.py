"""Pull requests of GitHub, and of what speaks its REST interface (version 2022-11-28).

Endpoints, below `https://api.github.com` or `https://<host>/api/v3`:

    GET   /repos/{owner}/{repo}/pulls?head={owner}:{branch}&state=all      find, with pages (`Link: rel="next"`)
    POST  /repos/{owner}/{repo}/pulls                                      title, head, base, body, draft; 422: exists
    PATCH /repos/{owner}/{repo}/pulls/{number}                             title, body, base
    POST  /repos/{owner}/{repo}/issues/{number}/labels                     labels: added to those that are there
    GET   /repos/{owner}/{repo}/commits/{sha}/statuses                     newest first
    POST  /repos/{owner}/{repo}/statuses/{sha}                             state, description, target_url, context
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

_PART = r"[A-Za-z0-9_.-]{1,100}"
_REPOSITORY = re.compile(rf"({_PART})/({_PART})")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Repository(_Answer):
    full_name: str


class _Branch(_Answer):
    ref: str
    repo: _Repository | None = None


class _Label(_Answer):
    name: str


class _Pull(_Answer):
    number: int
    html_url: str
    state: Literal["open", "closed"]
    merged_at: str | None = None
    title: str
    body: str | None = None
    base: _Branch
    head: _Branch
    labels: tuple[_Label, ...] = ()
    draft: bool = False

    def found(self) -> HostedChange:
        ended = FoundState.MERGED if self.merged_at else FoundState.CLOSED
        return HostedChange(
            number=self.number,
            link=self.html_url,
            state=FoundState.OPEN if self.state == "open" else ended,
            title=self.title,
            text=self.body or "",
            base=self.base.ref,
            labels=tuple(label.name for label in self.labels),
            is_draft=self.draft,
        )


class _Status(_Answer):
    state: CommitState
    description: str | None = None
    target_url: str | None = None
    context: str


def github_headers(token: str) -> dict[str, str]:
    """What each request to GitHub carries."""
    return {
        "authorization": f"Bearer {token}",
        "accept": "application/vnd.github+json",
        "x-github-api-version": "2022-11-28",
        "user-agent": "swe-fleet",
    }


def owner_and_name(repository: str) -> tuple[str, str]:
    """The two parts of `owner/name`; InvalidInput when it has another form."""
    match = _REPOSITORY.fullmatch(repository)
    if not match or set(match.groups()) & {".", ".."}:
        raise InvalidInput(
            f"{repository[:120]!r} is no repository of a forge: name it as owner/name", repository=repository[:200]
        )
    return match[1], match[2]


class GitHubApi:
    """The calls that change requests need. Implements HostedApi."""

    draft_follows_edit = False

    def __init__(self, http: ForgeHttp) -> None:
        self._http = http

    def __repr__(self) -> str:
        return f"GitHubApi({self._http!r})"

    def shown(self, wanted: CheckedChange) -> tuple[str, str]:
        """Title and text as they are: being a draft is a field of its own."""
        return wanted.title, wanted.text

    async def find(self, repository: str, head: str) -> list[HostedChange]:
        """See `HostedApi.find`."""
        owner, name = owner_and_name(repository)
        path = ("repos", owner, name, "pulls")
        pulls = await self._http.pages(_Pull, *path, head=f"{owner}:{head}", state="all")
        return [p.found() for p in pulls if p.head.ref == head and _is_own(p, repository)]

    async def create(self, wanted: CheckedChange) -> HostedChange:
        """See `HostedApi.create`."""
        body = {
            "title": wanted.title,
            "body": wanted.text,
            "head": wanted.head,
            "base": wanted.base,
            "draft": wanted.is_draft,
        }
        answer = await self._http.write("POST", "repos", *owner_and_name(wanted.repository), "pulls", body=body)
        return answer.as_one(_Pull).found()

    async def edit(self, wanted: CheckedChange, number: int) -> None:
        """See `HostedApi.edit`."""
        path = ("repos", *owner_and_name(wanted.repository), "pulls", number)
        await self._http.write("PATCH", *path, body={"title": wanted.title, "body": wanted.text, "base": wanted.base})

    async def add_labels(self, repository: str, number: int, labels: tuple[str, ...]) -> None:
        """See `HostedApi.add_labels`; GitHub makes labels that the repository does not have yet."""
        path = ("repos", *owner_and_name(repository), "issues", number, "labels")
        await self._http.write("POST", *path, body={"labels": list(labels)})

    async def status(self, repository: str, commit: str) -> Status | None:
        """See `HostedApi.status`."""
        path = ("repos", *owner_and_name(repository), "commits", commit, "statuses")
        for found in await self._http.pages(_Status, *path):
            if found.context == STATUS_NAME:
                return Status(found.state, found.description or "", found.target_url or "")
        return None

    async def post_status(self, repository: str, commit: str, status: Status) -> None:
        """See `HostedApi.post_status`."""
        path = ("repos", *owner_and_name(repository), "statuses", commit)
        body = {"state": status.state.value, "description": status.description, "context": STATUS_NAME}
        # An empty address is refused.
        await self._http.write("POST", *path, body=body | ({"target_url": status.link} if status.link else {}))


def _is_own(pull: _Pull, repository: str) -> bool:
    # A fork's branch may have the same name; a fork that was deleted leaves no repository.
    return pull.head.repo is not None and pull.head.repo.full_name.lower() == repository.lower()
