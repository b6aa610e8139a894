"""Folders on disk: workspaces, the tree read from and written to them, without following links."""
