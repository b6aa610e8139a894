"""What the desk shows of context packs."""
