"""Whether a tool call may happen: deny by default, first failing step, consent from the record alone (RT-30..RT-35)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ApprovalRequired, PolicyDenied
from fleet.kernel.ids import EntityId, Principal
from fleet.policy.catalogue import TOOL_OPS
from fleet.policy.roles import load_roles
from fleet.policy.rules.calls import (
    Allowed,
    ApprovalRecord,
    CallFacts,
    Denied,
    NeedsApproval,
    PolicyDecision,
    ToolCall,
    request_digest,
)
from fleet.policy.rules.config import Policy, load_policy
from fleet.policy.rules.matrix import permissions
from fleet.policy.rules.policy import decide, enforce
from fleet.policy.rules.table import Rule
from tests.support.rules import files

NOW = 1_800_000_000_000
IMAGE = "alpine@sha256:" + "a" * 64
SITE: dict[str, Any] = {
    "hosts": ["api.example.org", ".internal.example.org"],
    "git": {"api.example.org": {}},
    "databases": {"shop": {"allow_write": True}, "archive": {}},
    "images": [IMAGE],
    "namespaces": ["staging/shop"],
    "charts": ["shop"],
    "mcp_servers": ["docs"],
}
POLICY = load_policy(
    {**files().document("policy.yaml"), "targets": SITE}, roles=load_roles(files().document("roles.yaml"))
)
DEVELOPER = CallFacts(
    principal=Principal("agent:developer-001"),
    is_enabled=True,
    role="developer",
    roles_held=frozenset({"developer"}),
    phase="BUILD",
    story="active",
    rigor="L1",
    epoch=3,
    current_epoch=3,
    task=EntityId("tk-one"),
    claimed_by=Principal("agent:developer-001"),
    environment="staging",
)
WRITE = ToolCall(tool="files", op="write", args={"path": "src/a.py", "content": "x = 1\n"})
POST = ToolCall(tool="kubectl", op="delete", args={"namespace": "shop", "kind": "pod", "name": "web"})


def acting(role: str, **changes: Any) -> CallFacts:
    """An agent of this role, who has the task."""
    who = Principal(f"agent:{role}-001")
    return replace(DEVELOPER, principal=who, role=role, roles_held=frozenset({role}), claimed_by=who, **changes)


def ask(call: ToolCall, facts: CallFacts = DEVELOPER, *, approvals: Any = (), policy: Policy = POLICY) -> Any:
    return decide(call, facts, policy=policy, approvals=approvals, now_ms=NOW)


def called(name: str, facts: CallFacts = DEVELOPER, /, **args: Any) -> Any:
    tool, op = name.split(".")
    return ask(ToolCall(tool=tool, op=op, args=args), facts)


def grant(call: ToolCall, facts: CallFacts, **changes: Any) -> ApprovalRecord:
    """A person's recorded yes to exactly this call."""
    capability = POLICY.capabilities[f"{call.tool}.{call.op}"]
    record = ApprovalRecord(
        approval_id=EntityId("ap-one"),
        gate=f"tool:{call.tool}.{call.op}",
        subject=request_digest(call, facts),
        status="granted",
        principal=Principal("user:ann"),
        as_role=capability.approver_role,
        expires_at_ms=NOW + 900_000,
    )
    return replace(record, **changes)


def test_call_of_the_role_in_its_phase_is_allowed_with_obligations() -> None:
    found = ask(WRITE)

    assert isinstance(found, Allowed)
    assert (found.rule_id, found.policy_digest) == ("developer-work", POLICY.digest)
    assert found.obligations.model_dump(exclude_defaults=True) == {
        "is_recorded": True,
        "effect": "KEYED",
        "timeout_s": 30,
        "output_limit_kb": 256,
        "confine": ("path",),
    }
    assert enforce(found) is found


@pytest.mark.rule("RT-30")
@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"is_enabled": False, "role": "nobody"}, "principal_disabled"),
        ({"role": "nobody"}, "role_unknown"),
        ({"role": "qa"}, "role_not_held"),
        ({"role": "po", "roles_held": frozenset({"po"})}, "role_not_held"),
        ({"role": "po", "roles_held": frozenset({"po"}), "principal": Principal("user:ann")}, "op_not_granted"),
        ({"is_read_only": True, "story": "parked"}, "read_only"),
        ({"story": "parked", "phase": "DESIGN"}, "story_halted"),
        ({"story": "cancelled"}, "story_halted"),
        ({"phase": "DESIGN", "claimed_by": None}, "phase_denied"),
        ({"claimed_by": None}, "not_claimed"),
        ({"claimed_by": Principal("agent:developer-002")}, "not_claimed"),
        ({"task": None}, "not_claimed"),
        ({"used_up": "the story budget is used up", "epoch": 2}, "budget_exceeded"),
        ({"epoch": 2}, "epoch_stale"),
    ],
)
def test_first_failing_step_decides(changes: dict[str, Any], rule: str) -> None:
    found = ask(WRITE, replace(DEVELOPER, **changes))

    assert isinstance(found, Denied)
    assert found.rule_id == rule
    assert found.policy_digest == POLICY.digest
    with pytest.raises(PolicyDenied) as caught:
        enforce(found)
    assert caught.value.details["rule_id"] == rule
    assert caught.value.details["policy_digest"] == POLICY.digest


@pytest.mark.rule("RT-20", "RT-30")
def test_operation_that_is_declared_nowhere_is_denied() -> None:
    assert called("hammer.hit").rule_id == "op_undeclared"
    assert called("tests.pipeline").rule_id == "op_not_granted"
    assert called("model.draft").rule_id == "op_not_granted"


@pytest.mark.rule("RT-30")
@pytest.mark.parametrize(
    ("role", "phases"),
    [
        ("designer", {"DESIGN", "BUILD", "DOCS"}),
        ("developer", {"BUILD", "TEST"}),
        ("implementer", {"BUILD", "TEST"}),
        ("devops", {"BUILD", "DOCS"}),
        ("data", {"BUILD"}),
        ("qa", {"BUILD", "TEST"}),
        ("tester", {"BUILD", "TEST"}),
        ("architect", set[str]()),
    ],
)
def test_files_are_written_only_in_the_phases_of_the_role(role: str, phases: set[str]) -> None:
    path = {"designer": "docs/a.md", "qa": "tests/test_a.py", "tester": "tests/test_a.py"}.get(role, "src/a.py")
    call = ToolCall(tool="files", op="write", args={"path": path, "content": ""})
    every = ("DESIGN", "BUILD", "TEST", "DOCS")
    assert {phase for phase in every if isinstance(ask(call, acting(role, phase=phase)), Allowed)} == phases


@pytest.mark.rule("RT-57")
@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", "", "a//b", "-rf", ".git/config", "a\0b", "a\nb", "a\\b"]
)
def test_path_outside_is_denied(path: str) -> None:
    assert called("files.read", path=path).rule_id == "path_outside"


@pytest.mark.rule("RT-7", "RT-12")
def test_role_writes_only_below_its_own_paths() -> None:
    write = {"content": ""}
    assert called("files.write", acting("qa"), path="src/a.py", **write).rule_id == "path_not_granted"
    assert called("files.write", acting("designer"), path="src/a.md", **write).rule_id == "path_not_granted"
    assert called("files.move", acting("qa"), path="tests/a.py", to="src/a.py").rule_id == "path_not_granted"
    assert called("files.read", acting("qa"), path="src/a.py").kind == "allowed"
    found = called("files.write", acting("qa"), path="pkg/test_a.py", **write)
    assert found.obligations.write_paths == ("**/*_test.*", "**/test_*.py", "test/**", "tests/**")


@pytest.mark.check("S27")
@pytest.mark.rule("RT-55")
@pytest.mark.parametrize(
    ("argv", "rule"),
    [
        (["pytest", "-q"], None),
        (["sh", "-c", "rm -rf /"], "command_not_listed"),
        (["bash"], "command_not_listed"),
        (["/usr/bin/python"], "command_not_listed"),
        (["./python"], "command_not_listed"),
        ("pytest -q", "argument_invalid"),
        ([], "argument_invalid"),
        (["python", 3], "argument_invalid"),
        (["python", "a\0b"], "argument_invalid"),
        (["python"] * 65, "argument_invalid"),
        (["find", "--exec", "x"], "argument_invalid"),
        (["make", "LD_PRELOAD=x"], "argument_invalid"),
    ],
)
def test_program_must_be_one_of_the_role_and_never_a_shell_string(argv: object, rule: str | None) -> None:
    found = called("exec.run", argv=argv)
    assert (found.rule_id if rule else found.kind) == (rule or "allowed")


@pytest.mark.rule("RT-55")
def test_qa_and_po_start_no_programs() -> None:
    assert called("exec.run", acting("qa"), argv=["pytest"]).rule_id == "op_not_granted"


@pytest.mark.rule("RT-56")
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("files.read", {"path": "a", "approved": True}),
        ("files.read", {}),
        ("files.read", {"path": "a", "first_line": 0}),
        ("files.read", {"path": "a", "first_line": True}),
        ("files.read", {"path": "a", "first_line": "1"}),
        ("files.list", {"path": "a", "recursive": "yes"}),
        ("files.search", {"pattern": "a\nb"}),
        ("files.search", {"pattern": "x" * 5000}),
        ("files.search", {"pattern": 3}),
        ("git.log", {"ref": "--output=x"}),
        ("git.checkout", {"branch": "refs/heads/main"}),
        ("tests.pytest", {"options": ["-p", "evil"]}),
        ("tests.pytest", {"paths": "tests"}),
        ("mcp.call", {"server": "docs", "tool": "x", "args": "text"}),
    ],
)
def test_argument_of_another_form_is_denied(name: str, args: dict[str, Any]) -> None:
    assert called(name, **args).rule_id == "argument_invalid"


@pytest.mark.rule("RT-30", "RT-58", "RT-59")
@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("https://api.example.org/x", None),
        ("https://API.example.org:8443/x?y=1", None),
        ("https://a.internal.example.org", None),
        ("https://internal.example.org.evil.net/", "target_not_listed"),
        ("https://evil.net/api.example.org", "target_not_listed"),
        ("https://xapi.example.org/", "target_not_listed"),
        ("https://evilinternal.example.org/", "target_not_listed"),
        ("https://preview/", "target_not_listed"),
        ("http://api.example.org/", "argument_invalid"),
        ("https://api.example.org@evil.net/", "argument_invalid"),
        ("https://me:secret@api.example.org/", "argument_invalid"),
        ("https://api.example.org\\@evil.net", "argument_invalid"),
        ("file:///etc/passwd", "argument_invalid"),
    ],
)
def test_host_must_be_listed(url: str, rule: str | None) -> None:
    found = called("http.get", acting("architect"), url=url)
    assert (found.rule_id if rule else found.kind) == (rule or "allowed")
    if not rule:
        assert len(found.obligations.hosts) == 1


@pytest.mark.rule("RT-30", "RT-48", "RT-60", "RT-61", "RT-62", "RT-64")
@pytest.mark.parametrize(
    ("name", "role", "args", "other"),
    [
        ("db.postgresql_query", "data", {"database": "archive", "statement": "select 1"}, {"database": "prod"}),
        ("db.postgresql_execute", "data", {"database": "shop", "statement": "delete"}, {"database": "archive"}),
        ("docker.run", "devops", {"image": IMAGE}, {"image": "alpine:latest"}),
        ("kubectl.get", "devops", {"namespace": "shop", "kind": "pod"}, {"namespace": "kube-system"}),
        ("helm.template", "devops", {"namespace": "shop", "release": "a", "chart": "shop"}, {"chart": "other"}),
        ("mcp.list_tools", "qa", {"server": "docs"}, {"server": "other"}),
        ("git.fetch", "devops", {"url": "git@api.example.org:a/b", "branch": "x"}, {"url": "git@evil.net:a/b"}),
    ],
)
def test_target_must_be_listed(name: str, role: str, args: dict[str, Any], other: dict[str, Any]) -> None:
    assert called(name, acting(role), **args).kind != "denied"
    assert called(name, acting(role), **{**args, **other}).rule_id == "target_not_listed"


@pytest.mark.rule("RT-62")
def test_secrets_of_a_cluster_cannot_be_read_and_other_environments_not_at_all() -> None:
    assert called("kubectl.get", acting("devops"), namespace="shop", kind="secret").rule_id == "argument_invalid"
    live = acting("devops", environment="live")
    assert called("kubectl.get", live, namespace="shop", kind="pod").rule_id == "target_not_listed"


@pytest.mark.rule("RT-16", "RT-62")
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("kubectl.get", {"namespace": "shop", "kind": "pod"}),
        ("kubectl.scale", {"namespace": "shop", "kind": "deployment", "name": "web", "replicas": 2}),
        ("helm.history", {"namespace": "shop", "release": "web"}),
        ("helm.rollback", {"namespace": "shop", "release": "web"}),
    ],
)
def test_deployer_reaches_the_environment_of_its_story_and_no_other(name: str, args: dict[str, Any]) -> None:
    targets = {**SITE, "namespaces": ["staging/shop", "live/till"]}
    document = {**files().document("policy.yaml"), "targets": targets}
    policy = load_policy(document, roles=load_roles(files().document("roles.yaml")))
    tool, op = name.split(".")

    def asked(environment: str | None, namespace: str) -> Any:
        call = ToolCall(tool=tool, op=op, args={**args, "namespace": namespace})
        return ask(call, acting("deployer", phase="DOCS", environment=environment), policy=policy)

    assert asked("staging", "shop").kind != "denied"
    assert asked("live", "till").kind != "denied"
    for environment, namespace in (("live", "shop"), ("staging", "till"), (None, "shop"), ("staging", "live/till")):
        found = asked(environment, namespace)
        assert (found.kind, found.rule_id) in {("denied", "target_not_listed"), ("denied", "argument_invalid")}
    assert asked("live", "shop").rule_id == "target_not_listed"
    # What it asks for elsewhere is another call: a yes for one environment is none for the other.
    call = ToolCall(tool=tool, op=op, args=args)
    here, there = (acting("deployer", phase="DOCS", environment=name) for name in ("staging", "live"))
    assert request_digest(call, here) != request_digest(call, there)


def test_hosts_and_databases_of_a_role_narrow_those_of_the_site() -> None:
    roles = files().document("roles.yaml")
    roles["roles"]["architect"]["tools"]["http"]["hosts"] = ["api.example.org"]
    roles["roles"]["data"]["tools"]["db"]["dbs"] = ["shop"]
    policy = replace(POLICY, roles=load_roles(roles))
    outside = ToolCall(tool="http", op="get", args={"url": "https://a.internal.example.org/"})
    archive = ToolCall(tool="db", op="redis_read", args={"database": "archive", "command": ["GET", "a"]})
    assert ask(outside, acting("architect"), policy=policy).rule_id == "target_not_listed"
    assert ask(archive, acting("data"), policy=policy).rule_id == "target_not_listed"
    assert ask(archive, acting("data")).kind == "allowed"


@pytest.mark.rule("RT-30")
def test_cluster_is_for_roles_of_operations() -> None:
    roles = files().document("roles.yaml")
    roles["roles"]["data"]["tools"]["kubectl"] = {"ops": ["get"]}
    policy = replace(POLICY, roles=load_roles(roles))
    call = ToolCall(tool="kubectl", op="get", args={"namespace": "shop", "kind": "pod"})
    assert ask(call, acting("data"), policy=policy).rule_id == "scope_denied"


def test_role_works_only_in_its_own_phases() -> None:
    roles = files().document("roles.yaml")
    roles["roles"]["developer"]["phases"] = ["TEST"]
    assert ask(WRITE, policy=replace(POLICY, roles=load_roles(roles))).rule_id == "phase_denied"


def test_role_with_an_operation_and_no_rule_is_denied() -> None:
    rules = tuple(rule for rule in POLICY.rules if rule.id != "developer-work")
    assert ask(WRITE, policy=replace(POLICY, rules=rules)).rule_id == "no_rule"


def test_rule_sees_arguments() -> None:
    def with_rule(**rule: Any) -> Policy:
        every = [r for r in POLICY.rules if r.id != "developer-work"] if rule["effect"] == "allow" else POLICY.rules
        return replace(POLICY, rules=(*every, Rule(id="mine", roles=("*",), calls=("files.write",), **rule)))

    only_src = with_rule(effect="allow", when={"path": {"matches": ["src/**"]}})
    assert ask(WRITE, policy=only_src).rule_id == "mine"
    other = ToolCall(tool="files", op="write", args={"path": "lib/a.py", "content": ""})
    assert ask(other, policy=only_src).rule_id == "no_rule"
    denied = ask(WRITE, policy=with_rule(effect="deny", when={"path": {"not_matches": ["lib/*"]}}, reason="only lib"))
    assert (denied.kind, denied.rule_id, denied.reason) == ("denied", "mine", "only lib")
    assert ask(other, policy=with_rule(effect="deny", when={"path": {"not_matches": ["lib/*"]}})).kind == "allowed"
    assert ask(WRITE, policy=with_rule(effect="deny")).rule_id == "mine"


def test_missing_argument_counts_as_the_worse_for_the_caller() -> None:
    deny = Rule(id="mine", effect="deny", roles=("*",), calls=("files.search",), when={"path": {"matches": ("x",)}})  # pyright: ignore[reportArgumentType]
    allow = deny.model_copy(update={"effect": "allow"})
    search = ToolCall(tool="files", op="search", args={"pattern": "x"})
    assert ask(search, policy=replace(POLICY, rules=(*POLICY.rules, deny))).rule_id == "mine"
    assert ask(search, policy=replace(POLICY, rules=(allow,))).rule_id == "no_rule"


@pytest.mark.rule("RT-33", "RT-34")
def test_call_that_needs_an_approval_waits_and_names_gate_and_request() -> None:
    facts = acting("devops")
    found = ask(POST, facts)

    assert isinstance(found, NeedsApproval)
    assert (found.gate.name, found.gate.role, found.gate.actor) == ("tool:kubectl.delete", "devops", "human")
    assert (found.gate.request_ttl_s, found.gate.grant_ttl_s, found.gate.delegable_up_to) == (3600, 900, None)
    assert found.request_digest == request_digest(POST, facts)
    assert found.approval_id is None
    waiting = ask(POST, facts, approvals=[grant(POST, facts, status="requested", principal=None)])
    assert waiting.approval_id == "ap-one"
    with pytest.raises(ApprovalRequired) as caught:
        enforce(waiting)
    assert caught.value.details["approval_id"] == "ap-one"
    assert caught.value.details["gate"] == "tool:kubectl.delete"


@pytest.mark.rule("RT-32", "RT-33", "LC-70", "LC-71")
def test_recorded_grant_of_a_person_lets_the_call_through_once() -> None:
    facts = acting("devops")
    found = ask(POST, facts, approvals=[grant(POST, facts)])

    assert isinstance(found, Allowed)
    assert found.obligations.consumes == "ap-one"
    assert ask(POST, facts, approvals=[grant(POST, facts, is_consumed=True)]).kind == "needs_approval"


@pytest.mark.rule("RT-33", "LC-70", "LC-71", "LC-76")
@pytest.mark.parametrize(
    "changes",
    [
        {"gate": "tool:kubectl.apply"},
        {"subject": digest_of(b"another request")},
        {"status": "expired"},
        {"status": "revoked"},
        {"principal": None},
        {"principal": Principal("agent:devops-002")},
        {"principal": Principal("system:council")},
        {"as_role": "po"},
        {"as_role": None},
        {"expires_at_ms": NOW},
        {"expires_at_ms": NOW + 604_800_000},
        {"is_consumed": True},
        {"is_delegated": True},
        {"is_delegated": True, "principal": Principal("agent:devops-002")},
    ],
)
def test_grant_that_does_not_hold_opens_nothing(changes: dict[str, Any]) -> None:
    facts = acting("devops")
    assert ask(POST, facts, approvals=[grant(POST, facts, **changes)]).kind == "needs_approval"


@pytest.mark.rule("RT-33")
def test_changing_argument_tree_or_environment_needs_a_new_approval() -> None:
    facts = acting("devops")
    yes = [grant(POST, facts)]
    other = POST.model_copy(update={"args": {**POST.args, "name": "db"}})
    assert ask(other, facts, approvals=yes).kind == "needs_approval"
    assert ask(POST, replace(facts, tree=digest_of(b"tree")), approvals=yes).kind == "needs_approval"
    assert len({request_digest(POST, replace(facts, environment=e)) for e in (None, "live", "staging")}) == 3


def test_refusal_of_a_person_is_final_until_somebody_says_yes() -> None:
    facts = acting("devops")
    no = grant(POST, facts, status="rejected", principal=None)
    assert ask(POST, facts, approvals=[no]).rule_id == "approval_rejected"
    yes = grant(POST, facts, approval_id=EntityId("ap-two"))
    assert ask(POST, facts, approvals=[no, yes]).obligations.consumes == "ap-two"
    again = grant(POST, facts, approval_id=EntityId("ap-two"), status="requested", principal=None)
    assert ask(POST, facts, approvals=[no, again]).approval_id == "ap-two"


@pytest.mark.rule("LC-75")
def test_person_approves_the_own_call_below_l3_only() -> None:
    ann = Principal("user:ann")
    facts = replace(acting("devops"), principal=ann, claimed_by=ann)
    assert ask(POST, facts, approvals=[grant(POST, facts)]).kind == "allowed"
    strict = replace(facts, rigor="L3")
    assert ask(POST, strict, approvals=[grant(POST, strict)]).kind == "needs_approval"


@pytest.mark.rule("LC-71", "LC-77")
def test_delegated_grant_holds_where_the_operation_is_delegable_and_never_for_own_calls() -> None:
    push = ToolCall(tool="exec", op="run", args={"argv": ["npm", "install"]})
    declared = POLICY.capabilities["exec.run"].declared.model_copy(update={"delegable_up_to": "L1"})
    capability = POLICY.capabilities["exec.run"].model_copy(update={"declared": declared})
    policy = replace(POLICY, capabilities={**POLICY.capabilities, "exec.run": capability})
    agents = grant(push, DEVELOPER, is_delegated=True, principal=Principal("agent:architect-001"))
    assert ask(push, approvals=[agents], policy=policy).kind == "allowed"
    assert ask(push, approvals=[agents]).kind == "needs_approval"
    assert ask(push, replace(DEVELOPER, rigor="L2"), approvals=[agents], policy=policy).kind == "needs_approval"
    own = replace(agents, principal=DEVELOPER.principal)
    assert ask(push, approvals=[own], policy=policy).kind == "needs_approval"


@pytest.mark.rule("RT-42")
def test_protected_branch_asks_a_person_and_another_one_does_not() -> None:
    args = {"url": "https://api.example.org/a", "commit": "a" * 40}
    asked = called("git.push_branch", acting("devops"), branch="main", **args)
    assert (asked.kind, asked.rule_id, asked.gate.risk) == ("needs_approval", "protected-branch", "high")
    assert called("git.push_branch", acting("devops"), branch="release/1.0", **args).kind == "needs_approval"
    allowed = called("git.push_branch", acting("devops"), branch="fleet/st-one", **args)
    assert allowed.kind == "allowed"
    assert allowed.obligations.hosts == ("api.example.org:443",)


@pytest.mark.rule("RT-42")
def test_branch_of_no_story_waits_for_a_person() -> None:
    args = {"url": "https://api.example.org/a", "commit": "a" * 40}
    for branch in ("feature/x", "fleet/st-one/more", "fleet"):
        asked = called("git.push_branch", acting("devops"), branch=branch, **args)
        assert (asked.kind, asked.rule_id) == ("needs_approval", "other-branch")


def test_risk_of_a_rule_takes_the_delegation_away() -> None:
    declared = POLICY.capabilities["http.post"].declared.model_copy(update={"delegable_up_to": "L3"})
    capability = POLICY.capabilities["http.post"].model_copy(update={"declared": declared})
    assert capability.gate().delegable_up_to == "L3"
    assert capability.gate(risk="high").delegable_up_to is None
    assert capability.gate(risk="low").risk == "medium"


# Properties ---------------------------------------------------------------------------------------------------------

FAST = settings(max_examples=80, deadline=None)
FEW = settings(max_examples=12, deadline=None)
"""For examples that need a policy of their own."""
NAMES = sorted(
    {f"{tool}.{op}" for tool, ops in TOOL_OPS.items() for op in ops} | {"model.draft", "tests.pipeline", "a.b"}
)
VALUES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["src/a.py", "main", "https://api.example.org/", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab_", max_size=3), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def calls(draw: st.DrawFn) -> ToolCall:
    """Any call: mostly with arguments that exist, sometimes with words that sound like a consent."""
    tool, op = draw(st.sampled_from(NAMES)).split(".")
    capability = POLICY.capability(tool, op)
    words = [*(capability.args if capability else ()), "approved", "approval_id", "force", "approval"]
    args: dict[str, Any] = draw(st.dictionaries(st.sampled_from(words), VALUES, max_size=4))
    if draw(st.booleans()) and capability:
        good = {
            "path": "src/a.py",
            "content": "",
            "url": "https://api.example.org/",
            "branch": "main",
            "argv": ["npm", "ci"],
        }
        good |= {"namespace": "shop", "kind": "pod", "name": "web", "database": "shop", "statement": "x", "body": ""}
        args = {name: good[name] for name, spec in capability.args.items() if name in good and spec.required}
    return ToolCall(tool=tool, op=op, args=args)


@st.composite
def facts(draw: st.DrawFn) -> CallFacts:
    """Any agent, now and then one that may nothing."""
    role = draw(st.sampled_from([*sorted(POLICY.roles.roles), "nobody"]))
    found = acting(
        "developer" if role == "nobody" else role, phase=draw(st.sampled_from(["DESIGN", "BUILD", "TEST", "DOCS"]))
    )
    return replace(
        found,
        role=role,
        is_read_only=draw(st.booleans()),
        story=draw(st.sampled_from(["active", "active", "active", "parked"])),
        rigor=draw(st.sampled_from(["L0", "L3"])),
    )


@st.composite
def deny_rules(draw: st.DrawFn) -> Rule:
    """Any deny rule."""
    tool = draw(st.sampled_from([*sorted(TOOL_OPS), "*"]))
    return Rule(
        id="drawn",
        effect="deny",
        roles=(draw(st.sampled_from([*sorted(POLICY.roles.roles), "*"])),),
        calls=(draw(st.sampled_from([tool, f"{tool}:write", f"{tool}:read"])),),
        phases=(draw(st.sampled_from(["DESIGN", "BUILD", "TEST", "DOCS", "*"])),),
    )


NO_RULES = replace(POLICY, rules=())
MATRIX = permissions(POLICY)
STRICTNESS = {"allowed": 0, "needs_approval": 1, "denied": 2}


@pytest.mark.rule("RT-30", "GL-18")
@FAST
@given(calls(), facts())
def test_without_rules_everything_is_denied(call: ToolCall, who: CallFacts) -> None:
    assert ask(call, who, policy=NO_RULES).kind == "denied"


@pytest.mark.rule("RT-30")
@FEW
@given(calls(), facts(), deny_rules(), st.integers(0, len(POLICY.rules)))
def test_one_more_deny_rule_never_allows_more(call: ToolCall, who: CallFacts, rule: Rule, at: int) -> None:
    stricter = replace(POLICY, rules=(*POLICY.rules[:at], rule, *POLICY.rules[at:]))
    assert STRICTNESS[ask(call, who, policy=stricter).kind] >= STRICTNESS[ask(call, who).kind]


@pytest.mark.rule("RT-30")
@FEW
@given(calls(), facts(), deny_rules())
def test_one_more_ask_rule_never_allows_more(call: ToolCall, who: CallFacts, rule: Rule) -> None:
    stricter = replace(POLICY, rules=(*POLICY.rules, rule.model_copy(update={"effect": "ask"})))
    assert STRICTNESS[ask(call, who, policy=stricter).kind] >= STRICTNESS[ask(call, who).kind]


@pytest.mark.rule("RT-32", "LC-72")
@FAST
@given(calls(), facts())
def test_no_request_content_is_a_consent(call: ToolCall, who: CallFacts) -> None:
    found = ask(call, who)
    capability = POLICY.capability(call.tool, call.op)
    if found.kind == "allowed":
        assert capability is not None
        assert capability.declared.approval != "always"
        assert found.obligations.consumes is None


@pytest.mark.rule("RT-32", "LC-71", "LC-77")
@FAST
@given(
    st.sampled_from(["http.delete", "db.postgresql_execute", "kubectl.delete", "helm.uninstall", "mcp.call"]), st.data()
)
def test_what_is_irreversible_never_opens_without_a_persons_grant(name: str, data: st.DataObject) -> None:
    tool, op = name.split(".")
    args = {"database": "shop", "statement": "x", "namespace": "shop", "kind": "pod", "name": "a", "release": "a"}
    args |= {"server": "docs", "tool": "t", "args": {}, "url": "https://api.example.org/"}
    call = ToolCall(
        tool=tool, op=op, args={k: args[k] for k, a in POLICY.capabilities[name].args.items() if a.required}
    )
    who = acting("data" if tool == "db" else "devops")
    record = grant(
        call,
        who,
        principal=data.draw(
            st.sampled_from([None, Principal("user:ann"), Principal("agent:devops-002"), who.principal])
        ),
        is_delegated=data.draw(st.booleans()),
        is_consumed=data.draw(st.booleans()),
        status=data.draw(st.sampled_from(["requested", "granted", "rejected"])),
    )
    is_persons = record.principal == "user:ann" and record.status == "granted"
    is_free = not record.is_delegated and not record.is_consumed
    found = ask(call, who, approvals=[record])
    if found.rule_id not in ("op_not_granted", "no_rule"):
        assert (found.kind == "allowed") == (is_persons and is_free)


@pytest.mark.rule("RT-31")
@FAST
@given(calls(), facts())
def test_decision_is_the_same_again_and_carries_rule_and_digests(call: ToolCall, who: CallFacts) -> None:
    first, again = ask(call, who), ask(ToolCall.model_validate_json(call.model_dump_json()), replace(who))
    assert first == again
    assert first.rule_id
    assert first.policy_digest == POLICY.digest
    assert first.request_digest == request_digest(call, who)
    assert TypeAdapter[Any](PolicyDecision).validate_python(first.model_dump()) == first


@FAST
@given(calls(), facts())
def test_what_is_not_denied_is_in_the_permissions(call: ToolCall, who: CallFacts) -> None:
    matrix = MATRIX.get(who.role, {}).get(who.phase, {})
    if ask(call, who).kind != "denied":
        assert f"{call.tool}.{call.op}" in matrix
