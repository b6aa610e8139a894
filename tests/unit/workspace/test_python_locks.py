"""What a Python repository asks for, out of each file that may say it."""

from __future__ import annotations

import pytest

from fleet.kernel.errors import InvalidInput
from fleet.workspace.python_locks import read_python_needs

UV = """
version = 1
[[package]]
name = "shop"
version = "1"
source = { editable = "." }
dependencies = [
  { name = "click" },
  { name = "colorama", marker = "sys_platform == 'win32'" },
]
[package.optional-dependencies]
pg = [{ name = "psycopg", extra = ["binary"] }]
[package.dev-dependencies]
dev = [{ name = "pytest" }]
[[package]]
name = "click"
version = "8.1.7"
source = { registry = "https://index.example/simple" }
dependencies = [{ name = "colorama", marker = "platform_system == 'Windows'" }]
sdist = { url = "x", hash = "sha256:aa" }
wheels = [{ url = "x", hash = "sha256:bb" }]
[[package]]
name = "colorama"
version = "0.4.6"
source = { registry = "https://index.example/simple" }
[[package]]
name = "psycopg"
version = "3.1"
source = { registry = "https://index.example/simple" }
[package.optional-dependencies]
binary = [{ name = "psycopg-binary" }]
[[package]]
name = "psycopg-binary"
version = "3.1"
source = { registry = "https://index.example/simple" }
resolution-markers = ["python_version < '3.13'"]
[[package]]
name = "pytest"
version = "8.0"
source = { registry = "https://index.example/simple" }
[[package]]
name = "never-asked-for"
version = "1"
source = { registry = "https://index.example/simple" }
"""
POETRY = """
[[package]]
name = "requests"
version = "2.31.0"
files = [{file = "a.whl", hash = "sha256:aa"}]
[package.dependencies]
certifi = ">=2017"
pywin32 = {version = "*", markers = "sys_platform == 'win32'"}
[[package]]
name = "certifi"
version = "2024.1"
files = []
[[package]]
name = "pywin32"
version = "306"
files = []
[[package]]
name = "tomli"
version = "2"
markers = "python_version < '3.11'"
files = []
"""


def lines(**files: str) -> tuple[str, ...]:
    needs = read_python_needs({name.replace("__", "."): text.encode() for name, text in files.items()})
    return needs.lines if needs else ()


@pytest.mark.rule("RC-110")
def test_lock_of_uv_gives_every_package_with_hashes_and_markers() -> None:
    assert lines(uv__lock=UV) == (
        "click==8.1.7 --hash=sha256:aa --hash=sha256:bb",
        "colorama==0.4.6 ; ((platform_system == 'Windows') or (sys_platform == 'win32'))",
        "psycopg==3.1",
        "psycopg-binary==3.1 ; (python_version < '3.13')",
        "pytest==8.0",
    )


@pytest.mark.rule("RC-110")
def test_lock_of_poetry_gives_every_package_with_hashes_and_markers() -> None:
    assert lines(poetry__lock=POETRY) == (
        "requests==2.31.0 --hash=sha256:aa",
        "certifi==2024.1",
        "pywin32==306 ; (sys_platform == 'win32')",
        "tomli==2 ; (python_version < '3.11')",
    )


def test_lock_with_a_package_of_git_is_refused_by_name() -> None:
    text = UV.replace('version = "8.1.7"\nsource = { registry', 'version = "8.1.7"\nsource = { git')
    with pytest.raises(InvalidInput, match="click comes from git") as refused:
        lines(uv__lock=text)
    assert "--python" in refused.value.message


def test_project_without_a_lock_gives_its_dependencies_and_those_of_its_tests() -> None:
    text = """
[project]
name = "shop"
dependencies = ["click>=8"]
[project.optional-dependencies]
test = ["hypothesis", "shop[web]"]
web = ["flask"]
docs = ["sphinx"]
[dependency-groups]
dev = ["mypy", {include-group = "test"}]
test = ["pytest-mock"]
"""
    assert lines(pyproject__toml=text) == ("click>=8", "hypothesis", "flask", "mypy", "pytest-mock")


@pytest.mark.parametrize(
    ("wish", "line"),
    [
        ('"^1.2.3"', "x>=1.2.3,<2"),
        ('"^0.2.3"', "x>=0.2.3,<0.3"),
        ('"~1.2"', "x>=1.2,<1.3"),
        ('"*"', "x"),
        ('"1.4"', "x==1.4"),
        ('">=1,<3"', "x>=1,<3"),
        ("{version = '^2', extras = ['a'], markers = \"os_name == 'nt'\"}", "x[a]>=2,<3 ; os_name == 'nt'"),
    ],
)
def test_wish_of_poetry_becomes_the_comparison_it_stands_for(wish: str, line: str) -> None:
    assert lines(pyproject__toml=f'[tool.poetry.dependencies]\npython = "^3.11"\nx = {wish}\n') == (line,)


def test_requirements_files_are_followed_and_their_addresses_left_to_the_operator() -> None:
    files = {
        "requirements.txt": b"--index-url https://other.example/simple\nclick==8 \\\n  --hash=sha256:aa\n-e .\n# no\n",
        "requirements-dev.txt": b"-r requirements.txt\n-c limits.txt\nmock  # for tests\n./vendored/x\n",
        "setup.cfg": b"[options]\ninstall_requires =\n  six\n[options.extras_require]\ntest = nose\ndocs = sphinx\n",
    }
    needs = read_python_needs(files)
    assert needs is not None
    assert needs.lines == ("six", "nose", "click==8    --hash=sha256:aa", "mock")
    assert (needs.source, needs.locked) == ("setup.cfg, requirements-dev.txt, requirements.txt", False)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"requirements.txt": b"-e git+https://example.com/x\n"}, "comes from no registry"),
        ({"requirements.txt": b"x @ file:///tmp/x\n"}, "comes from no registry"),
        ({"pyproject.toml": b"[project\n"}, "no TOML"),
        ({"setup.py": b"setup(install_requires=['x'])"}, "requirements.txt"),
        ({"pyproject.toml": b"[tool.poetry.dependencies]\nx = {git = 'u'}\n"}, "comes from git"),
        ({"requirements.txt": b"".join(b"p%d\n" % n for n in range(5_001))}, "5000"),
    ],
)
def test_what_no_registry_has_is_refused_with_what_to_do(files: dict[str, bytes], words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        read_python_needs(files)
    assert "--python" in refused.value.message


def test_tools_that_the_fleet_brings_are_nothing_to_fetch() -> None:
    needs = read_python_needs({"requirements.txt": b"pytest>=8\nCoverage\nruff\n"})
    assert needs is not None
    assert needs.is_brought
    assert read_python_needs({"README.md": b"x", "setup.cfg": b"[broken"}) is None
