"""Apply a model's edits to the workspace, whole or not at all, and say what changed (RC-71, CN-30, CN-34).

Input, `/inputs/edits.json`:
    {"edits": [{"path": "pkg/a.py", "mode": "definitions" | "file", "content": "..."}],
     "protect": [globs], "format": true}
Output in the folder of `--out`: `edits.json` and `diff.patch`. Exit 0 applied, 1 refused and nothing written,
2 bad input.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from confinement import is_protected, path_problem
from edits import EditProblem, merge_definitions, normal_form_digest, parse
from formatter import Formatter

MAX_INPUT_BYTES = 8 << 20
MAX_EDITS = 200


@dataclass(frozen=True)
class Edit:
    """One edit as asked for."""

    path: str
    mode: str
    content: str


@dataclass
class Change:
    """One file before and after; `old` is None when it does not exist yet."""

    path: str
    old: str | None
    new: str
    crlf: bool = False
    bom: bool = False


@dataclass
class Plan:
    """All edits carried out in memory."""

    changes: dict[str, Change] = field(default_factory=dict[str, Change])
    problems: list[dict[str, str]] = field(default_factory=list[dict[str, str]])


class BadEdits(Exception):
    """The input file is not of the documented form."""


def read_request(path: Path) -> tuple[list[Edit], list[str], bool]:
    """Edits, protected globs and whether to format; BadEdits names what is wrong."""
    if path.stat().st_size > MAX_INPUT_BYTES:
        raise BadEdits(f"more than {MAX_INPUT_BYTES} bytes")
    document: Any = json.loads(path.read_bytes())
    try:
        edits = [Edit(path=e["path"], mode=e["mode"], content=e["content"]) for e in document["edits"]]
        globs = [str(glob) for glob in document.get("protect", [])]
    except (KeyError, TypeError, AttributeError) as error:
        raise BadEdits(f"the form is wrong: {error}") from error
    fields = [value for e in edits for value in (e.path, e.mode, e.content)]
    if not all(isinstance(cast("object", value), str) for value in fields):
        raise BadEdits("path, mode and content of an edit are texts")
    if not 0 < len(edits) <= MAX_EDITS:
        raise BadEdits(f"there must be 1..{MAX_EDITS} edits, here are {len(edits)}")
    return edits, globs, bool(document.get("format", True))


def plan_edits(root: Path, edits: Sequence[Edit], protect: Sequence[str], formatter: Formatter) -> Plan:
    """Every edit carried out in memory, every problem collected; nothing is written."""
    plan = Plan()
    for edit in edits:
        try:
            _plan_one(root, edit, protect, formatter, plan)
        except EditProblem as problem:
            plan.problems.append({"path": edit.path[:300], "message": str(problem)})
    if not plan.problems:
        for change in plan.changes.values():
            change.new = formatter.whole(change.path, change.old, change.new)
    return plan


def _plan_one(root: Path, edit: Edit, protect: Sequence[str], formatter: Formatter, plan: Plan) -> None:
    if problem := path_problem(root, edit.path):
        raise EditProblem(problem)
    if glob := is_protected(edit.path, protect):
        raise EditProblem(f"the path is protected ({glob}): this work must not change it")
    change = plan.changes.get(edit.path) or _read(root, edit.path)
    content = _without_newline_variants(edit.content)
    is_python = edit.path.endswith(".py")
    if edit.mode == "file":
        change.new = content if content.endswith("\n") or not content else content + "\n"
        if is_python:
            parse(change.new, edit.path)
    elif edit.mode == "definitions" and is_python:
        parse(content, f"the edit of {edit.path}")
        change.new = merge_definitions(change.new, formatter.snippet(edit.path, content), path=edit.path)
        parse(change.new, f"{edit.path} with the edit")
    else:
        raise EditProblem("mode must be 'file', or 'definitions' for a Python file")
    plan.changes[edit.path] = change


def _read(root: Path, path: str) -> Change:
    try:
        text = (root / path).read_bytes().decode()
    except FileNotFoundError:
        return Change(path, None, "")
    except UnicodeDecodeError as error:
        raise EditProblem("the present file is not UTF-8 text") from error
    bom = text.startswith("\ufeff")
    text = text.removeprefix("\ufeff")
    plain = _without_newline_variants(text)
    return Change(path, plain, plain, crlf="\r\n" in text, bom=bom)


def _without_newline_variants(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def write_changes(root: Path, plan: Plan) -> None:
    """The files are on disk; a link that appeared meanwhile is not followed."""
    for change in plan.changes.values():
        target = root / change.path
        target.parent.mkdir(parents=True, exist_ok=True)
        text = change.new.replace("\n", "\r\n") if change.crlf else change.new
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(target, flags, 0o644), "wb") as file:
            file.write((("\ufeff" if change.bom else "") + text).encode())


def unified_diff(plan: Plan) -> tuple[str, int, int]:
    """One diff over all files, and its numbers of added and removed lines."""
    out: list[str] = []
    for path, change in sorted(plan.changes.items()):
        if change.old == change.new:
            continue
        before = "/dev/null" if change.old is None else f"a/{path}"
        old = (change.old or "").splitlines(keepends=True)
        for line in difflib.unified_diff(old, change.new.splitlines(keepends=True), before, f"b/{path}"):
            out.append(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n")
    body = [line for line in out if not line.startswith(("--- ", "+++ "))]
    return "".join(out), sum(line[0] == "+" for line in body), sum(line[0] == "-" for line in body)


def report_of(plan: Plan, *, formatted: bool) -> tuple[dict[str, Any], str]:
    """The content of `edits.json`, and the diff."""
    changed = {path: c for path, c in plan.changes.items() if c.old != c.new}
    diff, added, removed = ("", 0, 0) if plan.problems else unified_diff(plan)
    report: dict[str, Any] = {
        "schema": 1,
        "applied": not plan.problems,
        "problems": plan.problems,
        "files": [] if plan.problems else sorted(changed),
        "normal_digest": normal_form_digest((p, c.old or "", c.new) for p, c in changed.items()),
        "diff_lines": added + removed,
        "added": added,
        "removed": removed,
        "formatted": formatted and not plan.problems,
    }
    return report, diff


def main(argv: Sequence[str]) -> int:
    """Apply `--inputs`/edits.json to `--workspace`, write the results to `--out`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path, default=Path("/workspace"))
    parser.add_argument("--inputs", type=Path, default=Path("/inputs"))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(argv)
    root: Path = options.workspace.resolve()
    out: Path = options.out or root / "out"
    try:
        edits, protect, is_formatted = read_request(options.inputs / "edits.json")
    except (BadEdits, OSError, ValueError, RecursionError) as error:
        print(f"edits.json: {error}", file=sys.stderr)
        return 2
    formatter = Formatter(root, enabled=is_formatted)
    plan = plan_edits(root, edits, protect, formatter)
    if not plan.problems:
        write_changes(root, plan)
    report, diff = report_of(plan, formatted=formatter.is_used)
    out.mkdir(parents=True, exist_ok=True)
    (out / "edits.json").write_text(json.dumps(report, indent=1))
    (out / "diff.patch").write_bytes(diff.encode())
    for problem in plan.problems:
        print(f"{problem['path']}: {problem['message']}", file=sys.stderr)
    return 1 if plan.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
