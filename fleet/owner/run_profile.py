"""Whether a run can be started with the model that was named for it: said at once, and not at its first prompt."""

from __future__ import annotations

from collections.abc import Collection

from fleet.kernel.errors import InvalidInput
from fleet.models.profiles import ModelsConfig

_OF_THE_RUN = "profile"
"""In a policy: the engine that the run names."""


def require_profile(models: ModelsConfig, profile: str | None, *, absent: Collection[str] = ()) -> None:
    """Returns when some role has an engine; None leaves every role to its policy.

    Args:
        absent: engines of the file that nothing stands for in this fleet.

    Raises:
        InvalidInput: no engine is called so, this fleet does not serve it, or none was named and no policy has one of
            its own (MB-2).
    """
    if profile is not None:
        engine = models.engine(profile)
        if engine.engine_id in absent:
            raise InvalidInput(
                f"this fleet does not serve engine {profile!r}: name it in models.serve of fleet.yaml and start the "
                "fleet again, or choose another model",
                field="model",
                allowed=[name for name in (*models.profiles, "recorded:DIR") if name not in absent],
            )
        return
    if all(entry.engine_id == _OF_THE_RUN for policy in models.policies.values() for entry in policy.chain):
        allowed = [*models.profiles, "recorded:DIR"]
        raise InvalidInput(
            f"no model is configured for any role: name one of {', '.join(allowed)}, or give a role an engine of its "
            "own in models.yaml",
            field="model",
            allowed=allowed,
        )
