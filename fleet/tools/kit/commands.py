"""Tools that are commands in the workspace: tests, build, lint, exec (RT-43, RT-44, RT-45, RT-53)."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any, cast

from pydantic import JsonValue

from fleet.kernel.ids import Digest
from fleet.policy.arguments import texts_of
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.calls import JUNIT, RunCommand, command_of
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import Grantee, RunResult, RunSpec
from fleet.redaction.secrets import find_secrets
from fleet.sandbox.service.runs import toolchain_for
from fleet.tools.kit.parts import ToolParts
from fleet.tools.kit.runs import limits_of, outcome_of, run_once
from fleet.tools.port import ToolContext
from fleet.trees.port import BlobStore
from fleet.trees.service import read_tree
from fleet.workspace.service.results import parse_junit

_MAX_ITEMS = 200
_MAX_SCANNED_BYTES = 1 << 20
_NO_DATABASE = "no_database"
_NOT_CHECKED: dict[str, JsonValue] = {
    "what": "known_vulnerabilities",
    "reason": _NO_DATABASE,
    "text": "known weaknesses were not looked up: no list of them is on this machine",
}


def spec_of(command: RunCommand, call: ToolCall, context: ToolContext) -> RunSpec:
    """The run that carries the command out; it has no network (RT-53, RC-6)."""
    return RunSpec(
        argv=command.argv,
        tree=context.tree,
        env=dict(command.env),
        limits=limits_of(context),
        artifacts=command.artifacts,
        keep_tree=command.keeps_tree,
        toolchain=toolchain_for(context.language, context.toolchain),
        grantee=Grantee(role=context.role, tool=call.tool, op=call.op),
    )


class CommandTool:
    """One tool whose operations are commands. Implements the port Tool.

    What runs on the tree leaves it as it was, but for `lint.format_write` and `lint.fix_write`, whose changes become
    the new tree. `lint.secret_scan` reads the files without running anything.

    Args:
        name: tests, build, lint or exec.
    """

    def __init__(self, name: str, parts: ToolParts) -> None:
        self._name, self._parts = name, parts

    @property
    def name(self) -> str:
        """See the port."""
        return self._name

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """See the port."""
        if (call.tool, call.op) == ("lint", "secret_scan"):
            return await _secret_scan(call, context, self._parts.blobs)
        command = command_of(call, language=context.language)
        result = await run_once(self._parts.sandbox, spec_of(command, call, context), context)
        content = await _content(command, result, self._parts.blobs)
        if (call.tool, call.op) == ("lint", "dependency_scan") and isinstance(content, dict):
            return _scan_of_pins(await outcome_of(result, context, self._parts.blobs), content)
        return await outcome_of(result, context, self._parts.blobs, content=content)


async def _content(command: RunCommand, result: RunResult, blobs: BlobStore) -> JsonValue:
    match command.reads:
        case "junit":
            return await _tests(result, blobs)
        case "json":
            return _findings(result)
        case _:
            return None


async def _tests(result: RunResult, blobs: BlobStore) -> JsonValue:
    blob = result.artifact(JUNIT)
    suite = parse_junit(await blobs.get(blob)) if blob else None
    if suite is None:
        return None
    counts = Counter(case.outcome for case in suite.cases)
    failed = [case for case in suite.cases if case.outcome in ("failed", "errored")]
    failures: list[JsonValue] = [
        {"id": c.id, "message": c.message, "file": c.file, "line": c.line} for c in failed[:_MAX_ITEMS]
    ]
    data: dict[str, JsonValue] = {
        "passed": counts["passed"],
        "failed": counts["failed"],
        "errored": counts["errored"],
        "skipped": counts["skipped"],
        "failures": failures,
    }
    return data


def _findings(result: RunResult) -> JsonValue:
    """The list that a linter printed as JSON, in our own fields; None when it printed none."""
    try:
        listed: Any = json.loads(result.stdout.text)
    except ValueError:
        return None
    if not isinstance(listed, list):
        return None
    items: list[JsonValue] = [
        _finding(cast("dict[str, Any]", item)) for item in cast("list[Any]", listed) if isinstance(item, dict)
    ]
    return {"total": len(items), "findings": items[:_MAX_ITEMS]}


def _scan_of_pins(outcome: ToolOutcome, content: dict[str, JsonValue]) -> ToolOutcome:
    """The outcome says what was looked at and what was not: a scan without a list of weaknesses clears nobody."""
    listed: Any = content["findings"]
    lines = [f"{f['path']}:{f['line']}: {f['message']}" for f in listed] or ["every dependency has an exact version"]
    return outcome.model_copy(
        update={
            "reason": _NO_DATABASE if outcome.outcome == "succeeded" else outcome.reason,
            "content": {**content, "checked": ["pins"], "not_checked": [_NOT_CHECKED]},
            "text": "\n".join([*lines, str(_NOT_CHECKED["text"])]),
        }
    )


def _finding(item: dict[str, Any]) -> dict[str, JsonValue]:
    where: Any = item.get("location")
    row: Any = cast("dict[str, Any]", where).get("row") if isinstance(where, dict) else item.get("line")
    return {
        "path": str(item.get("filename") or item.get("path") or "").removeprefix("/workspace/"),
        "line": row if isinstance(row, int) else None,
        "code": str(item.get("code") or ""),
        "message": str(item.get("message") or "")[:500],
    }


async def _secret_scan(call: ToolCall, context: ToolContext, blobs: BlobStore) -> ToolOutcome:
    """Which files hold secrets, by class and never by value (RC-67)."""
    tree = await read_tree(blobs, context.tree) if context.tree else {}
    paths = texts_of(call.args.get("paths"))
    places: list[tuple[str, str]] = []
    for path, entry in sorted(tree.items()):
        if entry.mode in ("100644", "100755") and _is_wanted(path, paths):
            places += [(path, kind) for kind in await _classes(entry.blob, blobs)]
    findings: list[JsonValue] = [{"path": path, "class": kind} for path, kind in places[:_MAX_ITEMS]]
    return ToolOutcome(
        outcome="failed" if places else "succeeded",
        reason="secrets_found" if places else "ok",
        content={"total": len(places), "findings": findings},
        text="\n".join(f"{path}: {kind}" for path, kind in places) or "no secret found",
    )


def _is_wanted(path: str, paths: tuple[str, ...]) -> bool:
    return not paths or any(w == "." or path == w or path.startswith(f"{w}/") for w in paths)


async def _classes(blob: Digest, blobs: BlobStore) -> list[str]:
    data = await blobs.get(blob)
    if len(data) > _MAX_SCANNED_BYTES or b"\0" in data:
        return []
    # Megabytes of text are searched outside of the event loop: other stories live there.
    return await asyncio.to_thread(find_secrets, data.decode(errors="replace"))
