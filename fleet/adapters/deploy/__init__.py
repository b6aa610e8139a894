"""Environments that this fleet keeps itself: deployed programs in sandboxes of the home's node."""

from fleet.adapters.deploy.environments import ProcessDeployments

__all__ = ["ProcessDeployments"]
