"""The projector: writes events into the decision graph, and rebuilds it."""
