"""Deployments on a Kubernetes cluster."""
