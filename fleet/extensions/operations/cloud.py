"""Tool cloud: aws, gcloud and az in the sandbox, which reaches that provider alone (RT-70)."""

from __future__ import annotations

from fleet.extensions.operations.arguments import lines_of
from fleet.kernel.errors import PolicyDenied
from fleet.policy.commands.cloud import cloud_call
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import Grantee, RunSpec
from fleet.policy.targets import Targets
from fleet.sandbox.port import Sandbox
from fleet.tools.kit.parts import ToolPlugin
from fleet.tools.kit.runs import limits_of, outcome_of, run_once
from fleet.tools.port import ToolContext
from fleet.trees.port import BlobStore

_SCRIPT = ("/toolchain/bin/python", "-IS", "/fleet/inside/cloud_call.py")


class CloudTool:
    """The clouds' own programs with argument lists; their credentials are a secret file, and no argument.

    Args:
        targets: of the policy; `clouds` says which there are, and with which hosts and credentials.
    """

    def __init__(self, sandbox: Sandbox, blobs: BlobStore, *, targets: Targets) -> None:
        self._sandbox = sandbox
        self._blobs = blobs
        self._clouds = targets.clouds

    @property
    def name(self) -> str:
        """`cloud`."""
        return "cloud"

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """Run the program. One that is not installed is an outcome `failed` (`program_missing`) that names it.

        Raises PolicyDenied for a command that the operation does not cover and for a cloud that is not listed,
        InvalidInput, SandboxUnavailable.
        """
        arguments = lines_of(call, "arguments")
        program = cloud_call(call.op, arguments).program
        cloud = self._clouds.get(program)
        if cloud is None:
            raise PolicyDenied(f"{program} is not listed under targets.clouds", rule_id="RT-70", program=program)
        spec = RunSpec(
            argv=(*_SCRIPT, program, cloud.credentials, *arguments),
            hosts=cloud.hosts,
            env=dict(cloud.env),
            limits=limits_of(context),
            grantee=Grantee(role=context.role, tool=call.tool, op=call.op),
        )
        result = await run_once(self._sandbox, spec, context)
        return await outcome_of(result, context, self._blobs)


PLUGIN = ToolPlugin(
    name="cloud",
    make=lambda parts: CloudTool(parts.sandbox, parts.blobs, targets=parts.targets),
)
