"""Tools: what runs, on which tree, under which limits, and what repeating it may do."""

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
    "Artifact",
    "BlobMount",
    "FileEntry",
    "Limits",
    "Mode",
    "OutputStream",
    "RepoMount",
    "RunReason",
    "RunResult",
    "RunSpec",
    "RunStatus",
    "Tree",
    "Usage",
    "check_path",
    "decode_tree",
    "encode_tree",
    "tree_digest",
]
