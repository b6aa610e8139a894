"""What the desk shows and asks of tasks, tool sessions and runs."""
