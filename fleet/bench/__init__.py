"""The evaluation harness: tasks, arms, rows and their statistics (pure)."""
