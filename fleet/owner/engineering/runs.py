"""Commands of a work session: each is a run by key on the files that were recorded last, and counts once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from fleet.engineering.commands import (
    changed_line,
    ended_as,
    failure_of,
    format_call,
    formatters_of,
    found_by,
    lint_call,
    linters_of,
    named_files,
    spec_of,
    told_of_tests,
)
from fleet.engineering.shown import cut_output, fenced, output_lines, untrusted
from fleet.engineering.state import Outcome, SeenKind, Session
from fleet.engineering.tools import SessionCall
from fleet.kernel.errors import ArtifactNotFound, InvalidInput
from fleet.kernel.ids import Digest
from fleet.owner.duties.procedure import base_measurement
from fleet.owner.journal.step_records import is_no_result
from fleet.owner.journal.steps import Work
from fleet.owner.workbench import Workbench
from fleet.policy.runs.calls import JUNIT
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.spec import LiveFolder, RunResult, RunSpec
from fleet.sandbox.service.runs import language_of, toolchain_for
from fleet.trees.port import BlobStore
from fleet.trees.service import file_text, read_changes, read_tree
from fleet.trees.tree import Tree, changed_paths
from fleet.workspace.service.results import parse_junit

RUNS = frozenset({"run", "tests", "search"})
"""The tools that are runs in the sandbox."""
_MAX_HITS = 50
_NAMED_CHARS = 200_000
"""Of a file that a command names and its output may show."""
_KEPT_OUTPUT = 2 << 20
"""Characters of an output that can be read afterwards; of a longer one the beginning and the end."""


class Files(NamedTuple):
    """The files that the commands of a session begin with."""

    session: str
    """Step of the session: commands of one session find what its last one left."""
    tree: Tree
    """Those of the state's head."""
    root: Digest
    """The whole tree that the head is told over."""


async def run_call(bench: Workbench, step: str, work: Work, call: SessionCall, state: Session, files: Files) -> Outcome:
    """How the command ended, as the engineer is told it, and the files that it left.

    Raises:
        SandboxUnavailable, StoreUnavailable: nothing could carry it out now; later, by the same name.
    """
    language = language_of(files.tree)
    try:
        toolchain = toolchain_for(language, bench.toolchain)
        spec = spec_of(call, state.head, toolchain=toolchain, language=language)
        folder = LiveFolder(story=bench.journal.story_id, session=files.session, root=files.root)
        spec = spec.model_copy(update={"folder": folder})
    except InvalidInput as error:
        return Outcome("result", f"Not executed: {error.message}.", state.head)
    result = await bench.journal.run(step, spec, work)
    command = call.text("command")
    source_lines = await _lines_of(bench.blobs, files.tree, named_files(command, call.text("cwd"), files.tree))
    lines = output_lines(await printed(bench.blobs, result), command=command, known=source_lines)
    if call.name == "search" and result.exit_code in (0, 1):
        return _found(call, lines if result.exit_code == 0 else [], result, state)
    outcome = await _ended(bench.blobs, call, spec, result, lines, state)
    return await _with_tests(bench, outcome, result) if call.name == "tests" else outcome


async def format_changes(blobs: BlobStore, base: Digest, head: Tree) -> SessionCall | None:
    """What asks the formatter that the base configures about the files that are new or changed; None for none."""
    before = await read_tree(blobs, base)
    pyproject = await file_text(blobs, before, "pyproject.toml") or ""
    return format_call(formatters_of(before, pyproject), _changed(before, head))


async def lint_changes(blobs: BlobStore, base: Digest, head: Tree) -> SessionCall | None:
    """What asks the linters that the base configures; as `format_changes`."""
    before = await read_tree(blobs, base)
    pyproject = await file_text(blobs, before, "pyproject.toml") or ""
    return lint_call(linters_of(before, pyproject), _changed(before, head))


def _changed(before: Tree, head: Tree) -> list[str]:
    return [change.path for change in changed_paths(before, head) if change.path in head]


def _found(call: SessionCall, lines: list[str], result: RunResult, state: Session) -> Outcome:
    text = found_by(lines, glob=call.text("glob"), most=_MAX_HITS, chars=state.terms.search_chars)
    told, spent_ms = fenced("search", text) if text else "No line matches.", result.usage.wall_ms
    brief = "search it again if needed"
    return Outcome("result", told, state.head, brief=brief, wall_ms=spent_ms, sandbox_ms=spent_ms)


async def _ended(
    blobs: BlobStore, call: SessionCall, spec: RunSpec, result: RunResult, lines: list[str], state: Session
) -> Outcome:
    head = result.tree_out if spec.keep_tree and result.tree_out and not is_no_result(result) else state.head
    ended, whole, output = ended_as(result, spec), "\n".join(lines), None
    shown = cut_output(lines, chars=state.terms.run_chars, output_id=state.next_output)
    if shown != whole:
        output = await blobs.put(whole.encode(errors="replace"))
    changed = changed_line(changed_paths(*await read_changes(blobs, state.head, head)))
    failure = failure_of(result, lines)
    parts = [ended, untrusted(changed), fenced(call.name, shown) if shown.strip() else "(no output)"]
    brief = ended.partition(";")[0]
    return Outcome(
        "failure" if failure is not None else "result",
        "\n".join(part for part in parts if part),
        head,
        failure=failure,
        brief=f"{brief}; read output {state.next_output}" if output else brief,
        output=output,
        wall_ms=result.usage.wall_ms,
        sandbox_ms=result.usage.wall_ms,
    )


async def _with_tests(bench: Workbench, outcome: Outcome, result: RunResult) -> Outcome:
    """The outcome with how the tests ended one by one: what fails on the base too is not the author's to mend."""
    blob = result.artifact(JUNIT)
    suite = await asyncio.to_thread(parse_junit, await bench.blobs.get(blob)) if blob is not None else None
    if suite is None or not suite.cases:
        return outcome
    try:
        base = await base_measurement(bench, outcome.head)
    except ArtifactNotFound:
        base = None  # retention took its report: every failure counts as new
    failing = {case.id: case.message for case in suite.cases if case.outcome in ("failed", "errored")}
    passed = sum(case.outcome == "passed" for case in suite.cases)
    said = told_of_tests(passed, failing, base.failing if base is not None else ())
    kind: SeenKind = "failure" if said.failure is not None else "result"
    line = untrusted(said.line)
    return replace(
        outcome, kind=kind, text=f"{line}\n{outcome.text}", failure=said.failure, brief=f"{outcome.brief}; {line[:300]}"
    )


async def _lines_of(blobs: BlobStore, tree: Tree, paths: Sequence[str]) -> frozenset[str]:
    """The lines of these files: an output that shows them shows what they say, and no machine's doing."""
    texts = [await file_text(blobs, tree, path, limit=_NAMED_CHARS) for path in paths]
    return frozenset(line.rstrip() for text in texts if text for line in text.split("\n"))


async def printed(blobs: BlobStore, result: RunResult) -> str:
    """Both streams in the order in which they were read."""
    if result.log is None:
        return result.stdout.text + result.stderr.text
    rows = (await blobs.get(result.log)).decode(errors="replace").split("\n")
    text = "\n".join(LogLine.model_validate(json.loads(row)).line for row in rows if row.strip())
    half = _KEPT_OUTPUT // 2
    return text if len(text) <= _KEPT_OUTPUT else f"{text[:half]}\n[... the middle is not kept ...]\n{text[-half:]}"
