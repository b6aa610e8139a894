"""Blob stores that keep what they are given."""

from fleet.adapters.blobs.files import FileBlobStore

__all__ = ["FileBlobStore"]
