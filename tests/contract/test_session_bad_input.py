"""What a command may do to its files, over a real bubblewrap: each case is told, bounded, and the session goes on."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fleet.engineering.commands import ended_as, spec_of
from fleet.engineering.state import begin
from fleet.engineering.terms import SessionTerms
from fleet.engineering.tools import SessionCall
from fleet.kernel.digest import digest_of
from fleet.owner.engineering.desk import Desk, Looked
from fleet.policy.runs.spec import RunResult
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.probes import processes_named
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.service import read_changes, read_tree
from tests.support.sandbox import put_tree as put_files
from tests.support.sandbox import state_folder
from tests.support.session_folders import FILES, Session, made

pytestmark = pytest.mark.asyncio(loop_scope="module")
MIB = 1 << 20


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
    yield await made(state_root / request.param, blobs, use_overlays=request.param == "overlay")


async def commanded(session: Session, line: str, **args: Any) -> tuple[RunResult, str]:
    """The result of the tool `run`, and how the engineer is told that it ended; the head moves."""
    call = SessionCall(name="run", args={"command": line, **args})
    spec = spec_of(call, session.head, toolchain="python", language="python")
    spec = spec.model_copy(update={"folder": session.folder})
    result = await session.backend.run(spec, run_id=f"rn-{time.monotonic_ns()}")
    session.head = result.tree_out or session.head
    return result, ended_as(result, spec)


async def looked(session: Session, name: Any, **args: Any) -> Looked:
    """What a look or an edit comes to; the head moves with an edit."""
    state = begin(SessionTerms(window=128_000, output=8_000), session.head)
    found = await Desk(session.blobs).carry_out(SessionCall(name=name, args=args), state)
    session.head = found.head
    return found


@pytest.mark.rule("RC-36")
async def test_command_that_hangs_is_told_and_what_it_did_is_kept(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    session = Session(backend, blobs, await put_files(blobs, FILES))
    token = f"hang{time.monotonic_ns()}"
    line = f"trap '' TERM INT; echo half > half; setsid sleep 301 {token} & sleep 302 || true # {token}"
    begun = time.monotonic()
    result, told = await commanded(session, line.replace(f"301 {token}", "301"), timeout_s=2)
    assert time.monotonic() - begun < 30
    assert result.reason == "timeout"
    assert told.startswith("timed out after 2 s; the output so far is below, and what it changed was kept")
    assert processes_named(token) == []
    assert (await commanded(session, "cat half"))[0].stdout.text == "half\n"


@pytest.mark.rule("RC-36")
async def test_command_that_forks_without_end_is_bounded_and_the_next_one_runs(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    session = Session(backend, blobs, await put_files(blobs, FILES))
    line = "echo before > before; bomb() { bomb | bomb & }; bomb; wait; sleep 20"
    begun = time.monotonic()
    result, told = await commanded(session, line, timeout_s=5)
    assert time.monotonic() - begun < 60
    assert result.reason in ("timeout", "pids_limit", "exit_nonzero", "oom_killed"), result
    assert told
    assert (await commanded(session, "cat before README"))[0].stdout.text == "before\nread me\n"


@pytest.mark.rule("RC-36")
async def test_workspace_that_was_deleted_is_an_empty_tree_and_the_head_before_comes_back(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    session = Session(backend, blobs, await put_files(blobs, FILES))
    await commanded(session, "echo mine > mine")
    before = session.head
    result, _ = await commanded(session, "cd /; rm -rf /workspace; rmdir /workspace; mv /workspace /tmp/gone; true")
    assert result.reason == "ok"
    left = await read_tree(blobs, session.head)
    assert {path for path in left if "__pycache__" not in path and ".coverage" not in path} == {"vendor/lib"}
    assert (await looked(session, "read", path="mine")).text.startswith("There is no file mine")
    assert (await looked(session, "write", path="again/new.py", content="x = 1\n")).kind == "edit"
    assert (await commanded(session, "cat again/new.py; ls"))[0].stdout.text.split()[:3] == ["x", "=", "1"]
    session.head = before
    assert (await commanded(session, "cat mine README"))[0].stdout.text == "mine\nread me\n"
    assert await session.shown() == await session.shown_anew()


@pytest.mark.rule("RC-36")
async def test_binary_files_odd_names_and_links_out_of_the_repository_are_kept_and_never_followed(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    session = Session(backend, blobs, await put_files(blobs, FILES))
    line = (
        r"printf '\0\377\376binary' > all.bin; ln -s /etc/passwd out; ln -s ../../../../etc up; ln -s loop loop; "
        r"touch $(printf 'odd\377'); mkfifo pipe; printf 'x' > $'name with\nnewline'; printf 'y' > '-rf'"
    )
    result, _ = await commanded(session, line)
    assert result.reason == "ok", result.stderr.text
    assert "left out" in result.limits["tree"]
    tree = await read_tree(blobs, session.head)
    assert (tree["out"].mode, await blobs.get(tree["out"].blob)) == ("120000", b"/etc/passwd")
    assert await blobs.get(tree["all.bin"].blob) == b"\0\xff\xfebinary"
    assert await blobs.get(tree["-rf"].blob) == b"y"
    assert "is no text" in (await looked(session, "read", path="all.bin")).text
    assert "is no text" in (await looked(session, "edit", path="all.bin", old="b", new="c")).text
    for path in ("out", "up", "loop"):
        told = await looked(session, "read", path=path)
        assert "links are not followed" in told.text
        assert "root:" not in told.text
    assert (await looked(session, "write", path="out", content="x")).kind == "refused"
    assert (await looked(session, "write", path="up/passwd", content="x")).kind == "refused"
    assert (await looked(session, "read", path="../../etc/passwd")).text.startswith("Refused")
    seen, _ = await commanded(session, "cat -- -rf; cat up/hostname 2>/dev/null; ls | wc -l; readlink out")
    assert seen.stdout.text.startswith("y")
    assert await session.shown() == await session.shown_anew()


@pytest.mark.rule("RC-36")
async def test_file_of_fifty_megabytes_is_kept_and_too_large_to_be_read_or_edited(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    big = bytes(range(256)) * (50 * MIB // 256)
    session = Session(
        backend, blobs, await put_files(blobs, {**FILES, "old.txt": b"line of text\n" * (50 * MIB // 13)})
    )
    line = "python3 -c \"open('big', 'wb').write(bytes(range(256)) * (50 * 2**20 // 256))\"; wc -c < old.txt"
    result, _ = await commanded(session, line)
    assert (result.reason, result.stdout.text) == ("ok", f"{50 * MIB // 13 * 13}\n")
    assert (await read_tree(blobs, session.head))["big"].blob == digest_of(big)
    for path in ("big", "old.txt"):
        told = (await looked(session, "read", path=path)).text
        assert "too many to be shown: look at parts of it with run" in told
        assert len(told) < 300
        refused = await looked(session, "edit", path=path, old="line", new="row")
        assert refused.kind == "refused"
        assert len(refused.text) < 300
    assert (await commanded(session, "echo more >> big; tail -c 5 big"))[0].stdout.text == "more\n"
    result, told = await commanded(session, "head -c 400000000 /dev/zero > huge; ls -s huge")
    assert result.reason in ("exit_nonzero", "signal", "disk_limit", "ok"), result
    assert result.stderr.text or told
    assert (await commanded(session, "tail -c 5 big"))[0].stdout.text == "more\n"


@pytest.mark.rule("RC-36")
@pytest.mark.parametrize(
    "folders",
    [
        pytest.param(10, id="10,000"),
        pytest.param(100, id="100,000", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
async def test_thousands_of_files_that_a_command_made_are_kept_and_told(
    backend: BubblewrapBackend, blobs: MemoryBlobStore, folders: int
) -> None:
    if backend.repos.parent.name != "overlay":
        pytest.skip("the same walk, with more to lay")
    session = Session(backend, blobs, await put_files(blobs, FILES))
    make = (
        f"import os\nfor d in range({folders}):\n    os.makedirs(f'made/d{{d}}')\n    for n in range(1000):\n"
        "        open(f'made/d{d}/f{n}', 'w').write(str(n))\n"
    )
    result, _ = await commanded(session, f'python3 -c "{make}"', timeout_s=300)
    assert (result.reason, result.stderr.text) == ("ok", "")
    before = session.head
    made_files = len((await read_changes(blobs, session.folder.root, before))[1])
    assert made_files == folders * 1000
    seen, _ = await commanded(session, "find made -type f | wc -l; rm -r made/d1; echo x > made/d2/f3", timeout_s=300)
    assert seen.stdout.text == f"{folders}000\n"
    gone, come = map(len, await read_changes(blobs, before, session.head))
    assert (gone, come) == (1_001, 1)


@pytest.mark.rule("CX-60")
async def test_secret_in_a_file_reaches_no_engineer(backend: BubblewrapBackend, blobs: MemoryBlobStore) -> None:
    secret = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"
    files = {**FILES, "settings.py": f"TOKEN = '{secret}'\n".encode(), "link": ("120000", f"at/{secret}".encode())}
    session = Session(backend, blobs, await put_files(blobs, files))
    for name, args in (
        ("read", {"path": "settings.py"}),
        ("read", {"path": "link"}),
        ("edit", {"path": "settings.py", "old": "TOKEN = ", "new": "KEY = "}),
        ("edit", {"path": "settings.py", "old": "NOT THERE", "new": "x"}),
    ):
        found = await looked(session, name, **args)
        assert secret not in found.text, name
    # The file keeps its bytes: another byte would be another program.
    assert (await session.texts())["settings.py"] == f"KEY = '{secret}'\n".encode()
    result, _ = await commanded(session, "cat settings.py; grep -n ghp_ settings.py")
    assert secret not in result.stdout.text
    assert "KEY = " in result.stdout.text
