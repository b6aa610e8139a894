"""Audit: chains recomputed from stored bytes, signed Merkle checkpoints over all streams, proofs (EV-32)."""
