"""Stand-ins for GitHub, GitLab and Gitea on loopback: real HTTP, and the answers that the real ones give."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass
class Pull:
    """A change request as a forge stores it."""

    number: int
    head: str
    base: str
    title: str
    body: str
    state: str = "open"
    labels: list[str] = field(default_factory=list)
    draft: bool = False
    fork: bool = False


@dataclass
class Fault:
    """What goes wrong with the next request that matches."""

    method: str
    path: str = ""
    status: int = 0
    """Answer with this status, and do nothing."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"message": "made to fail"}'
    lost: bool = False
    """Do it, then close the connection without an answer."""
    garbled: bool = False
    """Do it, then answer 200 with `body`."""
    hang: bool = False
    skip: int = 0
    """So many matching requests go well before."""


class Refused(Exception):
    """The forge refuses: status and document."""

    def __init__(self, status: int, document: Any) -> None:
        super().__init__(status)
        self.status, self.document = status, document


@dataclass
class Asked:
    """A request as it came in; `path` still quoted."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: dict[str, Any]
    answered: int = 0


Handler = Callable[..., Any]


class ForgeStandIn:
    """One forge with one repository `team/app`; tests read and change its fields."""

    prefix: ClassVar[str] = ""
    kind: ClassVar[str] = ""

    def __init__(self) -> None:
        self.repository = "team/app"
        self.tokens = {"tok-first-SECRET"}
        self.readers: set[str] = set()
        self.branches = {"main", "next", "fleet/st-1", "fleet/st-2"}
        self.commits = {"c" * 40}
        self.pulls: list[Pull] = []
        self.labels: dict[str, int] = {}
        self.statuses: list[dict[str, Any]] = []
        self.page_size = 2
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.base_url = ""
        self.together: asyncio.Barrier | None = None
        """When set, lists of change requests are answered only when so many are waiting."""
        self.routes = self._routes()

    def _routes(self) -> list[tuple[str, str, Handler]]:
        raise NotImplementedError

    def check_head(self, asked: Asked) -> None:
        """Refuse what the real one refuses before it looks at the path."""

    def end(self, head: str, *, is_merged: bool) -> None:
        """Somebody merged or closed it."""
        for pull in self.pulls:
            if pull.head == head and not pull.fork:
                pull.state = "merged" if is_merged else "closed"

    def open_pull(self, asked: Asked, **fields: Any) -> Pull:
        """A new one, unless an open one is there for the same branches."""
        pull = Pull(number=len(self.pulls) + 1, **fields)
        if any(p.state == "open" and not p.fork and p.head == pull.head and p.base == pull.base for p in self.pulls):
            self.refuse_duplicate(pull)
        self.pulls.append(pull)
        return pull

    def refuse_duplicate(self, pull: Pull) -> None:
        raise NotImplementedError

    def pull(self, number: str) -> Pull:
        """The one with this number."""
        found = next((p for p in self.pulls if p.number == int(number)), None)
        if found is None:
            raise Refused(404, {"message": "Not Found"})
        return found

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await _read(reader)
            self.asked.append(asked)
            fault = self._fault(asked)
            if fault is not None and fault.hang:
                await reader.read()
                return
            if fault is not None and fault.status:
                asked.answered = fault.status
                await _send(writer, fault.status, dict(fault.headers), fault.body)
                return
            status, headers, data = await self._answer(asked)
            asked.answered = status
            if fault is not None and fault.lost:
                return
            if fault is not None and fault.garbled:
                status, data = 200, fault.body
            await _send(writer, status, headers, data)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _fault(self, asked: Asked) -> Fault | None:
        for fault in self.faults:
            if fault.method == asked.method and fault.path in asked.path:
                fault.skip -= 1
                if fault.skip < 0:
                    self.faults.remove(fault)
                    return fault
        return None

    async def _answer(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        try:
            self.check_head(asked)
            token = asked.headers.get("authorization", "").partition(" ")[2]
            if token not in self.tokens | self.readers:
                raise Refused(401, {"message": f"Bad credentials {token}"})
            path = asked.path.removeprefix(self.prefix)
            for method, pattern, handler in self.routes:
                match = re.fullmatch(pattern, path)
                if match and method == asked.method and asked.path.startswith(self.prefix):
                    if method != "GET" and token in self.readers:
                        raise Refused(403, {"message": "Resource not accessible by this token"})
                    return await self._done(asked, handler(asked, *map(unquote, match.groups())))
            raise Refused(404, {"message": "Not Found"})
        except Refused as refused:
            return refused.status, {}, json.dumps(refused.document).encode()

    async def _done(self, asked: Asked, made: Any) -> tuple[int, dict[str, str], bytes]:
        if not isinstance(made, list):
            return 201 if asked.method == "POST" else 200, {}, json.dumps(made).encode()
        if asked.method != "GET":
            return 200, {}, json.dumps(made).encode()
        if self.together is not None and self.together.n_waiting < self.together.parties:
            barrier = self.together
            await barrier.wait()
            self.together = None
        size = min(self.page_size, int(asked.query.get("per_page", asked.query.get("limit", "30"))))
        page = int(asked.query.get("page", "1"))
        headers = {}
        if page * size < len(made):
            # The address in it leads away: only whether there is a next page may count.
            headers["link"] = f'<http://127.0.0.1:1/evil?page={page + 1}>; rel="next"'
        return 200, headers, json.dumps(made[(page - 1) * size : page * size]).encode()


class GitHubStandIn(ForgeStandIn):
    """GitHub's REST interface, version 2022-11-28."""

    kind = "github"

    def _routes(self) -> list[tuple[str, str, Handler]]:
        repo = r"/repos/team/app"
        return [
            ("GET", f"{repo}/pulls", self.list_pulls),
            ("POST", f"{repo}/pulls", self.create),
            ("PATCH", f"{repo}/pulls/([0-9]+)", self.edit),
            ("POST", f"{repo}/issues/([0-9]+)/labels", self.add_labels),
            ("GET", f"{repo}/commits/([^/]+)/statuses", self.list_statuses),
            ("POST", f"{repo}/statuses/([^/]+)", self.create_status),
        ]

    def check_head(self, asked: Asked) -> None:
        if not asked.headers.get("user-agent"):
            raise Refused(403, {"message": "Request forbidden by administrative rules"})
        if asked.headers.get("x-github-api-version") != "2022-11-28":
            raise Refused(400, {"message": "no such version"})
        if not asked.headers.get("authorization", "Bearer ").startswith("Bearer "):
            raise Refused(401, {"message": "Bad credentials"})

    def list_pulls(self, asked: Asked) -> list[Any]:
        owner, _, branch = asked.query["head"].partition(":")
        found = [p for p in self.pulls if p.head == branch and owner == "team"]
        if asked.query.get("state", "open") == "open":
            found = [p for p in found if p.state == "open"]
        return [self.shown(p) for p in reversed(found)]

    def shown(self, pull: Pull) -> dict[str, Any]:
        home = {"full_name": "Team/App"}
        return {
            "number": pull.number,
            "html_url": f"https://github.example/team/app/pull/{pull.number}",
            "state": "open" if pull.state == "open" else "closed",
            "merged_at": "2026-01-01T00:00:00Z" if pull.state == "merged" else None,
            "title": pull.title,
            "body": pull.body or None,
            "head": {"ref": pull.head, "repo": {"full_name": "team/app-fork"} if pull.fork else home},
            "base": {"ref": pull.base, "repo": home},
            "labels": [{"id": 1, "name": name} for name in pull.labels],
            "draft": pull.draft,
        }

    def create(self, asked: Asked) -> Any:
        body = asked.body
        invalid = [name for name in ("head", "base") if body[name] not in self.branches]
        if invalid:
            errors = [{"resource": "PullRequest", "field": name, "code": "invalid"} for name in invalid]
            raise Refused(422, {"message": "Validation Failed", "errors": errors})
        self._check_text(body)
        fields = {name: body[name] for name in ("head", "base", "title", "body", "draft")}
        return self.shown(self.open_pull(asked, **fields))

    def refuse_duplicate(self, pull: Pull) -> None:
        said = f"A pull request already exists for team:{pull.head}."
        error = {"resource": "PullRequest", "code": "custom", "message": said}
        raise Refused(422, {"message": "Validation Failed", "errors": [error]})

    def _check_text(self, body: dict[str, Any]) -> None:
        if len(body["title"]) > 256 or len(body["body"]) > 65_536:
            raise Refused(422, {"message": "Validation Failed", "errors": ["too long"]})

    def edit(self, asked: Asked, number: str) -> Any:
        self._check_text(asked.body)
        pull = self.pull(number)
        pull.title, pull.body, pull.base = asked.body["title"], asked.body["body"], asked.body["base"]
        return self.shown(pull)

    def add_labels(self, asked: Asked, number: str) -> Any:
        pull = self.pull(number)
        pull.labels += [name for name in asked.body["labels"] if name not in pull.labels]
        return [{"name": name} for name in pull.labels]

    def list_statuses(self, asked: Asked, commit: str) -> list[Any]:
        return [s for s in reversed(self.statuses) if s["sha"] == commit]

    def create_status(self, asked: Asked, commit: str) -> Any:
        if commit not in self.commits:
            raise Refused(422, {"message": f"No commit found for SHA: {commit}"})
        if len(asked.body["description"]) > 140 or asked.body.get("target_url") == "":
            raise Refused(422, {"message": "Validation Failed"})
        self.statuses.append({"target_url": None, **asked.body, "sha": commit, "id": len(self.statuses) + 1})
        return self.statuses[-1]


class GitLabStandIn(ForgeStandIn):
    """GitLab's REST interface, version 4; text that starts a line with `/merge` is carried out, as there."""

    kind = "gitlab"
    prefix = "/api/v4"

    def _routes(self) -> list[tuple[str, str, Handler]]:
        project = r"/projects/team%2Fapp"
        return [
            ("GET", f"{project}/merge_requests", self.list_requests),
            ("POST", f"{project}/merge_requests", self.create),
            ("PUT", f"{project}/merge_requests/([0-9]+)", self.edit),
            ("GET", f"{project}/repository/commits/([^/]+)/statuses", self.list_statuses),
            ("POST", f"{project}/statuses/([^/]+)", self.create_status),
        ]

    def list_requests(self, asked: Asked) -> list[Any]:
        assert asked.query.get("scope") == "all", "else only what the token's user opened"
        found = [p for p in self.pulls if p.head == asked.query["source_branch"]]
        return [self.shown(p) for p in reversed(found)]

    def shown(self, pull: Pull) -> dict[str, Any]:
        return {
            "iid": pull.number,
            "web_url": f"https://gitlab.example/team/app/-/merge_requests/{pull.number}",
            "state": "opened" if pull.state == "open" else pull.state,
            "title": pull.title,
            "description": pull.body,
            "source_branch": pull.head,
            "target_branch": pull.base,
            "source_project_id": 8 if pull.fork else 7,
            "target_project_id": 7,
            "labels": pull.labels,
            "draft": pull.title.startswith("Draft: "),
        }

    def create(self, asked: Asked) -> Any:
        body = asked.body
        for side in ("source_branch", "target_branch"):
            if body[side] not in self.branches:
                raise Refused(400, {"message": {side: ["does not exist"]}})
        labels = [name for name in body.get("labels", "").split(",") if name]
        fields = {"head": body["source_branch"], "base": body["target_branch"], "labels": labels}
        pull = self.open_pull(asked, title="", body="", **fields)
        self._take_text(pull, body)
        return self.shown(pull)

    def refuse_duplicate(self, pull: Pull) -> None:
        raise Refused(409, {"message": ["Another open merge request already exists for this source branch: !1"]})

    def _take_text(self, pull: Pull, body: dict[str, Any]) -> None:
        if len(body["title"]) > 255:
            raise Refused(400, {"message": {"title": ["is too long (maximum is 255 characters)"]}})
        pull.title, pull.body = body["title"], body["description"]
        if re.search(r"^\s*/merge\b", pull.body, re.MULTILINE):
            pull.state = "merged"

    def edit(self, asked: Asked, number: str) -> Any:
        pull = self.pull(number)
        if "title" in asked.body:
            self._take_text(pull, asked.body)
            pull.base = asked.body["target_branch"]
        pull.labels += [name for name in asked.body.get("add_labels", "").split(",") if name]
        return self.shown(pull)

    def list_statuses(self, asked: Asked, commit: str) -> list[Any]:
        return [s for s in self.statuses if s["sha"] == commit and s["name"] == asked.query.get("name", s["name"])]

    def create_status(self, asked: Asked, commit: str) -> Any:
        if commit not in self.commits:
            raise Refused(404, {"message": "404 Commit Not Found"})
        body = asked.body
        shown = [s for s in self.statuses if s["sha"] == commit and s["name"] == body["name"]]
        if shown and shown[-1]["status"] == body["state"]:
            said = f"Cannot transition status via :enqueue from :{body['state']}"
            raise Refused(400, {"message": said})
        made = {"target_url": None, **body, "status": body["state"], "sha": commit, "id": len(self.statuses) + 1}
        self.statuses.append(made)
        return made


class GiteaStandIn(ForgeStandIn):
    """Gitea's REST interface, version 1: no filter by branch, labels by id."""

    kind = "gitea"
    prefix = "/api/v1"

    def _routes(self) -> list[tuple[str, str, Handler]]:
        repo = r"/repos/team/app"
        return [
            ("GET", f"{repo}/pulls", self.list_pulls),
            ("POST", f"{repo}/pulls", self.create),
            ("PATCH", f"{repo}/pulls/([0-9]+)", self.edit),
            ("GET", f"{repo}/labels", self.list_labels),
            ("POST", f"{repo}/labels", self.create_label),
            ("POST", f"{repo}/issues/([0-9]+)/labels", self.add_labels),
            ("GET", f"{repo}/commits/([^/]+)/statuses", self.list_statuses),
            ("POST", f"{repo}/statuses/([^/]+)", self.create_status),
        ]

    def list_pulls(self, asked: Asked) -> list[Any]:
        return [self.shown(p) for p in reversed(self.pulls)]

    def shown(self, pull: Pull) -> dict[str, Any]:
        is_gone = pull.head not in self.branches
        return {
            "number": pull.number,
            "html_url": f"https://gitea.example/team/app/pulls/{pull.number}",
            "state": "open" if pull.state == "open" else "closed",
            "merged": pull.state == "merged",
            "title": pull.title,
            "body": pull.body,
            "head": {
                "label": pull.head,
                "ref": f"refs/pull/{pull.number}/head" if is_gone else pull.head,
                "repo_id": 8 if pull.fork else 7,
            },
            "base": {"label": pull.base, "ref": pull.base, "repo_id": 7},
            "labels": [{"id": self.labels[name], "name": name} for name in pull.labels] or None,
            "draft": pull.title.startswith("WIP:"),
        }

    def create(self, asked: Asked) -> Any:
        body = asked.body
        if not {body["head"], body["base"]} <= self.branches:
            raise Refused(404, {"message": "GetBranch: branch does not exist", "errors": None})
        self._check_text(body)
        fields = {name: body[name] for name in ("head", "base", "title", "body")}
        return self.shown(self.open_pull(asked, **fields))

    def refuse_duplicate(self, pull: Pull) -> None:
        said = f"pull request already exists for these targets [id: 1, issue_id: 1, head_branch: {pull.head}]"
        raise Refused(409, {"message": said, "url": "https://gitea.example/api/swagger"})

    def _check_text(self, body: dict[str, Any]) -> None:
        if len(body["title"]) > 255:
            raise Refused(422, {"message": "title is too long"})

    def edit(self, asked: Asked, number: str) -> Any:
        self._check_text(asked.body)
        pull = self.pull(number)
        pull.title, pull.body, pull.base = asked.body["title"], asked.body["body"], asked.body["base"]
        return self.shown(pull)

    def list_labels(self, asked: Asked) -> list[Any]:
        return [{"id": number, "name": name} for name, number in self.labels.items()]

    def create_label(self, asked: Asked) -> Any:
        assert asked.body["color"]
        self.labels[asked.body["name"]] = len(self.labels) + 1
        return {"id": len(self.labels), "name": asked.body["name"]}

    def add_labels(self, asked: Asked, number: str) -> Any:
        names = {label: name for name, label in self.labels.items()}
        pull = self.pull(number)
        pull.labels += [names[label] for label in asked.body["labels"] if names[label] not in pull.labels]
        return [{"id": self.labels[name], "name": name} for name in pull.labels]

    def list_statuses(self, asked: Asked, commit: str) -> list[Any]:
        return [s for s in self.statuses if s["sha"] == commit]

    def create_status(self, asked: Asked, commit: str) -> Any:
        if commit not in self.commits:
            raise Refused(404, {"message": "object does not exist"})
        made = {**asked.body, "status": asked.body["state"], "sha": commit, "id": len(self.statuses) + 1}
        self.statuses.append(made)
        return made


async def _read(reader: asyncio.StreamReader) -> Asked:
    line = (await reader.readline()).decode().split()
    if len(line) != 3:
        raise ConnectionError("no request")
    headers: dict[str, str] = {}
    while text := (await reader.readline()).decode().strip():
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(line[1])
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Asked(line[0], parts.path, query, headers, json.loads(body) if body else {})


async def _send(writer: asyncio.StreamWriter, status: int, headers: dict[str, str], data: bytes) -> None:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "content-type: application/json", "connection: close"]
    lines += [f"content-length: {len(data)}", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode() + data)
    await writer.drain()


STAND_INS: dict[str, type[ForgeStandIn]] = {s.kind: s for s in (GitHubStandIn, GitLabStandIn, GiteaStandIn)}


@contextlib.asynccontextmanager
async def serving(kind: str) -> AsyncIterator[ForgeStandIn]:
    """The stand-in answers at its `base_url` inside the block."""
    forge = STAND_INS[kind]()
    server = await asyncio.start_server(forge.handle, "127.0.0.1", 0)
    forge.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{forge.prefix}"
    try:
        yield forge
    finally:
        server.close()
        await asyncio.sleep(0)
