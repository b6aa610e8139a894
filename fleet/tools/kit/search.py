"""Tool `search`: our own script over the workspace, inside the sandbox, and the index of its files (RT-46).

A pattern or a file that takes forever ends with the run's time, never in this process. `semantic` ranks pieces of files
by shared words (BM25), with no model, and reads them all each time; `reindex` counts what it covers. `code` asks the
index, which is kept up to date by what changed: whole files, with the lines that say most.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from pydantic import JsonValue

from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import ToolFailed
from fleet.knowledge.service import CodeAnswer, CodeKnowledge
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import BlobMount, RunSpec
from fleet.policy.tree_paths import place_of
from fleet.tools.kit.parts import ToolParts
from fleet.tools.kit.runs import limits_of, outcome_of, printed, run_once
from fleet.tools.port import ToolContext
from fleet.trees.service import read_tree

_SCRIPT = "/fleet/inside/search_code.py"
_REQUEST, _SYMBOLS = "/inputs/search.json", "/inputs/symbols.json"
_ABOUT_SYMBOLS = frozenset({"symbols", "references", "outline", "semantic", "reindex"})
"""Operations that are told what the files define, as the index has it."""
_DEFAULT_ANSWERS, _MAX_ANSWERS = 10, 50


class SearchTool:
    """Finds text and definitions in the workspace. Implements the port Tool."""

    def __init__(self, parts: ToolParts, knowledge: CodeKnowledge | None = None) -> None:
        self._sandbox, self._blobs = parts.sandbox, parts.blobs
        self._knowledge = knowledge or CodeKnowledge(parts.blobs)

    @property
    def name(self) -> str:
        """See the port."""
        return "search"

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """See the port. `content` is `{total, items}`; a path that is not there is an outcome."""
        if call.op == "code":
            return await self._answers(call, context)
        tree = await read_tree(self._blobs, context.tree) if context.tree else {}
        place = place_of(tree, str(call.args.get("path", ".")))
        if place.kind == "missing":
            return ToolOutcome(outcome="failed", reason="not_found", text=f"there is no {place.path}")
        request = await self._blobs.put(canonical_json({"op": call.op, **call.args}))
        mounts = [BlobMount(blob=request, target=_REQUEST)]
        if call.op in _ABOUT_SYMBOLS and context.tree is not None:
            try:
                async with asyncio.timeout(context.obligations.timeout_s):
                    below = "" if place.path == "." else place.path
                    known = await self._knowledge.definitions(context.tree, below)
            except TimeoutError:
                return _out_of_time(context)
            symbols = await self._blobs.put(
                canonical_json({path: list(map(list, rows)) for path, rows in known.items()})
            )
            mounts.append(BlobMount(blob=symbols, target=_SYMBOLS))
        spec = RunSpec(
            argv=("python", _SCRIPT),
            tree=context.tree,
            mounts=tuple(mounts),
            limits=limits_of(context, memory_bytes=1 << 30),
            toolchain=context.toolchain,
        )
        result = await run_once(self._sandbox, spec, context)
        if result.status != "passed":
            return await outcome_of(result, context, self._blobs)
        content = _answer(await printed(result, self._blobs))
        rows = cast("list[dict[str, JsonValue]]", content["items"])
        left_out = cast("int", content["total"]) - len(rows)
        lines = [_line(row) for row in rows] + ([f"[... {left_out} more ...]"] if left_out else [])
        return await outcome_of(result, context, self._blobs, content=content, text="\n".join(lines) or "nothing found")

    async def _answers(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        if context.tree is None:
            return ToolOutcome(outcome="succeeded", content={"total": 0, "items": []}, text="nothing found")
        limit = min(cast("int", call.args.get("max_results") or _DEFAULT_ANSWERS), _MAX_ANSWERS)
        try:
            async with asyncio.timeout(context.obligations.timeout_s):
                answers = await self._knowledge.search(context.tree, str(call.args["query"]), limit=limit)
        except TimeoutError:
            return _out_of_time(context)
        rows = [_row(answer) for answer in answers]
        text = "\n".join(f"{_line({**row, 'text': ''})}\n{row['text']}" for row in rows)
        items = cast("list[JsonValue]", rows)
        return ToolOutcome(
            outcome="succeeded", content={"total": len(rows), "items": items}, text=text or "nothing found"
        )


def _out_of_time(context: ToolContext) -> ToolOutcome:
    why = f"the index is not up to date after {context.obligations.timeout_s} s; ask again: it goes on there"
    return ToolOutcome(outcome="timed_out", reason="timeout", text=why)


def _row(answer: CodeAnswer) -> dict[str, JsonValue]:
    place = answer.place
    return {
        "path": answer.file.path,
        "line": place.line,
        "end": place.end,
        "name": place.symbol,
        "text": place.text,
        "score_milli": answer.file.score_milli,
        "why": list(answer.file.reasons),
    }


def _answer(text: str) -> dict[str, JsonValue]:
    try:
        answer: Any = json.loads(text)
        return {"total": int(answer["total"]), "items": list(answer["items"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ToolFailed("the search left no readable answer; run it again") from error


def _line(row: dict[str, JsonValue]) -> str:
    if "ending" in row:
        return f"{row['ending']}: {row['files']} files, {row['symbols']} definitions"
    named = " ".join(str(row[name]) for name in ("kind", "name") if row.get(name))
    return f"{row['path']}:{row['line']}: {named or row.get('text', '')}"
