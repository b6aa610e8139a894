"""Edits are applied whole or not at all, and only where they may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.inside import load, read_json, run_script, write_files

apply_edits: Any = load("apply_edits")
confinement: Any = load("confinement")

CORE = "import os\n\n\ndef one():\n    return os.sep\n"


def apply(root: Path, *edits: dict[str, str], **options: object) -> tuple[int, dict[str, Any]]:
    inputs = root.parent / "inputs"
    inputs.mkdir(exist_ok=True)
    (inputs / "edits.json").write_text(json.dumps({"edits": list(edits), **options}))
    out = root.parent / "results"
    code = apply_edits.main(["--workspace", str(root), "--inputs", str(inputs), "--out", str(out)])
    return code, read_json(out / "edits.json") | {"diff": (out / "diff.patch").read_text()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "ws", {"pkg/core.py": CORE, "pkg/__init__.py": "", "tests/test_a.py": ""})


def edit(path: str, content: str, mode: str = "definitions") -> dict[str, str]:
    return {"path": path, "mode": mode, "content": content}


@pytest.mark.rule("RC-71")
def test_apply_good_edits_writes_files_diff_and_counts(root: Path) -> None:
    code, report = apply(root, edit("pkg/core.py", "def two():\n  return 2"), edit("notes.md", "hi", "file"))
    assert code == 0
    assert report["applied"] is True
    assert report["files"] == ["notes.md", "pkg/core.py"]
    assert (root / "notes.md").read_text() == "hi\n"
    assert "def two():\n    return 2\n" in (root / "pkg/core.py").read_text()
    assert "--- /dev/null\n+++ b/notes.md\n" in report["diff"]
    assert (report["added"], report["removed"], report["diff_lines"]) == (5, 0, 5)


@pytest.mark.rule("RC-71")
def test_apply_one_bad_edit_among_good_ones_writes_nothing(root: Path) -> None:
    code, report = apply(root, edit("pkg/core.py", "def two(): ..."), edit("pkg/new.py", "def (", "file"))
    assert code == 1
    assert report["applied"] is False
    assert "line 1" in report["problems"][0]["message"]
    assert report["problems"][0]["path"] == "pkg/new.py"
    assert (root / "pkg/core.py").read_text() == CORE
    assert not (root / "pkg/new.py").exists()
    assert report["diff"] == ""


@pytest.mark.check("S8")
@pytest.mark.rule("RC-71", "CN-30")
@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("../x.py", "component"),
        ("/etc/x.py", "relative"),
        ("a//b.py", "component"),
        (".git/hooks/pre-commit", ".git"),
        (".GIT/config", ".git"),
        ("sub/.git./x", ".git"),
        ("GIT~1/x", ".git"),
        ("a\\b.py", "slashes"),
        ("a\nb.py", "control"),
        ("link/x.py", "symbolic link"),
        ("file-link.py", "symbolic link"),
        ("pkg", "regular file"),
        ("pkg/core.py/x.py", "not a folder"),
        ("n" * 300, "cannot be used"),
        ("", "relative"),
        ("tests/test_a.py", "protected (tests/**)"),
        ("deep/down/conftest.py", "protected (conftest.py)"),
    ],
)
def test_apply_forbidden_path_is_refused(root: Path, path: str, word: str) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (root / "link").symlink_to(outside)
    (root / "file-link.py").symlink_to(root / "pkg/core.py")
    code, report = apply(root, edit(path, "X = 1\n", "file"), protect=["tests/**", "conftest.py", "*.toml"])
    assert code == 1
    assert word in report["problems"][0]["message"]
    assert list(outside.iterdir()) == []


def test_is_protected_globs_follow_folders_and_names() -> None:
    check = confinement.is_protected
    assert check("a/b/c.toml", ["*.toml"]) == "*.toml"
    assert check("tests", ["tests/**"]) == "tests/**"
    assert check("a/tests/x.py", ["**/tests/**"]) == "**/tests/**"
    assert check("tests/x.py", ["**/tests/**"]) == "**/tests/**"
    assert check("a1.py", ["a?.py"]) == "a?.py"
    assert check("a/b.py", ["a*.py", "b/*.py", "/c"]) is None


def test_apply_to_an_unformatted_file_changes_only_what_was_asked(root: Path) -> None:
    ugly = "import sys, os\nX = {  'a':1 }\n\ndef one(): return   1\n"
    write_files(root, {"pkg/ugly.py": ugly})
    _, report = apply(root, edit("pkg/ugly.py", "def two( ):\n  return 'x'\n"))
    assert report["removed"] == 0
    assert (root / "pkg/ugly.py").read_text() == ugly + '\n\ndef two():\n    return "x"\n'


def test_apply_to_a_formatted_file_sorts_and_prunes_imports(root: Path) -> None:
    content = "import abc\nimport json\n\n\ndef two():\n    return json\n"
    apply(root, edit("pkg/core.py", content))
    assert (root / "pkg/core.py").read_text().startswith("import json\nimport os\n\n\ndef one")


def test_apply_without_format_leaves_the_content_as_sent(root: Path) -> None:
    _, report = apply(root, edit("pkg/core.py", "def two( ):\n  return 2\n"), format=False)
    assert report["formatted"] is False
    assert "def two( ):\n  return 2\n" in (root / "pkg/core.py").read_text()


def test_apply_keeps_line_ends_and_byte_order_mark(root: Path) -> None:
    (root / "win.py").write_bytes("\ufeffX = 1\r\n".encode())
    apply(root, edit("win.py", "Y = 2\n"))
    assert (root / "win.py").read_bytes() == "\ufeffX = 1\r\n\r\n\r\nY = 2\r\n".encode()


def test_apply_what_is_there_already_is_applied_with_no_file_changed(root: Path) -> None:
    code, report = apply(root, edit("pkg/core.py", CORE, "file"))
    assert (code, report["applied"], report["files"], report["diff_lines"]) == (0, True, [], 0)


def test_apply_to_binary_file_or_in_unknown_mode_is_refused(root: Path) -> None:
    (root / "binary.py").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in apply(root, edit("binary.py", "X = 1"))[1]["problems"][0]["message"]
    assert "mode must be" in apply(root, edit("notes.md", "X", "definitions"))[1]["problems"][0]["message"]


def test_apply_missing_final_newline_is_marked_in_the_diff(root: Path) -> None:
    (root / "a.txt").write_text("one")
    _, report = apply(root, edit("a.txt", "two\n", "file"))
    assert "-one\n\\ No newline at end of file\n+two\n" in report["diff"]


@pytest.mark.rule("CN-34")
def test_apply_two_spellings_of_one_change_have_one_normal_digest(root: Path) -> None:
    _, first = apply(root, edit("pkg/core.py", "def two():\n    # why\n    return 2\n"))
    (root / "pkg/core.py").write_text(CORE)
    _, second = apply(root, edit("pkg/core.py", 'def two( ):\n  """Doc."""\n  return (2)\n'))
    assert first["normal_digest"] == second["normal_digest"]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"edits": []}', '{"edits": [{"path": 1, "mode": "file", "content": ""}]}', "[" * 100_000]
)
def test_apply_malformed_input_exits_2(tmp_path: Path, text: str) -> None:
    (tmp_path / "edits.json").write_text(text)
    assert run_script("apply_edits", "--workspace", tmp_path, "--inputs", tmp_path, cwd=tmp_path).returncode == 2


def test_apply_oversized_input_exits_2(tmp_path: Path) -> None:
    (tmp_path / "edits.json").write_bytes(b" " * (apply_edits.MAX_INPUT_BYTES + 1))
    assert apply_edits.main(["--workspace", str(tmp_path), "--inputs", str(tmp_path)]) == 2
