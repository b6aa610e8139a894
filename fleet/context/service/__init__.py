"""Builds packs, counts their tokens, and keeps views of stories."""
