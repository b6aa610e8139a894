"""Tools: what runs, on which tree, under which limits, and what repeating it may do."""

from fleet.tools.catalogue import READ_OPS, TOOL_OPS, WRITE_OPS
from fleet.tools.roles import Action, Granted, Grants, Role, RoleEntry, RolesConfig, ToolGrant, Visibility, load_roles
from fleet.tools.spec import (
    FINAL_STATUSES,
    Artifact,
    BlobMount,
    Limits,
    OutputStream,
    RepoMount,
    RunReason,
    RunResult,
    RunSpec,
    RunStatus,
    Usage,
)
from fleet.tools.tree import FileEntry, Mode, Tree, check_path, decode_tree, encode_tree, tree_digest

__all__ = [
    "FINAL_STATUSES",
    "READ_OPS",
    "TOOL_OPS",
    "WRITE_OPS",
    "Action",
    "Artifact",
    "BlobMount",
    "FileEntry",
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
    "ToolGrant",
    "Tree",
    "Usage",
    "Visibility",
    "check_path",
    "decode_tree",
    "encode_tree",
    "load_roles",
    "tree_digest",
]
