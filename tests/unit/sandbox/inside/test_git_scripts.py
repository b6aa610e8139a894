"""Checkout and commit inside the sandbox, on real repositories and hostile ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.inside import load, read_json, write_files
from tests.support.repositories import FILES, add_hostile_settings, commit_all, git, make_repository

git_checkout: Any = load("git_checkout")
git_commit: Any = load("git_commit")
gitdir: Any = load("gitdir")


def staged(source: Path, target: Path) -> Path:
    """What the forge stages: objects, and the list of cut-off commits."""
    shutil.copytree(source / ".git" / "objects", target / "objects")
    if (source / ".git" / "shallow").exists():
        shutil.copy(source / ".git" / "shallow", target)
    return target


def check_out(repo: Path, commit: str, workspace: Path) -> int:
    workspace.mkdir(exist_ok=True)
    argv = [commit, "--workspace", str(workspace), "--repo", str(repo), "--out", str(workspace / ".fleet-out")]
    return git_checkout.main(argv)


def make_commit(tmp_path: Path, workspace: Path, repo: Path, **fields: str) -> tuple[int, Path]:
    inputs = tmp_path / "inputs"
    inputs.mkdir(exist_ok=True)
    request = {"message": "Add it", "author_name": "Ada", "author_email": "a@b", "date": "1700000001 +0100"} | fields
    (inputs / "commit.json").write_text(json.dumps(request))
    out = workspace / ".fleet-out"
    argv = ["--workspace", str(workspace), "--inputs", str(inputs), "--repo", str(repo), "--out", str(out)]
    return git_commit.main(argv), out


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make_repository(tmp_path / "source")
    return tmp_path / "source"


@pytest.mark.rule("RC-70")
def test_checkout_writes_every_file_of_the_commit_and_its_facts(tmp_path: Path, source: Path) -> None:
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    (source / "link").symlink_to("run.sh")
    commit = commit_all(source, {"a b/ü.txt": "x"})
    workspace = tmp_path / "ws"
    assert check_out(staged(source, tmp_path / "repo.git"), commit, workspace) == 0
    assert (workspace / "run.sh").stat().st_mode & 0o100
    assert (workspace / "link").readlink() == Path("run.sh")
    assert (workspace / "a b/ü.txt").read_text() == "x"
    facts = read_json(workspace / ".fleet-out/checkout.json")
    assert facts["commit"] == commit
    assert facts["tree"] == git(source, "rev-parse", "HEAD^{tree}")
    assert (facts["committed_at"], facts["files"]) == (1700000000, len(FILES) + 3)
    assert not (workspace / ".git").exists()


@pytest.mark.check("S21")
@pytest.mark.rule("RC-70")
def test_checkout_runs_no_filter_conversion_or_export_rule_of_the_repository(tmp_path: Path, source: Path) -> None:
    marker = tmp_path / "marker"
    attributes = "* filter=evil text eol=crlf ident\nsecret.txt export-ignore\n*.u16 working-tree-encoding=UTF-16\n"
    files = {".gitattributes": attributes, "secret.txt": "$Id$\nline\n", "a.u16": "plain"}
    write_files(source, files)
    (source / ".git/info/attributes").write_text("* -filter -text -ident -working-tree-encoding\n")
    commit = commit_all(source, files)
    add_hostile_settings(source, marker)
    workspace = tmp_path / "ws"
    assert check_out(staged(source, tmp_path / "repo.git"), commit, workspace) == 0
    assert {name: (workspace / name).read_text() for name in files} == files
    assert not marker.exists()


def test_checkout_names_submodules_and_takes_no_content_of_them(tmp_path: Path, source: Path) -> None:
    git(source, "update-index", "--add", "--cacheinfo", f"160000,{'a' * 40},vendor/lib")
    git(source, "commit", "-q", "-m", "submodule")
    workspace = tmp_path / "ws"
    check_out(staged(source, tmp_path / "repo.git"), git(source, "rev-parse", "HEAD"), workspace)
    assert read_json(workspace / ".fleet-out/submodules.json") == [{"path": "vendor/lib", "commit": "a" * 40}]


def test_checkout_ignores_replace_refs_and_works_on_a_shallow_copy(tmp_path: Path, source: Path) -> None:
    commit_all(source, {"second.txt": "2"})
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{source}", "shallow")
    workspace = tmp_path / "ws"
    commit = git(source, "rev-parse", "HEAD")
    assert check_out(staged(tmp_path / "shallow", tmp_path / "repo.git"), commit, workspace) == 0
    code, out = make_commit(tmp_path, write_files(workspace, {"new.txt": "n"}), tmp_path / "repo.git", parent=commit)
    assert code == 0
    assert (out / "new.pack").exists()


@pytest.mark.parametrize("name", ["0" * 40, "main", "HEAD", "--help"])
def test_checkout_of_an_unknown_commit_fails_with_a_reason(
    tmp_path: Path, source: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    repo = staged(source, tmp_path / "repo.git")
    if name == "--help":
        with pytest.raises(SystemExit):
            check_out(repo, name, tmp_path / "ws")
        return
    assert check_out(repo, name, tmp_path / "ws") == 1
    assert "checkout:" in capsys.readouterr().err


@pytest.mark.rule("RC-77", "PL-43")
def test_commit_builds_on_its_parent_and_the_pack_is_all_the_repository_lacks(tmp_path: Path, source: Path) -> None:
    base = git(source, "rev-parse", "HEAD")
    repo, workspace = staged(source, tmp_path / "repo.git"), tmp_path / "ws"
    check_out(repo, base, workspace)
    shutil.rmtree(workspace / ".fleet-out")
    (workspace / "README.md").unlink()
    write_files(
        workspace, {"demo/new.py": "X = 1\r\n", "run.sh": "#!/bin/sh\n", ".gitignore": "*.log", "a.log": "kept"}
    )
    (workspace / "run.sh").chmod(0o755)
    (workspace / "link").symlink_to("demo")
    code, out = make_commit(tmp_path, workspace, repo, parent=base)
    assert code == 0
    commit = (out / "commit.txt").read_text().strip()
    shutil.copy(out / "new.pack", source / ".git/objects/pack/pack-x.pack")
    shutil.copy(out / "new.idx", source / ".git/objects/pack/pack-x.idx")
    git(source, "fsck", "--full", "--strict")
    assert git(source, "rev-parse", f"{commit}^") == base
    assert git(source, "log", "-1", "--format=%an %ae %at %ai %s", commit) == (
        "Ada a@b 1700000001 2023-11-14 23:13:21 +0100 Add it"
    )
    changes = git(source, "diff", "--raw", "--no-abbrev", base, commit).splitlines()
    assert [(line.split()[1], line.split()[4], line.split("\t")[1]) for line in changes] == [
        ("100644", "A", ".gitignore"),
        ("000000", "D", "README.md"),
        ("100644", "A", "a.log"),
        ("100644", "A", "demo/new.py"),
        ("120000", "A", "link"),
        ("100755", "A", "run.sh"),
    ]
    assert git(source, "cat-file", "blob", f"{commit}:demo/new.py") == "X = 1"


def test_commit_made_twice_has_the_same_id_and_pack(tmp_path: Path, source: Path) -> None:
    base = git(source, "rev-parse", "HEAD")
    repo, workspace = staged(source, tmp_path / "repo.git"), write_files(tmp_path / "ws", {"a.txt": "a"})
    results: list[tuple[str, bytes]] = []
    for _ in range(2):
        shutil.rmtree(workspace / ".fleet-out", ignore_errors=True)
        _, out = make_commit(tmp_path, workspace, repo, parent=base)
        results.append(((out / "commit.txt").read_text(), (out / "new.pack").read_bytes()))
    assert results[0] == results[1]


def test_commit_on_an_earlier_commit_of_ours_packs_both(tmp_path: Path, source: Path) -> None:
    base = git(source, "rev-parse", "HEAD")
    repo, workspace = staged(source, tmp_path / "repo.git"), tmp_path / "ws"
    check_out(repo, base, workspace)
    _, out = make_commit(tmp_path, write_files(workspace, {"one.txt": "1"}), repo, parent=base)
    first = (out / "commit.txt").read_text().strip()
    shutil.move(out / "new.pack", tmp_path / "inputs" / "pack-1.pack")
    shutil.rmtree(out)
    code, out = make_commit(tmp_path, write_files(workspace, {"two.txt": "2"}), repo, parent=first, base=base)
    assert code == 0
    second = (out / "commit.txt").read_text().strip()
    for ending in ("pack", "idx"):
        shutil.copy(out / f"new.{ending}", source / f".git/objects/pack/pack-y.{ending}")
    assert git(source, "rev-list", f"{base}..{second}").split() == [second, first]


def test_commit_keeps_the_parents_submodule_unless_files_took_its_place(tmp_path: Path, source: Path) -> None:
    git(source, "update-index", "--add", "--cacheinfo", f"160000,{'a' * 40},vendor/lib")
    git(source, "commit", "-q", "-m", "submodule")
    base = git(source, "rev-parse", "HEAD")
    repo = staged(source, tmp_path / "repo.git")
    with gitdir.temporary_git_dir(repo, tmp_path) as opened:
        parent = opened.rows(base)
    row = gitdir.Row("100644", "b" * 40)
    assert git_commit.with_submodules({"a": row}, parent)["vendor/lib"].mode == "160000"
    assert "vendor/lib" not in git_commit.with_submodules({"vendor/lib/x": row}, parent)
    check_out(repo, base, tmp_path / "ws")
    assert make_commit(tmp_path, tmp_path / "ws", repo, parent=base)[0] == 0


@pytest.mark.check("S22")
@pytest.mark.parametrize("bad", [".git/config", "sub/.GIT/x", "sub/.git"])
def test_commit_of_a_nested_git_folder_is_refused(tmp_path: Path, source: Path, bad: str) -> None:
    base = git(source, "rev-parse", "HEAD")
    workspace = write_files(tmp_path / "ws", {bad: "x"})
    assert make_commit(tmp_path, workspace, staged(source, tmp_path / "repo.git"), parent=base)[0] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"parent": "main"},
        {"date": "yesterday"},
        {"author_name": "a\nb"},
        {"author_email": "<x>"},
        {"message": "  "},
        {"message": "a\0b"},
        {"base": "--all"},
    ],
)
def test_commit_with_a_malformed_request_exits_2(tmp_path: Path, source: Path, fields: dict[str, str]) -> None:
    request = {"parent": git(source, "rev-parse", "HEAD")} | fields
    workspace = write_files(tmp_path / "ws", {"a": "a"})
    assert make_commit(tmp_path, workspace, staged(source, tmp_path / "repo.git"), **request)[0] == 2


def test_commit_without_an_object_as_request_exits_2(tmp_path: Path) -> None:
    (tmp_path / "commit.json").write_text("[]")
    argv = ["--workspace", str(tmp_path), "--inputs", str(tmp_path), "--out", str(tmp_path / "o")]
    assert git_commit.main(argv) == 2
