"""Tools: what runs, on which tree, under which limits, and what repeating it may do."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.tools.addresses import address_refusal, addresses_refusal, host_is_listed
    from fleet.tools.capabilities import PRODUCT_OPS, ArgSpec, Capability, Declaration, ToolGate, gate_name
    from fleet.tools.catalogue import READ_OPS, TOOL_OPS, WRITE_OPS
    from fleet.tools.git_targets import GitAddress, GitTarget, git_address, git_target, parse_git_address
    from fleet.tools.grants import tool_approvals
    from fleet.tools.isolation import WAIVABLE, Unmet, WaivableItem, item_of, split_unmet
    from fleet.tools.log_lines import MAX_LINE_CHARS, LogLine
    from fleet.tools.outcome import EXCERPT_CHARS, OutcomeKind, ToolOutcome, excerpt_of, plain_text
    from fleet.tools.policy import decide, decide_step, enforce, obligations_of
    from fleet.tools.policy_calls import (
        Allowed,
        ApprovalRecord,
        CallFacts,
        Denied,
        NeedsApproval,
        Obligations,
        PolicyDecision,
        ToolCall,
        parse_call,
        request_digest,
        request_document,
    )
    from fleet.tools.policy_config import Policy, load_policy
    from fleet.tools.policy_matrix import offered, permissions
    from fleet.tools.policy_rules import ArgMatch, Rule
    from fleet.tools.roles import (
        Acting,
        Action,
        Granted,
        Grants,
        Role,
        RoleEntry,
        RolesConfig,
        ToolGrant,
        Visibility,
        load_roles,
    )
    from fleet.tools.secret_grants import SECRET_RULE, SecretAccess, SecretGrant, SecretOutcome, SecretPolicy
    from fleet.tools.secret_refs import (
        SCHEME,
        SECRETS_FOLDER,
        FoundReference,
        SecretName,
        SecretPlan,
        parse_reference,
        plan_delivery,
        references_in,
    )
    from fleet.tools.services_config import ServicePlan, ServiceRecipe, ServicesConfig, plan_services
    from fleet.tools.spec import (
        FINAL_STATUSES,
        Artifact,
        BlobMount,
        EgressDecision,
        Grantee,
        Limits,
        OutputStream,
        RepoMount,
        RunReason,
        RunResult,
        RunSpec,
        RunStatus,
        ServiceReady,
        ServiceSpec,
        Usage,
    )
    from fleet.tools.targets import CloudTarget, ClusterTarget, DatabaseTarget, Targets
    from fleet.tools.task_plan import TaskCaps, run_of_task, task_result
    from fleet.tools.task_spec import TaskResult, TaskSpec
    from fleet.tools.toolchains_config import DEFAULT_TOOLCHAINS, Language, ToolchainConfig, ToolchainName
    from fleet.tools.tree import FileEntry, Mode, Tree, check_path, check_paths, decode_tree, encode_tree, tree_digest
    from fleet.tools.tree_rows import differing_rows
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = [
    "GitAddress",
    "GitTarget",
    "git_address",
    "git_target",
    "parse_git_address",
    "WAIVABLE",
    "Unmet",
    "WaivableItem",
    "item_of",
    "split_unmet",
    "address_refusal",
    "addresses_refusal",
    "host_is_listed",
    "PRODUCT_OPS",
    "ArgSpec",
    "Capability",
    "Declaration",
    "ToolGate",
    "gate_name",
    "tool_approvals",
    "MAX_LINE_CHARS",
    "LogLine",
    "EXCERPT_CHARS",
    "OutcomeKind",
    "ToolOutcome",
    "excerpt_of",
    "plain_text",
    "decide",
    "decide_step",
    "enforce",
    "obligations_of",
    "Allowed",
    "ApprovalRecord",
    "CallFacts",
    "Denied",
    "NeedsApproval",
    "Obligations",
    "PolicyDecision",
    "ToolCall",
    "parse_call",
    "request_digest",
    "request_document",
    "CloudTarget",
    "ClusterTarget",
    "DatabaseTarget",
    "Policy",
    "Targets",
    "load_policy",
    "offered",
    "permissions",
    "ArgMatch",
    "Rule",
    "FINAL_STATUSES",
    "READ_OPS",
    "SCHEME",
    "SECRETS_FOLDER",
    "SECRET_RULE",
    "TaskCaps",
    "TaskResult",
    "TaskSpec",
    "run_of_task",
    "task_result",
    "TOOL_OPS",
    "WRITE_OPS",
    "Acting",
    "Action",
    "Artifact",
    "BlobMount",
    "EgressDecision",
    "Grantee",
    "ServicePlan",
    "ServiceReady",
    "ServiceRecipe",
    "ServicesConfig",
    "ServiceSpec",
    "FileEntry",
    "FoundReference",
    "Granted",
    "Grants",
    "Limits",
    "Mode",
    "OutputStream",
    "RepoMount",
    "Role",
    "RoleEntry",
    "RolesConfig",
    "RunReason",
    "RunResult",
    "RunSpec",
    "RunStatus",
    "SecretAccess",
    "SecretGrant",
    "SecretName",
    "SecretOutcome",
    "SecretPlan",
    "SecretPolicy",
    "ToolGrant",
    "Tree",
    "Usage",
    "Visibility",
    "check_path",
    "check_paths",
    "decode_tree",
    "differing_rows",
    "encode_tree",
    "load_roles",
    "parse_reference",
    "plan_services",
    "plan_delivery",
    "references_in",
    "tree_digest",
    "DEFAULT_TOOLCHAINS",
    "Language",
    "ToolchainConfig",
    "ToolchainName",
]
