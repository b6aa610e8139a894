"""Tools kubectl and helm: their programs in the sandbox, which reaches the API server of the environment alone."""

from __future__ import annotations

from typing import Literal, NamedTuple

from fleet.extensions.operations.arguments import maybe_text, unknown_op
from fleet.kernel.errors import PolicyDenied
from fleet.policy.catalogue import TOOL_OPS, WRITE_OPS
from fleet.policy.commands.cluster import (
    ClusterContext,
    chart_hosts,
    diff_argv,
    dry_run_argv,
    helm_argv,
    kubectl_argv,
    refused_kinds,
    refused_rendered,
)
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import Grantee, RunResult, RunSpec
from fleet.policy.targets import Targets
from fleet.sandbox.port import Sandbox
from fleet.tools.kit.parts import ToolPlugin
from fleet.tools.kit.runs import limits_of, outcome_of, printed, run_once
from fleet.tools.port import ToolContext
from fleet.trees.port import BlobStore

_CLUSTERLESS = frozenset({"lint"})


class _Where(NamedTuple):
    place: ClusterContext
    hosts: tuple[str, ...]


class ClusterTool:
    """`kubectl` or `helm`.

    The programs run in the sandbox with the kubeconfig as a secret file: an account's plug-in (`exec:`) or a chart
    can do no more than a command there, and no connection leaves it but those to the API server and to the listed
    chart's own host.

    Args:
        program: which of the two; also the name of the tool.
        targets: of the policy; clusters, namespaces and charts are taken from it.
    """

    def __init__(
        self, program: Literal["kubectl", "helm"], sandbox: Sandbox, blobs: BlobStore, *, targets: Targets
    ) -> None:
        self._program = program
        self._sandbox = sandbox
        self._blobs = blobs
        self._targets = targets

    @property
    def name(self) -> str:
        """`kubectl` or `helm`."""
        return self._program

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """Carry the operation out. What changes the cluster is tried by the server first, and not done if that fails.

        Raises PolicyDenied for an environment, namespace, kind or chart that is not listed; SandboxUnavailable.
        """
        if call.op not in TOOL_OPS[self._program]:
            raise unknown_op(call)
        where = self._where(call, context)
        if call.op in WRITE_OPS[self._program]:
            tried = await self.preview(call, context)
            if tried.outcome != "succeeded":
                return tried
        result = await self._run(self._argv(call, where.place), call, context, where, name="run")
        return await outcome_of(result, context, self._blobs)

    async def preview(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """What the call would do, by the server's own dry run, and the difference: for the card of the approval.

        `content`: dry_run and, for `apply`, diff, each as text's blob. Changes nothing. Raises as `call`.
        """
        where = self._where(call, context)
        result = await self._run(self._trial(call, where.place), call, context, where, name="dry_run")
        tried = await outcome_of(result, context, self._blobs)
        if self._program == "kubectl" and tried.outcome == "succeeded":
            _check_kinds(refused_kinds(result.stdout.text))
        if call.op == "upgrade" and tried.outcome == "succeeded":
            # What the server rendered: a chart may render otherwise there than a template does here.
            _check_kinds(refused_rendered(await printed(result, self._blobs)))
        content = {"dry_run": str(await self._blobs.put(tried.text.encode()))}
        text = tried.text
        if call.op == "apply" and tried.outcome == "succeeded":
            shown = await self._run(diff_argv(call.args, where.place), call, context, where, name="diff")
            text = (await outcome_of(shown, context, self._blobs)).text
            content["diff"] = str(await self._blobs.put(text.encode()))
        return tried.model_copy(update={"content": dict(content), "text": text})

    def _argv(self, call: ToolCall, place: ClusterContext) -> tuple[str, ...]:
        if self._program == "kubectl":
            return kubectl_argv(call.op, call.args, place)
        return helm_argv(call.op, call.args, place, charts=self._targets.charts)

    def _trial(self, call: ToolCall, place: ClusterContext) -> tuple[str, ...]:
        if self._program == "kubectl":
            return dry_run_argv(call.op, call.args, place)
        return helm_argv(call.op, call.args, place, charts=self._targets.charts, is_dry_run=True)

    def _where(self, call: ToolCall, context: ToolContext) -> _Where:
        environment, namespace = context.environment, maybe_text(call, "namespace") or "default"
        cluster = self._targets.clusters.get(environment or "")
        if cluster is None:
            raise PolicyDenied(
                f"environment {environment!r} has no cluster under targets.clusters",
                rule_id="RT-62",
                tool=self._program,
            )
        # The policy checked the text of the argument; that it belongs to this environment is seen here only.
        if call.op not in _CLUSTERLESS and f"{environment}/{namespace}" not in _listed(self._targets, environment):
            raise PolicyDenied(
                f"namespace {namespace[:80]!r} of {environment!r} is not listed under targets.namespaces",
                rule_id="RT-62",
            )
        return _Where(ClusterContext(cluster.kubeconfig, cluster.context, namespace), (cluster.server,))

    async def _run(
        self, argv: tuple[str, ...], call: ToolCall, context: ToolContext, where: _Where, *, name: str
    ) -> RunResult:
        spec = RunSpec(
            argv=argv,
            tree=context.tree,
            hosts=(*where.hosts, *chart_hosts(call.args.get("chart"))),
            env={"KUBECTL_EXTERNAL_DIFF": "diff -u -N", "HELM_PLUGINS": "/nonexistent"},
            limits=limits_of(context),
            grantee=Grantee(role=context.role, tool=self._program, op=call.op),
        )
        return await run_once(self._sandbox, spec, context, name=name)


def _listed(targets: Targets, environment: str | None) -> frozenset[str]:
    return frozenset(entry for entry in targets.namespaces if entry.startswith(f"{environment}/"))


def _check_kinds(refused: tuple[str, ...]) -> None:
    if refused:
        raise PolicyDenied(
            f"the manifest has kinds that may not be touched: {', '.join(refused)}; take them out",
            rule_id="RT-62",
            kinds=list(refused),
        )


KUBECTL = ToolPlugin(
    name="kubectl",
    make=lambda parts: ClusterTool("kubectl", parts.sandbox, parts.blobs, targets=parts.targets),
)
HELM = ToolPlugin(
    name="helm",
    make=lambda parts: ClusterTool("helm", parts.sandbox, parts.blobs, targets=parts.targets),
)
