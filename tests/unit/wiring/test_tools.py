"""The composition of tools: all that is declared and local is there; what does not fit stops the start."""

from __future__ import annotations

import pytest

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ConfigError
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.sandbox.memory import MemoryRunLedger, MemorySandboxBackend, ProgramEnd
from fleet.tools.kit.parts import ToolParts
from fleet.tools.port import ToolContext
from fleet.trees.memory import MemoryBlobStore
from fleet.wiring.sandbox.plugins import active_policy, find_plugins
from fleet.wiring.sandbox.tools import make_toolbox
from tests.support.tool_kit import DirectSandbox

POLICY = active_policy(ConfigFiles(packaged_directory()))


class Extra:
    def __init__(self, name: str) -> None:
        self.name = name

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        raise AssertionError("never called")


def parts() -> ToolParts:
    blobs = MemoryBlobStore()
    sandbox = DirectSandbox(MemorySandboxBackend(lambda _: ProgramEnd(), blobs))
    return ToolParts(sandbox=sandbox, blobs=blobs, clock=SystemClock(), targets=POLICY.targets)


def test_toolbox_has_the_local_tools() -> None:
    assert find_plugins() == ()
    box = make_toolbox(parts(), POLICY, ledger=MemoryRunLedger(), name="one/tools")
    assert {"files", "git", "search", "tests", "build", "lint", "exec"} <= box.names


@pytest.mark.rule("RT-20", "RT-69")
def test_tool_that_is_declared_nowhere_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="without a declaration.*: nothing"):
        make_toolbox(parts(), POLICY, ledger=MemoryRunLedger(), name="one/tools", further=[Extra("nothing")])
