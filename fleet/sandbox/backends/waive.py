"""What a backend may go without: nothing, but for items that the operator waived by name (RC-32)."""

from __future__ import annotations

from collections.abc import Collection

from fleet.kernel.errors import SandboxUnavailable
from fleet.policy.runs.isolation import split_unmet
from fleet.sandbox.port import SandboxHealth


def require_isolation(health: SandboxHealth, waived: Collection[str]) -> tuple[str, ...]:
    """The findings that are waived, which every result has to name; empty when all holds.

    Raises:
        SandboxUnavailable: no sandbox can be built, or something is missing that is not waived.
    """
    split = split_unmet(health.unmet, waived)
    if health.status == "down" or split.refused or (health.status != "ok" and not split.waived):
        raise SandboxUnavailable(
            f"the sandbox does not hold what a run needs: {'; '.join(health.unmet)}. {' '.join(health.mend)}",
            missing=list(health.unmet),
            mend=list(health.mend),
        )
    return split.waived
