"""Solutions in the sandbox: one run for all cases of a solution, and another one, apart, for the judge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from fleet.bench.service.source import normal_form
from fleet.bench.task import SOLUTION, HiddenTests, SolveTask
from fleet.kernel.digest import canonical_json, digest_of, digest_of_json
from fleet.kernel.errors import SandboxUnavailable
from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.policy.runs.spec import BlobMount, Limits, RunResult, RunSpec
from fleet.sandbox.port import Sandbox
from fleet.trees.port import BlobStore
from fleet.trees.tree import FileEntry, encode_tree

ARM_RUNS, JUDGE_RUNS = StoryId("st-bench-arm"), StoryId("st-bench-judge")
"""Runs that an arm asked for, and runs of the judge: nothing of the latter comes back to an arm."""
_LIMITS = Limits(overall_s=120, idle_s=120, memory_bytes=1 << 30)
_CASE_LIMIT_S = 5
_RESULTS = "out/cases.json"


@dataclass(frozen=True, slots=True)
class Solution:
    """Code that a model gave: whole files by path, in the order of their paths."""

    files: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """All of it, for people and for a repair."""
        if len(self.files) == 1 and self.files[0][0] == SOLUTION:
            return self.files[0][1]
        return "\n".join(f"# file: {path}\n{text}" for path, text in self.files)

    @property
    def digest(self) -> Digest:
        """Of the bytes."""
        return digest_of_json([list(file) for file in self.files])

    @property
    def normal_digest(self) -> Digest:
        """Of the normal form: solutions with equal ones are one candidate (CN-34)."""
        return digest_of_json(
            [[path, normal_form(text) if path.endswith(".py") else text] for path, text in self.files]
        )

    @property
    def lines(self) -> int:
        """Lines that are not empty."""
        return sum(bool(line.strip()) for _, text in self.files for line in text.splitlines())


@dataclass(frozen=True, slots=True)
class ProgramCase:
    """One thing to run: a test passes when it raises nothing, a call shows its value."""

    id: str
    kind: Literal["test", "call"]
    code: str


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What a case showed; `value` for calls, equal for equal behaviour."""

    outcome: Literal["passed", "failed", "error", "timeout", "broken"]
    message: str = ""
    value: str | None = None


class Execute(Protocol):
    """Runs what an arm asks for, and judges its choice."""

    async def run(self, task: SolveTask, solution: Solution, cases: Sequence[ProgramCase]) -> Mapping[str, CaseResult]:
        """The result of every case; for a repository task of the one case `command`. Raises SandboxUnavailable."""
        ...

    async def judge(self, task: SolveTask, hidden: HiddenTests, solution: Solution) -> bool:
        """Whether the solution passes every hidden test. Raises SandboxUnavailable."""
        ...


class SandboxExecution:
    """`Execute` in the product's sandbox. One run a solution, however many cases."""

    def __init__(self, sandbox: Sandbox, blobs: BlobStore) -> None:
        self._sandbox = sandbox
        self._blobs = blobs

    async def run(self, task: SolveTask, solution: Solution, cases: Sequence[ProgramCase]) -> Mapping[str, CaseResult]:
        """See `Execute.run`."""
        if task.is_repository:
            result = await self._command(task, task.command, solution, {}, ARM_RUNS)
            return {"command": _of_command(result)}
        return await self._cases(task.setup, solution, cases, ARM_RUNS) if cases else {}

    async def judge(self, task: SolveTask, hidden: HiddenTests, solution: Solution) -> bool:
        """See `Execute.judge`."""
        if task.is_repository:
            result = await self._command(task, hidden.command, solution, hidden.files, JUDGE_RUNS)
            return result.status == "passed"
        cases = [ProgramCase(f"hidden-{n}", "test", code) for n, code in enumerate(hidden.tests)]
        found = await self._cases(hidden.setup, solution, cases, JUDGE_RUNS)
        return bool(found) and all(r.outcome == "passed" for r in found.values())

    async def _cases(
        self, setup: str, solution: Solution, cases: Sequence[ProgramCase], story: StoryId
    ) -> Mapping[str, CaseResult]:
        listed = [{"id": c.id, "kind": c.kind, "code": c.code} for c in cases]
        document = {"setup": setup, "solution": solution.text, "cases": listed, "limit_s": _CASE_LIMIT_S}
        blob = await self._blobs.put(json.dumps(document).encode())
        spec = RunSpec(
            argv=("python", "/fleet/inside/solve_cases.py"),
            mounts=(BlobMount(blob=blob, target="/inputs/cases.json"),),
            limits=_LIMITS,
            artifacts=(_RESULTS,),
        )
        result = await self._run(spec, story)
        if (found := result.artifact(_RESULTS)) is None:
            return {c.id: CaseResult("error", f"the run ended early: {result.reason}", "ended") for c in cases}
        return _read(await self._blobs.get(found), cases)

    async def _command(
        self,
        task: SolveTask,
        command: tuple[str, ...],
        solution: Solution,
        over: Mapping[str, bytes],
        story: StoryId,
    ) -> RunResult:
        files = {**task.files, **{path: text.encode() for path, text in solution.files}, **over}
        tree = {path: FileEntry("100644", await self._blobs.put(data)) for path, data in files.items()}
        spec = RunSpec(
            argv=command,
            tree=await self._blobs.put(encode_tree(tree)),
            env={"PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"},
            limits=_LIMITS,
        )
        return await self._run(spec, story)

    async def _run(self, spec: RunSpec, story: StoryId) -> RunResult:
        key = RunKey(hashlib.sha256(canonical_json([str(story), str(spec.digest)])).hexdigest())
        result = await self._sandbox.run(spec, story=story, key=key, epoch=1)
        if "refused" in result.limits:
            raise SandboxUnavailable(f"no run can be held here: {result.limits['refused']}", missing="sandbox")
        return result


def _of_command(result: RunResult) -> CaseResult:
    if result.status == "passed":
        return CaseResult("passed")
    text = f"{result.stdout.text}\n{result.stderr.text}".strip()
    return CaseResult("failed", text[-1500:], str(digest_of(text.encode())))


def _read(data: bytes, cases: Sequence[ProgramCase]) -> Mapping[str, CaseResult]:
    # The solution ran beside what wrote this file: nothing in it is taken for granted.
    try:
        document = json.loads(data)
    except ValueError:
        document = None
    known = cast(dict[str, Any], document) if isinstance(document, dict) else {}
    return {c.id: _result(known.get(c.id)) for c in cases}


def _result(value: Any) -> CaseResult:
    found = cast(dict[str, Any], value) if isinstance(value, dict) else {}
    outcome, text = found.get("outcome"), found.get("value")
    if outcome not in ("passed", "failed", "error", "timeout", "broken"):
        return CaseResult("error", "no result was written", "ended")
    return CaseResult(outcome, str(found.get("message", ""))[:600], text if isinstance(text, str) else None)
