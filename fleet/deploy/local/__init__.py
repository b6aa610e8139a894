"""Deployments as processes of this machine."""
