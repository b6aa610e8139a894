"""The shipped tools that work in a sandbox: files, git, search, commands."""
