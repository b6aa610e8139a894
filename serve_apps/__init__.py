"""Serve applications: the only HTTP front of a fleet."""
