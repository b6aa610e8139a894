"""The notary's actor looks once more before it ends: a fleet may stop right after a story."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.notary import NotaryShell
from cluster.local.record import Addresses
from fleet.cli.endpoints import endpoints_of
from fleet.config.environment import load_settings


@pytest.mark.rule("EV-9")
async def test_drained_notary_has_tried_to_attest_what_the_log_holds(tmp_path: Path) -> None:
    away = "redis://127.0.0.1:1/0"
    addresses = Addresses(
        redis_url=away, cache_url=away, neo4j_uri="bolt://x", neo4j_user="", neo4j_password="", neo4j_database="neo4j"
    )
    found = load_settings({"HOME": str(tmp_path), "FLEET_HOME": str(tmp_path)})
    shell = NotaryShell("notary", endpoints_of(found, addresses))
    assert await shell.status() == {"last": None, "problem": None}

    await shell.drain()  # before its work in the background had its first turn

    assert str((await shell.status())["problem"]).startswith("store_unavailable: ")
