"""The composition root builds every service from addresses alone, without connecting to anything."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.cli.local.local_principals import ensure_principals, local_principal
from fleet.config.blobs import RedisBlobSettings
from fleet.config.settings import ChatFrontSettings
from fleet.context.service.packs import ContextService
from fleet.kernel.errors import ConfigError, InvalidInput
from fleet.kernel.ids import Principal
from fleet.models.service.role_agent import RoleAgent
from fleet.trees.files import FileBlobStore
from fleet.trees.redis import RedisBlobStore
from fleet.trees.tree import FileEntry, encode_tree
from fleet.wiring.audit import make_notary_parts
from fleet.wiring.council import make_council_parts
from fleet.wiring.desk.chat import make_chat_parts
from fleet.wiring.desk.contexts import make_context_service
from fleet.wiring.desk.desk import make_desk
from fleet.wiring.endpoints import Endpoints, load_definitions, load_principals
from fleet.wiring.sandbox.services import (
    make_forge,
    make_role_parts,
    make_sandbox_parts,
    make_supervisor,
    remove_abandoned,
)
from fleet.wiring.stores.knowledge import make_knowledge
from fleet.wiring.stores.stores import make_blobs
from tests.support.endpoints import endpoints_at


@pytest.fixture
def endpoints(tmp_path: Path) -> Endpoints:
    return endpoints_at(tmp_path, record_dir=str(tmp_path / "recording"))


def test_every_service_is_built_without_a_connection(endpoints: Endpoints) -> None:
    assert make_desk(endpoints)
    assert make_notary_parts(endpoints).notary.last is None
    assert isinstance(make_context_service(endpoints), ContextService)
    assert isinstance(make_role_parts(endpoints, role="developer").agent, RoleAgent)
    parts = make_sandbox_parts(endpoints)
    assert make_supervisor(endpoints, parts, name="sandbox:local")
    assert make_forge(endpoints, parts)
    shard = make_council_parts(endpoints, name="council:0", incarnation="1-1").shard
    assert shard.status().owner == "council:0/1-1"


@pytest.mark.rule("RC-27")
async def test_supervisors_of_nodes_with_one_home_leave_the_runs_of_each_other_alone(endpoints: Endpoints) -> None:
    home, node = make_sandbox_parts(endpoints), make_sandbox_parts(endpoints, node="0123456789ab")
    assert (home.state_root, home.backend.repos) == (node.state_root, node.backend.repos)
    # To either of them a process of the other's machine is one that does not live.
    elsewhere = [home.state_root / part / "runs" / "1-1-deadbeef" for part in (".", "nodes/0123456789ab")]
    for folder in elsewhere:
        (folder / "task").mkdir(parents=True)
    await home.backend.sweep()
    assert [folder.exists() for folder in elsewhere] == [False, True]
    elsewhere[0].mkdir(parents=True)
    await node.backend.sweep()
    assert [folder.exists() for folder in elsewhere] == [True, False]


def test_what_a_node_left_goes_a_day_after_it_died(endpoints: Endpoints) -> None:
    parts = make_sandbox_parts(endpoints)
    names = ("0123456789ab", "ba9876543210", "00ddeeaadd00")
    runs = [parts.state_root / "nodes" / name / "runs" for name in names]
    for folder in runs:
        (folder / "1-1-deadbeef").mkdir(parents=True)
    for path in parts.state_root.glob("nodes/**/*"):
        os.utime(path, (1, 1))
    # A run came and went there not long ago, of a node that another fleet may have.
    (runs[1] / "2-2-deadbeef").mkdir()
    assert remove_abandoned(parts, {names[0]}) == 1
    assert [folder.exists() for folder in runs] == [True, True, False]
    assert remove_abandoned(make_sandbox_parts(endpoints, node=names[0]), {names[0]}) == 0


def test_models_for_other_programs_are_those_of_the_configuration(endpoints: Endpoints) -> None:
    ana = Principal("user:ana")
    desk = make_chat_parts(endpoints, ChatFrontSettings(also_offered=("mock",), roles={"openai": ("po",)})).desk
    offered = [engine.engine_id for engine in desk.offered(ana)]
    assert "mock" in offered
    assert "openai" not in offered
    with pytest.raises(ConfigError) as caught:
        make_chat_parts(endpoints, ChatFrontSettings(also_offered=("nothing",), roles={"nobody": ("po",)}))
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
        make_role_parts(endpoints, role="nobody")


async def test_knowledge_of_a_node_is_kept_below_the_home_in_a_file_of_its_own(endpoints: Endpoints) -> None:
    blobs = FileBlobStore(Path(endpoints.home) / "blobs")
    entry = FileEntry("100644", await blobs.put(b"def reserve(): ...\n"))
    tree = await blobs.put(encode_tree({"cart.py": entry}))
    for node in ("local", "../other"):
        knowledge = make_knowledge(replace(endpoints, node=node), blobs)
        assert [file.path for file in await knowledge.choose_files(tree, "reserve")] == ["cart.py"]
    assert len(list((Path(endpoints.home) / "knowledge").glob("*.sqlite"))) == 2
