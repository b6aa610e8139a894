"""Providers that need no server: files and the environment."""
