"""The composition root builds every service from addresses alone, without connecting to anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fleet.adapters.blobs import FileBlobStore
from fleet.adapters.redis import RedisBlobStore
from fleet.cli.local_principals import ensure_principals, local_principal
from fleet.errors import InvalidInput
from fleet.services.context_service import ContextService
from fleet.services.role_agent import RoleAgent
from fleet.wiring import (
    Endpoints,
    load_definitions,
    load_principals,
    make_blobs,
    make_context_service,
    make_council_shard,
    make_desk,
    make_forge,
    make_notary,
    make_role_agent,
    make_sandbox_parts,
    make_supervisor,
)


@pytest.fixture
def endpoints(tmp_path: Path) -> Endpoints:
    return Endpoints(
        home=str(tmp_path),
        config=None,
        redis_url="redis://:secret@127.0.0.1:1/0",
        cache_url="redis://:secret@127.0.0.1:1/0",
        neo4j_uri="bolt://127.0.0.1:1",
        neo4j_user="neo4j",
        neo4j_password="secret",
        neo4j_database="neo4j",
        node="local",
        pools={"developer": 3},
        council_shards=1,
        lease_ttl_s=15,
        sweep_s=5,
        record_dir=str(tmp_path / "recording"),
        code_digest="sha256:" + "0" * 64,
        environ={},
    )


def test_every_service_is_built_without_a_connection(endpoints: Endpoints) -> None:
    assert make_desk(endpoints)
    assert make_notary(endpoints).last is None
    assert isinstance(make_context_service(endpoints), ContextService)
    assert isinstance(make_role_agent(endpoints, role="developer"), RoleAgent)
    parts = make_sandbox_parts(endpoints)
    assert make_supervisor(endpoints, parts, name="sandbox:local")
    assert make_forge(endpoints, parts)
    shard = make_council_shard(endpoints, name="council:0", incarnation="1-1")
    assert shard.status().owner == "council:0/1-1"


def test_blobs_are_where_the_settings_say(endpoints: Endpoints) -> None:
    assert isinstance(make_blobs(endpoints), FileBlobStore)
    assert isinstance(make_blobs(replace(endpoints, blobs="redis")), RedisBlobStore)


def test_definitions_give_tasks_only_to_roles_that_change_files(endpoints: Endpoints) -> None:
    assert set(load_definitions(endpoints.files).assignable_roles) <= {"developer", "devops", "data"}


@pytest.mark.rule("AP-1", "GL-16")
def test_principals_are_nobody_until_the_local_file_exists(endpoints: Endpoints) -> None:
    who = local_principal()
    assert load_principals(endpoints.principals_file).roles_of(who) == frozenset()
    ensure_principals(endpoints.principals_file)
    assert "po" in load_principals(endpoints.principals_file).roles_of(who)


def test_role_without_entry_is_refused(endpoints: Endpoints) -> None:
    with pytest.raises(InvalidInput, match="unknown role"):
        make_role_agent(endpoints, role="nobody")
