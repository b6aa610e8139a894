"""The composition root builds every service from addresses alone, without connecting to anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fleet.adapters.blobs import FileBlobStore
from fleet.adapters.redis import RedisBlobStore
from fleet.cli.local_principals import ensure_principals, local_principal
from fleet.config import ChatFrontSettings, RedisBlobSettings
from fleet.errors import ConfigError, InvalidInput
from fleet.ids import Principal
from fleet.services.context_service import ContextService
from fleet.services.role_agent import RoleAgent
from fleet.tools import FileEntry, encode_tree
from fleet.wiring import (
    Endpoints,
    load_definitions,
    load_principals,
    make_blobs,
    make_chat_desk,
    make_context_service,
    make_council_shard,
    make_desk,
    make_forge,
    make_knowledge,
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


def test_models_for_other_programs_are_those_of_the_configuration(endpoints: Endpoints) -> None:
    ana = Principal("user:ana")
    desk = make_chat_desk(endpoints, ChatFrontSettings(also_offered=("mock",), roles={"openai": ("po",)}))
    offered = [engine.engine_id for engine in desk.offered(ana)]
    assert "mock" in offered
    assert "openai" not in offered
    with pytest.raises(ConfigError) as caught:
        make_chat_desk(endpoints, ChatFrontSettings(also_offered=("nothing",), roles={"nobody": ("po",)}))
    assert caught.value.details["engines"] == ["nobody", "nothing"]


def test_blobs_are_where_the_settings_say(endpoints: Endpoints) -> None:
    assert isinstance(make_blobs(endpoints), FileBlobStore)
    assert isinstance(make_blobs(replace(endpoints, blobs=RedisBlobSettings(kind="redis"))), RedisBlobStore)


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


async def test_knowledge_of_a_node_is_kept_below_the_home_in_a_file_of_its_own(endpoints: Endpoints) -> None:
    blobs = FileBlobStore(Path(endpoints.home) / "blobs")
    entry = FileEntry("100644", await blobs.put(b"def reserve(): ...\n"))
    tree = await blobs.put(encode_tree({"cart.py": entry}))
    for node in ("local", "../other"):
        knowledge = make_knowledge(replace(endpoints, node=node), blobs)
        assert [file.path for file in await knowledge.choose_files(tree, "reserve")] == ["cart.py"]
    assert len(list((Path(endpoints.home) / "knowledge").glob("*.sqlite"))) == 2
