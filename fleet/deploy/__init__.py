"""Deployments: environments, what runs there, and how a new revision takes over."""
