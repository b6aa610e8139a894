"""Exit codes: each error class has exactly one (docs/design/design.md, section 10)."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.kernel.errors import (
    ConfigError,
    ConflictError,
    DomainError,
    EdgeError,
    FleetError,
    GateClosed,
    LogCorrupted,
    LogRegressed,
    ModelError,
    NotFound,
    OwnershipError,
    PolicyDenied,
    SandboxUnavailable,
    StepError,
    StoreError,
    UnsupportedSchema,
)

DONE = 0
BAD_INPUT = 2
WAITING = 3
FAILED = 4
MISSING = 5

_TABLE: Mapping[type[FleetError], int] = {
    GateClosed: WAITING,
    DomainError: BAD_INPUT,
    PolicyDenied: BAD_INPUT,
    NotFound: BAD_INPUT,
    ConflictError: BAD_INPUT,
    ConfigError: BAD_INPUT,
    EdgeError: BAD_INPUT,
    LogCorrupted: FAILED,
    LogRegressed: FAILED,
    UnsupportedSchema: FAILED,
    StoreError: MISSING,
    OwnershipError: MISSING,
    SandboxUnavailable: MISSING,
    ModelError: MISSING,
    StepError: FAILED,
    FleetError: FAILED,
}


def exit_code(error: FleetError) -> int:
    """The code for this error: that of its nearest class in the table."""
    return next(_TABLE[cls] for cls in type(error).__mro__ if cls in _TABLE)
