"""Tests of another agent than the author of a change: what they are, and how they run on a tree (CN-23, CN-32)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fleet.council.facts import DeliveredTests, KeptTests
from fleet.council.tests_filter import PASSED, TestRuns, filter_tests
from fleet.events.council import TestsFiltered
from fleet.events.workspace import CriterionTest
from fleet.kernel.ids import Digest, EntityId
from fleet.models.replies.code_reply import TestLanguage
from fleet.owner.duties.texts import example_criteria, examples_module
from fleet.owner.workbench import Workbench
from fleet.sandbox.service.runs import language_of
from fleet.story.state import CouncilRecord
from fleet.trees.service import criteria_in_names, file_text, keep_tests, merge_modules, named_criteria, read_tree
from fleet.workspace.service.workspace import IndependentFile, TestRun, WorkspaceService

_MANIFESTS: Mapping[TestLanguage, str] = {"node": "package.json", "go": "go.mod", "rust": "Cargo.toml"}
_LISTED = 200
_MANIFEST_CHARS = 2000


@dataclass(frozen=True, slots=True)
class DeliveredFile:
    """One file of tests. Without a language it is a Python module, which lies nowhere in the repository."""

    code: str
    names: tuple[str, ...]
    language: TestLanguage | None = None
    path: str = ""

    def criteria(self, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Test -> the criteria that it names (RG-47)."""
        return named_criteria(self.code, ids) if self.language is None else criteria_in_names(self.names, ids)


async def delivered_tests(bench: Workbench, digest: Digest) -> DeliveredFile:
    """What a test author delivered."""
    value: dict[str, Any] = json.loads(await bench.blobs.get(digest))
    names = tuple(str(name) for name in value["names"])
    return DeliveredFile(str(value["code"]), names, value.get("language"), str(value.get("path", "")))


async def run_delivered(space: WorkspaceService, tree: Digest, tests: DeliveredFile, bench: Workbench) -> TestRun:
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


def filtered_tests(ran: Mapping[str, Sequence[Mapping[str, str]]], on_base: Mapping[str, str]) -> KeptTests:
    """Which tests can be believed (CN-33).

    Args:
        ran: candidate -> how the tests ended in each of its two runs.
        on_base: how they ended without any candidate.
    """
    names = dict.fromkeys(name for first, _ in ran.values() for name in first)
    missing = "not_collected"
    selection = filter_tests(
        [
            TestRuns(
                test_id=name,
                is_collected=all(first.get(name, missing) != missing for first, _ in ran.values()),
                runs={c: (one.get(name, missing), two.get(name, missing)) for c, (one, two) in ran.items()},
                base=on_base.get(name),
            )
            for name in names
        ]
    )
    return KeptTests(selection.kept, selection.dropped, selection.trusted)


async def tests_to_keep(bench: Workbench, council: CouncilRecord) -> str:
    """The module of tests that goes into the repository with the council's choice; "" for none."""
    state = council.deliberation
    parts = [examples_module(bench.state.content.constraints)]
    if isinstance(state.tests, DeliveredTests) and state.filtered is not None and state.filtered.kept:
        tests = await delivered_tests(bench, state.tests.digest)
        # Those of other languages stay evidence: some that were dropped cannot be taken out of their file.
        if tests.language is None:
            parts.append(keep_tests(tests.code, frozenset(state.filtered.kept)))
    return merge_modules([p for p in parts if p])


async def passed_tests(bench: Workbench, space: WorkspaceService, tree: Digest) -> list[tuple[EntityId, CriterionTest]]:
    """The given examples and independent tests that name a criterion, for each that passes on the tree (RG-47)."""
    modules = [m for m in (_examples(bench), *[await _independent(bench, c) for c in _chosen_councils(bench)]) if m]
    names = {f"test_module_{number}.py": module for number, module in enumerate(modules, 1)}
    shown: list[tuple[EntityId, CriterionTest]] = []
    for run in await _run_modules(space, tree, names, bench):
        for file in run.files:
            module, ends = names[file.name], TestRun(files=(file,)).signature
            for test, criteria in module.named.items():
                for ac_id in criteria if ends.get(test) == PASSED else ():
                    passed = CriterionTest(test=test, source=module.source, council_id=module.council_id)
                    shown.append((EntityId(ac_id), passed))
    return shown


@dataclass(frozen=True, slots=True)
class _TestModule:
    """Tests that the author of a change did not write, and the criteria that each of them names."""

    tests: DeliveredFile
    named: Mapping[str, tuple[str, ...]]
    source: Literal["example", "independent"]
    council_id: EntityId | None = None


def _examples(bench: Workbench) -> _TestModule | None:
    named = example_criteria(bench.state.content.constraints, [c.ac_id for c in bench.criteria])
    code = DeliveredFile(examples_module(bench.state.content.constraints), tuple(named))
    return _TestModule(code, named, "example") if named else None


def _chosen_councils(bench: Workbench) -> list[CouncilRecord]:
    """The last council that decided about each task which is not given up."""
    tasks = {name for name, task in bench.state.tasks.items() if task.state != "cancelled"}
    by_task = {c.opened.task_id: c for c in bench.state.councils.values() if c.winner is not None and not c.is_advice}
    return [council for task, council in by_task.items() if task in tasks]


async def _independent(bench: Workbench, council: CouncilRecord) -> _TestModule | None:
    state = council.deliberation
    kept = frozenset(state.filtered.kept) if state.filtered is not None else frozenset[str]()
    if not isinstance(state.tests, DeliveredTests) or not kept:
        return None
    tests = await delivered_tests(bench, state.tests.digest)
    if tests.language is None:
        tests = replace(tests, code=keep_tests(tests.code, kept))
    else:
        # What passes without the change shows nothing of it, and neither does what was never run without it.
        on_base = next((p.on_base for p in council.said.values() if isinstance(p, TestsFiltered)), None) or {}
        kept = frozenset(test for test in kept if on_base.get(test, PASSED) != PASSED)
    named = {t: n for t, n in tests.criteria([c.ac_id for c in bench.criteria]).items() if t in kept}
    return _TestModule(tests, named, "independent", council.opened.council_id) if named else None


async def _run_modules(
    space: WorkspaceService, tree: Digest, modules: Mapping[str, _TestModule], bench: Workbench
) -> list[TestRun]:
    """The runs of these test files: one for those of each language."""
    runs: list[TestRun] = []
    if python := {name: m.tests.code for name, m in modules.items() if m.tests.language is None}:
        runs.append(await space.run_tests(tree, python, toolchain=bench.toolchain))
    others: dict[TestLanguage, list[IndependentFile]] = {}
    for name, module in modules.items():
        tests = module.tests
        if tests.language is not None:
            file = IndependentFile(name, tests.path, tests.code, tests.names)
            others.setdefault(tests.language, []).append(file)
    for language, files in others.items():
        runs.append(await space.run_independent(tree, files, language=language, toolchain=bench.toolchain))
    return runs
