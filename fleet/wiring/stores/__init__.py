"""Composes stores: log, blobs, secrets, knowledge, graph."""
