"""Signing keys and witnesses as files."""
