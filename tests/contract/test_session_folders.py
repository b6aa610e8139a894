"""Folders of work sessions over a real bubblewrap: by overlay and as whole folders, and always as a new folder is."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import pytest_asyncio

from fleet.policy.runs.spec import RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.bubblewrap.overlays import SESSION_FOLDERS
from fleet.sandbox.backends.identity import is_root
from fleet.sandbox.folders.live import FolderLimits
from fleet.trees.delta import decode_delta
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.service import put_whole, read_delta
from tests.support.sandbox import SMALL, state_folder
from tests.support.sandbox import put_tree as put_files
from tests.support.session_folders import FILES, Session, made

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


@pytest.fixture(scope="module")
def state_root() -> Generator[Path]:
    with state_folder() as folder:
        yield folder


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["overlay", "whole"])
async def backend(
    request: pytest.FixtureRequest, state_root: Path, blobs: MemoryBlobStore
) -> AsyncGenerator[BubblewrapBackend]:
    backend = await made(state_root / request.param, blobs, use_overlays=request.param == "overlay")
    yield backend


COMMANDS = (
    "true",
    "echo more >> src/one.py; echo new > src/four.py",
    "rm src/two.py; chmod 755 README; chmod 644 run.sh",
    "rm -r docs",
    "mkdir docs; echo back > docs/a.md",
    "rm -r src/deep; echo file > src/deep",
    "rm src/deep; mkdir -p src/deep/er; echo again > src/deep/er/three.py",
    "mkdir -p empty/in/empty; mkdir build; touch build/.keep; rm build/.keep",
    "mv src source; ln -s nowhere dangling; ln -sf /etc/passwd link",
    "mv source src; rm dangling; umask 077; echo closed > closed; chmod 000 closed; mkdir -m 700 shut; echo > shut/in",
    "ln src/one.py hard; ln src/one.py src/harder",
    "echo changed >> hard",
    "mkfifo pipe; mkdir .git; echo x > .git/config; echo file > .coverage",
    "rm pkg/.coverage; rm -r pkg/__pycache__",
    "chmod 700 src; chmod 700 .; rm README; mkdir README; echo in > README/file",
    "rm -r README; echo '# again' > README; printf '\\377\\0binary' > src/blob.bin",
    "rm -rf ./* ; echo only > only; exit 3",
    "echo late > late; sleep 60",
)


@pytest.mark.rule("RC-36")
async def test_every_command_finds_and_leaves_what_it_would_in_a_folder_of_its_own(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    session = Session(backend, blobs, await put_files(blobs, FILES))
    for line in COMMANDS:
        limits = SMALL.model_copy(update={"overall_s": 2}) if "sleep" in line else SMALL
        before = session.head
        alone = await session.look(line, folder=None, keep_tree=True, limits=limits)
        result = await session.run(line, limits=limits)

        assert (result.reason, result.exit_code) == (alone.reason, alone.exit_code), line
        assert result.limits.get("tree") == alone.limits.get("tree"), line
        assert alone.tree_out is not None
        assert await put_whole(blobs, session.head) == await put_whole(blobs, alone.tree_out), (line, before)
        assert await session.shown() == await session.shown_anew(), line
    delta = decode_delta(await blobs.get(session.head))
    assert delta is not None
    assert delta.base == session.folder.root


@pytest.mark.rule("RC-36")
async def test_edits_between_two_commands_are_there_and_nothing_else(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    session = Session(backend, blobs, await put_files(blobs, FILES))
    await session.run("echo made > made; rm -r docs; echo more >> src/two.py")
    edits: list[tuple[str, bytes | None]] = [
        ("src/one.py", b"one = 11\n"),
        ("made", None),
        ("src/two.py", b"two = 2\n"),  # as the base has it
        ("docs/b.md", b"# new\n"),  # in a folder that is gone
        ("README", None),
        ("new/folder/file", b"new\n"),
        ("new/folder/file", None),
        ("src/deep/er/three.py", None),  # the last one of its folder
        ("src/deep/er/three.py", b"three = 3\n"),
    ]
    for path, content in edits:
        await session.edit(path, content)
        assert await session.shown() == await session.shown_anew(), path
        assert (await session.texts()).get(path) == content


@pytest.mark.rule("RC-36")
async def test_a_run_that_keeps_no_tree_leaves_nothing_to_the_next_command(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    session = Session(backend, blobs, await put_files(blobs, FILES))
    await session.run("echo mine > mine")
    line = "mkdir test-reports; echo '<x/>' > test-reports/junit.xml; rm -r src; echo x > README; cat mine"
    result = await session.look(line, artifacts=("test-reports/junit.xml", "run.sh", "README", "src/one.py"))

    assert result.stdout.text == "mine\n"
    found = {a.path: a.blob and await blobs.get(a.blob) for a in result.artifacts}
    assert found == {
        "test-reports/junit.xml": b"<x/>\n",
        "run.sh": b"#!/bin/sh\necho ran\n",
        "README": b"x\n",
        "src/one.py": None,
    }
    assert result.tree_out is None
    assert await session.shown() == await session.shown_anew()


@pytest.mark.rule("RC-36", "RC-50")
async def test_a_supervisor_that_starts_again_lays_the_recorded_files(
    backend: BubblewrapBackend, blobs: MemoryBlobStore, state_root: Path
) -> None:
    session = Session(backend, blobs, await put_files(blobs, FILES))
    await session.run("echo first > first")
    recorded = session.head
    await session.run("echo never recorded > second; rm -r src")
    # The owner died before it recorded the second command; the supervisor too.
    session.head = recorded
    assert await session.shown() == await session.shown_anew()
    root, overlays = backend.repos.parent, backend.repos.parent.name == "overlay"
    session.backend = await made(root, blobs, use_overlays=overlays)
    assert await session.shown() == await session.shown_anew()


async def test_a_cancelled_command_leaves_the_head(backend: BubblewrapBackend, blobs: MemoryBlobStore) -> None:
    session = Session(backend, blobs, await put_files(blobs, FILES))
    limits = SMALL.model_copy(update={"grace_s": 0})
    given = {"argv": ("bash", "-c", "echo x > README; rm -r src; echo here; sleep 60"), "tree": session.head}
    spec = RunSpec.model_validate({**given, "keep_tree": True, "limits": limits, "folder": session.folder})
    here = asyncio.Event()
    run = asyncio.create_task(backend.run(spec, run_id="rn-cancelled", log=lambda _: here.set()))
    await asyncio.wait_for(here.wait(), 30)
    assert await backend.cancel("rn-cancelled")
    result = await run
    assert (result.reason, result.tree_out) == ("cancelled", session.head)
    assert await session.shown() == await session.shown_anew()


async def test_two_sessions_and_two_commands_of_one_never_meet(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    base = await put_files(blobs, FILES)
    one, other = Session(backend, blobs, base), Session(backend, blobs, base)
    meet = "echo {0} > src/one.py; for i in 1 2 3 4 5 6; do sleep 0.2; cat src/one.py; done"
    results = await asyncio.gather(
        one.look(meet.format("first")), one.look(meet.format("second")), other.look(meet.format("third"))
    )
    words = ("first", "second", "third")
    assert [r.stdout.text.split() for r in results] == [[word] * 6 for word in words]
    assert await one.shown() == await other.shown() == await one.shown_anew()


async def test_looks_at_once_lay_no_further_whole_folder(backend: BubblewrapBackend, blobs: MemoryBlobStore) -> None:
    session = Session(backend, blobs, await put_files(blobs, {**FILES, "laid": b"once\n"}))
    await session.run("echo more >> laid")
    before = await folders_of(backend)
    found = await asyncio.gather(*(session.look(f"sleep 0.3; cat laid; echo {n} > laid") for n in range(3)))
    assert [result.stdout.text for result in found] == ["once\nmore\n"] * 3
    is_overlay = (await backend.health()).enforced[SESSION_FOLDERS] == "overlay"
    assert await folders_of(backend) - before == (2 if is_overlay else 0)
    assert await session.shown() == await session.shown_anew()


async def folders_of(backend: BubblewrapBackend) -> int:
    return next(use.count for use in await backend.usage() if use.kind == "folders")


async def test_a_folder_that_somebody_removed_is_laid_anew(backend: BubblewrapBackend, blobs: MemoryBlobStore) -> None:
    session = Session(backend, blobs, await put_files(blobs, {**FILES, "own": b"base\n"}))
    await session.run("echo kept > kept")
    for removed in ("live/*-*-*", "live/bases-*/*/*", "live"):
        for folder in backend.repos.parent.glob(removed):
            shutil.rmtree(folder)
        assert await session.shown() == await session.shown_anew(), removed
        await session.run(f"echo {removed.count('/')} >> kept")
    assert (await session.texts())["kept"] == b"kept\n1\n3\n0\n"


async def test_more_than_the_disk_limit_leaves_the_head(backend: BubblewrapBackend, blobs: MemoryBlobStore) -> None:
    session = Session(backend, blobs, await put_files(blobs, FILES))
    limits = SMALL.model_copy(update={"disk_bytes": 8 << 20, "file_bytes": 64 << 20})
    result = await session.look("head -c 20000000 /dev/urandom > big; rm -r src", keep_tree=True, limits=limits)
    assert (result.reason, result.tree_out) == ("disk_limit", session.head)
    assert result.limits["tree"].startswith("unchanged")
    assert await session.shown() == await session.shown_anew()


async def test_a_tree_that_is_no_delta_over_its_root_is_laid_too(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    """A session that an earlier version began has heads that are stored whole."""
    session = Session(backend, blobs, await put_files(blobs, FILES))
    session.head = await put_files(blobs, {**FILES, "later": b"recorded whole\n", "README": b"other\n"})
    await session.run("echo more >> later")
    assert (await session.texts())["later"] == b"recorded whole\nmore\n"
    assert set((await read_delta(blobs, session.head)).rows) == {"later", "README"}


async def test_what_no_session_uses_goes_first_and_limits_hold(blobs: MemoryBlobStore) -> None:
    with state_folder() as root:
        backend = await made(root, blobs, folders=FolderLimits(folders=2, folders_bytes=1 << 30))
        base = await put_files(blobs, FILES)
        sessions = [Session(backend, blobs, base, name=f"s{n}", story=f"st-limits-{n}") for n in range(4)]
        for session in sessions:
            await session.run("echo mine > mine")
        assert len(list(root.glob("live/*-*-*/*"))) == 2
        for session in sessions:  # each is laid anew as it was
            assert (await session.look("cat mine")).stdout.text == "mine\n"
        small = await made(root / "small", blobs, folders=FolderLimits(folders_bytes=1, bases_bytes=1))
        session = Session(small, blobs, base)
        await session.run("echo mine > mine")
        await small.sweep()
        assert list(root.glob("small/live/*-*-*/*")) == list(root.glob("small/live/bases-*/*/*")) == []
        assert (await session.look("cat mine")).stdout.text == "mine\n"


# Containment: what runs inside cannot pass for the kernel.

_FORGERY = r"""
import ctypes, errno, os, stat
libc = ctypes.CDLL(None, use_errno=True)
said = []
def tried(name, action):
    try:
        action()
        said.append(f"{name} done")
    except OSError as error:
        said.append(f"{name} {errno.errorcode[error.errno]}")
def renamed(flag):
    if libc.renameat2(-100, b"src/two.py", -100, b"src/moved.py", flag) != 0:
        raise OSError(ctypes.get_errno(), "")
tried("whiteout", lambda: os.mknod("src/one.py.gone", stat.S_IFCHR | 0o644, 0))
tried("device", lambda: os.mknod("null", stat.S_IFCHR | 0o644, os.makedev(1, 3)))
tried("rename-whiteout", lambda: renamed(4))
os.mkdir("new"); open("new/file", "w").close()
for name in ("user.overlay.opaque", "user.overlay.redirect", "user.overlay.metacopy", "user.overlay.whiteout"):
    tried(name, lambda: os.setxattr("docs", name, b"y"))
    tried(name, lambda: os.setxattr("new", name, b"/src"))
tried("trusted", lambda: os.setxattr("docs", "trusted.overlay.opaque", b"y"))
print("\n".join(said))
"""


@pytest.mark.check("O1", "O2")
async def test_check_o1_o2_no_program_forges_a_whiteout_or_an_attribute_of_the_overlay(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    session = Session(backend, blobs, await put_files(blobs, FILES))
    result = await session.run("cat > /tmp/forge.py; python3 /tmp/forge.py", stdin=await blobs.put(_FORGERY.encode()))
    said = result.stdout.text.split("\n")
    assert result.exit_code == 0, result.stderr.text
    assert "device EPERM" in said
    assert "trusted EPERM" in said
    if backend.repos.parent.name == "overlay":
        assert "whiteout EPERM" in said
        assert "rename-whiteout EINVAL" in said
    # Whatever it tried: what it left is what a folder of its own would have been read as.
    left = await session.texts()
    assert FILES.keys() - {"vendor/lib", "src/two.py"} <= left.keys()
    assert await session.shown() == await session.shown_anew()
    assert {p for p in left if p.startswith("docs/")} == {"docs/a.md", "docs/b.md"}


@pytest.mark.check("O3")
async def test_check_o3_links_lead_neither_the_reader_nor_the_writer_out(
    backend: BubblewrapBackend, blobs: MemoryBlobStore, state_root: Path
) -> None:
    secret = state_root / "outside"
    secret.mkdir(exist_ok=True)
    secret.chmod(0o777)
    (secret / "one.py").write_text("untouched")
    session = Session(backend, blobs, await put_files(blobs, FILES))
    await session.run(f"rm -r src docs; ln -s {secret} src; ln -s ../../.. docs; ln -s {secret}/one.py README.new")
    assert not [path for path in await session.texts() if path.startswith(("src/", "docs/"))]
    # The owner writes where a link was, and where one leads.
    await session.edit("src", None)
    await session.edit("src/one.py", b"written\n")
    await session.edit("README.new", b"written\n")
    assert (await session.look("cat src/one.py README.new")).stdout.text == "written\nwritten\n"
    assert (secret / "one.py").read_text() == "untouched"
    assert [path.name for path in secret.iterdir()] == ["one.py"]


@pytest.mark.check("O4")
async def test_check_o4_files_belong_to_the_user_of_their_story_and_a_base_is_never_written(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    base = await put_files(blobs, {**FILES, "o4": b"own\n"})
    sessions = [Session(backend, blobs, base, story=f"st-owner-{n}") for n in (1, 1, 2)]
    for session in sessions:
        await session.run("echo x >> o4; chmod 600 README; rm -r docs; ln src/one.py hard")
    live = backend.repos.parent / "live"
    owners = [path.stat().st_uid for path in live.glob("*-*-*/*/task/workspace/o4")]
    assert 0 not in owners or not is_root()
    if is_root():
        assert len(set(owners)) >= 2
    for files in live.glob("bases-*/*/*/files"):
        if (files / "o4").exists():
            assert (files / "o4").read_bytes() == b"own\n"
            assert (files / "docs/a.md").read_bytes() == b"# a\n"
            assert (files / "README").stat().st_mode & 0o777 == 0o644
            assert (files / "src/one.py").stat().st_nlink == 1


@pytest.mark.check("O5")
async def test_check_o5_the_table_of_mounts_names_no_story_and_no_session(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    session = Session(backend, blobs, await put_files(blobs, FILES), name="council/draft/secret-name")
    shown = (await session.look("cat /proc/self/mountinfo")).stdout.text
    assert "/workspace" in shown
    assert "secret-name" not in shown
    assert str(session.folder.story) not in shown


@pytest.mark.check("O6")
async def test_check_o6_a_lower_folder_of_another_user_is_refused_by_the_kernel(
    blobs: MemoryBlobStore,
) -> None:
    """Why a base belongs to the user of its story: the reason for the lease by story."""
    if not is_root():
        pytest.skip("only root makes files of another user")
    with state_folder() as root:
        backend = await made(root, blobs)
        session = Session(backend, blobs, await put_files(blobs, FILES))
        await session.run("true")
        (files,) = [f for f in root.glob("live/bases-*/*/*/files") if (f / "run.sh").exists()]
        os.chown(files / "README", 0, 0)
        (files / "README").chmod(0o666)
        result = await session.look("echo x >> README")
        assert "Value too large" in result.stderr.text
