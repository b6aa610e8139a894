"""Errors, ids, digests, clocks and the shared types: what every other package builds on."""
