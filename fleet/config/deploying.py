"""Settings of deployments: where stories go, and what is watched then (LC-46, LC-49)."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from fleet.config.values import Settings
from fleet.tools import DeployTarget

__all__ = ["DeploySettings"]


class DeploySettings(Settings):
    """Deployments."""

    # Source: LC-46.
    enabled: bool = False
    """Lifecycles may deploy; when false, stories of lifecycle `sdlc` get `sdlc-no-deploy`."""
    # Source: LC-49.
    targets: tuple[DeployTarget, ...] = ()
    """Where stories are deployed, how, and what is watched then; the first that fits a story's project."""

    @model_validator(mode="after")
    def _has_somewhere_to_deploy(self) -> Self:
        names = [target.environment for target in self.targets]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two targets have environment {', '.join(doubled)}")
        ports = [target.expose for target in self.targets if target.expose is not None]
        if doubled := sorted({port for port in ports if ports.count(port) > 1}):
            raise ValueError(f"two targets have the port {doubled[0]} under expose")
        if self.enabled and not self.targets:
            raise ValueError("enabled is true and no target is declared: list one under deploy.targets")
        return self
