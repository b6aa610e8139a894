"""Tool calls of agents and people on a story: policy, approval, call, record."""
