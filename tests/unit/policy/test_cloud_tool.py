"""Tool cloud: what a run of a cloud's program is given, and what a missing one looks like."""

from __future__ import annotations

import pytest

from fleet.extensions.operations.cloud import CloudTool
from fleet.kernel.errors import PolicyDenied
from fleet.policy.runs.spec import RunSpec
from fleet.policy.targets import CloudTarget, Targets
from fleet.sandbox.memory import MemorySandboxBackend, ProgramEnd
from fleet.trees.memory import MemoryBlobStore
from tests.support.tool_calls import call_of, context_of
from tests.support.tool_kit import DirectSandbox

TARGETS = Targets(clouds={"aws": CloudTarget(hosts=(".amazonaws.com",), credentials="secret://aws-reader")})


class Scripted(DirectSandbox):
    """The program ends in one way; nothing is resolved."""

    def __init__(self, end: ProgramEnd, blobs: MemoryBlobStore) -> None:
        super().__init__(MemorySandboxBackend(lambda _: end, blobs))
        self.asked: list[RunSpec] = []

    async def run(self, spec: RunSpec, **more: object):  # type: ignore[no-untyped-def,override]
        """Keep what was asked for, and run it without its secret."""
        self.asked.append(spec)
        plain = spec.model_copy(update={"argv": tuple(a.replace("secret://", "/run/secrets/") for a in spec.argv)})
        return await super().run(plain, **more)  # pyright: ignore[reportArgumentType]


def tool_of(end: ProgramEnd) -> tuple[CloudTool, Scripted]:
    blobs = MemoryBlobStore()
    sandbox = Scripted(end, blobs)
    return CloudTool(sandbox, blobs, targets=TARGETS), sandbox


@pytest.mark.rule("RT-70", "RT-65")
async def test_program_gets_its_credentials_by_reference_and_its_provider_alone() -> None:
    tool, sandbox = tool_of(ProgramEnd(stdout=b"[]"))
    found = await tool.call(
        call_of("cloud", "aws_read", arguments=["s3api", "list-buckets"]), context_of(role="devops")
    )
    (spec,) = sandbox.asked

    assert (found.outcome, found.text) == ("succeeded", "[]")
    assert spec.argv[-4:] == ("aws", "secret://aws-reader", "s3api", "list-buckets")
    assert spec.hosts == (".amazonaws.com",)
    assert spec.grantee is not None
    assert (spec.grantee.role, spec.grantee.tool, spec.grantee.op) == ("devops", "cloud", "aws_read")


@pytest.mark.rule("RT-70")
async def test_missing_program_is_named_in_the_outcome() -> None:
    tool, _ = tool_of(ProgramEnd(exit_code=127, stderr=b"aws is not installed"))
    found = await tool.call(call_of("cloud", "aws_read", arguments=["s3", "ls"]), context_of())

    assert (found.outcome, found.reason, found.text) == ("failed", "program_missing", "aws is not installed")


@pytest.mark.rule("RT-70")
async def test_cloud_that_is_not_listed_is_denied() -> None:
    tool, sandbox = tool_of(ProgramEnd())
    for op, arguments in (("az_read", ["vm", "list"]), ("aws_read", ["s3", "rm"])):
        with pytest.raises(PolicyDenied):
            await tool.call(call_of("cloud", op, arguments=arguments), context_of())  # pyright: ignore[reportArgumentType]
    assert (tool.name, sandbox.asked) == ("cloud", [])
