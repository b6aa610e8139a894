"""The environment of a repository: fetched through the proxy once per lockfile, then offline in every run."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from cluster.local.record import Addresses
from fleet.cli.endpoints import endpoints_of
from fleet.config.environment import load_settings
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.config.settings import FleetSettings
from fleet.kernel.errors import FleetError, ToolFailed
from fleet.models.profiles import load_models
from fleet.policy.runs.toolchains import layer_named
from fleet.sandbox.backends.identity import process_name, reachable_state_root, toolchain_root
from fleet.story.commands.catalogue import parse_command
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.port import BlobStore
from fleet.trees.tree import FileEntry, encode_tree
from fleet.wiring.sandbox.environments import make_environments
from fleet.workspace.service.environments import NodeEnvironments
from fleet.workspace.service.repository_environment import repository_needs
from tests.support.demo_run import git_says as git
from tests.support.language_repos import path_for
from tests.support.openai_server import Scripted, served_in_thread
from tests.support.package_index import (
    PASSWORD,
    PackageIndex,
    go_module,
    hash_of,
    npm_package,
    package_index,
    served_files,
    wheel,
)
from tests.support.repositories import commit_all
from tests.support.stores import eventually
from tests.support.team import ADA, team
from tests.support.team_models import demo_repository, demo_story
from tests.support.team_server import call_of_engineer, team_answer, working_engine

pytestmark = pytest.mark.timeout(600)

SLUGS = (
    "from wordparts import parts\n\n\ndef slugify(text: str) -> str:\n"
    '    """The text as a slug."""\n    return "-".join(parts(text.lower()))\n'
)
TEST = (
    "from textkit import slugify\n\n\ndef test_slug_of_a_title():\n"
    '    assert slugify("Hello, World!") == "hello-world"\n'
)
EXPORT = "printf '\nfrom textkit.slugs import slugify as slugify\n'"
TURNS = (
    call_of_engineer("read", path="textkit/words.py") + call_of_engineer("read", path="textkit/__init__.py"),
    call_of_engineer("write", path="textkit/slugs.py", content=SLUGS)
    + call_of_engineer("run", command=f"{EXPORT} >> textkit/words.py; {EXPORT} >> textkit/__init__.py")
    + call_of_engineer("write", path="tests/test_slugs.py", content=TEST),
    call_of_engineer("run", command="wordparts; touch /environment/x; python -c 'import wordparts as w; print(w)'"),
    call_of_engineer("tests"),
    call_of_engineer("submit", summary="slugify is in textkit/slugs.py, with a test"),
    call_of_engineer("submit", summary="slugify is in textkit/slugs.py, with a test"),
)


class Place:
    """A repository with one dependency, and the fleet that makes its environment."""

    def __init__(self, tmp_path: Path, index: PackageIndex) -> None:
        self.index = index
        self.repo = demo_repository(tmp_path / "stage")
        self.settings = FleetSettings(home=tmp_path / "home")
        self.made = list[str]()

    def asks_for(self, *lines: str) -> None:
        """The repository asks for these packages from its next commit on."""
        commit_all(self.repo, {"requirements.txt": "".join(f"{line}\n" for line in lines)})

    def environments(self, root: Path, blobs: BlobStore) -> NodeEnvironments:
        """What makes environments below this state root, with the settings and variables of a user."""
        settings = load_settings({"FLEET_HOME": str(self.settings.home), "PATH": os.environ["PATH"]})
        return make_environments(endpoints_of(settings, ADDRESSES), root, blobs)

    async def run(self) -> str:
        """The toolchain of a run in the repository, as its last commit is."""
        blobs, tree = MemoryBlobStore(), dict[str, FileEntry]()
        content = {path: (self.repo / path).read_bytes() for path in git(self.repo, "ls-files").split()}
        for path, data in content.items():
            tree[path] = FileEntry("100644", await blobs.put(data))
        found = repository_needs(content, content.__getitem__)
        assert found.needs is not None
        environments = self.environments(self.state_root, blobs)
        commit = git(self.repo, "rev-parse", "HEAD").strip()
        made = await environments.make(found.needs, tree=await blobs.put(encode_tree(tree)), commit=commit)
        assert made.toolchain is not None
        self.made.append(made.toolchain)
        return made.toolchain

    @property
    def state_root(self) -> Path:
        """Where the sandbox has its files."""
        return reachable_state_root(self.settings.home / "sandbox")

    def renewed(self, files: dict[str, str]) -> None:
        """The repository has these files alone from its next commit on."""
        git(self.repo, "rm", "-rq", ".")
        commit_all(self.repo, files)

    def base_line(self, toolchain: str) -> tuple[int, list[str], list[str]]:
        """Tests, known failures and flaky tests of the only commit that was tried."""
        base = json.loads(next(self.folder(toolchain).glob("base-*.json")).read_text())
        return base["tests"], base["known_failures"], base["flaky"]

    def folder(self, toolchain: str) -> Path:
        """Where the layer lies."""
        name = layer_named(toolchain)
        assert name is not None
        return toolchain_root(self.state_root) / f"layer-{name.language}-{name.key}"


TOKEN = secrets.token_hex(8)
WHEEL = wheel(
    "wordparts",
    "1.2",
    {
        "wordparts.py": "import re\n\n\ndef parts(text):\n    return re.findall(r'[a-z0-9]+', text)\n\n\n"
        "def main():\n    print('parts', 'of', 'words')\n",
        "token.txt": TOKEN,
    },
)
WHEEL_PATH = "/files/wordparts-1.2-py3-none-any.whl"
ADDRESSES = Addresses(
    redis_url="redis://127.0.0.1:1/0",
    cache_url="redis://127.0.0.1:1/0",
    neo4j_uri="bolt://127.0.0.1:1",
    neo4j_user="none",
    neo4j_password="none",
    neo4j_database="neo4j",
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Place]:
    with package_index({"wordparts-1.2-py3-none-any.whl": WHEEL}) as index:
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        place = Place(tmp_path, index)
        yield place
    # One whose tests could not begin is told to nobody, and the next test is to make its own.
    for token in toolchain_root(place.state_root).glob("layer-python-*/files/lib/*/site-packages/token.txt"):
        if token.read_text() == TOKEN:
            shutil.rmtree(token.parents[4], ignore_errors=True)
    for toolchain in place.made:
        if layer_named(toolchain) is not None:
            shutil.rmtree(place.folder(toolchain), ignore_errors=True)


@pytest.mark.rule("RC-110", "RC-111", "RC-112")
async def test_story_passes_whose_code_needs_a_package_of_the_index(place: Place, tmp_path: Path) -> None:
    place.asks_for("wordparts==9.9")
    with served_in_thread() as server:
        server.answer = _answer
        document = dict(ConfigFiles(packaged_directory()).document("models.yaml"))
        able = load_models({**document, "engines": [*document["engines"], working_engine(server.base_url)]})
        async with team(tmp_path / "team", configured=able, make_environments=place.environments) as t:
            story = demo_story()
            story["constraints"].pop("paths")
            story_id = await t.create(story)
            await t.start(story_id, place.repo, model="able")
            state = await t.settled(story_id, within_s=120)
            assert state.park is not None
            assert "requirements.txt cannot be set up" in state.park.detail
            assert "is not in the registry" in state.park.detail
            assert PASSWORD not in state.park.detail
            assert server.requests == []
            # The lockfile is mended, and the owner dies while the packages are being fetched.
            place.asks_for(f"wordparts==1.2 --hash={hash_of(WHEEL)}")
            unpark = parse_command("unpark", {"note": "the lockfile names a version that there is"})
            await t.desk.require(story_id, unpark, principal=ADA, key=f"{story_id}/unpark")
            await eventually(lambda: WHEEL_PATH in place.index.asked, within_s=60)
            await t.crash()
            t.begin(t.make_shard("2", t.log))
            state = await t.settled(story_id, within_s=400)
            steps = dict(state.steps)
    assert state.closed, state.park
    assert state.packages is not None
    place.made.append(state.packages)
    assert "wordparts" in git(place.repo, "show", f"fleet/{story_id}:textkit/slugs.py")
    told = "\n".join(str(m["content"]) for r in server.requests for m in r["messages"])
    assert "parts of words" in told
    assert "<python>/site-packages/wordparts.py" in told
    assert "Read-only file system" in told
    # It was fetched once, and no other step of the story had a way out.
    assert place.index.asked.count(WHEEL_PATH) == 1
    assert [s for s in steps.values() if s.finished and s.finished.provenance.contacts] == []


@pytest.mark.rule("RC-111", "RC-112")
async def test_environment_is_made_once_for_a_lockfile_and_names_neither_address_nor_password(place: Place) -> None:
    place.asks_for(f"wordparts==1.2 --hash={hash_of(WHEEL)}")
    runs, mine = place.state_root / "environments" / "runs", f"{process_name(os.getpid())}-*"
    left = runs / "999999999-1-00000000-left"
    left.mkdir(parents=True)
    making = asyncio.create_task(place.run())
    # What is needed for a making lies where that of a process that was killed is found: here, and named like it.
    await eventually(lambda: any(runs.glob(mine)), within_s=60)
    first = await making
    assert not left.exists()
    assert not any(runs.glob(mine))
    asked = len(place.index.asked)
    commit_all(place.repo, {"NOTES.md": "another commit, the same lockfile\n"})
    assert await place.run() == first
    assert len(place.index.asked) == asked
    written = [path for path in place.folder(first).rglob("*") if path.is_file()]
    assert len([path for path in written if path.name.startswith("base-")]) == 2
    for path in written:
        content = path.read_bytes()
        assert PASSWORD.encode() not in content, path
        assert str(place.index.port).encode() not in content or path.suffix == ".pyc", path
    base = json.loads(next(path for path in written if path.name.startswith("base-")).read_text())
    assert base["tests"] > 0
    assert (base["known_failures"], base["flaky"]) == ([], [])


@pytest.mark.rule("RC-111")
async def test_known_failures_and_flaky_tests_of_the_base_are_told_apart(place: Place) -> None:
    flaky = "import os\n\n\ndef test_flaky():\n    assert os.urandom(1)[0] > 127\n"
    many = "".join(flaky.replace("test_flaky", f"test_flaky_{n}").replace("import os\n", "") for n in range(40))
    texts = {"tests/test_flaky.py": f"import os\n{many}", "tests/test_known.py": "def test_known():\n    assert 0\n"}
    commit_all(place.repo, texts)
    place.asks_for(f"wordparts==1.2 --hash={hash_of(WHEEL)}")
    base = json.loads(next(place.folder(await place.run()).glob("base-*.json")).read_text())
    assert "tests/test_known.py::test_known" in base["known_failures"]
    assert any("test_flaky" in test for test in base["flaky"])


@pytest.mark.rule("RC-110", "RC-111")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("wordparts==1.2 --hash=sha256:" + "0" * 64, "is not what the lockfile says"),
        ("no-such-part==1", "is not in the registry"),
        ("wordparts==1.2\ngit+https://example.com/x", "comes from no registry"),
    ],
)
async def test_repository_that_cannot_be_set_up_says_why_and_what_to_do(place: Place, line: str, words: str) -> None:
    place.asks_for(line)
    with pytest.raises(FleetError, match=words) as refused:
        await place.run()
    assert PASSWORD not in refused.value.message
    assert "requirements.txt" in refused.value.message


async def test_suite_that_cannot_begin_names_the_missing_module(place: Place) -> None:
    texts = {path: "import nowhere\n" for path in git(place.repo, "ls-files", "tests").split() if path.endswith(".py")}
    commit_all(place.repo, {**texts, "tests/test_only.py": "import nowhere\n\n\ndef test_only():\n    pass\n"})
    place.asks_for(f"wordparts==1.2 --hash={hash_of(WHEEL)}")
    with pytest.raises(ToolFailed, match="no test of the base can be run.*nowhere"):
        await place.run()


@pytest.mark.rule("RC-111", "RC-112")
async def test_go_repository_has_its_modules_offline(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path_for("go")
    token = secrets.token_hex(8)
    parts = {"go.mod": "module example.org/parts\n\ngo 1.19\n", "p.go": f'package parts\n\nconst Token = "{token}"\n'}
    served, sums = go_module("example.org/parts", "v1.0.0", parts)
    files = {
        "go.mod": "module example.org/sums\n\ngo 1.19\n\nrequire example.org/parts v1.0.0\n",
        "go.sum": sums,
        "sums_test.go": 'package sums\n\nimport (\n\t"testing"\n\n\t"example.org/parts"\n)\n\n'
        "func TestToken(t *testing.T) {\n"
        f'\tif parts.Token != "{token}" {{\n\t\tt.Fatal("other")\n\t}}\n}}\n',
    }
    with served_files(served) as (url, asked):
        monkeypatch.setenv("GOPROXY", url)
        place.renewed(files)
        assert place.base_line(await place.run()) == (1, [], [])
    assert [path for path in asked if path.endswith(".zip")] == ["/example.org/parts/@v/v1.0.0.zip"]


@pytest.mark.rule("RC-111", "RC-112")
async def test_node_repository_has_its_packages_offline(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path_for("node")
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed on this machine")
    token = secrets.token_hex(8)
    served, lock = npm_package("parts", "1.0.0", {"index.js": f"exports.token = '{token}';\n"})
    files = {
        "package.json": '{"name": "sums", "version": "1.0.0", "dependencies": {"parts": "1.0.0"}}',
        "package-lock.json": lock,
        "test/sums.test.js": "const test = require('node:test');\nconst { token } = require('parts');\n\n"
        f"test('token', () => {{\n  require('node:assert').strictEqual(token, '{token}');\n}});\n",
    }
    with served_files(served) as (url, asked):
        monkeypatch.setenv("npm_config_registry", url)
        place.renewed(files)
        assert place.base_line(await place.run()) == (1, [], [])
    assert asked == ["/parts/-/parts-1.0.0.tgz"]


def _answer(request: dict[str, object]) -> Scripted:
    messages: list[dict[str, object]] = request["messages"]  # type: ignore[assignment]
    if not str(messages[0]["content"]).startswith("Work: engineer"):
        return team_answer(request)
    turn = sum(message["role"] == "assistant" for message in messages)
    return Scripted(TURNS[min(turn, len(TURNS) - 1)])
