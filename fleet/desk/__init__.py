"""The read side, and the door for commands: what every front shows and asks."""
