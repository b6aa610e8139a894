"""Use cases on trees: check out, edit, test, measure, commit; each a run in the sandbox and a parse outside (RC-70).

The service knows neither story nor key: it is given a callable that runs a specification, and reads nothing but
result files. What a run cannot prove is absent from its result; only a run that could not be held raises.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fleet.forge.port import Commit, StagedRepository
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import InvalidInput, SandboxUnavailable, ToolFailed, ToolTimeout
from fleet.kernel.ids import Digest, EntityId, StoryId
from fleet.kernel.types import Frozen, Rigor
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.policy.runs.toolchains import Language
from fleet.policy.workspace_file import WORKSPACE_FILE, WorkspaceFile, command_variables, parse_workspace_file
from fleet.redaction.secrets import find_secrets
from fleet.sandbox.service.runs import language_of, toolchain_for
from fleet.trees.port import BlobStore
from fleet.trees.service import is_test, read_changes, read_tree
from fleet.trees.tree import LineChanges, PathChange, Tree, changed_lines, changed_paths
from fleet.workspace.report import PatchSection
from fleet.workspace.service import specs
from fleet.workspace.service.report import Measurement, Outputs, ReportHead, build_measurement
from fleet.workspace.service.results import (
    MAX_BYTES,
    CheckSummary,
    TestFile,
    TestOutcome,
    parse_coverage,
    parse_edits,
    parse_findings,
    parse_judged,
    parse_junit,
    parse_summary,
    parse_tests,
)

SandboxRun = Callable[[RunSpec], Awaitable[RunResult]]
"""Runs one specification: the sandbox under the caller's key and epoch."""

PROTECTED_FROM_AUTHORS = (
    *("tests/**", "test/**", "test_*.py", "*_test.py", "conftest.py"),
    *("pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "setup.cfg", "pyproject.toml"),
    *("ruff.toml", ".ruff.toml", "sitecustomize.py", "usercustomize.py", "*.pth"),
    *("*.dist-info/**", "*.egg-info/**", "pytest.py", "_pytest/**"),
    *(".github/**", ".ci/**", ".fleet/**"),
)
"""What the author of a candidate of one reply must not change: the evidence that judges it."""

_COMMIT = re.compile(r"[0-9a-f]{40}\n?")
_TEST_NAME = re.compile(r"test[A-Za-z0-9_]*\.py")
_MAX_TEXT = 2 << 20
_MOST_TESTS = 20_000
"""Files of tests beyond which none is held against anything."""


class Edit(Frozen):
    """One edit of a model: whole definitions of a Python file, or a whole file."""

    path: str
    mode: Literal["definitions", "file"]
    content: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of edits: a new tree, or None and the reasons. `normal_digest` is equal for equal meaning (CN-34)."""

    tree: Digest | None
    problems: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    normal_digest: str = ""
    diff_lines: int = 0
    added: int = 0
    removed: int = 0
    diff: Digest | None = None


@dataclass(frozen=True, slots=True)
class TestRun:
    """How given tests ended on one tree; `problem` says why there is no record at all."""

    __test__ = False

    files: tuple[TestFile, ...] = ()
    problem: str = ""

    @property
    def tests(self) -> tuple[TestOutcome, ...]:
        """All tests in order."""
        return tuple(test for file in self.files for test in file.tests)

    @property
    def signature(self) -> dict[str, str]:
        """Test function -> `passed`, `not_collected`, or how it failed: what the tree was observed to do (CN-35).

        The cases of a parametrised test are one entry, which is `passed` only when all are.
        """
        cases: dict[str, list[str]] = {}
        for test in self.tests:
            cases.setdefault(test.id.split("[", 1)[0], []).append(_ending(test))
        return {name: "|".join(dict.fromkeys(endings)) for name, endings in cases.items()}

    @property
    def all_passed(self) -> bool:
        """True when at least one test ran and none did anything but pass or be skipped."""
        endings = [test.outcome for test in self.tests]
        collected = not self.problem and all(file.collected for file in self.files)
        return collected and "passed" in endings and set(endings) <= {"passed", "skipped"}

    @property
    def failures(self) -> str:
        """What to tell the author of the code: each failed test with its message and excerpt."""
        lines = [self.problem] if self.problem else []
        lines += [f"{file.name}: {file.reason}" for file in self.files if not file.collected]
        failed = [t for t in self.tests if t.outcome in ("failed", "error")]
        lines += [f"{t.id}: {t.message}\n{t.excerpt}".rstrip() for t in failed]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class IndependentFile:
    """A test file of Node, Go or Rust: where it belongs, and the names of its tests, known before anything runs."""

    name: str
    path: str
    code: str
    tests: tuple[str, ...]


def _ending(test: TestOutcome) -> str:
    return f"{test.outcome}:{test.exception}" if test.outcome in ("failed", "error") else test.outcome


class WorkspaceService:
    """Trees in, trees and evidence out.

    Args:
        run: runs a specification in the sandbox.
        blobs: where trees, files and results lie.
    """

    def __init__(self, run: SandboxRun, blobs: BlobStore) -> None:
        self._run = run
        self._blobs = blobs

    async def checkout(self, staged: StagedRepository, *, toolchain: str = "python") -> Digest:
        """The tree of the staged commit (RC-70); ToolFailed with git's own words when it cannot be read."""
        result = await self._held(specs.checkout_spec(staged, toolchain=toolchain))
        return self._tree_of(result, f"commit {staged.commit} could not be checked out")

    async def apply(
        self,
        tree: Digest,
        edits: Sequence[Edit | Mapping[str, str]],
        *,
        protect: Sequence[str] = (),
        is_formatted: bool = True,
        toolchain: str = "python",
    ) -> Applied:
        """The tree with the edits, or the reasons why none of them was applied (RC-71).

        Args:
            protect: globs that no edit may touch; without a slash they hold for every name in a path.
        """
        documents = [edit.model_dump() if isinstance(edit, Edit) else dict(edit) for edit in edits]
        request = canonical_json({"edits": documents, "protect": list(protect), "format": is_formatted})
        spec = specs.apply_spec(tree, await self._blobs.put(request), toolchain=toolchain)
        result = await self._held(spec)
        report = parse_edits(await self._artifact(result, specs.EDITS))
        if report is None:
            return Applied(tree=None, problems=(f"the edits could not be read: {_last_words(result)}",))
        if not report.applied or result.status != "passed":
            problems = tuple(f"{p.path}: {p.message}" for p in report.problems)
            return Applied(tree=None, problems=problems or (f"the run ended as {result.reason}",))
        return Applied(
            tree=self._tree_of(result, "the edited tree was not recorded"),
            files=report.files,
            normal_digest=report.normal_digest,
            diff_lines=report.diff_lines,
            added=report.added,
            removed=report.removed,
            diff=result.artifact(specs.DIFF),
        )

    async def run_tests(self, tree: Digest, tests: Mapping[str, str], *, toolchain: str = "python") -> TestRun:
        """How the given test files (name -> text) end on the tree (CN-32)."""
        bad = [name for name in tests if not _TEST_NAME.fullmatch(name)]
        if bad or not tests:
            raise InvalidInput(f"test files must be named test*.py; refused: {bad}", field="tests")
        blobs = {name: await self._blobs.put(text.encode()) for name, text in tests.items()}
        return await self._tested(specs.given_tests_spec(tree, blobs, toolchain=toolchain))

    async def run_independent(
        self, tree: Digest, files: Sequence[IndependentFile], *, language: Language, toolchain: str = "python"
    ) -> TestRun:
        """How the tests of these files end on the tree, laid beside its own; no other test is told (CN-32)."""
        request = canonical_json(
            {
                "language": language,
                "files": [{"name": f.name, "path": f.path, "code": f.code, "tests": list(f.tests)} for f in files],
            }
        )
        digest = await self._blobs.put(request)
        spec = specs.independent_tests_spec(tree, digest, toolchain=toolchain_for(language, toolchain))
        return await self._tested(spec)

    async def _tested(self, spec: RunSpec) -> TestRun:
        result = await self._held(spec)
        files = parse_tests(await self._artifact(result, specs.TESTS))
        # Whoever ended the runner may have written its record too.
        if files is None or result.status != "passed":
            return TestRun(problem=f"the tests left no record: {result.reason}")
        return TestRun(files=files)

    async def measure(
        self,
        tree: Digest,
        *,
        run_id: EntityId,
        story_id: StoryId,
        rigor: Rigor,
        task_id: EntityId | None = None,
        base: Measurement | None = None,
        commit: str | None = None,
        base_commit: str | None = None,
        stages: Sequence[str] = specs.ALL_STAGES,
        toolchain: str = "python",
        language: Language | None = None,
    ) -> Measurement:
        """The report of the pipeline on the tree, compared with the measurement of the base tree (RC-60..RC-69).

        Without a base everything counts as new. A pipeline that ran out of time gives a report that is not complete.
        Commands and side services are those that the base declares: a change cannot choose what judges it.

        Args:
            language: what the project is written in; None looks at the tree's root.
        """
        entries = await read_tree(self._blobs, tree)
        language = language or language_of(entries)
        preview = await self._preview(entries) if "e2e" in stages else None
        before = await read_tree(self._blobs, base.report.tree_digest) if base is not None else entries
        declared = await declared_by(self._blobs, before)
        judge = await self._judge(entries, base) if "unit" in stages and language == "python" else None
        spec = specs.pipeline_spec(
            tree,
            stages=stages,
            language=language,
            commands=command_variables(declared.commands, language),
            services=declared.services,
            preview=preview,
            judge=judge,
            toolchain=toolchain_for(language, toolchain),
        )
        result = await self._held(spec)
        head = ReportHead(
            run_id=run_id,
            story_id=story_id,
            tree=tree,
            rigor=rigor,
            task_id=task_id,
            commit=commit,
            base_commit=base_commit,
            base=base,
        )
        outputs = await self._outputs(result, tree, base.report.tree_digest if base else None)
        return build_measurement(head, replace(outputs, is_judged=judge is not None and base is not None))

    async def _judge(self, entries: Tree, base: Measurement | None) -> Digest | None:
        """What the project's tests are held against: those that were there before, as they were.

        None where there is no test: then nothing is asked.
        """
        before = await read_tree(self._blobs, base.report.tree_digest) if base is not None else entries
        tests = {
            path: entry.blob.hex
            for path, entry in sorted(before.items())
            if is_test(path) and entry.mode in ("100644", "100755") and entries.get(path) == entry
        }
        asked = base.judged if base is not None else None
        if not tests or len(tests) > _MOST_TESTS or (base is not None and asked is None):
            return None
        request = {
            "tests": tests,
            "canaries": [path for path in asked.canaries if path in tests] if asked is not None else None,
            "files": {path: ms / 1000 for path, ms in asked.milliseconds.items() if path in tests}
            if asked is not None
            else None,
            "passed": list(asked.piped) if asked is not None else None,
        }
        return await self._blobs.put(json.dumps(request, sort_keys=True).encode())

    async def _preview(self, tree: Tree) -> specs.PreviewChecks | None:
        """What of the preview is to be checked, None when the tree declares none.

        A declaration that is not valid is an errored test which says what to mend: the other stages still count.
        """
        entry = tree.get(WORKSPACE_FILE)
        if entry is None:
            return None
        try:
            if entry.mode not in ("100644", "100755"):
                raise InvalidInput(f"{WORKSPACE_FILE} is a link: put a plain file there", field="file")
            declared = parse_workspace_file(await self._blobs.get(entry.blob)).preview
        except InvalidInput as error:
            request = await self._blobs.put(canonical_json({"problem": error.message}))
            return specs.PreviewChecks(request, pages=0)
        if declared is None:
            return None
        return specs.PreviewChecks(await self._blobs.put(canonical_json(declared.request())), len(declared.pages))

    async def commit(
        self,
        tree: Digest,
        staged: StagedRepository,
        *,
        parent: str,
        message: str,
        author: str,
        date_s: int,
        previous: Sequence[Digest] = (),
        toolchain: str = "python",
    ) -> Commit:
        """A commit of the tree on `parent`, and the pack that holds all that the staged commit lacks (RC-77).

        The same arguments give the same commit id.

        Args:
            author: the seat's name, e.g. `developer-002`, or `Name <mail>`.
            date_s: UTC seconds since the epoch, for author and committer.
            previous: the pack of earlier commits of this story.
        """
        name, _, mail = author.partition(" <")
        request = canonical_json(
            {
                "parent": parent,
                "base": staged.commit,
                "message": message,
                "author_name": name,
                "author_email": mail.rstrip(">") or f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}@fleet.invalid",
                "date": f"{date_s} +0000",
            }
        )
        spec = specs.commit_spec(tree, staged, await self._blobs.put(request), previous=previous, toolchain=toolchain)
        result = await self._held(spec)
        made = (await self._artifact(result, specs.COMMIT) or b"").decode(errors="replace")
        pack, index = result.artifact(specs.PACK), result.artifact(specs.INDEX)
        if result.status != "passed" or pack is None or index is None or not _COMMIT.fullmatch(made):
            raise ToolFailed(f"no commit could be made on {parent}: {_last_words(result)}", reason=result.reason)
        return Commit(commit=made.strip(), base_commit=staged.commit, pack=pack, pack_index=index)

    async def changes(self, old: Digest, new: Digest) -> list[PathChange]:
        """What the new tree changes, by path."""
        return changed_paths(*await read_changes(self._blobs, old, new))

    async def _held(self, spec: RunSpec) -> RunResult:
        """The result of a run that the sandbox could hold. A run that it could not hold is no evidence and raises."""
        result = await self._run(spec)
        if result.status == "cancelled":
            raise ToolTimeout("the run was cancelled before it ended", reason=result.reason)
        if result.status != "error":
            return result
        if result.reason == "config":
            raise ToolFailed(f"the run was refused before it started: {_last_words(result)}", reason=result.reason)
        why = f"{result.reason}: {_last_words(result)}" if result.reason == "image_unavailable" else result.reason
        raise SandboxUnavailable(f"the sandbox could not hold the run: {why}", reason=result.reason)

    @staticmethod
    def _tree_of(result: RunResult, problem: str) -> Digest:
        if result.status != "passed" or result.tree_out is None:
            raise ToolFailed(f"{problem}: {_last_words(result)}", reason=result.reason)
        return result.tree_out

    async def _artifact(self, result: RunResult, path: str) -> bytes | None:
        artifact = next((a for a in result.artifacts if a.path == path), None)
        if artifact is None or artifact.blob is None or artifact.size_bytes > MAX_BYTES:
            return None
        return await self._blobs.get(artifact.blob)

    async def _outputs(self, result: RunResult, tree: Digest, base: Digest | None) -> Outputs:
        old: Tree = {}
        if base:
            old, new = await read_changes(self._blobs, base, tree)
        else:
            new = await read_tree(self._blobs, tree)
        lines = await self._line_changes(old, new)
        paths = {
            "unit": specs.JUNIT,
            "e2e": specs.E2E_JUNIT,
            "preview": specs.PREVIEW_JUNIT,
            "coverage": specs.COVERAGE,
            "lint": specs.LINT,
            "static": specs.STATIC,
            "judged": specs.JUDGED,
        }
        files = {name: await self._artifact(result, path) for name, path in paths.items()}
        return Outputs(
            summary=_believed(parse_summary(await self._artifact(result, specs.SUMMARY)), result),
            suite=await asyncio.to_thread(parse_junit, files["unit"]),
            judged=parse_judged(files["judged"]),
            e2e=await asyncio.to_thread(parse_junit, files["e2e"]),
            preview=await asyncio.to_thread(parse_junit, files["preview"]),
            pictures=tuple(a.blob for a in result.artifacts if a.blob and a.path.startswith("out/preview/")),
            coverage=await asyncio.to_thread(parse_coverage, files["coverage"]),
            lint=parse_findings(files["lint"]),
            static=parse_findings(files["static"]),
            blobs={name: blob for name, path in paths.items() if (blob := result.artifact(path))},
            log=result.stderr.blob or result.stdout.blob,
            total_ms=result.usage.wall_ms,
            changed={path: change.added for path, (change, _) in lines.items()},
            secrets=sum(secrets for _, secrets in lines.values()),
            patch=_patch(lines) if base else None,
        )

    async def _line_changes(self, old: Tree, new: Tree) -> dict[str, tuple[LineChanges, int]]:
        """Path -> changed lines and secrets on them, for every text file that the new tree adds, changes or removes."""
        changes: dict[str, tuple[LineChanges, int]] = {}
        for change in changed_paths(old, new):
            before, after = await self._text(old, change.path), await self._text(new, change.path)
            # Megabytes of text are compared outside of the event loop: other stories live there.
            changes[change.path] = await asyncio.to_thread(_compare, before, after)
        return changes

    async def _text(self, tree: Tree, path: str) -> str:
        entry = tree.get(path)
        if entry is None or entry.mode not in ("100644", "100755"):
            return ""
        data = await self._blobs.get(entry.blob)
        return "" if len(data) > _MAX_TEXT or b"\0" in data else data.decode(errors="replace")


async def declared_by(blobs: BlobStore, tree: Tree) -> WorkspaceFile:
    """What the tree declares of its workspace; nothing where the file is missing or cannot be read."""
    entry = tree.get(WORKSPACE_FILE)
    if entry is None or entry.mode not in ("100644", "100755"):
        return WorkspaceFile()
    try:
        return parse_workspace_file(await blobs.get(entry.blob))
    except InvalidInput:
        return WorkspaceFile()  # stage e2e says what is wrong with it


def _compare(before: str, after: str) -> tuple[LineChanges, int]:
    lines = changed_lines(before, after)
    text = after.replace("\r\n", "\n").split("\n")
    return lines, len(find_secrets("\n".join(text[n - 1] for n in lines.added)))


_ENDED_FROM_OUTSIDE = frozenset({"timeout", "idle_timeout", "oom_killed", "pids_limit", "disk_limit", "output_limit"})


def _believed(summary: CheckSummary | None, result: RunResult) -> CheckSummary | None:
    """The summary, None where the run ended otherwise than it says: then something else may have written it.

    A run that the sandbox ended leaves what its stages had come to.
    """
    if summary is None or result.reason in _ENDED_FROM_OUTSIDE:
        return summary
    return summary if summary.exit_code is not None and summary.exit_code == result.exit_code else None


def _patch(lines: Mapping[str, tuple[LineChanges, int]]) -> PatchSection:
    return PatchSection(
        applied=True,
        files=tuple(lines),
        added=sum(len(change.added) for change, _ in lines.values()),
        removed=sum(change.removed for change, _ in lines.values()),
    )


def _last_words(result: RunResult) -> str:
    lines = [line for line in (result.stderr.text or result.stdout.text).splitlines() if line.strip()]
    return lines[-1][:500] if lines else result.reason
