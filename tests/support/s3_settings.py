"""Settings of a fleet whose blobs are in a bucket."""

from __future__ import annotations

from pathlib import Path

from fleet.config.blobs import BlobSettings, S3BlobSettings
from fleet.config.environment import load_settings
from fleet.wiring.endpoints import Endpoints

S3 = """
blobs:
  kind: s3
  url: https://store.example
  bucket: fleet-blobs
  region: eu-test-1
  access_key: secret://blobs-access
  secret_key: secret://blobs-secret
"""
SECRETS = """
providers: [{kind: environment, label: env, prefix: CI_SECRET_, secrets: [blobs-access, blobs-secret, blobs-token]}]
grants:
  - {secret: blobs-access, roles: [devops], tool: blobs, ops: [keep]}
  - {secret: blobs-secret, roles: [devops], tool: blobs, ops: [keep]}
"""


def blobs_of(folder: Path, text: str) -> BlobSettings:
    """The blobs of a fleet.yaml."""
    folder.mkdir(exist_ok=True)
    (folder / "fleet.yaml").write_text(text)
    return load_settings({"HOME": str(folder), "FLEET_CONFIG": str(folder)}).blobs


def endpoints_of(folder: Path, blobs: BlobSettings, secrets: str = "", *, redis_url: str = "") -> Endpoints:
    """A fleet with these blobs and secrets."""
    folder.mkdir(exist_ok=True)
    if secrets:
        (folder / "secrets.yaml").write_text(secrets)
    url = redis_url or "redis://127.0.0.1:1/0"
    return Endpoints(
        home=str(folder / "home"),
        config=str(folder),
        redis_url=url,
        cache_url=url,
        neo4j_uri="bolt://127.0.0.1:1",
        neo4j_user="neo4j",
        neo4j_password="x",
        neo4j_database="neo4j",
        node="local",
        pools={},
        council_shards=1,
        lease_ttl_s=15,
        sweep_s=5,
        record_dir=None,
        code_digest="sha256:" + "0" * 64,
        environ={},
        blobs=blobs,
    )


def s3(folder: Path, text: str = S3) -> S3BlobSettings:
    """The store of a fleet.yaml."""
    found = blobs_of(folder, text)
    assert isinstance(found, S3BlobSettings)
    return found
