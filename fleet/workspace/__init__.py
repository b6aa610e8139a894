"""The pipeline of a repository: evidence, gates, rigor levels, score and verdict (pure)."""
