"""Settings of tests and linters hold as the base has them; the rest of their file is the author's."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.engineering.settings import holds_settings, with_settings_of

BASE = """[project]
name = "demo"  # ours
dependencies = ["a"]

[tool.pytest.ini_options]
addopts = "-q"
testpaths = ["tests"]

[tool.other]
x = 1
"""
SETUP = "[metadata]\nname = demo\n\n[tool:pytest]\naddopts = -q\n\n[options]\nzip_safe = no\n"
PACKAGE = '{\n  "name": "demo",\n  "scripts": {"build": "tsc", "test": "node --test"},\n  "jest": {"bail": true}\n}\n'


def test_files_that_hold_them_are_known_by_their_name_in_any_folder():
    assert [p for p in ("pyproject.toml", "a/b/setup.cfg", "x/package.json", "tox.ini") if not holds_settings(p)] == []
    assert not holds_settings("pyproject.toml.txt")


@pytest.mark.parametrize(
    "head",
    [
        BASE.replace('addopts = "-q"', 'addopts = "--deselect tests/test_a.py"'),
        BASE.replace("[tool.pytest.ini_options]\n", "[tool.pytest.ini_options]\nfilterwarnings = ['error']\n"),
        BASE.replace('[tool.pytest.ini_options]\naddopts = "-q"\ntestpaths = ["tests"]\n', ""),
        BASE.replace("[tool.pytest.ini_options]", "[tool.pytest]\npytest = 9\n[tool.pytest.ini_options]"),
        BASE + "\n[tool.ruff]\nexclude = ['*']\n",
        BASE + '\n[project.entry-points.pytest11]\ncheat = "demo.cheat"\n',
        BASE.replace("[project]", "tool.coverage.run.omit = ['*']\n\n[project]"),
    ],
)
def test_pyproject_keeps_the_settings_of_the_base_and_the_rest_of_the_author(head: str):
    head = head.replace('dependencies = ["a"]', 'dependencies = ["a", "b"]')
    merged = with_settings_of("pyproject.toml", BASE, head)
    expected = tomllib.loads(BASE)
    expected["project"]["dependencies"] = ["a", "b"]
    assert tomllib.loads(merged) == expected
    assert 'name = "demo"  # ours' in merged


def test_what_does_not_touch_them_stays_byte_for_byte():
    for path, base in (("pyproject.toml", BASE), ("setup.cfg", SETUP), ("package.json", PACKAGE)):
        head = base.replace("demo", "other")
        assert with_settings_of(path, base, head) == head


def test_file_that_goes_or_comes_leaves_the_settings_of_the_base():
    gone = with_settings_of("pyproject.toml", BASE, "")
    assert tomllib.loads(gone) == {"tool": {"pytest": tomllib.loads(BASE)["tool"]["pytest"]}}
    assert with_settings_of("pyproject.toml", "", "[tool.pytest.ini_options]\naddopts = '-x'\n") == ""
    assert with_settings_of("setup.cfg", SETUP, "") == "[tool:pytest]\naddopts = -q\n"
    assert with_settings_of("tox.ini", "", "[pytest]\naddopts = -x\n[tox]\nenvlist = py\n") == "[tox]\nenvlist = py\n"


@pytest.mark.parametrize(
    "head",
    [
        SETUP.replace("addopts = -q", "addopts = --ignore=tests"),
        SETUP.replace("[tool:pytest]\naddopts = -q\n", ""),
        SETUP + "[coverage:run]\nomit = *\n",
        SETUP.replace("[options]", "[pytest]\naddopts = -x\n[options]"),
        # One reader of this form takes an indented line for a section, the other does not.
        SETUP + "\n[x]\n [tool:pytest]\n addopts = --ignore=tests\n",
    ],
)
def test_sections_of_ini_files_are_those_of_the_base(head: str):
    merged = with_settings_of("setup.cfg", SETUP, head.replace("zip_safe = no", "zip_safe = yes"))
    assert merged.count("addopts") == 1
    assert "addopts = -q" in merged
    assert "omit" not in merged


def test_package_keeps_the_test_script_and_the_settings_of_its_runners():
    head = '{"name": "demo", "version": "2", "scripts": {"build": "tsc -b", "test": "true"}, "mocha": {"grep": "x"}}'
    merged = with_settings_of("package.json", PACKAGE, head)
    assert merged.startswith('{\n  "name": "demo",\n  "version": "2"')
    for part in ('"build": "tsc -b"', '"test": "node --test"', '"bail": true'):
        assert part in merged
    assert "mocha" not in merged
    assert "pretest" not in with_settings_of("package.json", "{}", '{"scripts": {"pretest": "rm -r test"}}')


@pytest.mark.parametrize(
    ("path", "head"),
    [
        ("pyproject.toml", "[tool.pytest"),
        ("pyproject.toml", "tool = 1\n"),
        ("pyproject.toml", "x = " + "[" * 5_000),
        ("pyproject.toml", "# " + "x" * 300_000),
        ("setup.cfg", "no section = 1\n"),
        ("package.json", "[]"),
        ("package.json", '{"scripts": 3}'),
        ("package.json", "{" * 100_000),
    ],
)
def test_head_that_cannot_be_read_gives_way_to_the_base(path: str, head: str):
    base = {"pyproject.toml": BASE, "setup.cfg": SETUP, "package.json": PACKAGE}[path]
    assert with_settings_of(path, base, head) == base


LINES = st.lists(
    st.sampled_from(
        [
            *("[tool.pytest.ini_options]", "[tool.ruff]", "[tool]", "[tool.x]", "pytest.ini_options.addopts = '-x'"),
            *("tool.pytest.ini_options = {addopts = '-x'}", "addopts = '-x'", "a = '''", "'''", "[project]"),
            *("ruff = {exclude = ['*']}", "entry-points.pytest11 = {a = 'b'}", "[[tool.pytest]]", "# x", ""),
        ]
    ),
    max_size=12,
).map("\n".join)


@given(LINES)
def test_no_form_of_toml_changes_the_settings(head: str):
    merged = tomllib.loads(with_settings_of("pyproject.toml", BASE, head))
    assert merged["tool"]["pytest"] == tomllib.loads(BASE)["tool"]["pytest"]
    assert "ruff" not in merged["tool"]
    assert "pytest11" not in merged.get("project", {}).get("entry-points", {})
