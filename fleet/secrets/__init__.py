"""Secrets: who may use which, where their values come from, and a trail of each use."""
