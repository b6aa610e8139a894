"""Every registered tool once, against the real program where this machine has it (`make tools`, `--json`).

One process, no fleet: the policy of config/, the Toolbox, the sandbox. Databases, an HTTP stand-in of a cluster's API
and the preview of a page are started here on the loopback. Exit code 1 when something that is installed fails.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.forge.local.forge import LocalForge
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import FleetError
from fleet.kernel.ids import Digest, EntityId, Principal, RunKey, StoryId
from fleet.policy.commands.git import GitTarget
from fleet.policy.rules.calls import CallFacts, Denied, Obligations, ToolCall
from fleet.policy.rules.config import Policy
from fleet.policy.rules.policy import decide
from fleet.policy.runs.toolchains import Language
from fleet.policy.targets import CloudTarget, ClusterTarget, DatabaseTarget, Targets
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.egress.proxy import EgressSettings
from fleet.sandbox.memory import MemoryRunLedger
from fleet.sandbox.port import Sandbox
from fleet.tools.kit.parts import ToolParts
from fleet.tools.port import ToolContext
from fleet.trees.memory import MemoryBlobStore
from fleet.wiring.sandbox.plugins import active_policy
from fleet.wiring.sandbox.tools import make_toolbox
from tests.support.git_http import GitServer, serving_git
from tests.support.http_stand_in import Reply, Request, serving_http
from tests.support.language_repos import REPOS
from tests.support.postgres import postgres_programs, postgres_server
from tests.support.repositories import FILES, make_repository
from tests.support.sandbox import put_tree, state_folder
from tests.support.services import graph_server, log_server
from tests.support.tool_calls import certificates
from tests.support.tool_kit import SecretSandbox

ME = Principal("agent:tools-001")
CLUSTER, FORGE = "cluster.test", "forge.test"
PATIENCE_S = 60
PAGE = "<!doctype html><html lang='en'><title>Preview</title><h1>Hello</h1></html>"
PACKAGE = '{"name": "sums", "version": "1.0.0", "scripts": {"test": "node --test test/sums.test.js"}}\n'
DOCKERFILE = "FROM scratch\nCOPY demo /demo\n"
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "git": ("git", "--version"),
    "pytest": (sys.executable, "-m", "pytest", "--version"),
    "ruff": (sys.executable, "-m", "ruff", "--version"),
    "podman": ("podman", "--version"),
    "kubectl": ("kubectl", "version", "--client"),
    "helm": ("helm", "version", "--short"),
    "aws": ("aws", "--version"),
    "gcloud": ("gcloud", "--version"),
    "az": ("az", "--version"),
    "chromium": ("chromium", "--version"),
    "python": (sys.executable, "--version"),
    "node": ("node", "--version"),
    "go": ("go", "version"),
    "cargo": ("cargo", "--version"),
}


@dataclass(frozen=True)
class Probe:
    """One call, as which role and when, and the program behind it; `absent` says why it is not made."""

    name: str
    args: Mapping[str, Any]
    program: str
    role: str = "developer"
    phase: str = "BUILD"
    absent: str | None = None
    language: Language = "python"


@dataclass(frozen=True)
class Row:
    """What came of it: `ok`, `missing`, `not configured` or `failed`."""

    tool: str
    op: str
    program: str
    version: str
    outcome: str
    detail: str


def _probes(places: Mapping[str, str | None]) -> list[Probe]:
    sql = {"database": "postgresql", "statement": "SELECT 1"}
    namespace = {"namespace": "shop"}
    gone = "no container image is listed under targets.images: containers are built from nothing here"
    return [
        Probe("files.read", {"path": "demo/core.py"}, "built in"),
        Probe("git.log", {}, "git"),
        Probe("git.ls_remote", {"url": places["git"]}, "git", "devops"),
        Probe("git.fetch", {"url": places["git"], "branch": "main"}, "git", "devops"),
        Probe("tests.pytest", {}, "pytest"),
        *(Probe(f"tests.{op}", {}, program, language=language) for language, op, program in _LANGUAGES),
        Probe("build.build", {"options": []}, "python"),
        Probe("lint.lint", {}, "ruff"),
        Probe("search.symbols", {"query": "one"}, "built in"),
        Probe("search.code", {"query": "one"}, "built in"),
        Probe("exec.run", {"argv": ["python", "-c", "print('hi')"]}, "python"),
        Probe("http.get", {}, "built in", absent="no host is listed under targets.hosts"),
        Probe("db.postgresql_query", sql, "postgresql", "data", absent=_unless(places, "postgresql")),
        Probe("db.redis_read", {"database": "redis", "command": ["PING"]}, "redis", "data"),
        Probe("db.neo4j_read", {"database": "neo4j", "statement": "RETURN 1"}, "neo4j", "data"),
        Probe("docker.build", {"path": ".", "tag": "probe"}, "podman", "devops"),
        Probe("docker.images", {}, "podman", "devops"),
        Probe("docker.run", {}, "podman", "devops", absent=gone),
        Probe("kubectl.get", {**namespace, "kind": "configmap"}, "kubectl", "devops"),
        Probe("helm.lint", {"path": "chart"}, "helm", "devops"),
        *(Probe(f"cloud.{p}_read", {"arguments": ["--version"]}, p, "devops", absent=_NO_ACCOUNT) for p in _CLOUDS),
        Probe("browser.open", {"page": "/index.html", "folder": "site"}, "chromium", "qa"),
        Probe("mcp.list_tools", {}, "built in", absent="no server is listed under targets.mcp_servers"),
    ]


_LANGUAGES: tuple[tuple[Language, str, str], ...] = (
    ("node", "npm_test", "node"), ("go", "go_test", "go"), ("rust", "cargo_test", "cargo"),
)  # fmt: skip
_CLOUDS = ("aws", "gcloud", "az")
_NO_ACCOUNT = "no account is listed under targets.clouds"


def _unless(places: Mapping[str, str | None], name: str) -> str | None:
    return None if places.get(name) else f"install {name}"


def _answer(request: Request) -> Reply:
    """As much of a cluster's API as one `get` needs."""
    kind = {"name": "configmaps", "singularName": "configmap", "namespaced": True, "kind": "ConfigMap"}
    documents: dict[str, Any] = {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
        "/api/v1": {
            "kind": "APIResourceList",
            "groupVersion": "v1",
            "resources": [{**kind, "verbs": ["get", "list"], "shortNames": ["cm"]}],
        },
        "/api/v1/namespaces/shop/configmaps": {
            "kind": "ConfigMapList",
            "apiVersion": "v1",
            "metadata": {},
            "items": [
                {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "prices", "namespace": "shop"}},
            ],
        },
    }
    path = request.path.partition("?")[0]
    return Reply(document=documents[path]) if path in documents else Reply(status=404, document={"kind": "Status"})


def _kubeconfig(server: str, authority: Path) -> str:
    trusted = base64.b64encode(authority.read_bytes()).decode()
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority-data": trusted}}],
            "contexts": [{"name": "staging", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
            "users": [{"name": "u", "user": {"token": "probe"}}],
        }
    )


def _database(kind: Any, url: str) -> DatabaseTarget:
    # A file may hold no password; what is started here for a moment has one.
    return DatabaseTarget.model_construct(kind=kind, url=url, allow_write=False, write_url=None)


@contextlib.contextmanager
def _databases(folder: Path) -> Iterator[dict[str, str | None]]:
    with contextlib.ExitStack() as stack:
        programs = postgres_programs()
        graph = stack.enter_context(graph_server(folder / "graph"))
        make_repository(folder / "hosted" / "demo")
        server = stack.enter_context(serving_git(folder / "hosted"))
        yield {
            "postgresql": stack.enter_context(postgres_server(programs)).owner if programs else None,
            "redis": stack.enter_context(log_server(folder / "log")),
            "git": f"http://{FORGE}:{server.port}/demo",
            "neo4j": f"bolt://{graph.user}:{graph.password}@{graph.uri.partition('://')[2]}",
        }


def _targets(places: Mapping[str, str | None], port: str) -> Targets:
    return Targets(
        databases={name: _database(name, url) for name, url in places.items() if url and name != "git"},
        git={f"{FORGE}:{urlsplit(places['git']).port}": GitTarget(credentials="secret://forge", plain_http=True)},
        namespaces=("staging/shop",),
        clusters={"staging": ClusterTarget(context="staging", kubeconfig="secret://kube", server=f"{CLUSTER}:{port}")},
        clouds={"aws": CloudTarget(hosts=(".amazonaws.com",), credentials="secret://none")},
    )


async def _loopback(_: str) -> Sequence[str]:
    return ["127.0.0.1"]


@dataclass(frozen=True)
class Bench:
    """The one process in which the calls are made."""

    policy: Policy
    box: Any
    trees: Mapping[str, Digest]
    repository: str

    async def row(self, probe: Probe, number: int) -> Row:
        """What came of one call."""
        tool, _, op = probe.name.partition(".")
        version = await asyncio.to_thread(_version, probe.program)
        row = Row(tool, op, probe.program, version or "-", "ok", "")
        if probe.program in PROGRAMS and version is None:
            return replace(row, outcome="missing", detail=f"{probe.program} is not installed")
        if probe.absent is not None:
            word = "missing" if probe.absent.startswith("install") else "not configured"
            return replace(row, outcome=word, detail=probe.absent)
        try:
            found = await self._called(probe, number)
        except FleetError as error:
            return replace(row, outcome="failed", detail=f"{error.code}: {error.message[:200]}")
        if found.reason == "program_missing":
            return replace(row, outcome="missing", detail=_line(found.text))
        outcome = "ok" if found.outcome == "succeeded" else "failed"
        return replace(row, outcome=outcome, detail=_line(found.text))

    async def _called(self, probe: Probe, number: int) -> Any:
        tool, _, op = probe.name.partition(".")
        call = ToolCall(tool=tool, op=op, args=dict(probe.args))
        facts = CallFacts(
            principal=ME, is_enabled=True, role=probe.role, roles_held=frozenset({probe.role}),
            phase=probe.phase, story="active", rigor="L0", epoch=1, current_epoch=1,  # pyright: ignore[reportArgumentType]
            task=EntityId("tk-1"), claimed_by=ME, tree=self.trees[probe.language], environment="staging",
        )  # fmt: skip
        decided = decide(call, facts, policy=self.policy, approvals=(), now_ms=0)
        if isinstance(decided, Denied):
            raise FleetError(f"the policy denies it: {decided.rule_id}: {decided.reason}")
        obligations = getattr(decided, "obligations", None)
        assert isinstance(obligations, Obligations), "only calls that need no approval are made here"
        obligations = obligations.model_copy(update={"timeout_s": min(obligations.timeout_s, PATIENCE_S)})
        context = ToolContext(
            story_id=StoryId("st-tools-table"), principal=ME, role=probe.role, phase=facts.phase,
            key=RunKey(f"{number:064x}"), epoch=1, obligations=obligations, tree=facts.tree, base_tree=facts.tree,
            repository=self.repository, environment="staging", language=probe.language,
        )  # fmt: skip
        return await self.box.call(call, context)


def _version(program: str) -> str | None:
    argv = PROGRAMS.get(program)
    if argv is None or shutil.which(argv[0]) is None:
        return "" if argv is None else None
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    return _line(done.stdout or done.stderr)[:60] if done.returncode == 0 else None


def _line(text: str) -> str:
    return next((line.strip()[:100] for line in text.splitlines() if line.strip()), "")


@contextlib.asynccontextmanager
async def _bench(places: Mapping[str, str | None]) -> AsyncGenerator[Bench]:
    blobs = MemoryBlobStore()
    files = {
        **{path: text.encode() for path, text in FILES.items()},
        "site/index.html": PAGE.encode(),
        "Containerfile": DOCKERFILE.encode(),
        "chart/Chart.yaml": b"apiVersion: v2\nname: demo\nversion: 0.1.0\n",
        "chart/templates/a.yaml": b"",
    }
    with state_folder() as state, tempfile.TemporaryDirectory() as source:
        tls, _ = certificates(Path(source), CLUSTER)
        async with serving_http(_answer, tls=tls) as url:
            policy = active_policy(ConfigFiles(packaged_directory()))
            policy = replace(policy, targets=_targets(places, url.rpartition(":")[2]))
            egress = EgressSettings(resolve=_loopback, allow_addresses=("127.0.0.1/32",))
            backend = BubblewrapBackend(state, blobs, egress=egress)
            make_repository(Path(source) / "demo")
            staged = await LocalForge(state, blobs).stage(str(Path(source) / "demo"))
            values = {
                "kube": _kubeconfig(f"https://{CLUSTER}:{url.rpartition(':')[2]}", Path(source) / "server.pem"),
                "forge": GitServer(Path()).token,
            }
            sandbox, clock = SecretSandbox(backend, values), SystemClock()
            parts = ToolParts(sandbox=cast(Sandbox, sandbox), blobs=blobs, clock=clock, targets=policy.targets)
            box = make_toolbox(parts, policy, ledger=MemoryRunLedger(), name="table/tools")
            repos = {**REPOS, "node": {**REPOS["node"], "package.json": PACKAGE}}
            trees = {name: await put_tree(blobs, {p: t.encode() for p, t in r.items()}) for name, r in repos.items()}
            trees = {**trees, "python": await put_tree(blobs, files)}
            yield Bench(policy, box, trees, staged.name)


async def rows(places: Mapping[str, str | None], only: str | None = None) -> list[Row]:
    """A row for every probe, and one for every registered tool that has none."""
    async with _bench(places) as bench:
        found = [
            await bench.row(probe, number)
            for number, probe in enumerate(_probes(places), 1)
            if only is None or probe.name.startswith(f"{only}.")
        ]
        left = sorted(bench.box.names - {probe.name.partition(".")[0] for probe in _probes(places)})
        return [*found, *(Row(tool, "-", "plug-in", "-", "not configured", "no probe is known") for tool in left)]


def main() -> int:
    """Print the table; 1 when something that is installed failed."""
    parser = argparse.ArgumentParser(description="Call every tool once against the programs of this machine.")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--only", metavar="TOOL", help="this tool alone")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fleet-tools-") as folder, _databases(Path(folder)) as places:
        table = asyncio.run(rows(places, asked.only))
    if asked.json:
        print(json.dumps([asdict(row) for row in table], indent=1))
    else:
        for row in (Row("TOOL", "OPERATION", "PROGRAM", "VERSION", "OUTCOME", "DETAIL"), *table):
            print(f"{row.tool:<8} {row.op:<17} {row.program:<11} {row.version[:34]:<34} {row.outcome:<15} {row.detail}")
    return 1 if any(row.outcome == "failed" for row in table) else 0


if __name__ == "__main__":
    raise SystemExit(main())
