"""docs/extending.md: every example works without a change to the product, in a process that finds it installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "extend"

_TOOL_AND_ROLE = """
import asyncio, json, sys
from pathlib import Path
from fleet.kernel.clock import SystemClock
from fleet.trees.memory import MemoryBlobStore
from fleet.sandbox.memory import MemoryRunLedger
from fleet.sandbox.memory import MemorySandboxBackend, ProgramEnd
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.kernel.ids import Principal, RunKey, StoryId
from fleet.tools.port import ToolContext
from fleet.tools.kit.parts import ToolParts
from fleet.policy.rules.calls import CallFacts, ToolCall
from fleet.trees.tree import FileEntry, encode_tree
from fleet.policy.rules.policy import decide, enforce
from fleet.wiring.sandbox.plugins import active_policy
from fleet.wiring.sandbox.tools import make_toolbox
from tests.support.tool_kit import DirectSandbox

async def main():
    policy = active_policy(ConfigFiles(packaged_directory(), Path(sys.argv[1])))
    blobs = MemoryBlobStore()
    tree = await blobs.put(encode_tree({"a.txt": FileEntry("100644", await blobs.put(b"three small words"))}))
    who, call = Principal("agent:security-001"), ToolCall(tool="word_count", op="count", args={"path": "a.txt"})
    facts = CallFacts(principal=who, is_enabled=True, role="security", roles_held=frozenset({"security"}),
                      phase="TEST", story="active", rigor="L1", epoch=1, current_epoch=1, tree=tree)
    allowed = enforce(decide(call, facts, policy=policy, now_ms=0))
    sandbox = DirectSandbox(MemorySandboxBackend(lambda _: ProgramEnd(), blobs))
    parts = ToolParts(sandbox=sandbox, blobs=blobs, clock=SystemClock(), targets=policy.targets)
    box = make_toolbox(parts, policy, ledger=MemoryRunLedger(), name="sandbox:one/tools")
    context = ToolContext(story_id=StoryId("st-1"), principal=who, role="security", phase="TEST", key=RunKey("a" * 64),
                          epoch=1, obligations=allowed.obligations, tree=tree)
    outcome = await box.call(call, context)
    print(json.dumps({"rule": allowed.rule_id, "text": outcome.text, "content": outcome.content}))

asyncio.run(main())
"""
_ADAPTERS = """
import asyncio, json, sys
from pathlib import Path
from fleet.kernel.clock import SystemClock
from fleet.sandbox.memory import MemoryRunLedger
from fleet.sandbox.memory import MemorySandboxBackend, ProgramEnd
from fleet.forge.port import ChangeRequest, ChangeRequests, ForgeParts
from fleet.kernel.errors import ArtifactNotFound, ModelUnavailable, PolicyDenied, SandboxUnavailable
from fleet.kernel.digest import digest_of
from fleet.kernel.ids import RunKey, StoryId
from fleet.models.chat import ChatMessage, ChatRequest
from fleet.trees.port import BlobStore, BlobStoreParts
from fleet.models.port import ChatModel, ModelParts
from fleet.sandbox.port import BackendParts, SandboxBackend
from fleet.secrets.port import ProviderParts
from fleet.wiring.change_requests import FORGES
from fleet.wiring.models.plugins import MODEL_ENGINES
from fleet.wiring.plugins import choose
from fleet.wiring.sandbox.backend import SANDBOX_BACKENDS
from fleet.wiring.stores.blobs import BLOB_STORES
from fleet.wiring.stores.secrets import SECRET_PROVIDERS
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.policy.runs.spec import RunSpec

def made(group, kind, options, parts):
    chosen = choose(group, kind, options, where="a test")
    return chosen.plugin.make(chosen.options, parts)

async def fails(awaitable, error):
    try:
        await awaitable
    except error:
        return True
    return False

async def main():
    home, clock = Path(sys.argv[1]), SystemClock()
    blobs: BlobStore = made(BLOB_STORES, "sqlite", {}, BlobStoreParts(home=home, clock=clock, secrets=None))
    inner = MemorySandboxBackend(lambda _: ProgramEnd(stdout=b"ran"), blobs)
    parts = BackendParts(root=home, blobs=blobs, waived=(), packaged=lambda: inner)
    backend: SandboxBackend = made(SANDBOX_BACKENDS, "refusing", {"programs": ["curl"]}, parts)
    supervisor = ToolSupervisor(backend, MemoryRunLedger(), blobs, clock, "sandbox:one")
    about = {"story": StoryId("st-1"), "epoch": 1}
    ran = await supervisor.run(RunSpec(argv=("make",)), key=RunKey("a" * 64), **about)
    refused = await fails(supervisor.run(RunSpec(argv=("curl",)), key=RunKey("b" * 64), **about), SandboxUnavailable)
    parts = ModelParts(engine_id="wire", model="tiny", key=None)
    model: ChatModel = made(MODEL_ENGINES, "wire", {"url": "http://127.0.0.1:9/v1"}, parts)
    request = ChatRequest(messages=(ChatMessage(role="user", content="hi"),))
    forge: ChangeRequests = made(FORGES, "folder", {"folder": "changes"}, ForgeParts(home=home, token=None))
    change = lambda title: ChangeRequest(repository="/srv/app", base="main", head="fleet/st-1", title=title, body="b")
    opened = [await forge.open_or_update(change(title)) for title in ("one", "one", "two")]
    await forge.set_status("/srv/app", "a" * 40, state="success", description="good")
    (home / "secrets.json").write_text('{"key": "value-of-a-test"}')
    labels = ProviderParts(label="own", names=frozenset({"key"}), ttl_s=60, clock=clock)
    secrets = made(SECRET_PROVIDERS, "json", {"file": str(home / "secrets.json")}, labels)
    read = lambda: secrets.resolve("key", as_role="devops", tool="git", op="fetch")
    (home / "secrets.json").chmod(0o644)
    is_open = await fails(read(), PolicyDenied)
    (home / "secrets.json").chmod(0o600)
    print(json.dumps({
        "stdout": ran.stdout.text, "refused": refused, "stored": await blobs.has(ran.stdout.blob),
        "missing": await fails(blobs.get(digest_of(b"no")), ArtifactNotFound),
        "unreached": await fails(model.complete(request, request_id="r-1", timeout_s=5), ModelUnavailable),
        "changes": [[done.number, done.outcome] for done in opened],
        "open_file": is_open, "value": (await read()).reveal(),
    }))

asyncio.run(main())
"""


_CHECK_OF_A_START = """
import os, sys
from fleet.cli.story.run_options import RunOptions, check_options
from fleet.config.environment import load_settings

settings = load_settings({**os.environ, "FLEET_CONFIG": sys.argv[1]})
check_options(settings, RunOptions(None, "a goal", ".", "mock", None, None, ("po",), "python"))
print('"ready"')
"""

_STARTS = """
import json, os, sys
from pathlib import Path
from fleet.kernel.errors import ConfigError
from fleet.wiring.checks import check_configuration
from fleet.wiring.places import cluster_endpoints
from fleet.wiring.stores.blobs import check_blobs_reach

stores = {"FLEET_REDIS_URL": "redis://:p@log:6379/0", "FLEET_NEO4J_URI": "bolt://graph:1", "FLEET_NEO4J_PASSWORD": "p"}
said = []
for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        endpoints = cluster_endpoints({"FLEET_HOME": sys.argv[1], "FLEET_CONFIG": str(folder), **stores})
        check_configuration(endpoints)
        check_blobs_reach(endpoints, ["10.0.0.1", "10.0.0.2"])
        said.append("")
    except ConfigError as error:
        said.append(error.message)
print(json.dumps(said))
"""
_PROVIDER = "providers: [{kind: json, label: own, secrets: [a-key], options: {file: /etc/fleet.json}}]\n"
_ENGINES = (ROOT / "config" / "models.yaml").read_text()


def engines(entry: str) -> str:
    """The packaged models.yaml with a further engine."""
    return _ENGINES.replace("engines:\n", f"engines:\n  - {entry}\n", 1)


STARTS: list[tuple[str, str, str]] = [
    ("fleet.yaml", "blobs: redis", ""),
    (
        "fleet.yaml",
        "blobs: sqlite",
        "in a store of kind sqlite, which each machine has for itself, and Ray has 2 machines",
    ),
    (
        "fleet.yaml",
        "blobs: sqlit",
        r"fleet.yaml, line \d+: blobs: there is no blob store 'sqlit': use one of file, redis, s3, sqlite",
    ),
    ("fleet.yaml", "blobs: {kind: sqlite, file: x}", "'sqlite' is no kind of the fleet's own; .* beside them: file"),
    (
        "fleet.yaml",
        "blobs: {kind: sqlite, options: {file: ../x}}",
        "options of blob store 'sqlite': file: String should match",
    ),
    ("fleet.yaml", "blobs: {kind: sqlite, options: {fill: x}}", "options of blob store 'sqlite': fill: Extra inputs"),
    (
        "fleet.yaml",
        "blobs: redis\nsandbox: {backend: refusing}",
        "options of sandbox backend 'refusing': programs: Field",
    ),
    (
        "fleet.yaml",
        "sandbox: {backend: gvisor}",
        "there is no sandbox backend 'gvisor': use one of bubblewrap, docker, kubernetes, podman, refusing",
    ),
    (
        "fleet.yaml",
        "forge: {kind: bitbucket}",
        "there is no forge 'bitbucket': use one of folder, gitea, github, gitlab, local",
    ),
    (
        "fleet.yaml",
        "forge: {kind: folder, git: 'https://x.example/a/b.git', options: {folder: c}}",
        "pushing there takes a token",
    ),
    (
        "fleet.yaml",
        "forge: {kind: folder, repository: a/b, token: 'secret://gone', options: {folder: c}}",
        "no provider has secret 'gone', the token of forge folder",
    ),
    (
        "fleet.yaml",
        "notifications: {targets: [{name: a, kind: pigeon}]}",
        "notifications.targets a: there is no notification target 'pigeon': use one of file, mail, webhook",
    ),
    (
        "fleet.yaml",
        "notifications: {targets: [{name: a, kind: file, secret: 'secret://gone', options: {file: /tmp/x}}]}",
        "no provider has secret 'gone', the key of notification target a",
    ),
    (
        "secrets.yaml",
        _PROVIDER.replace("kind: json", "kind: jason"),
        "provider own: there is no secret provider 'jason'",
    ),
    (
        "secrets.yaml",
        _PROVIDER.replace("file:", "path:"),
        "options of secret provider 'json': file: Field required; path: Extra",
    ),
    (
        "models.yaml",
        engines("{engine_id: w, kind: wire, model: m, unpriced: true}"),
        "engine w: options .*: url: Field required",
    ),
    (
        "models.yaml",
        engines("{engine_id: w, kind: wired, model: m, unpriced: true}"),
        "there is no model engine 'wired': use",
    ),
    (
        "models.yaml",
        engines("{engine_id: w, kind: opnai, model: m, unpriced: true, base_url: 'http://x/v1'}"),
        "kind 'opnai' is none of vllm, openai, .* under options, not beside them: base_url",
    ),
]
"""A file of the configuration, and what the start says of it; nothing, where it is right."""


def overlay(folder: Path) -> Path:
    """A configuration directory with the packaged roles and the example's."""
    roles = yaml.safe_load((ROOT / "config" / "roles.yaml").read_text())
    roles["roles"] |= yaml.safe_load((EXAMPLES / "security_role.yaml").read_text())
    folder.mkdir()
    (folder / "roles.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(roles))))
    return folder


def process(script: str, argument: Path, installed: Path = EXAMPLES) -> subprocess.CompletedProcess[str]:
    """A process of its own in which the folder's distributions are installed."""
    paths = os.pathsep.join([str(installed), str(ROOT)])
    command = [sys.executable, "-W", "error", "-c", script, str(argument)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=60)


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.rule("RT-69", "RT-1", "RT-20")
def test_tool_and_role_of_an_installed_package_work_together(tmp_path: Path) -> None:
    said = answer(process(_TOOL_AND_ROLE, overlay(tmp_path / "config")))
    assert said == {"rule": "read", "text": "3 words", "content": {"words": 3}}


@pytest.mark.rule("RT-69")
def test_story_can_be_started_where_a_role_uses_the_tool_of_a_package(tmp_path: Path) -> None:
    assert answer(process(_CHECK_OF_A_START, overlay(tmp_path / "config"))) == "ready"


def test_what_a_package_brings_serves_the_services(tmp_path: Path) -> None:
    assert answer(process(_ADAPTERS, tmp_path)) == {
        "stdout": "ran",
        "refused": True,
        "stored": True,
        "missing": True,
        "unreached": True,
        "changes": [[1, "opened"], [1, "unchanged"], [1, "updated"]],
        "open_file": True,
        "value": "value-of-a-test",
    }


@pytest.mark.rule("RT-69")
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name="word_count"', 'name="files"', "a tool of this name exists"),
        ('"ops": {"count": {"path": "path"}},', "", "declares no operation"),
        ("PLUGIN = ToolPlugin(", "OTHER = ToolPlugin(", "cannot be loaded"),
        ('"risk": "low"', '"risk": "high"', "risk high needs approval always"),
    ],
)
def test_plugin_that_is_not_whole_stops_the_start(tmp_path: Path, old: str, new: str, words: str) -> None:
    copy = tmp_path / "installed"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    module = copy / "fleet_extend" / "word_count.py"
    assert old in module.read_text()
    module.write_text(module.read_text().replace(old, new))
    start = (
        "from fleet.config.files import ConfigFiles, packaged_directory\n"
        "from fleet.wiring.sandbox.plugins import active_policy\n"
        "active_policy(ConfigFiles(packaged_directory(), None))"
    )
    done = process(start, tmp_path, copy)
    assert done.returncode != 0
    assert "ConfigError" in done.stderr
    assert words in done.stderr


@pytest.mark.rule("RT-69", "GL-22")
def test_start_says_what_is_wrong_with_what_a_package_brings(tmp_path: Path) -> None:
    for number, (name, text, _) in enumerate(STARTS):
        folder = tmp_path / f"{number:02}"
        folder.mkdir()
        (folder / name).write_text(text)
        if name != "fleet.yaml":
            (folder / "fleet.yaml").write_text("blobs: redis\n")
    said = answer(process(_STARTS, tmp_path))
    wrong = [
        (text, message)
        for (_, text, words), message in zip(STARTS, said, strict=True)
        if not (re.search(words, message) if words else message == "")
    ]
    assert wrong == []


def test_page_shows_the_examples_as_they_are() -> None:
    page = (ROOT / "docs" / "extending.md").read_text()
    role = (EXAMPLES / "security_role.yaml").read_text().split("\n", 1)[1]
    assert role in page
    assert (EXAMPLES / "fleet_extend-1.0.dist-info" / "entry_points.txt").read_text() in page
    shown = [
        path for path in (EXAMPLES / "fleet_extend").glob("*.py") if path.name not in ("__init__.py", "word_count.py")
    ]
    assert [path.name for path in shown if path.read_text() not in page] == []
    assert len(shown) == 6
