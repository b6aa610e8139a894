"""Role agents, queued and routed models, engines and their figures."""
