"""Serve applications: the only HTTP front of a fleet."""

from serve_apps.app import start_serve, stop_serve

__all__ = ["start_serve", "stop_serve"]
