"""The sandbox: runs of commands by key, in isolation, on a folder whose state is a tree."""
