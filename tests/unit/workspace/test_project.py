"""What is found in the files of a repository."""

from __future__ import annotations

import json

import pytest

from fleet.kernel.errors import InvalidInput
from fleet.workspace.project import LayerNeeds, RepositoryFacts, describe_project, layer_needs

FILES = {
    "api/pyproject.toml": '[project]\nname = "api"\ndependencies = ["click"]\n',
    "web/package.json": json.dumps({"scripts": {"test": "vitest run"}, "devDependencies": {"vitest": "1"}}),
    "web/package-lock.json": "{}",
    "web/node_modules/x/package.json": "{}",
    "worker/go.mod": "module x\n\nrequire example.org/y v1.0.0\n",
    "worker/go.sum": "",
    "tool/Cargo.toml": '[package]\nname = "tool"\n[dependencies]\nserde = "1"\n',
    "tool/Cargo.lock": "",
    "tool/inner/Cargo.toml": "[package]\n",
    "api/tests/test_db.py": "from testcontainers.postgres import PostgresContainer\n",
    "README.md": "docker compose up\n",
}


def facts(files: dict[str, str]) -> RepositoryFacts:
    return describe_project(files, lambda path: files[path].encode())


def needs(files: dict[str, str], folder: str = ".") -> LayerNeeds | None:
    part = facts(files).part_at(folder)
    assert part is not None
    return layer_needs(part, files, lambda path: files[path].encode())


@pytest.mark.rule("RC-110")
def test_repository_of_several_languages_has_a_part_for_each_folder() -> None:
    parts = {part.folder: part for part in facts(FILES).parts}
    assert {folder: (part.language, part.lockfile) for folder, part in parts.items()} == {
        "api": ("python", None),
        "tool": ("rust", "Cargo.lock"),
        "web": ("node", "package-lock.json"),
        "worker": ("go", "go.sum"),
        "tool/inner": ("rust", None),
    }
    assert parts["web"].test == "npm run test (vitest run)"
    assert parts["web"].build == "checks the syntax of every file"
    assert facts(FILES).part_at("nowhere") is None


@pytest.mark.rule("RC-110")
def test_suite_that_starts_containers_is_found_by_its_file() -> None:
    assert facts(FILES).containers == ("api/tests/test_db.py",)


@pytest.mark.rule("RC-110")
@pytest.mark.parametrize(
    ("folder", "source", "files"),
    [
        ("api", "pyproject.toml", {"requirements.layer.txt"}),
        ("web", "package-lock.json", {"package.json", "package-lock.json"}),
        ("worker", "go.sum", {"go.mod", "go.sum"}),
        ("tool", "Cargo.lock", {"Cargo.toml", "Cargo.lock", "inner/Cargo.toml"}),
    ],
)
def test_layer_is_made_of_manifests_and_lockfiles_alone(folder: str, source: str, files: set[str]) -> None:
    found = needs(FILES, folder)
    assert found is not None
    assert (found.source, set(found.files)) == (source, files)


@pytest.mark.parametrize(
    "files",
    [
        {"package.json": "{}"},
        {"go.mod": "module x\n"},
        {"Cargo.toml": "[package]\n"},
        {"pyproject.toml": '[project]\nname = "x"\ndependencies = ["pytest"]\n'},
    ],
)
def test_repository_without_packages_of_others_needs_no_layer(files: dict[str, str]) -> None:
    assert needs(files) is None


@pytest.mark.rule("RC-110")
@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"package.json": '{"dependencies": {"x": "1"}}'}, "npm install --package-lock-only"),
        ({"package.json": '{"dependencies": {"x": "1"}}', "yarn.lock": ""}, "yarn.lock is of another tool"),
        ({"package.json": "{"}, "no JSON"),
        ({"go.mod": "module x\nrequire y v1\n"}, "go mod tidy"),
        ({"Cargo.toml": "[dependencies]\nx = '1'\n"}, "cargo generate-lockfile"),
    ],
)
def test_packages_without_a_lockfile_are_refused_with_what_to_do(files: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        needs(files)
