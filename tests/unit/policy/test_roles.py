"""config/roles.yaml: profiles inherit and narrow, and a new role needs no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.kernel.errors import ConfigError, InvalidInput
from fleet.models.prompts.prompt import parse_prompts
from fleet.policy.catalogue import READ_OPS, TOOL_OPS, WRITE_OPS
from fleet.policy.roles import Acting, Role, RolesConfig, load_roles

CONFIG = Path(__file__).parents[3] / "config"

SECURITY = """
extends: qa
assignable: true
scope: quality
tools: {files: {ops: [read, search]}, lint: {ops: [code_scan, dependency_scan, secret_scan]}, git: {ops: [log, diff]}}
visibility: {decisions: [SECURITY, ARCHITECTURE], stories: phase_test}
model_policy: critic
prompt: prompts/security.md
"""
BASE: dict[str, Any] = {
    "actor": "any",
    "scope": "technical",
    "assignable": True,
    "tools": {"files": {"ops": ["read", "write"], "write_paths": ["src/**"]}},
    "phases": ["BUILD"],
    "council_weight": 1,
    "prompt": "prompts/roles/base.md",
    "model_policy": "default",
    "visibility": {"stories": "assigned", "decisions": "all"},
}


def document() -> dict[str, Any]:
    return yaml.safe_load((CONFIG / "roles.yaml").read_text())


def shipped() -> RolesConfig:
    return load_roles(document())


def load(**roles: dict[str, Any]) -> RolesConfig:
    return load_roles({"roles": {"base": BASE, **roles}})


def extended(**fields: Any) -> Role:
    return load(child={"extends": "base", **fields}).role("child")


@pytest.mark.rule("RT-1")
def test_shipped_roles_are_the_six_base_roles_and_eight_profiles() -> None:
    roles = shipped().roles
    base = {name for name, role in roles.items() if not role.lineage}
    assert base == {"architect", "developer", "qa", "devops", "data", "po"}
    profiles = {"planner", "designer", "implementer", "tester", "reviewer", "deployer", "critic", "monitor"}
    assert set(roles) - base == profiles


@pytest.mark.rule("RT-2")
def test_every_shipped_role_has_its_prompt_file() -> None:
    paths = {role.prompt for role in shipped().roles.values()}
    assert parse_prompts({path: (CONFIG / path).read_text() for path in paths}).personas.keys() == paths


@pytest.mark.rule("RT-1")
def test_role_security_works_by_yaml_only() -> None:
    data = document()
    data["roles"]["security"] = yaml.safe_load(SECURITY)
    security = load_roles(data).role("security")
    assert security.lineage == ("qa",)
    assert security.may_call("lint", "secret_scan")
    assert not security.may_call("files", "write")
    assert not security.may_call("browser", "open")
    assert (security.phases, security.council_weight) == (shipped().role("qa").phases, 1)
    assert "security" in load_roles(data).assignable


@pytest.mark.rule("RT-5", "RT-6", "RT-10")
def test_shipped_base_roles_have_their_tools() -> None:
    architect, developer, po = (shipped().role(name) for name in ("architect", "developer", "po"))
    assert not architect.may_call("files", "write")
    assert not architect.may_call("tests", "pytest")
    assert developer.may_call("files", "write")
    assert developer.may_call("exec", "run")
    assert not developer.may_call("git", "push_branch")
    assert po.actor == "human"
    assert not po.assignable


@pytest.mark.rule("RT-8")
def test_devops_operates_and_publishes_and_builds_nothing() -> None:
    devops = shipped().role("devops")
    assert (devops.scope, devops.actor) == ("operations", "any")
    reach = {"files", "git", "docker", "kubectl", "helm", "http", "tests", "search", "exec", "mcp"}
    # The clouds came with a tool of their own, which its operators read (RT-70).
    assert set(devops.tools) == reach | {"cloud"}
    for tool, op in (("files", "write"), ("git", "push_branch"), ("docker", "push"), ("kubectl", "apply")):
        assert devops.may_call(tool, op), (tool, op)
    for tool in ("http", "cloud"):
        assert devops.tools[tool].ops <= READ_OPS[tool]
    assert devops.tools["exec"].commands == {"make", "ls", "cat", "grep", "diff"}
    for tool, op in (("build", "build"), ("lint", "fix_write"), ("db", "postgresql_query"), ("browser", "open")):
        assert not devops.may_call(tool, op), (tool, op)


@pytest.mark.rule("RT-9", "RT-55")
def test_data_migrates_databases_and_works_in_its_own_repository_alone() -> None:
    data = shipped().role("data")
    assert (data.scope, data.actor) == ("data", "any")
    assert set(data.tools) == {"files", "git", "db", "tests", "search", "exec", "mcp"}
    for tool, op in (("files", "write"), ("git", "commit"), ("db", "postgresql_execute"), ("tests", "pytest")):
        assert data.may_call(tool, op), (tool, op)
    remote = {"ls_remote", "fetch", "push_branch", "open_change_request"}
    assert not data.tools["git"].ops & remote
    # Databases are reached through their tool alone, so that a statement is looked at.
    assert data.tools["exec"].commands == {"python", "ls", "cat", "grep", "diff"}
    assert not data.may_call("http", "get")


@pytest.mark.rule("RT-11", "RT-12", "RT-14", "RT-15", "RT-17", "RT-18")
def test_shipped_profiles_differ_from_their_base_as_specified() -> None:
    roles = shipped().roles
    assert roles["planner"].tools == roles["architect"].tools
    assert roles["designer"].tools["files"].write_paths == {"docs/**", "design/**"}
    assert roles["tester"].tools == roles["qa"].tools
    assert roles["reviewer"].may_call("tests", "pytest")
    assert not {"planner", "reviewer", "critic", "monitor"} & set(shipped().assignable)
    for name in ("critic", "monitor"):
        for tool, grant in roles[name].tools.items():
            assert grant.ops <= READ_OPS[tool], (name, tool)


@pytest.mark.rule("RT-13")
def test_implementer_is_a_developer() -> None:
    roles = shipped().roles
    assert roles["implementer"].model_dump(exclude={"name", "lineage"}) == roles["developer"].model_dump(
        exclude={"name", "lineage"}
    )


@pytest.mark.rule("RT-3")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tools": {"git": {"ops": ["log"]}}}, "tool git is not one of base"),
        ({"tools": {"files": {"ops": ["delete"]}}}, "ops delete is not one of base"),
        ({"tools": {"files": {"ops": ["write"]}}}, r"write_paths outside src/\*\*"),
        ({"tools": {"files": {"ops": ["read"], "hosts": ["h"]}}}, "hosts h is not one of base"),
    ],
)
def test_profile_with_more_than_its_base_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        extended(**change)


@pytest.mark.rule("RT-3")
def test_profile_may_narrow_and_gets_more_only_by_grants() -> None:
    role = extended(tools={"files": {"ops": ["read"]}}, grants={"tools": {"git": {"ops": ["log"]}}})
    assert role.may_call("git", "log")
    assert not role.may_call("files", "write")


def test_granted_write_paths_widen_a_bound_writer_and_bind_a_new_one() -> None:
    wider = extended(grants={"tools": {"files": {"ops": ["write"], "write_paths": ["docs/**"]}}})
    assert wider.tools["files"].write_paths == {"src/**", "docs/**"}
    free = extended(grants={"tools": {"files": {"ops": ["write"]}}})
    assert free.tools["files"].write_paths == frozenset()
    new = extended(
        tools={"files": {"ops": ["read"]}}, grants={"tools": {"files": {"ops": ["edit"], "write_paths": ["docs/**"]}}}
    )
    assert new.tools["files"].write_paths == {"docs/**"}


def test_profile_of_a_profile_inherits_through_both() -> None:
    made = load(leaf={"extends": "middle"}, middle={"extends": "base", "tools": {}})
    assert made.role("leaf").lineage == ("middle", "base")
    assert made.role("leaf").tools == {}


@pytest.mark.rule("RT-3")
@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        ({"aa": {"extends": "bb"}, "bb": {"extends": "aa"}}, "extends itself through aa -> bb -> aa"),
        ({"aa": {"extends": "lost"}}, "aa.extends: there is no role lost"),
        ({"aa": {**BASE, "actions": ["fly"]}}, "actions"),
        ({"aa": {**BASE, "tools": {"magic": {"ops": []}}}}, "unknown tool magic"),
        ({"aa": {**BASE, "tools": {"git": {"ops": ["log", "bisect"]}}}}, "tool git has no operation bisect"),
        ({"aa": {"actor": "any"}}, "aa: scope is missing.*aa: prompt is missing"),
        ({"aa": {**BASE, "grants": {"tools": {"git": {"ops": ["log"]}}}}}, "grants are for profiles"),
        ({"aa": {"extends": "bb"}, "bb": {"actor": "any"}}, "bb: scope is missing"),
        ({"aa": {**BASE, "prompt": "../secret"}}, "prompt"),
        ({"aa": {**BASE, "colour": "red"}}, "colour"),
        ({"aa": {**BASE, "acts": {"steps": 1}}}, "acts.steps"),
        ({"aa": {**BASE, "acts": {"steps": 3, "tools": ["files.burn"]}}}, "acts.tools.0: files.burn does not exist"),
        ({"aa": {**BASE, "acts": {"steps": 3, "tools": ["files"]}}}, "acts.tools.0: files does not exist"),
    ],
)
def test_wrong_role_is_refused_with_its_name_and_the_reason(roles: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        load(**roles)
    assert caught.value.details["file"] == "config/roles.yaml"


def test_role_looks_around_only_where_its_entry_says_so_and_a_profile_inherits_it() -> None:
    assert all(role.acts is None for role in shipped().roles.values())
    base = {**BASE, "acts": {"steps": 4, "tools": ["files.read"]}}
    roles = load_roles({"roles": {"base": base, "child": {"extends": "base"}}}).roles
    assert roles["child"].acts == roles["base"].acts == Acting(steps=4, tools=("files.read",))
    assert "acts" not in roles["base"].model_dump()


def test_unknown_role_is_refused_with_those_that_exist() -> None:
    with pytest.raises(InvalidInput) as caught:
        load().role("nobody")
    assert caught.value.details["allowed"] == ["base"]


def test_no_operation_both_reads_and_writes() -> None:
    assert all(not READ_OPS.get(tool, frozenset()) & ops for tool, ops in WRITE_OPS.items())
    assert TOOL_OPS["tests"] == WRITE_OPS["tests"]
