"""Whether a run can be started with the model that was named for it: said at once, and not at its first prompt."""

from __future__ import annotations

from fleet.errors import InvalidInput
from fleet.models import ModelsConfig

__all__ = ["require_profile"]

_OF_THE_RUN = "profile"
"""In a policy: the engine that the run names."""


def require_profile(models: ModelsConfig, profile: str | None) -> None:
    """Returns when some role has an engine; None leaves every role to its policy.

    Raises:
        InvalidInput: no engine is called so, or none was named and no policy has one of its own (MB-2).
    """
    if profile is not None:
        models.engine(profile)
        return
    if all(entry.engine_id == _OF_THE_RUN for policy in models.policies.values() for entry in policy.chain):
        allowed = [*models.profiles, "recorded:DIR"]
        raise InvalidInput(
            f"no model is configured for any role: name one of {', '.join(allowed)}, or give a role an engine of its "
            "own in models.yaml",
            field="model",
            allowed=allowed,
        )
