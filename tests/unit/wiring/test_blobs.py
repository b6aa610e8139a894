"""Blobs in a bucket: settings, keys out of the secret store, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.config.blobs import FileBlobSettings, RedisBlobSettings
from fleet.config.environment import load_settings
from fleet.extensions.stores.s3 import S3BlobStore
from fleet.kernel.errors import ConfigError
from fleet.wiring.stores.blobs import check_blob_keys, check_blobs_reach
from fleet.wiring.stores.stores import make_blobs
from tests.support.s3_settings import S3, SECRETS, blobs_of, endpoints_of, s3


def test_kind_alone_is_enough_for_files_and_redis(tmp_path: Path) -> None:
    assert blobs_of(tmp_path, "{}\n") == FileBlobSettings()
    assert blobs_of(tmp_path, "blobs: file\n") == FileBlobSettings()
    assert blobs_of(tmp_path, "blobs: redis\n") == RedisBlobSettings(kind="redis")
    assert load_settings({"HOME": str(tmp_path), "FLEET_BLOBS": "redis"}).blobs == RedisBlobSettings(kind="redis")


@pytest.mark.rule("GL-22")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kind: s3", "kind: gcs"),
        ("secret://blobs-secret", "wJalrXUtnFEMIK7MDENG"),
        ("  secret_key: secret://blobs-secret\n", ""),
        ("https://store.example", "https://user:pw@store.example"),
        ("https://store.example", "https://store.example/path"),
        ("fleet-blobs", "Fleet_Blobs"),
        ("  region: eu-test-1", "  prefix: /x"),
        ("  region: eu-test-1", "  prefix: ../"),
        ("  region: eu-test-1", "  tries: 0"),
    ],
)
def test_store_that_is_configured_wrongly_stops_the_start_and_shows_no_key(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(ConfigError, match="blobs") as caught:
        s3(tmp_path, S3.replace(old, new))
    assert "wJalrXUtnFEMIK7MDENG" not in str(caught.value)


@pytest.mark.rule("RT-65")
def test_store_needs_its_keys_at_a_provider_and_granted_before_anything_starts(tmp_path: Path) -> None:
    settings = s3(tmp_path / "config")
    with pytest.raises(ConfigError, match="no provider has secret 'blobs-access', a key of the blobs' store"):
        check_blob_keys(endpoints_of(tmp_path, settings))
    ungranted = SECRETS.replace("  - {secret: blobs-secret, roles: [devops], tool: blobs, ops: [keep]}\n", "")
    with pytest.raises(ConfigError, match=r"\{secret: blobs-secret, roles: \[devops\], tool: blobs, ops: \[keep\]\}"):
        check_blob_keys(endpoints_of(tmp_path, settings, ungranted))
    check_blob_keys(endpoints_of(tmp_path, settings, SECRETS))
    check_blob_keys(endpoints_of(tmp_path, FileBlobSettings()))


def test_address_without_tls_to_another_machine_stops_the_start(tmp_path: Path) -> None:
    settings = s3(tmp_path / "config", S3.replace("https", "http"))
    with pytest.raises(ConfigError, match="blobs.allow_http"):
        check_blob_keys(endpoints_of(tmp_path, settings, SECRETS))


def test_blobs_are_in_the_bucket_when_the_settings_say_so(tmp_path: Path) -> None:
    assert isinstance(make_blobs(endpoints_of(tmp_path, s3(tmp_path / "config"), SECRETS)), S3BlobStore)


@pytest.mark.parametrize("machines", [["10.0.0.1"], ["10.0.0.1", "10.0.0.1"], []])
def test_one_machine_may_keep_blobs_as_its_own_files(tmp_path: Path, machines: list[str]) -> None:
    check_blobs_reach(endpoints_of(tmp_path, FileBlobSettings()), machines)


def test_several_machines_need_blobs_that_all_of_them_reach(tmp_path: Path) -> None:
    machines = ["10.0.0.2", "10.0.0.1"]
    with pytest.raises(ConfigError, match="set blobs to kind s3 or to redis, or mount one volume") as caught:
        check_blobs_reach(endpoints_of(tmp_path, FileBlobSettings()), machines)
    assert caught.value.details == {"key": "blobs", "machines": ["10.0.0.1", "10.0.0.2"]}
    for blobs in (FileBlobSettings(shared=True), RedisBlobSettings(kind="redis"), s3(tmp_path / "config")):
        check_blobs_reach(endpoints_of(tmp_path, blobs), machines)
