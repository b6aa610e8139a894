"""What each event changes in the decision graph; one module per family of events."""
