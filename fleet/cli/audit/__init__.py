"""Commands of trust: audit, archive, export."""
