"""The command line `fleet`."""

from fleet.cli.app import app, main

__all__ = ["app", "main"]
