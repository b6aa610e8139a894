"""Context packs: what a role may see of a story, within a budget, as stable text (pure)."""
