"""config/policy.yaml: what is wrong with it stops the start and is named; what is shipped is whole."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from fleet.kernel.errors import ConfigError
from fleet.models.port import WorkKind
from fleet.policy.capabilities import PRODUCT_OPS, ArgSpec
from fleet.policy.catalogue import TOOL_OPS, WRITE_OPS
from fleet.policy.roles import load_roles
from fleet.policy.rules.config import Policy, load_policy
from fleet.policy.rules.matrix import offered, permissions
from tests.support.rules import files, fsm

GOLDEN = Path(__file__).parents[3] / "golden" / "permissions.json"
ROLES = load_roles(files().document("roles.yaml"))
SHIPPED: dict[str, Any] = files().document("policy.yaml")
PURE = {
    "access": "read",
    "scope": "workspace",
    "side_effects": "none",
    "effect": "PURE",
    "risk": "low",
    "approval": "never",
    "idempotency": "guaranteed",
    "timeout_s": 30,
    "output_limit_kb": 64,
}
CHANGE = {"access": "write", "side_effects": "reversible", "effect": "KEYED"}
FINAL = {"access": "write", "side_effects": "irreversible", "effect": "UNSAFE", "risk": "high", "approval": "always"}


def load(data: dict[str, Any]) -> Policy:
    return load_policy(data, roles=ROLES)


def problems(data: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(data)
    assert caught.value.details["file"] == "config/policy.yaml"
    return [f"{p['path']}: {p['reason']}" for p in caught.value.details["problems"]]


def with_rule(**rule: Any) -> dict[str, Any]:
    data = copy.deepcopy(SHIPPED)
    data["rules"].append({"id": "mine", "effect": "deny", "roles": ["*"], "calls": ["files.read"], **rule})
    return data


def with_declaration(tool: str, **changes: Any) -> dict[str, Any]:
    """The shipped policy with one more declaration."""
    data = copy.deepcopy(SHIPPED)
    data["tools"].setdefault(tool, []).append({**PURE, "ops": {"extra": {}}, **changes})
    return data


@pytest.mark.rule("RT-20", "RT-40", "RT-41", "RT-42", "RT-43", "RT-44", "RT-45", "RT-46", "RT-53", "RT-54")
def test_shipped_policy_declares_every_operation_there_is() -> None:
    policy = load(SHIPPED)
    existing = {f"{tool}.{op}" for table in (TOOL_OPS, PRODUCT_OPS) for tool, ops in table.items() for op in ops}
    assert set(policy.capabilities) == existing
    for capability in policy.capabilities.values():
        shipped_write = capability.op in WRITE_OPS.get(capability.tool, frozenset())
        own_writes = {"tests.pipeline", "environment.start", "environment.rollback", "packages.fetch"}
        assert capability.is_write == (shipped_write or capability.name in own_writes)


@pytest.mark.rule("RT-47", "RT-48", "RT-50", "RT-51", "RT-54")
def test_shipped_operations_that_change_what_is_outside_always_need_an_approval() -> None:
    for capability in load(SHIPPED).capabilities.values():
        is_own_step = capability.op in PRODUCT_OPS.get(capability.tool, ())
        if capability.is_write and capability.declared.scope in ("external", "cluster") and not is_own_step:
            assert capability.declared.approval == "always", capability.name
            assert capability.gate().delegable_up_to is None, capability.name
    # The product's own steps of that kind come after a gate of the lifecycle, which a person alone opens.
    deploy = fsm().gate("sdlc", "approve_deploy")
    assert (deploy.role, deploy.actor, deploy.delegable_up_to) == ("po", "human", None)


def test_shipped_targets_are_empty() -> None:
    targets = load(SHIPPED).targets
    assert not any(getattr(targets, name) for name in type(targets).model_fields)


def test_operations_of_models_are_the_kinds_of_work_there_are() -> None:
    assert PRODUCT_OPS["model"] == set(get_args(WorkKind))


@pytest.mark.rule("RT-22")
def test_approver_is_given_by_scope_unless_it_is_declared() -> None:
    policy = load(SHIPPED)
    named = {
        name: policy.capabilities[name].approver_role for name in ("http.post", "kubectl.apply", "git.push_branch")
    }
    assert named == {"http.post": "po", "kubectl.apply": "devops", "git.push_branch": "architect"}
    data = with_declaration("files", ops={"write": {}}, approver_role="qa", access="write")
    data["tools"]["files"] = [d for d in data["tools"]["files"] if "write" not in d["ops"]] + data["tools"]["files"][
        -1:
    ]
    data["tools"]["files"][-1]["ops"] = {op: {} for op in WRITE_OPS["files"] - {"delete"}}
    assert load(data).capabilities["files.write"].approver_role == "qa"


@pytest.mark.rule("RT-21")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"side_effects": "reversible"}, "none and PURE go together"),
        ({"effect": "KEYED"}, "none and PURE go together"),
        ({**CHANGE, "side_effects": "irreversible", "idempotency": "none"}, "accepts our key"),
        ({**CHANGE, "access": "read"}, "reads only has no side effects"),
        ({**CHANGE, "scope": "cluster"}, "by_rule or always"),
        ({**CHANGE, "scope": "external"}, "by_rule or always"),
        ({"risk": "high", "approval": "by_rule"}, "risk high needs approval always"),
        ({"network": "allow_list"}, "network is for scope external or repo"),
        ({**FINAL, "delegable_up_to": "L0"}, "can never be delegated"),
    ],
)
def test_contradiction_of_a_declaration_stops_the_start(changes: dict[str, Any], reason: str) -> None:
    assert any(
        found.startswith("tools.files.3: ") and reason in found
        for found in problems(with_declaration("files", **changes))
    )


@pytest.mark.rule("GL-22", "RT-3")
@pytest.mark.parametrize(
    ("data", "found"),
    [
        (with_rule(roles=["nobody"]), "no role 'nobody'"),
        (with_rule(calls=["hammer.hit"]), "no tool 'hammer'"),
        (with_rule(calls=["files.burn"]), "no operation 'files.burn'"),
        (with_rule(calls=["files:write:read"]), "is not written"),
        (with_rule(phases=["LUNCH"]), "rules.22.phases.0"),
        (with_rule(when={"colour": {"matches": ["red"]}}), "files.read has no such argument"),
        (with_rule(when={"path": {}}), "needs matches or not_matches"),
        (with_rule(effect="ask"), "no gate tool:files.read"),
        (with_rule(risk="high"), "only a rule that asks has one"),
        (with_rule(id="read"), "its id stands twice"),
        (with_rule(colour="red"), "rules.22.colour"),
        (with_declaration("hammer"), "tools.hammer: no such tool"),
        (with_declaration("files"), "tool files has no such operation"),
        (with_declaration("files", ops={"read": {}}), "it is declared twice"),
        (with_declaration("files", ops={"write": {}}), "write must be declared with access: write"),
        (with_declaration("files", like="nothing"), "tools.files.3.like: shared has nothing of this name"),
        (with_declaration("files", approver_role="boss"), "no role 'boss' that a person can hold"),
        (with_declaration("files", ops={"read": {"x": {"type": "choice"}}}), "choices are for an argument"),
        ({**SHIPPED, "tools": {k: v for k, v in SHIPPED["tools"].items() if k != "search"}}, "declared nowhere"),
        ({**SHIPPED, "tools": 3}, "tools: "),
        ({**SHIPPED, "tools": {"files": 3}}, "tools.files: "),
        ({**SHIPPED, "extra": 3}, "extra: "),
    ],
)
def test_wrong_policy_stops_the_start_naming_path_and_reason(data: dict[str, Any], found: str) -> None:
    assert any(found in problem for problem in problems(data)), problems(data)


@pytest.mark.rule("GL-22")
@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"effect": "allow"}, "other rules decide all its calls"),
        ({"roles": ["po"], "calls": ["kubectl.apply"]}, "no role of it makes such calls"),
        ({"effect": "ask", "calls": ["http.post"], "roles": ["devops"]}, "no role of it makes such calls"),
        ({"effect": "ask", "calls": ["kubectl.apply"]}, "or all of them ask anyway"),
        ({"effect": "ask", "calls": ["exec.run"], "phases": ["DESIGN"]}, "no other rule allows such calls"),
    ],
)
def test_rule_that_is_never_reached_stops_the_start(rule: dict[str, Any], why: str) -> None:
    (found,) = problems(with_rule(**{"origin": "caller", **rule}))
    assert found.startswith("rules.22 (mine): it is never reached: ")
    assert why in found


def test_rule_that_a_deny_hides_is_never_reached() -> None:
    data = with_rule(calls=["search.*"], origin="any")
    data["rules"].append({"id": "later", "effect": "allow", "roles": ["qa"], "calls": ["search.text"]})
    assert problems(data) == ["rules.23 (later): it is never reached: other rules decide all its calls"]


@pytest.mark.rule("RT-31")
def test_digest_changes_with_rules_targets_roles_and_declarations_and_with_nothing_else() -> None:
    policy = load(SHIPPED)
    assert load(copy.deepcopy(SHIPPED)).digest == policy.digest
    others = [
        load(with_rule()),
        load({**SHIPPED, "targets": {"hosts": ["example.org"]}}),
        replace(policy, roles=policy.roles.model_copy(update={"roles": {"po": policy.roles.role("po")}})),
        replace(policy, capabilities={}),
    ]
    assert len({policy.digest, *(other.digest for other in others)}) == 5


@pytest.mark.rule("RT-36")
def test_permissions_equal_the_golden_file() -> None:
    found = permissions(load(SHIPPED))
    assert found == json.loads(GOLDEN.read_text()), "decide whether this is meant, then run scripts/permissions.py"


@pytest.mark.rule("RT-35")
def test_reading_steps_are_offered_no_operation_that_writes() -> None:
    policy = load(SHIPPED)
    for role in policy.roles.roles:
        assert not any(c.is_write for c in offered(policy, role, phase="BUILD", is_read_only=True)), role
    names = {c.name for c in offered(policy, "developer", phase="BUILD")}
    assert {"files.write", "tests.pytest", "exec.run"} <= names
    assert not {"git.push_branch", "tests.pipeline", "model.draft"} & names
    assert "files.write" not in {c.name for c in offered(policy, "developer", phase="DESIGN")}


def test_role_of_yaml_only_has_what_its_base_role_may() -> None:
    roles = copy.deepcopy(files().document("roles.yaml"))
    roles["roles"]["security"] = {"extends": "qa", "tools": {"tests": {"ops": ["pytest"]}, "files": {"ops": ["read"]}}}
    policy = load_policy(SHIPPED, roles=load_roles(roles))
    assert {c.name for c in offered(policy, "security", phase="TEST")} == {"tests.pytest", "files.read"}
    assert {c.name for c in offered(policy, "security", phase="DOCS")} == {"files.read"}


def test_deny_rule_takes_the_operation_out_of_the_permissions() -> None:
    policy = load(with_rule(roles=["qa"], calls=["files.*"]))
    assert not any(call.startswith("files.") for row in permissions(policy)["tester"].values() for call in row)
    assert permissions(policy)["developer"]["BUILD"]["files.read"] == "allow"


def test_argument_in_short_form_equals_the_long_one() -> None:
    assert ArgSpec.model_validate("optional path") == ArgSpec(type="path", required=False)


def test_author_of_commits_is_a_name_with_a_mail_and_moves_no_decision() -> None:
    data = copy.deepcopy(SHIPPED)
    data["commits"] = {"author": "Shop Fleet <fleet@shop.example>"}
    assert load(data).commits.author == "Shop Fleet <fleet@shop.example>"
    assert load(data).digest == load(SHIPPED).digest
    for wrong in ("nobody", "a <b> <c>", "a\nb <c@d>", "<a@b>"):
        data["commits"] = {"author": wrong}
        assert [p.split(":")[0] for p in problems(data)] == ["commits.author"], wrong


@pytest.mark.rule("RC-34")
def test_toolchains_are_named_by_the_policy_and_python_is_always_there() -> None:
    data = copy.deepcopy(SHIPPED)
    data["toolchains"] = {"go1.22": {"language": "go", "folder": "/opt/go1.22"}}
    assert {name: c.language for name, c in load(data).toolchains.items()} == {"python": "python", "go1.22": "go"}
    assert load(data).digest == load(SHIPPED).digest
    data["toolchains"] = {"python": {"language": "go"}, "Go": {"language": "go"}, "x": {"language": "cobol"}}
    assert {p.split(":")[0] for p in problems(data)} >= {"toolchains.Go.[key]", "toolchains.x.language"}
    data["toolchains"] = {"python": {"language": "go"}}
    assert problems(data) == ["toolchains: python runs the product's own scripts: give another name to this toolchain"]
