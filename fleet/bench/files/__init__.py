"""Tasks and rows of the evaluation harness as files."""
