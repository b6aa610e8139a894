"""Endpoints of a fleet of one node, whose stores are nowhere unless a test says where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fleet.wiring.endpoints import Endpoints


def endpoints_at(home: Path, **given: Any) -> Endpoints:
    """The endpoints with this home; `given` replaces what a test wants otherwise."""
    fields: dict[str, Any] = {
        "home": str(home),
        "config": None,
        "redis_url": "redis://:secret@127.0.0.1:1/0",
        "cache_url": "redis://:secret@127.0.0.1:1/0",
        "neo4j_uri": "bolt://127.0.0.1:1",
        "neo4j_user": "neo4j",
        "neo4j_password": "secret",
        "neo4j_database": "neo4j",
        "node": "local",
        "pools": {"developer": 3},
        "council_shards": 1,
        "lease_ttl_s": 15,
        "sweep_s": 5,
        "record_dir": None,
        "code_digest": "sha256:" + "0" * 64,
        "environ": {},
    }
    return Endpoints(**fields | given)
