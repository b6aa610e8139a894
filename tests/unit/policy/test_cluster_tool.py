"""Tools kubectl and helm: command lines, and what is tried before anything changes. The programs are scripted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.extensions.operations.cluster import ClusterTool
from fleet.kernel.errors import FleetError, InvalidInput, PolicyDenied
from fleet.kernel.ids import RunKey, StoryId
from fleet.policy.catalogue import TOOL_OPS, WRITE_OPS
from fleet.policy.commands.cluster import (
    KINDS,
    ClusterContext,
    chart_hosts,
    dry_run_argv,
    helm_argv,
    kubectl_argv,
    refused_kinds,
    refused_rendered,
)
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.policy.secret_refs import plan_delivery
from fleet.policy.targets import ClusterTarget, Targets
from fleet.sandbox.memory import MemorySandboxBackend, ProgramEnd
from fleet.secrets.port import SecretDelivery, SecretValue
from fleet.trees.memory import MemoryBlobStore
from tests.support.tool_calls import call_of, context_of
from tests.support.tool_kit import DirectSandbox

PLACE = ClusterContext("secret://kube-staging", "staging", "shop")
FIXED = ("--kubeconfig", "secret://kube-staging", "--context", "staging", "--namespace", "shop")
ARGS: dict[str, Any] = {"kind": "deployment", "name": "web", "manifest": "k8s/web.yaml", "replicas": 2}
HELM: dict[str, Any] = {"release": "web", "chart": "oci://charts.test/web", "path": "chart"}
TARGETS = Targets(
    namespaces=("staging/shop",),
    charts=("oci://charts.test/web",),
    clusters={
        "staging": ClusterTarget(context="staging", kubeconfig="secret://kube-staging", server="api.staging.test:6443")
    },
)


@pytest.mark.rule("RT-50", "RT-62")
@pytest.mark.parametrize("op", sorted(TOOL_OPS["kubectl"]))
def test_every_kubectl_line_has_the_context_and_namespace_of_its_environment(op: str) -> None:
    argv = kubectl_argv(op, ARGS, PLACE)

    assert argv[:7] == ("kubectl", *FIXED)
    assert argv.count("--namespace") == argv.count("--context") == 1


@pytest.mark.rule("RT-62")
@pytest.mark.parametrize("op", sorted(WRITE_OPS["kubectl"]))
def test_every_kubectl_change_has_a_trial_that_changes_nothing(op: str) -> None:
    trial = dry_run_argv(op, ARGS, PLACE)

    assert "--dry-run=server" in trial or "get" in trial


@pytest.mark.rule("RT-62")
@pytest.mark.parametrize(
    "kind", ["secret", "secrets", "namespace", "clusterrole", "node", "all", "--all", "pod,secret", "", 3]
)
def test_kind_that_is_cluster_wide_or_holds_credentials_is_denied(kind: Any) -> None:
    for op in ("get", "describe", "delete", "scale"):
        with pytest.raises(PolicyDenied):
            kubectl_argv(op, {**ARGS, "kind": kind}, PLACE)


@pytest.mark.parametrize(
    ("op", "change"),
    [
        ("apply", {"manifest": "https://evil.test/x.yaml"}),
        ("apply", {"manifest": "../x.yaml"}),
        ("apply", {"manifest": "-"}),
        ("logs", {"name": "--all-namespaces"}),
        ("get", {"name": "a b"}),
        ("scale", {"replicas": -1}),
        ("exec", {}),
        ("port-forward", {}),
    ],
)
def test_argument_that_could_be_read_otherwise_is_refused(op: str, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        kubectl_argv(op, {**ARGS, **change}, PLACE)
    with pytest.raises(InvalidInput):
        kubectl_argv("get", ARGS, PLACE._replace(namespace="a b"))


@settings(max_examples=100)
@given(
    st.sampled_from(sorted(TOOL_OPS["kubectl"])),
    st.dictionaries(st.sampled_from(["kind", "name", "manifest"]), st.text("ab-/.=, ", max_size=8)),
)
def test_no_argument_becomes_an_option_of_kubectl(op: str, change: dict[str, str]) -> None:
    expected = [a for a in kubectl_argv(op, ARGS, PLACE) if a.startswith("-")]
    try:
        argv = kubectl_argv(op, {**ARGS, **change}, PLACE)
    except FleetError:
        return
    assert [a for a in argv if a.startswith("-")] == expected


@pytest.mark.rule("RT-51", "RT-62")
@pytest.mark.parametrize("op", sorted(TOOL_OPS["helm"]))
def test_every_helm_line_has_the_context_and_namespace_of_its_environment(op: str) -> None:
    argv = helm_argv(op, HELM, PLACE, charts=TARGETS.charts)

    assert argv[:7] == ("helm", *(a.replace("--context", "--kube-context") for a in FIXED))
    if op in WRITE_OPS["helm"]:
        trial = helm_argv(op, HELM, PLACE, charts=TARGETS.charts, is_dry_run=True)
        assert any(a.startswith("--dry-run") for a in trial)


def test_helm_takes_listed_charts_only() -> None:
    with pytest.raises(PolicyDenied):
        helm_argv("upgrade", {**HELM, "chart": "oci://evil.test/web"}, PLACE, charts=TARGETS.charts)
    with pytest.raises(InvalidInput):
        helm_argv("test", HELM, PLACE)
    with_values = helm_argv("upgrade", {**HELM, "values": "v.yaml"}, PLACE, charts=TARGETS.charts)
    assert with_values[with_values.index("--values") + 1] == "./v.yaml"


def test_kinds_of_a_trial_are_read_from_its_names() -> None:
    assert refused_kinds("deployment.apps/web\nservice/web serverside-applied\n") == ()
    assert refused_kinds("secret/a\nclusterrole.rbac.authorization.k8s.io/b\nsecret/c") == ("clusterrole", "secret")
    assert "secret" not in KINDS


class Programs:
    """Answers by the verb and keeps the command lines."""

    def __init__(self, **answers: ProgramEnd) -> None:
        self.answers = answers
        self.lines: list[tuple[str, ...]] = []

    async def __call__(self, start: Any) -> ProgramEnd:
        self.lines.append(start.argv)
        verb = next(a for a in start.argv if a in ("apply", "diff", "get", "delete", "upgrade", "list"))
        name = f"try_{verb}" if any(a.startswith("--dry-run") for a in start.argv) else verb
        return self.answers.get(name, ProgramEnd(stdout=b"done\n"))


class DeliveringSandbox(DirectSandbox):
    """Hands the kubeconfig over as a file, as the supervisor does."""

    def __init__(self, backend: MemorySandboxBackend) -> None:
        super().__init__(backend)
        self._delivering = backend

    async def run(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunResult:
        """Run it with its secrets."""
        self.specs.append(spec)
        plan = plan_delivery(spec.argv, spec.env)
        values = {n: SecretValue("kubeconfig-text", name=n, provider="t", version=None, ttl_s=9) for n in plan.names}
        delivery = SecretDelivery(plan.argv, plan.env, {}, {path: values[n] for path, n in plan.secret_files.items()})
        return await self._delivering.run(spec, run_id=f"rn-{key[:16]}", secrets=delivery)


def tool_of(programs: Programs, program: Any = "kubectl") -> tuple[ClusterTool, DirectSandbox]:
    blobs = MemoryBlobStore()
    sandbox = DeliveringSandbox(MemorySandboxBackend(programs, blobs))
    return ClusterTool(program, sandbox, blobs, targets=TARGETS), sandbox


async def ask(one: ClusterTool, op: str, environment: str | None = "staging", **args: Any) -> Any:
    call = call_of(one.name, op, **{"namespace": "shop", **args})
    return await one.call(call, context_of(environment=environment))


@pytest.mark.rule("RT-62")
async def test_apply_is_tried_and_compared_before_it_is_done() -> None:
    programs = Programs(
        try_apply=ProgramEnd(stdout=b"deployment.apps/web\n"), diff=ProgramEnd(exit_code=1, stdout=b"+ a")
    )
    one, sandbox = tool_of(programs)
    found = await ask(one, "apply", manifest="web.yaml")

    assert found.outcome == "succeeded"
    assert ["--dry-run=server" in line for line in programs.lines] == [True, False, False]
    assert "diff" in programs.lines[1]
    assert {spec.hosts for spec in sandbox.specs} == {("api.staging.test:6443",)}
    assert all(spec.grantee and spec.grantee.tool == "kubectl" for spec in sandbox.specs)


@pytest.mark.rule("RT-62")
@pytest.mark.parametrize("end", [ProgramEnd(exit_code=1, stderr=b"denied"), ProgramEnd(stdout=b"secret/a\n")])
async def test_change_that_the_trial_refuses_is_not_done(end: ProgramEnd) -> None:
    programs = Programs(try_apply=end)
    one, _ = tool_of(programs)
    if end.exit_code:
        assert (await ask(one, "apply", manifest="web.yaml")).outcome == "failed"
    else:
        with pytest.raises(PolicyDenied, match="secret"):
            await ask(one, "apply", manifest="web.yaml")
    assert len(programs.lines) == 1


async def test_preview_keeps_trial_and_difference_for_the_card() -> None:
    one, _ = tool_of(Programs(try_apply=ProgramEnd(stdout=b"service/web\n"), diff=ProgramEnd(stdout=b"+ port: 80")))
    found = await one.preview(
        call_of("kubectl", "apply", namespace="shop", manifest="a"), context_of(environment="staging")
    )

    assert set(found.content) == {"dry_run", "diff"}  # type: ignore[arg-type]
    assert found.text == "+ port: 80"


async def test_reading_is_one_run_and_helm_is_tried_too() -> None:
    reading, upgrading = Programs(), Programs()
    await ask(tool_of(reading)[0], "get", kind="pod")
    await ask(tool_of(upgrading, "helm")[0], "upgrade", release="web", chart="oci://charts.test/web")

    assert len(reading.lines) == 1
    assert [any("dry-run" in a for a in line) for line in upgrading.lines] == [True, False]


@pytest.mark.rule("RT-62")
async def test_environment_or_namespace_that_is_not_listed_is_denied() -> None:
    one, _ = tool_of(Programs())
    with pytest.raises(PolicyDenied, match="no cluster"):
        await ask(one, "get", "production", kind="pod")
    with pytest.raises(PolicyDenied, match="no cluster"):
        await ask(one, "get", None, kind="pod")
    with pytest.raises(PolicyDenied, match="not listed"):
        await ask(one, "get", kind="pod", namespace="kube-system")
    with pytest.raises(InvalidInput):
        await ask(one, "exec", kind="pod")


MANIFEST = "NAME: web\nHOOKS:\nMANIFEST:\n---\n# Source: a.yaml\napiVersion: v1\nkind: {0}\nmetadata:\n  kind: x\n"


@pytest.mark.rule("RT-62")
@pytest.mark.parametrize("kind", ["Secret", "ClusterRole", "List", '"Secret"', "Namespace # a"])
async def test_chart_that_renders_a_denied_kind_is_not_installed(kind: str) -> None:
    programs = Programs(try_upgrade=ProgramEnd(stdout=MANIFEST.format(kind).encode()))
    one, _ = tool_of(programs, "helm")
    with pytest.raises(PolicyDenied, match="may not be touched"):
        await ask(one, "upgrade", release="web", chart="oci://charts.test/web")

    assert len(programs.lines) == 1


@pytest.mark.rule("RT-62")
async def test_chart_of_kinds_that_may_be_touched_is_installed() -> None:
    programs = Programs(try_upgrade=ProgramEnd(stdout=MANIFEST.format("Deployment").encode()))
    one, _ = tool_of(programs, "helm")

    assert (await ask(one, "upgrade", release="web", chart="oci://charts.test/web")).outcome == "succeeded"
    assert len(programs.lines) == 2


@pytest.mark.rule("RT-62")
@pytest.mark.parametrize(
    "text",
    [
        "{kind: Secret}",
        '"kind": Secret',
        "? kind\n: Secret",
        "--- {kind: Secret}",
        "---\n# a\n\n  kind: Secret",
        "...\n",
    ],
)
def test_document_that_cannot_be_judged_is_refused(text: str) -> None:
    assert refused_rendered(text) == ("unreadable",)


@pytest.mark.rule("RT-51", "RT-62")
@pytest.mark.parametrize(
    ("chart", "hosts"),
    [
        ("oci://charts.test/web", ("charts.test:443",)),
        ("https://Charts.test:8443/web-1.2.3.tgz", ("charts.test:8443",)),
        ("./chart", ()),
        ("http://charts.test/web.tgz", ()),
        ("https://user:pw@charts.test/web", ()),
        (None, ()),
    ],
)
def test_chart_is_fetched_from_its_own_host_alone(chart: str | None, hosts: tuple[str, ...]) -> None:
    assert chart_hosts(chart) == hosts
