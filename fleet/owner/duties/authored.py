"""Tests of another agent than the author of a change: what they are, and how they run on a tree (CN-23, CN-32)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.kernel.ids import Digest
from fleet.models.replies.code_reply import TestLanguage
from fleet.owner.workbench import Workbench
from fleet.sandbox.service.runs import language_of
from fleet.trees.service import criteria_in_names, file_text, named_criteria, read_tree
from fleet.workspace.service.workspace import IndependentFile, TestRun, WorkspaceService

_MANIFESTS: Mapping[TestLanguage, str] = {"node": "package.json", "go": "go.mod", "rust": "Cargo.toml"}
_LISTED = 200
_MANIFEST_CHARS = 2000


@dataclass(frozen=True, slots=True)
class AuthoredTests:
    """One file of tests. Without a language it is a Python module, which lies nowhere in the repository."""

    code: str
    names: tuple[str, ...]
    language: TestLanguage | None = None
    path: str = ""

    def criteria(self, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Test -> the criteria that it names (RG-47)."""
        return named_criteria(self.code, ids) if self.language is None else criteria_in_names(self.names, ids)


async def authored_tests(bench: Workbench, digest: Digest) -> AuthoredTests:
    """What a test author delivered."""
    value: dict[str, Any] = json.loads(await bench.blobs.get(digest))
    names = tuple(str(name) for name in value["names"])
    return AuthoredTests(str(value["code"]), names, value.get("language"), str(value.get("path", "")))


async def run_authored(space: WorkspaceService, tree: Digest, tests: AuthoredTests, bench: Workbench) -> TestRun:
    """How the tests end on the tree."""
    if tests.language is None:
        return await space.run_tests(tree, {"test_generated.py": tests.code}, toolchain=bench.toolchain)
    file = IndependentFile("generated", tests.path, tests.code, tests.names)
    return await space.run_independent(tree, [file], language=tests.language, toolchain=bench.toolchain)


async def language_of_tests(bench: Workbench, tree: Digest) -> TestLanguage | None:
    """What tests of this tree are written in; None for Python."""
    language = language_of(await read_tree(bench.blobs, tree))
    return None if language == "python" else language


async def described_tree(bench: Workbench, tree: Digest, language: TestLanguage) -> str:
    """What a test author has to know of a repository to import from it: its manifest, and which files it has."""
    files = await read_tree(bench.blobs, tree)
    name = _MANIFESTS[language]
    manifest = await file_text(bench.blobs, files, name, limit=_MANIFEST_CHARS)
    more = [f"... and {len(files) - _LISTED} more"] if len(files) > _LISTED else []
    listed = "\n".join([*sorted(files)[:_LISTED], *more])
    return f"File {name}:\n{manifest}\n\nFiles of the repository:\n{listed}"
