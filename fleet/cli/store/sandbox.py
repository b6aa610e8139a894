"""`fleet sandbox`: one command under the policy of a role, and the preflight of this machine (RC-25, RT-55)."""

from __future__ import annotations

import asyncio
import re
import secrets
import sys
import time
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from fleet.cli.exit_codes import DONE, FAILED, MISSING
from fleet.cli.local.local_principals import local_principal
from fleet.cli.output import Output, shown, shown_name
from fleet.cli.settings import settings
from fleet.kernel.errors import InvalidInput, PolicyDenied, SandboxUnavailable
from fleet.kernel.ids import EntityId, RunKey, StoryId
from fleet.policy.rules.calls import Allowed, CallFacts, ToolCall
from fleet.policy.rules.config import Policy
from fleet.policy.rules.policy import decide, enforce
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.outcome import plain_text
from fleet.policy.runs.spec import Limits, RunResult, RunSpec
from fleet.sandbox.folders.local_folder import FolderChanges
from fleet.sandbox.port import SandboxHealth
from fleet.wiring.sandbox.lone_sandbox import LoneSandbox, open_lone_sandbox

_STORY, _TASK = StoryId("st-sandbox-exec"), EntityId("tk-sandbox-exec")
_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_MAX_WORKSPACE_BYTES = 2 << 30
_WAIT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOptions:
    """What `fleet sandbox exec` was asked for; None takes the default of the policy or of the sandbox."""

    argv: tuple[str, ...]
    workspace: Path | None = None
    role: str = "developer"
    timeout_s: int | None = None
    memory: str | None = None
    disk: str | None = None
    pids: int | None = None
    cpu: str | None = None
    hosts: tuple[str, ...] = ()
    keep: bool = False


@dataclass(frozen=True, slots=True)
class _Executed:
    result: RunResult
    changes: FolderChanges | None


def execute(output: Output, options: ExecOptions) -> int:
    """The command was run as the role may run it. Exit code 0 when it passed, 4 when it did not."""
    return asyncio.run(_execute(output, options))


def check_sandbox(output: Output) -> int:
    """What the sandbox of this machine holds, found by trying. Exit code 5 when it does not hold all of it."""
    health = asyncio.run(_health())
    sizes = limit_sizes(Limits())
    for name, mechanism in health.enforced.items():
        size = sizes.get(name, "")
        output.say(f"[green]holds[/]   {shown(name.ljust(20))} {shown(mechanism.ljust(14))} {shown(size)}".rstrip())
    for number, finding in enumerate(health.unmet):
        output.say(f"[red]missing[/] {shown(finding)}")
        if number < len(health.mend):
            output.say(f"        mend: {shown(health.mend[number])}")
    output.say(f"{shown(health.backend)}: {health.status}, tier {health.tier}")
    if health.program:
        output.say(f"Program: {shown(health.program)}")
    output.say(
        "Sizes are those of a run that asks for nothing else; policy.yaml has others, `fleet sandbox exec` takes some."
    )
    output.result({"sandbox": {**asdict(health), "tier": health.tier, "limits": Limits().model_dump(mode="json")}})
    return DONE if health.status == "ok" else MISSING


def limit_sizes(limits: Limits) -> dict[str, str]:
    """How large each limit is, for people, by the names that `SandboxHealth.enforced` has."""

    def mebibytes(count: int) -> str:
        return f"{count / (1 << 20):g} MiB"

    return {
        "memory": mebibytes(limits.memory_bytes),
        "pids": f"{limits.pids} processes",
        "disk": mebibytes(limits.disk_bytes),
        "file_size": mebibytes(limits.file_bytes),
        "output": mebibytes(limits.output_bytes),
        "cpu": f"{limits.cpu_millis / 1000:g} CPU",
        "wall_time": f"{limits.overall_s} s",
        "idle_time": f"{limits.idle_s} s",
    }


async def _health() -> SandboxHealth:
    async with open_lone_sandbox(settings()) as sandbox:
        return await sandbox.supervisor.health()


async def _execute(output: Output, options: ExecOptions) -> int:
    async with open_lone_sandbox(settings()) as sandbox:
        allowed = _allowed(options, sandbox.policy)
        executed = await run_command(sandbox, options, _limits(options, allowed), output)
    result = executed.result
    seconds = f"{result.usage.wall_ms / 1000:.1f} s"
    output.note(f"{result.status}: {result.reason}, exit code {result.exit_code}, {seconds}, {result.backend}")
    if executed.changes is not None:
        _tell(output, executed.changes)
    output.result(
        {
            "result": result.model_dump(mode="json"),
            "rule_id": allowed.rule_id,
            "policy_digest": allowed.policy_digest,
            "changes": asdict(executed.changes) if executed.changes else None,
        }
    )
    return DONE if result.status == "passed" else FAILED


async def run_command(sandbox: LoneSandbox, options: ExecOptions, limits: Limits, output: Output) -> _Executed:
    """The command has ended; its lines were shown while it ran. Raises SandboxUnavailable."""
    folder = options.workspace
    tree = await sandbox.take_in(folder, max_bytes=_MAX_WORKSPACE_BYTES) if folder else None
    spec = RunSpec(argv=options.argv, tree=tree, limits=limits, keep_tree=options.keep, discard=(), hosts=options.hosts)
    # The probes first: a run that cannot be held is then refused at once, and not told as a result.
    health = await sandbox.supervisor.health()
    if health.status == "down":
        raise SandboxUnavailable(
            f"no sandbox can be built here: {'; '.join(health.unmet)}. {' '.join(health.mend)}",
            missing=list(health.unmet),
            mend=list(health.mend),
        )
    result = await _followed(sandbox, spec, output)
    if not (options.keep and folder and tree and result.status == "passed" and result.tree_out):
        return _Executed(result, None)
    return _Executed(result, await sandbox.give_back(folder, tree, result.tree_out))


async def _followed(sandbox: LoneSandbox, spec: RunSpec, output: Output) -> RunResult:
    key, shown = RunKey(secrets.token_hex(32)), 0
    await sandbox.supervisor.submit(spec, story=_STORY, key=key, epoch=1)
    while True:
        page = await sandbox.supervisor.logs(key, after=shown, wait_s=_WAIT_S)
        for line in page.lines:
            _show(line, output)
            shown = line.n
        if page.is_over:
            break
    result = (await sandbox.supervisor.progress(key)).result
    assert result is not None
    if "refused" in result.limits:
        raise SandboxUnavailable(f"the command was not started: {result.limits['refused']}", missing="sandbox")
    return result


def _show(line: LogLine, output: Output) -> None:
    to_stdout = line.stream == "stdout" and not output.as_json
    stream = sys.stdout if to_stdout else sys.stderr
    stream.write(plain_text(line.line) + "\n")
    stream.flush()


def _tell(output: Output, changes: FolderChanges) -> None:
    for word, paths in (("written", changes.written), ("removed", changes.removed)):
        for path in paths:
            output.note(f"{word} {shown_name(path)}")
    for path, why in changes.skipped.items():
        output.note(f"[yellow]left alone[/] {shown_name(path)}: {shown_name(why)}")


def _allowed(options: ExecOptions, policy: Policy) -> Allowed:
    principal = local_principal()
    facts = CallFacts(
        principal=principal,
        is_enabled=True,
        role=options.role,
        roles_held=frozenset({options.role}),
        phase="BUILD",
        story="active",
        rigor="L0",
        epoch=1,
        current_epoch=1,
        task=_TASK,
        claimed_by=principal,
    )
    call = ToolCall(tool="exec", op="run", args={"argv": list(options.argv)})
    allowed = enforce(decide(call, facts, policy=policy, now_ms=time.time_ns() // 1_000_000))
    if refused := [h for h in options.hosts if not _is_listed(h, policy)]:
        raise PolicyDenied(
            f"hosts {', '.join(refused)} are not listed; add them to targets.hosts of config/policy.yaml",
            rule_id="target_not_listed",
            policy_digest=str(policy.digest),
        )
    return allowed


def _is_listed(host: str, policy: Policy) -> bool:
    name = host.partition(":")[0].lower()
    return any(name == h or (h.startswith(".") and name.endswith(h)) for h in policy.targets.hosts)


def _limits(options: ExecOptions, allowed: Allowed) -> Limits:
    longest_s = allowed.obligations.timeout_s
    if options.timeout_s is not None and options.timeout_s > longest_s:
        raise PolicyDenied(
            f"--timeout {options.timeout_s} is over the {longest_s} s that exec.run may take; ask for less",
            rule_id="RC-6",
            policy_digest=str(allowed.policy_digest),
        )
    timeout_s = options.timeout_s or min(Limits().overall_s, longest_s)
    given: dict[str, Any] = {"overall_s": timeout_s, "idle_s": timeout_s, "pids": options.pids}
    given["memory_bytes"] = options.memory and _size(options.memory, "--memory")
    given["disk_bytes"] = options.disk and _size(options.disk, "--disk")
    given["cpu_millis"] = options.cpu and _cpu_millis(options.cpu)
    try:
        return Limits(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise InvalidInput(f"these limits cannot be given: {error}", field="limits") from error


def _size(text: str, option: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12})(|Ki|Mi|Gi)", text)
    if match is None:
        raise InvalidInput(f"{option} {text!r} is no size; write 512Mi or 2Gi", field=option, value=text)
    return int(match[1]) * _UNITS[match[2]]


def _cpu_millis(text: str) -> int:
    try:
        return int(Decimal(text) * 1000)
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise InvalidInput(f"--cpu {text!r} is no number; write 0.5 or 2", field="--cpu", value=text) from error
