"""Clusters: the local one, and what belongs to KubeRay."""
