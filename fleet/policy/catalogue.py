"""The names of all shipped tools and operations (RT-40..RT-54); what each may do is declared in config/policy.yaml."""

from __future__ import annotations

from collections.abc import Mapping


def _sets(**ops: str) -> Mapping[str, frozenset[str]]:
    return {tool: frozenset(names.split()) for tool, names in ops.items()}


READ_OPS: Mapping[str, frozenset[str]] = _sets(
    files="read list info search diff",
    git="status log diff show branch_list ls_remote fetch",
    lint="lint typecheck format_check code_scan dependency_scan secret_scan",
    search="text symbols references outline semantic structure code",
    http="get head",
    db="postgresql_query redis_read neo4j_read",
    docker="ps logs images inspect",
    kubectl="get describe logs diff rollout_status",
    helm="list status history template lint diff",
    browser="open check dom console screenshot",
    cloud="aws_read gcloud_read az_read",
    mcp="list_tools read",
)
"""Operations that read only and run no project code."""

WRITE_OPS: Mapping[str, frozenset[str]] = _sets(
    files="write edit append mkdir move delete",
    git="add commit checkout branch_create merge_candidate push_branch open_change_request",
    tests="pytest go_test npm_test cargo_test make_test",
    build="build package",
    lint="format_write fix_write",
    search="reindex",
    http="post put patch delete",
    db="postgresql_execute redis_write neo4j_write",
    docker="build run exec stop rm push",
    kubectl="apply scale rollout_restart rollout_undo delete",
    helm="upgrade rollback uninstall",
    browser="click fill",
    exec="run",
    cloud="aws_write gcloud_write az_write",
    mcp="call",
)
"""Operations that write or run project code."""

TOOL_OPS: Mapping[str, frozenset[str]] = {
    tool: READ_OPS.get(tool, frozenset()) | WRITE_OPS.get(tool, frozenset()) for tool in {**READ_OPS, **WRITE_OPS}
}
"""All operations by tool."""
