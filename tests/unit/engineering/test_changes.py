"""Trees of sessions: moved onto another base, judged by the tests that were there, reviewed by their paths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.engineering.changes import blocked_by, judged, moved, reviewed
from fleet.engineering.commands import told_of_tests
from fleet.kernel.digest import digest_of
from fleet.trees.tree import FileEntry, Tree

PATHS = ("a.py", "b.py", "c/d.py", "tests/test_a.py")


def tree(**texts: str) -> Tree:
    return {
        path.replace("__", "/") + ".py": FileEntry("100644", digest_of(text.encode())) for path, text in texts.items()
    }


TREES = st.dictionaries(
    st.sampled_from(PATHS), st.sampled_from("xyz").map(lambda t: FileEntry("100644", digest_of(t.encode())))
)


@given(TREES, TREES)
def test_changes_moved_onto_their_own_base_are_the_head(base: Tree, head: Tree):
    assert moved(base, head, base) == (dict(head), ())


@given(TREES, TREES, TREES)
def test_moved_changes_leave_what_both_changed_as_it_is_there(base: Tree, head: Tree, onto: Tree):
    found = moved(base, head, onto)
    for path in PATHS:
        mine, theirs = head.get(path) != base.get(path), onto.get(path) != base.get(path)
        if not mine or path in found.conflicts:
            assert found.tree.get(path) == onto.get(path)
        else:
            assert found.tree.get(path) == head.get(path)
        assert (path in found.conflicts) == (mine and theirs and head.get(path) != onto.get(path))


@given(TREES, TREES)
def test_work_is_judged_by_each_test_as_it_was(base: Tree, head: Tree):
    found = judged(head, base)
    assert {path: entry for path, entry in found.tree.items() if path in base and path.startswith("tests/")} == {
        path: entry for path, entry in base.items() if path.startswith("tests/")
    }
    assert {p: e for p, e in found.tree.items() if not p.startswith("tests/")} == {
        p: e for p, e in head.items() if not p.startswith("tests/")
    }


def test_new_tests_count_and_new_settings_of_the_judges_do_not():
    base = tree(a="x", tests__test_a="x")
    head = {**base, **tree(tests__test_b="new", tests__conftest="new", conftest="new")}
    found = judged(head, base)
    assert set(found.tree) == {"a.py", "tests/test_a.py", "tests/test_b.py"}
    assert found.left_out == ("conftest.py", "tests/conftest.py")
    assert found.restored == ()


def test_new_files_that_would_be_imported_by_the_tests_runner_are_left_out():
    base = {"a.py": FileEntry("100644", digest_of(b"")), "src/queue/__init__.py": FileEntry("100644", digest_of(b""))}
    new = {
        *("pytest.py", "src/_pytest/__init__.py", "json.py", "coverage.cpython-311-x86_64-linux-gnu.so", "x.pth"),
        *("sitecustomize.py", "demo-1.dist-info/entry_points.txt", "src/usercustomize.py", ".cargo/config.toml"),
    }
    kept = {"docs/json.py", "src/queue/more.py", "src/queue.py", "pkg/typing.py", "src/tools.py"}
    head = {**base, **dict.fromkeys(new | kept, FileEntry("100644", digest_of(b"x")))}
    assert set(judged(head, base).left_out) == new


def test_review_names_what_should_be_looked_at():
    base = tree(a="x", tests__test_a="x")
    head = {**tree(a="y", tests__test_a="weaker", scratch_1="x"), **{"uv.lock": FileEntry("100644", digest_of(b""))}}
    found = reviewed(base, head, judged(head, base))
    assert found.changed == ("~ a.py", "+ scratch_1.py", "~ tests/test_a.py", "+ uv.lock")
    said = "\n".join(found.remarks)
    assert "judged as they were: tests/test_a.py" in said
    assert "look like leftovers; remove them unless the task asks for them: scratch_1.py" in said
    assert "Lock files or rules for agents changed: uv.lock" in said


def test_failures_that_the_base_has_are_told_apart_and_are_not_the_authors():
    said = told_of_tests(40, {"t::new": "line 3: no", "t::old": "x"}, ("t::old", "t::gone"))
    assert said.line == (
        "40 passed; 1 failed: t::new; 1 failed that fail without your changes too, and are not yours: t::old"
    )
    assert said.failure is not None
    assert told_of_tests(39, {"t::new": "line 4: no"}, ()).failure == said.failure
    assert told_of_tests(40, {"t::old": "x"}, ("t::old",)).failure is None
    assert told_of_tests(3, {}, ()) == ("3 passed", None)


def test_files_and_folders_do_not_stand_in_each_others_place():
    files = tree(a="x", c__d="x")
    assert blocked_by(files, "a.py/b") == "a.py is a file, so nothing can be below it"
    assert blocked_by(files, "c") == "c is a folder"
    assert blocked_by(files, "c/e.py") == ""
