"""Blobs in S3-compatible stores, by signed requests of our own: the SDKs are fifty times their size."""

from fleet.adapters.s3.blobs import MAX_BLOB_BYTES, KeySource, S3BlobStore
from fleet.adapters.s3.http import S3Place
from fleet.adapters.s3.signing import S3Keys, signed_headers

__all__ = ["MAX_BLOB_BYTES", "KeySource", "S3BlobStore", "S3Keys", "S3Place", "signed_headers"]
