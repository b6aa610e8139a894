"""Planning: story content and coach, task derivation, the plan graph, estimates."""
