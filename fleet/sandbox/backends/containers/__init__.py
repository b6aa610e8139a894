"""Containers of podman or docker."""
