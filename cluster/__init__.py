"""Clusters: the local one, and what belongs to KubeRay."""

__all__: list[str] = []
