"""Containment of the bubblewrap backend, the checks about hostile content, many runs at once, and argument lists."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
import threading
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import pytest_asyncio

from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.spec import Limits, RunResult, RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.identity import is_root
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import decode_tree
from tests.support.sandbox import SMALL, eventually, put_tree, state_folder, survivors
from tests.support.sandbox_cancels import leftovers
from tests.support.sandbox_ways import WAYS, Way, limited_by_cgroup

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def state_root() -> Generator[Path]:
    with state_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return request.param


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(state_root: Path, blobs: MemoryBlobStore, way: Way) -> AsyncGenerator[BubblewrapBackend]:
    backend = BubblewrapBackend(state_root, blobs, max_parallel=50, use_cgroups=way == "cgroups")
    health = await backend.health()
    if health.status == "down":
        pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
    yield backend


@pytest.fixture
def marker(state_root: Path) -> Path:
    """A path in a folder of the host that everybody may write: what only the sandbox keeps from being made."""
    folder = state_root.parent / f"open-{secrets.token_hex(4)}"
    folder.mkdir()
    folder.chmod(0o777)
    return folder / "marker"


async def run(backend: BubblewrapBackend, *argv: str, **fields: object) -> RunResult:
    spec = RunSpec.model_validate({"argv": argv, "limits": SMALL, **fields})
    return await backend.run(spec, run_id=f"rn-{secrets.token_hex(4)}")


async def shell(backend: BubblewrapBackend, code: str, **fields: object) -> RunResult:
    return await run(backend, "/bin/bash", "-c", code, **fields)


# What a workspace holds.

EXPORTED = r"""
import os, socket
os.mkfifo('fifo'); s = socket.socket(socket.AF_UNIX); s.bind('socket')
os.symlink('/etc/shadow', 'absolute'); os.symlink('../../../etc/passwd', 'up')
with open('sparse', 'wb') as f: f.truncate(40 << 20)
for name, mode in (('open', 0o777), ('closed', 0), ('plain', 0o666)):
    with open(name, 'w') as f: f.write(name)
    os.chmod(name, mode)
os.link('plain', 'hard')
"""


@pytest.mark.check("S6")
async def test_only_regular_files_are_exported_with_plain_modes(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    names = ("fifo", "socket", "absolute", "up", "sparse", "open", "closed", "plain", "hard")
    result = await run(backend, "python", "-c", EXPORTED, keep_tree=True, artifacts=names)

    assert (result.reason, result.stderr.text) == ("ok", "")
    found = {a.path: a.size_bytes for a in result.artifacts if a.blob}
    assert found == {"sparse": 40 << 20, "open": 4, "closed": 6, "plain": 5, "hard": 5}
    assert result.tree_out is not None
    tree = decode_tree(await blobs.get(result.tree_out))
    assert {path: entry.mode for path, entry in tree.items()} == {
        "absolute": "120000", "up": "120000", "open": "100755",
        **dict.fromkeys(("sparse", "closed", "plain", "hard"), "100644"),
    }  # fmt: skip


@pytest.mark.check("S6")
async def test_sparse_files_count_by_what_they_hold(backend: BubblewrapBackend) -> None:
    code = "for i in 1 2 3; do truncate -s 30M f$i; done"
    result = await shell(backend, code, keep_tree=True, limits=SMALL.model_copy(update={"disk_bytes": 64 << 20}))

    assert (result.reason, result.tree_out) == ("disk_limit", None)


PATCH = """--- a/../../../../../../..{marker}
+++ b/../../../../../../..{marker}
@@ -0,0 +1 @@
+made
"""
LINK_PATCH = """diff --git a/link b/link
new file mode 120000
--- /dev/null
+++ b/link
@@ -0,0 +1 @@
+{folder}
\\ No newline at end of file
diff --git a/link/marker b/link/marker
new file mode 100644
--- /dev/null
+++ b/link/marker
@@ -0,0 +1 @@
+made
"""


@pytest.mark.check("S8")
async def test_patch_that_leads_outside_writes_nothing_there(
    backend: BubblewrapBackend, blobs: MemoryBlobStore, marker: Path
) -> None:
    texts = {"up.patch": PATCH.format(marker=marker), "link.patch": LINK_PATCH.format(folder=marker.parent)}
    tree = await put_tree(blobs, {name: text.encode() for name, text in texts.items()})
    code = "for p in *.patch; do patch -p1 -f < $p; git apply --unsafe-paths $p; done; true"
    result = await shell(backend, code, tree=tree, keep_tree=True)

    assert result.reason == "ok"
    assert list(marker.parent.iterdir()) == []


REPOSITORY = r"""
marker=$1; export HOME=/tmp GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
[ "$SANDBOX" = bwrap ] || exit 9
cat > /tmp/evil <<END
#!/bin/sh
echo x >> /tmp/ran; mkdir -p ${marker%/*} 2>/dev/null; echo x > $marker 2>/dev/null; cat 2>/dev/null; exit 0
END
chmod +x /tmp/evil
start() { git init -q "$1"; git -C "$1" config user.email a@b; git -C "$1" config user.name a; }
start repo && cd repo || exit 9
echo one > f; git add f; git commit -qm one; git branch other
start nested; echo x > nested/n; git -C nested add n; git -C nested commit -qm n
for r in . nested; do
cat >> $r/.git/config <<END
[filter "evil"]
clean = /tmp/evil
smudge = /tmp/evil
[diff "evil"]
textconv = /tmp/evil
command = /tmp/evil
[merge "evil"]
driver = /tmp/evil
[core]
fsmonitor = /tmp/evil
sshCommand = /tmp/evil
pager = /tmp/evil
hooksPath = /tmp/hooks
[alias]
evil = !/tmp/evil
[include]
path = /tmp/more
[lfs "customtransfer.evil"]
path = /tmp/evil
END
mkdir -p $r/.git/info; echo '* filter=evil diff=evil merge=evil' > $r/.git/info/attributes
done
printf '[alias]\nmore = !/tmp/evil\n' > /tmp/more
mkdir /tmp/hooks
for h in pre-commit post-checkout post-merge reference-transaction; do cp /tmp/evil /tmp/hooks/$h; done
printf '[submodule "x"]\npath = x\nurl = ext::/tmp/evil\n[submodule "y"]\npath = ../y\nurl = file:///\n' > .gitmodules
echo two >> f; echo y >> nested/n
for c in status diff 'add -A' 'log -p' show 'commit -qm two' 'checkout -q other' 'merge -q master' fetch evil more \
  'submodule update --init' 'config core.worktree /' status; do git $c </dev/null >/dev/null 2>&1; done
[ -s /tmp/ran ] && echo ran
"""


@pytest.mark.check("S21", "S22", "S23")
async def test_hostile_repository_runs_its_programs_inside_alone(
    backend: BubblewrapBackend, blobs: MemoryBlobStore, marker: Path
) -> None:
    argv = ("/bin/bash", "-c", REPOSITORY, "bash", str(marker))
    result = await run(backend, *argv, keep_tree=True, artifacts=("repo/f",))

    # The tricks do work where git runs: in the sandbox. The supervisor, which records and exports it all, runs none.
    assert (result.reason, result.stdout.text) == ("ok", "ran\n"), result.stderr.text
    assert not marker.exists()
    assert result.tree_out is not None
    assert not any(".git" in path.split("/") for path in decode_tree(await blobs.get(result.tree_out)))


@pytest.mark.check("S24")
async def test_files_that_tools_load_by_themselves_are_data(
    backend: BubblewrapBackend, blobs: MemoryBlobStore, marker: Path
) -> None:
    python = f"open({str(marker)!r}, 'w')\n".encode()
    names = ("conftest.py", "setup.py", "sitecustomize.py", "usercustomize.py", "fleet/__init__.py", "json.py")
    program = f"touch {marker}\n".encode()
    tree = await put_tree(
        blobs,
        {
            **dict.fromkeys(names, python),
            "evil.pth": b"import conftest\n",
            "pyproject.toml": b'[tool.pytest.ini_options]\naddopts = "-p conftest"\n[tool.setuptools]\n',
            "package.json": b'{"scripts": {"preinstall": "' + program.strip() + b'"}}',
            "Makefile": b"$(shell " + program.strip() + b")\nall:\n\t" + program,
            ".envrc": program,
            ".vscode/tasks.json": b'{"tasks": [{"command": "x", "runOptions": {"runOn": "folderOpen"}}]}',
            ".mcp.json": b'{"mcpServers": {"x": {"command": "/bin/sh"}}}',
        },
    )
    result = await run(backend, "python", "-I", "-c", "print('fine')", tree=tree, keep_tree=True, artifacts=names)

    assert (result.stdout.text, result.tree_out) == ("fine\n", tree)
    assert not marker.exists()


# Any argument list.


@pytest.mark.check("S27")
@pytest.mark.parametrize(
    "argv",
    [
        ("env", "X=1", "cat", "CANARY"),
        ("sh", "-c", "cat CANARY; cat < CANARY"),
        ("git", "-c", "alias.x=!cat CANARY", "x"),
        ("find", "/etc/hosts", "-exec", "cat", "CANARY", ";"),
        ("tar", "-cf", "-", "--absolute-names", "--to-command=cat CANARY", "CANARY"),
        ("python", "-c", "print(open('CANARY').read()); __import__('os').system('cat CANARY')"),
        ("make", "-f", "/dev/null", "--eval=x: ; cat CANARY", "x"),
        ("/proc/self/exe", "--ro-bind", "/", "/", "cat", "CANARY"),
        ("--ro-bind", "/", "/", "--", "cat", "CANARY"),
    ],
    ids=lambda argv: argv[0],
)
async def test_sandbox_holds_for_any_argument_list(
    backend: BubblewrapBackend, marker: Path, argv: tuple[str, ...]
) -> None:
    marker.write_text("canary-content")
    marker.chmod(0o644)
    result = await run(backend, *(part.replace("CANARY", str(marker)) for part in argv))

    assert "canary-content" not in result.stdout.text + result.stderr.text
    assert result.exit_code is not None
    assert marker.read_text() == "canary-content"


# Many at once.


@pytest.mark.check("S9")
async def test_hundred_tasks_are_closed_to_each_other_and_leave_nothing(
    backend: BubblewrapBackend, state_root: Path
) -> None:
    token = secrets.token_hex(8)
    seen: set[tuple[int, int]] = set()
    work = [asyncio.create_task(shell(backend, f"sleep 0.2 # {token}")) for _ in range(100)]
    while not all(task.done() for task in work):
        for home in state_root.glob("runs/*/*/task"):
            try:
                status = home.stat()
            except FileNotFoundError:
                continue
            seen.add((stat.S_IMODE(status.st_mode), status.st_uid))
        await asyncio.sleep(0.05)

    assert {task.result().reason for task in work} == {"ok"}
    assert {mode for mode, _ in seen} == {0o700}
    assert len({uid for _, uid in seen}) > 8 or not is_root()
    assert leftovers(state_root, token) == []


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.mark.check("S14")
async def test_fifty_runs_cancelled_at_once_leave_nothing(backend: BubblewrapBackend, state_root: Path) -> None:
    await shell(backend, "true")
    token, before = secrets.token_hex(8), open_descriptors()
    work = [asyncio.create_task(shell(backend, f"setsid sleep 300 & sleep 300 # {token}")) for _ in range(50)]
    await eventually(lambda: len(survivors(token)) >= 100, within_s=30)
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)

    assert all(task.cancelled() for task in work)
    assert leftovers(state_root, token) == []
    assert open_descriptors() <= before


@pytest.mark.check("S13")
async def test_processor_hogs_keep_to_their_share_and_others_still_start(backend: BubblewrapBackend, way: Way) -> None:
    limits = SMALL.model_copy(update={"cpu_millis": 200, "overall_s": 2})
    hogs = [asyncio.create_task(shell(backend, "while :; do :; done", limits=limits)) for _ in range(4)]
    begun = asyncio.get_running_loop().time()
    others = [await shell(backend, "true") for _ in range(5)]
    took_s = asyncio.get_running_loop().time() - begun
    ended = await asyncio.gather(*hogs)

    assert {result.reason for result in others} == {"ok"}
    assert took_s < 5
    assert {result.reason for result in ended} == {"timeout"}
    if "cpu" in limited_by_cgroup(way):
        assert max(result.usage.cpu_ms for result in ended) < 800


@pytest.mark.check("S15")
async def test_flood_of_lines_is_cut_and_counted(backend: BubblewrapBackend, blobs: MemoryBlobStore) -> None:
    told: list[int] = []

    def tell(line: LogLine) -> None:
        told.append(line.n)

    limits = Limits(overall_s=20, idle_s=20, output_bytes=1 << 20)
    spec = RunSpec(argv=("/usr/bin/seq", "1", "1000000"), limits=limits)
    result = await backend.run(spec, run_id="rn-flood", log=tell)

    assert result.reason == "output_limit"
    assert result.stdout.truncated
    assert result.stdout.total_bytes > 1 << 20
    assert (len(result.stdout.head), len(result.stdout.tail)) == (32 << 10, 32 << 10)
    assert result.stdout.blob is not None
    assert len(await blobs.get(result.stdout.blob)) == 1 << 20
    assert told == list(range(1, len(told) + 1))
    assert len(told) < 400_000


@pytest.mark.check("S18")
async def test_run_lives_on_when_the_thread_that_asked_for_it_ends(backend: BubblewrapBackend) -> None:
    loop = asyncio.get_running_loop()
    asked: list[asyncio.Task[RunResult]] = []

    def ask() -> None:
        loop.call_soon_threadsafe(
            lambda: asked.append(loop.create_task(shell(backend, "echo here; sleep 1; echo there")))
        )

    thread = threading.Thread(target=ask)
    thread.start()
    await asyncio.to_thread(thread.join)
    await eventually(lambda: bool(asked))
    result = await asked[0]

    assert (result.reason, result.stdout.text) == ("ok", "here\nthere\n")
