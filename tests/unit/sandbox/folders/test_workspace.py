from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from fleet.kernel.errors import InvalidInput, NotFound
from fleet.redaction.redact_json import redact_report
from fleet.sandbox.folders import beneath, workspace
from fleet.sandbox.folders.beneath import TooLarge, open_beneath, read_beneath, walk_beneath
from fleet.sandbox.folders.workspace import NO_ROOM, disk_usage, remove_tree, store_artifacts
from fleet.trees.memory import MemoryBlobStore
from fleet.workspace.service.results import parse_junit


@pytest.fixture
def root(tmp_path: Path) -> Generator[int]:
    folder = tmp_path / "root"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.mark.check("S2")
@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", "nul\0", "x" * 5000, "", "a//b", "./a", ".git/config"]
)
def test_check_s2_read_of_a_path_outside_is_refused(root: int, path: str) -> None:
    with pytest.raises(InvalidInput):
        read_beneath(root, path, max_bytes=10)


@pytest.mark.check("S4")
@pytest.mark.parametrize("path", ["%2e%2e/x", "..\\x", "\u2025/x", "missing", "pipe", "sub", "link", "through/f"])
def test_check_s4_read_of_no_regular_file_is_not_found(root: int, folder: Path, path: str) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "f").write_text("x")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "through").symlink_to("sub")
    os.mkfifo(folder / "pipe")

    with pytest.raises(NotFound):
        read_beneath(root, path, max_bytes=10)


@pytest.mark.check("S4")
def test_check_s4_read_is_capped_also_for_sparse_files(root: int, folder: Path) -> None:
    with (folder / "sparse").open("wb") as file:
        file.truncate(10 << 30)

    with pytest.raises(TooLarge):
        read_beneath(root, "sparse", max_bytes=1 << 20)
    (folder / "exact").write_bytes(b"12345")
    assert read_beneath(root, "exact", max_bytes=5) == b"12345"


@pytest.mark.parametrize("path", ["through/f", "../root/sub/f", "link", "/etc/passwd"])
def test_open_without_openat2_refuses_links_and_parents_too(root: int, folder: Path, path: str) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "f").write_text("x")
    (folder / "link").symlink_to("sub/f")
    (folder / "through").symlink_to("sub")

    with pytest.raises(OSError, match="."):
        beneath.open_by_parts(root, path, os.O_RDONLY | os.O_NOFOLLOW)
    descriptor = beneath.open_by_parts(root, "sub/f", os.O_RDONLY | os.O_NOFOLLOW)
    assert os.read(descriptor, 1) == b"x"
    os.close(descriptor)


def test_walk_ends_after_its_number_of_entries(root: int, folder: Path) -> None:
    for n in range(5):
        (folder / str(n)).write_text("")

    assert len(list(walk_beneath(root, max_entries=3))) == 3


def test_walk_does_not_follow_links_to_folders(root: int, folder: Path) -> None:
    (folder / "link").symlink_to("/usr")

    assert [path for path, _ in walk_beneath(root)] == ["link"]


def test_open_of_the_root_itself_is_possible(root: int) -> None:
    os.close(open_beneath(root, ".", os.O_RDONLY | os.O_DIRECTORY))


def test_usage_counts_what_lies_on_the_disk(root: int, folder: Path) -> None:
    (folder / "f").write_bytes(b"x" * 100_000)
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 40)

    assert 100_000 <= disk_usage(root) < 200_000


def test_usage_of_a_path_too_long_to_follow_is_over_every_limit(root: int, folder: Path) -> None:
    here = os.getcwd()  # noqa: PTH109
    try:
        os.chdir(folder)
        for _ in range(25):
            os.mkdir("d" * 200)  # noqa: PTH102
            os.chdir("d" * 200)
    finally:
        os.chdir(here)

    assert disk_usage(root) == NO_ROOM
    assert remove_tree(folder)
    folder.mkdir()


def test_removal_of_nothing_says_so(tmp_path: Path) -> None:
    assert not remove_tree(tmp_path / "missing")


def test_removal_survives_names_like_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    for name in (".removed-0", "a/.removed-1", "a/b"):
        (folder / name).mkdir(parents=True)
    (folder / "a" / "closed").mkdir(mode=0)

    assert remove_tree(folder)
    assert not folder.exists()


@pytest.mark.check("S6")
async def test_check_s6_artifact_over_its_cap_is_listed_with_its_size(root: int, folder: Path) -> None:
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    (artifact,) = await store_artifacts(root, ["sparse"], MemoryBlobStore())

    assert (artifact.blob, artifact.size_bytes, artifact.truncated) == (None, 1 << 40, True)


@pytest.mark.check("S6")
async def test_check_s6_artifacts_are_capped_in_number(root: int, folder: Path) -> None:
    (folder / "many").mkdir()
    for n in range(workspace.MAX_ARTIFACTS + 5):
        (folder / "many" / str(n)).write_text("")

    assert len(await store_artifacts(root, ["many"], MemoryBlobStore())) == workspace.MAX_ARTIFACTS


TOKEN = "ghp_" + "a1B2" * 9
JUNIT = f"""<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest">
<testcase classname="tests.test_a" name="test_a[{TOKEN}]" file="tests/test_a.py">
<failure message="AssertionError: token {TOKEN}&#10;&lt;a&gt; &amp; &quot;b&quot;">
E  assert "{TOKEN}" &lt; 1</failure><system-out><![CDATA[said {TOKEN} ]] ]]></system-out></testcase>
</testsuite></testsuites>"""
OUTCOME = {"id": "a::b", "outcome": "failed", "message": f"x {TOKEN}\n", "excerpt": "é\\"}
OUTCOMES = {"files": [{"name": "a", "collected": True, "reason": f'"{TOKEN}', "tests": [OUTCOME]}]}


@pytest.mark.rule("CX-60", "RC-67")
async def test_what_a_test_said_is_stored_without_its_secrets_and_reads_as_before(tmp_path: Path) -> None:
    files = {"junit.xml": JUNIT.encode(), "tests.json": json.dumps(OUTCOMES).encode(), "pack.bin": TOKEN.encode()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    blobs = MemoryBlobStore()
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        stored = {a.path: await blobs.get(a.blob) for a in await store_artifacts(root, list(files), blobs) if a.blob}
    finally:
        os.close(root)

    assert stored["pack.bin"] == files["pack.bin"]
    before, after = parse_junit(files["junit.xml"]), parse_junit(stored["junit.xml"])
    assert before is not None
    assert after is not None
    # The name of a test is what it is compared by.
    assert [(c.id, c.outcome, c.file) for c in after.cases] == [(c.id, c.outcome, c.file) for c in before.cases]
    assert after.cases[0].message == "AssertionError: token [REDACTED:GITHUB]"
    assert stored["junit.xml"].count(TOKEN.encode()) == 1
    assert b'&#10;&lt;a&gt; &amp; &quot;b&quot;"' in stored["junit.xml"]
    plain = files["tests.json"].replace(TOKEN.encode(), b"[REDACTED:GITHUB]")
    assert json.loads(stored["tests.json"]) == json.loads(plain)


@pytest.mark.parametrize("content", [b"<testcase>no secret & no form", b'{"message": "plain"}', b"\xff", b""])
def test_report_without_a_secret_has_the_same_bytes(content: bytes) -> None:
    assert redact_report("a.xml", content) == redact_report("a.json", content) == content
