"""Further stores: blobs in S3, secrets of Vault and Kubernetes."""
