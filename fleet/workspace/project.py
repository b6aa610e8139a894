"""What a repository is written in, how its packages are fetched, and what its tests need: found in its files alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from fleet.kernel.errors import InvalidInput
from fleet.policy.runs.toolchains import Language
from fleet.workspace.python_locks import PythonNeeds, read_python_needs

Read = Callable[[str], bytes]
"""The content of a file of the repository, by its path."""

MOST_MANIFESTS = 400
_DEEPEST = 6
_MOST_READ = 2_000
_LARGEST = 4 << 20
_SKIPPED = frozenset({"node_modules", "vendor", ".venv", "venv", "target", "dist", "build", "testdata", "fixtures"})
_MANIFESTS: Mapping[str, Language] = {
    "pyproject.toml": "python",
    "setup.py": "python",
    "setup.cfg": "python",
    "requirements.txt": "python",
    "package.json": "node",
    "go.mod": "go",
    "Cargo.toml": "rust",
}
_LOCKS: Mapping[Language, tuple[str, ...]] = {
    "python": ("uv.lock", "poetry.lock", "requirements.txt", "requirements.lock"),
    "node": ("package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml"),
    "go": ("go.sum",),
    "rust": ("Cargo.lock",),
}
_FETCHED: Mapping[Language, str] = {
    "python": "pip install",
    "node": "npm ci --ignore-scripts",
    "go": "go mod download",
    "rust": "cargo fetch --locked",
}
_TESTED: Mapping[Language, str] = {
    "python": "pytest, with coverage",
    "node": "node --test",
    "go": "go test ./...",
    "rust": "cargo test",
}
_BUILT: Mapping[Language, str] = {
    "python": "compiles every file",
    "node": "checks the syntax of every file",
    "go": "go build ./...",
    "rust": "cargo build",
}
_LINTED: Mapping[Language, str] = {
    "python": "ruff",
    "node": "eslint, if the project has it",
    "go": "gofmt, go vet",
    "rust": "clippy",
}
_STARTS_CONTAINERS = re.compile(
    rb"testcontainers|pytest[-_]docker|docker[-_. ]compose|dockertest"
    rb"|from docker import|import docker\b|docker\.from_env"
)
_TEST_FILE = re.compile(
    r"(^|/)(tests?|spec|__tests__|integration|e2e)/|(^|/)(test_|conftest)|[._](test|spec)\.|_test\."
)
_SOURCE = re.compile(r".*\.(py|js|ts|mjs|cjs|tsx|jsx|go|rs|toml|json|txt|cfg|mod)")


@dataclass(frozen=True, slots=True)
class Part:
    """One folder of the repository that has a manifest."""

    folder: str
    language: Language
    manifest: str
    lockfile: str | None
    fetched: str
    test: str
    build: str
    lint: str

    @property
    def prefix(self) -> str:
        """What the paths of its files begin with."""
        return "" if self.folder == "." else f"{self.folder}/"


@dataclass(frozen=True, slots=True)
class RepositoryFacts:
    """What was found in a repository, its root folder first."""

    parts: tuple[Part, ...]
    containers: tuple[str, ...] = ()
    """Files of tests that start containers themselves, which no run can do."""

    def part_at(self, root: str) -> Part | None:
        """The part in this folder; the first one for the root of a repository that has several there."""
        return next((part for part in self.parts if part.folder == root), None)


@dataclass(frozen=True, slots=True)
class LayerNeeds:
    """What an environment layer is made from."""

    language: Language
    source: str
    """The lockfile, or the manifests where there is none."""
    files: Mapping[str, bytes]
    """Path in the run that fetches -> content: manifests and lockfiles, no source."""


def describe_project(paths: Collection[str], read: Read) -> RepositoryFacts:
    """What the files of a repository say of it; bounded in what it reads, whatever the repository holds."""
    parts: dict[tuple[str, Language], Part] = {}
    names = set(paths)
    for path in sorted(paths, key=lambda one: (one.count("/"), one)):
        folder, _, name = path.rpartition("/")
        language = _MANIFESTS.get(name)
        if language is None or folder.count("/") >= _DEEPEST or _SKIPPED & set(folder.split("/")):
            continue
        place = folder or "."
        if (place, language) not in parts and len(parts) < MOST_MANIFESTS:
            parts[place, language] = _part(place, language, name, names, read)
    return RepositoryFacts(tuple(parts.values()), tuple(_containers(paths, read)))


def _part(folder: str, language: Language, manifest: str, names: Collection[str], read: Read) -> Part:
    prefix = "" if folder == "." else f"{folder}/"
    lock = next((name for name in _LOCKS[language] if prefix + name in names), None)
    test, build, lint = _TESTED[language], _BUILT[language], _LINTED[language]
    if language == "node":
        scripts = _scripts(read(prefix + manifest))
        test, build, lint = (
            _script(scripts, name, usual) for name, usual in (("test", test), ("build", build), ("lint", lint))
        )
    return Part(folder, language, manifest, lock, _FETCHED[language], test, build, lint)


def _scripts(data: bytes) -> Mapping[str, Any]:
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    scripts = cast(dict[str, object], document).get("scripts") if isinstance(document, dict) else None
    return cast(dict[str, Any], scripts) if isinstance(scripts, dict) else {}


def _script(scripts: Mapping[str, Any], name: str, usual: str) -> str:
    line = scripts.get(name)
    return f"npm run {name} ({line[:100]})" if isinstance(line, str) and line else usual


def _containers(paths: Collection[str], read: Read) -> Iterator[str]:
    looked = told = 0
    for path in sorted(paths):
        if not _SOURCE.fullmatch(path) or not (_TEST_FILE.search(path) or path.rpartition("/")[2] in _MANIFESTS):
            continue
        if _SKIPPED & set(path.split("/")) or looked >= _MOST_READ or told >= 10:
            continue
        looked += 1
        if _STARTS_CONTAINERS.search(read(path)[:_LARGEST]):
            told += 1
            yield path


def layer_needs(part: Part, paths: Collection[str], read: Read) -> LayerNeeds | None:
    """What has to be fetched before the part can be built and tested; None when nothing has.

    Raises:
        InvalidInput: what it asks for cannot be fetched from a registry; says what to do.
    """
    below = {path.removeprefix(part.prefix): path for path in paths if path.startswith(part.prefix)}
    if part.language == "python":
        needs = read_python_needs({name: read(path) for name, path in below.items() if _is_python(name)})
        return None if needs is None or needs.is_brought else _python(needs)
    names = {"node": _node, "go": _go, "rust": _rust}[part.language](below, read)
    if not names:
        return None
    return LayerNeeds(part.language, names[0], {name: read(below[name]) for name in names})


def _is_python(name: str) -> bool:
    plain = name.startswith("requirements/") or "/" not in name
    return plain and name.endswith((".toml", ".lock", ".txt", ".in", ".cfg", "setup.py"))


def _python(needs: PythonNeeds) -> LayerNeeds:
    text = "".join(f"{line}\n" for line in needs.lines)
    return LayerNeeds("python", needs.source, {"requirements.layer.txt": text.encode()})


def _node(below: Mapping[str, str], read: Read) -> tuple[str, ...]:
    manifest = _scripts_of(read(below["package.json"]))
    if not any(manifest.get(part) for part in ("dependencies", "devDependencies", "optionalDependencies")):
        return ()
    lock = next((name for name in ("package-lock.json", "npm-shrinkwrap.json") if name in below), None)
    if lock is None:
        other = next((name for name in _LOCKS["node"] if name in below), None)
        why = f"{other} is of another tool" if other else "there is no package-lock.json"
        raise InvalidInput(
            f"package.json: {why}: run `npm install --package-lock-only` and commit it", file="package.json"
        )
    return (lock, "package.json")


def _scripts_of(data: bytes) -> Mapping[str, Any]:
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"package.json is no JSON ({str(error)[:100]}): mend it", file="package.json") from error
    return cast(dict[str, Any], document) if isinstance(document, dict) else {}


def _go(below: Mapping[str, str], read: Read) -> tuple[str, ...]:
    if not re.search(rb"^\s*require\b", read(below["go.mod"]), re.MULTILINE):
        return ()
    if "go.sum" not in below:
        raise InvalidInput(
            "go.mod asks for modules and there is no go.sum: run `go mod tidy` and commit it", file="go.mod"
        )
    return ("go.sum", "go.mod")


def _rust(below: Mapping[str, str], read: Read) -> tuple[str, ...]:
    manifests = [
        name for name in below if name.rpartition("/")[2] == "Cargo.toml" and not _SKIPPED & set(name.split("/"))
    ]
    asks = any(re.search(rb"^\s*\[.*dependencies", read(below[name]), re.MULTILINE) for name in manifests)
    if not asks:
        return ()
    if "Cargo.lock" not in below:
        raise InvalidInput(
            "Cargo.toml asks for crates and there is no Cargo.lock: run `cargo generate-lockfile` and commit it",
            file="Cargo.toml",
        )
    return ("Cargo.lock", *sorted(manifests)[:MOST_MANIFESTS])
