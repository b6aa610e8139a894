"""The packaged policy allows what the product does today, and no step of its own beyond that."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from fleet.kernel.ids import Principal
from fleet.models.port import WorkKind
from fleet.owner.engineering.session import STEP_OF
from fleet.policy.roles import load_roles
from fleet.policy.rules.calls import Allowed, Denied, NeedsApproval
from fleet.policy.rules.config import load_policy
from fleet.policy.rules.policy import decide_step
from fleet.policy.rules.table import PHASES
from tests.support.rules import files

POLICY = load_policy(files().document("policy.yaml"), roles=load_roles(files().document("roles.yaml")))
OWNER = Path(__file__).parents[3] / "fleet" / "owner"
PROCEDURES = [*(OWNER / "duties").glob("*.py"), OWNER / "story_environment.py"]
ROLES = sorted(POLICY.roles.roles)
KINDS = sorted(get_args(WorkKind))
BRANCH = {"branch": "fleet/st-one"}
# What each step of the procedures is today: operation, who does it, in which phases, with which arguments.
USED: list[tuple[str, list[str], tuple[str, ...], dict[str, Any]]] = [
    ("git.checkout", ["devops"], PHASES, {}),
    ("git.fetch", ["devops"], PHASES, {}),
    ("packages.fetch", ["devops"], PHASES, {}),
    ("git.push_branch", ["devops"], PHASES, BRANCH),
    ("git.open_change_request", ["devops"], PHASES, BRANCH),
    ("git.merge_candidate", [*POLICY.roles.assignable, "designer"], PHASES, {}),
    ("files.write", list(POLICY.roles.assignable), ("BUILD",), {}),
    ("files.write", ["designer"], ("TEST", "DOCS"), {}),
    ("tests.pipeline", ["qa"], PHASES, {}),
    ("tests.pytest", ["qa"], PHASES, {}),
    ("environment.start", ["deployer"], ("DOCS",), {}),
    ("environment.rollback", ["deployer"], ("DOCS",), {}),
    ("environment.observe", ["monitor"], ("DOCS",), {}),
    *((name, list(POLICY.roles.assignable), ("BUILD",), {}) for name in sorted(set(STEP_OF.values()))),
    *((f"model.{kind}", ROLES, PHASES, {}) for kind in KINDS),
]


def step(name: str, role: str, phase: Any, args: dict[str, Any] | None = None) -> Allowed | NeedsApproval | Denied:
    tool, op = name.split(".")
    who = Principal(f"user:{role}" if role == "po" else f"agent:{role}-001")
    return decide_step(tool, op, principal=who, role=role, phase=phase, policy=POLICY, args=args, now_ms=0)


def work_of(source: str) -> Iterator[str]:
    """`tool.op` of every `Work(...)` that a module builds; `tool.*` where the operation is no literal."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Work":
            named = {k.arg: k.value.value if isinstance(k.value, ast.Constant) else "*" for k in node.keywords}
            yield f"{named['tool']}.{named['op']}"


@pytest.mark.parametrize(("name", "roles", "phases", "args"), USED)
def test_step_of_the_product_is_allowed_without_asking(
    name: str, roles: list[str], phases: tuple[str, ...], args: dict[str, Any]
) -> None:
    refused = [(role, phase) for role in roles for phase in phases if step(name, role, phase, args).kind != "allowed"]
    assert refused == []


def test_table_of_steps_is_what_the_procedures_do() -> None:
    built = {name for path in PROCEDURES for name in work_of(path.read_text())} | set(STEP_OF.values())
    table = {name for name, *_ in USED}
    assert {name for name in built if not name.endswith("*")} <= table
    assert {name for name in table if not name.startswith("model.")} <= built
    assert "model.*" in built


@pytest.mark.rule("RT-30")
def test_step_that_is_not_in_the_table_is_denied() -> None:
    listed = {(name, role, phase) for name, roles, phases, _ in USED for role in roles for phase in phases}
    heirs = {role: {role, *POLICY.roles.roles[role].lineage} for role in ROLES}
    # Names that the table gives to assignable roles; the policy gives them to every role, because tasks go to any.
    open_to_all = {("git.merge_candidate", p) for p in PHASES} | {("files.write", "BUILD")}
    for name in POLICY.capabilities:
        for role in ROLES:
            for phase in PHASES:
                is_listed = any((name, named, phase) in listed for named in heirs[role])
                if not is_listed and (name, phase) not in open_to_all:
                    assert step(name, role, phase, BRANCH).kind == "denied", (name, role, phase)


def test_product_publishes_to_branches_of_stories_only() -> None:
    for args in ({}, {"branch": "main"}, {"branch": "fleet/a/b"}, {"branch": ["fleet/a", "main"]}):
        found = step("git.push_branch", "devops", "DOCS", args)
        assert (found.kind, found.rule_id) == ("denied", "no_rule")


def test_step_of_a_role_that_is_declared_nowhere_is_denied() -> None:
    assert step("model.draft", "nobody", "BUILD").rule_id == "role_unknown"
    assert step("hammer.hit", "qa", "BUILD").rule_id == "op_undeclared"
