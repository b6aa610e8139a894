"""A forge that is a folder: git objects, branches, change requests as files."""
