"""Tool browser: a page of the run's own preview in a headless Chromium inside the sandbox (RT-52, RT-63)."""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic import JsonValue

from fleet.extensions.operations.arguments import lines_of, mapping_of, maybe_text, text_of, unknown_op
from fleet.kernel.errors import InvalidInput, ToolFailed
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome, excerpt_of
from fleet.policy.runs.spec import BlobMount, Limits, RunResult, RunSpec, ServiceSpec
from fleet.sandbox.port import Sandbox
from fleet.tools.kit.parts import ToolPlugin
from fleet.tools.kit.runs import run_once
from fleet.tools.port import ToolContext
from fleet.trees.port import BlobStore

RESULT, SCREENSHOT = "out/browser.json", "out/screenshot.png"
_OPS = frozenset({"open", "check", "dom", "console", "screenshot", "click", "fill"})
_ASSERTIONS = {"text_present": list, "selector_present": list, "no_console_error": bool, "load_under_ms": int}
_MISSING, _BROKEN = 2, 3
_MARGIN_S = 20


class BrowserTool:
    """Opens one page per call, with a profile of its own. Only what the sandbox itself serves is reached."""

    def __init__(self, sandbox: Sandbox, blobs: BlobStore) -> None:
        self._sandbox = sandbox
        self._blobs = blobs

    @property
    def name(self) -> str:
        """`browser`."""
        return "browser"

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """Open the page, act on it, and say what was seen.

        `content`: url, status, title, load_ms, console, failed_requests, accessibility, action, assertions; the
        picture is an artifact. An assertion that does not hold or an element that is missing is an outcome `failed`;
        so is a missing browser, which `text` names. Raises SandboxUnavailable, ToolFailed when the browser broke.
        """
        if call.op not in _OPS:
            raise unknown_op(call)
        request = await self._blobs.put(json.dumps(_request(call, context)).encode())
        result = await run_once(self._sandbox, _spec(call, context, request), context)
        return await self._outcome(call, result)

    async def _outcome(self, call: ToolCall, result: RunResult) -> ToolOutcome:
        blob = result.artifact(RESULT)
        if blob is None:
            kind = "timed_out" if result.status == "timeout" else "failed"
            text = excerpt_of(result.stdout.text + result.stderr.text)
            return ToolOutcome(outcome=kind, reason=result.reason, exit_code=result.exit_code, text=text)
        seen = _exact(cast(dict[str, Any], json.loads(await self._blobs.get(blob))))
        if result.exit_code == _MISSING:
            text = str(seen.get("missing", "no browser"))
            return ToolOutcome(outcome="failed", reason="program_missing", exit_code=_MISSING, text=text)
        if result.exit_code == _BROKEN:
            raise ToolFailed(f"the browser broke: {str(seen.get('broken'))[:200]}; try again", op=call.op)
        dom = str(seen.pop("dom", ""))
        text = dom if call.op == "dom" else _told(call.op, seen)
        return ToolOutcome(
            outcome="succeeded" if result.exit_code == 0 else "failed",
            reason="ok" if result.exit_code == 0 else _why(seen),
            exit_code=result.exit_code,
            content=seen,
            text=excerpt_of(text),
            output=await self._blobs.put(text.encode()) if len(text) > len(excerpt_of(text)) else None,
            artifacts=tuple(a for a in result.artifacts if a.path == SCREENSHOT and a.blob is not None),
            run_log=result.log,
        )


def _request(call: ToolCall, context: ToolContext) -> dict[str, JsonValue]:
    assertions = mapping_of(call, "assertions")
    for name, value in assertions.items():
        if name not in _ASSERTIONS or not isinstance(value, _ASSERTIONS[name]):
            raise InvalidInput(
                f"assertion {name[:40]!r} is none; use text_present and selector_present (lists), no_console_error "
                "(true), load_under_ms (a number)",
                field="assertions",
            )
    has_service = bool(lines_of(call, "service"))
    if has_service and maybe_text(call, "folder") is not None:
        raise InvalidInput("a preview is either a folder or a service", field="folder")
    request: dict[str, JsonValue] = {
        "op": call.op,
        "page": text_of(call, "page"),
        "folder": None if has_service else maybe_text(call, "folder") or ".",
        "assertions": assertions,
        "dom": call.op == "dom",
        "timeout_s": max(5, context.obligations.timeout_s - _MARGIN_S),
    }
    if call.op in ("click", "fill"):
        request["selector"] = text_of(call, "selector")
    if call.op == "fill":
        request["value"] = text_of(call, "value")
    return request


def _spec(call: ToolCall, context: ToolContext, request: Any) -> RunSpec:
    argv = lines_of(call, "service")
    service = ServiceSpec(name="preview", kind="command", env_prefix="PREVIEW", argv=argv) if argv else None
    time_s = context.obligations.timeout_s
    return RunSpec(
        argv=("python", "/fleet/inside/browser_check.py"),
        tree=context.tree,
        mounts=(BlobMount(blob=request, target="/inputs/request.json"),),
        limits=Limits(overall_s=time_s, idle_s=time_s, memory_bytes=2 << 30, pids=512),
        artifacts=(RESULT, SCREENSHOT),
        services=(service,) if service else (),
    )


def _exact(value: Any) -> Any:
    """The document without fractions, which have no canonical form."""
    match value:
        case float():
            return round(value)
        case list():
            return [_exact(item) for item in cast(list[Any], value)]
        case dict():
            return {str(k): _exact(v) for k, v in cast(dict[Any, Any], value).items()}
        case _:
            return value


def _told(op: str, seen: dict[str, Any]) -> str:
    lines = [f"{seen.get('status')} {seen.get('title')!r} {seen.get('url')} in {seen.get('load_ms')} ms"]
    lines += [f"{'holds' if a['holds'] else 'FAILS'}: {a['kind']} {a['value']}" for a in seen.get("assertions", [])]
    lines += [f"console {entry['level']}: {entry['text']}" for entry in seen.get("console", [])]
    lines += [f"failed request: {entry['url']} {entry['error']}" for entry in seen.get("failed_requests", [])]
    if op in ("open", "check", "click", "fill"):
        lines += seen.get("accessibility", {}).get("outline", [])
    return "\n".join(lines)


def _why(seen: dict[str, Any]) -> str:
    if seen.get("error"):
        return "page_not_loaded"
    if cast(dict[str, Any], seen.get("action") or {}).get("found") is False:
        return "element_missing"
    return "assertion_failed"


PLUGIN = ToolPlugin(
    name="browser",
    make=lambda parts: BrowserTool(parts.sandbox, parts.blobs),
)
