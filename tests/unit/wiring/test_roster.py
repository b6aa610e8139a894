"""Which actors a fleet has and where they belong, from settings alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.config.environment import load_settings
from fleet.config.files import packaged_directory
from fleet.config.settings import KubernetesBackendSettings, has_node
from fleet.kernel.errors import ConfigError
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.places import cluster_endpoints
from fleet.wiring.roster import PlannedActor, home_supervisor, node_supervisors, roster, spreads_runs
from tests.support.engines import actor_engine

STORES = {
    "FLEET_REDIS_URL": "redis://:pass@log:6379/0",
    "FLEET_NEO4J_URI": "bolt://graph:7687",
    "FLEET_NEO4J_PASSWORD": "pass",
}


def environment(home: Path, **further: str) -> dict[str, str]:
    return {"FLEET_HOME": str(home), **STORES, **further}


def endpoints(home: Path, **further: str) -> Endpoints:
    return cluster_endpoints(environment(home, **further))


def served(folder: Path, **changes: Any) -> dict[str, str]:
    """The variables of a fleet that serves an engine of this shape."""
    document = yaml.safe_load((packaged_directory() / "models.yaml").read_text())
    entry = {"engine_id": "tiny", "kind": "vllm", "model": "tiny", "path": "/nowhere", "unpriced": True}
    document["engines"].append(entry | {"replicas": 2} | changes)
    (folder / "models.yaml").write_text(yaml.safe_dump(document))
    return {"FLEET_CONFIG": str(folder), "FLEET_MODELS_SERVE": "[tiny]"}


def test_roster_names_every_actor_of_the_settings_once(tmp_path: Path) -> None:
    pools = "{developer: 2, qa: 0, architect: 1, devops: 0, reviewer: 0, data: 0, planner: 0, designer: 0}"
    found = [actor.name for actor in roster(endpoints(tmp_path, FLEET_POOLS=pools, FLEET_COUNCIL_SHARDS="2"))]
    assert found[:4] == ["sandbox:local", "context", "projector", "notary"]
    assert sorted(found[4:]) == [
        "council:0", "council:1", "role:architect:0", "role:developer:0", "role:developer:1"
    ]  # fmt: skip


def test_actors_want_the_labels_that_the_settings_give_their_kind(tmp_path: Path) -> None:
    placement = "{council: {pool: agents}, sandbox: {pool: 'in(sandbox, both)', zone: '!far'}}"
    wanted = {a.name: dict(a.labels) for a in roster(endpoints(tmp_path, FLEET_PLACEMENT=placement))}
    assert wanted["council:0"] == {"pool": "agents"}
    assert wanted["sandbox:local"] == {"pool": "in(sandbox, both)", "zone": "!far"}
    assert wanted["role:developer:0"] == {}


def test_engine_starts_first_and_its_own_labels_win(tmp_path: Path) -> None:
    known = served(tmp_path, node_labels={"pool": "big"}, gpus=1)
    actors = roster(endpoints(tmp_path, **known, FLEET_PLACEMENT="{engine: {pool: gpu, zone: near}}"))
    assert [actor.name for actor in actors[:3]] == ["engine:tiny:0", "engine:tiny:1", "sandbox:local"]
    assert dict(actors[0].labels) == {"pool": "big", "zone": "near"}


def test_what_an_actor_waits_for_is_said_in_words() -> None:
    engine = actor_engine(gpus=2, cpus=4)
    labels = {"zone": "near", "accelerator": "h200"}
    plain = PlannedActor("council:0", "council", {"pool": "agents"})
    assert plain.waiting == "waiting for a node with label pool=agents"
    assert PlannedActor("engine:tiny:0", "engine", labels, engine).wanted == (
        "2 GPUs and 4 CPUs, label accelerator=h200, label zone=near"
    )


@dataclass(frozen=True)
class Seen:
    """A node that is alive."""

    node_id: str
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    cpus: float = 4.0


HOME, SECOND = Seen("a" * 56), Seen("b" * 56)


def test_only_node_of_a_fleet_has_the_supervisor_of_the_home_and_no_other(tmp_path: Path) -> None:
    where = endpoints(tmp_path)
    assert (home_supervisor(where), spreads_runs(where)) == ("sandbox:local", True)
    assert node_supervisors(where, [HOME], home=HOME.node_id) == {}


def test_every_further_node_with_cpus_has_a_supervisor_when_no_labels_are_set(tmp_path: Path) -> None:
    head = Seen("d" * 56, cpus=0)
    found = node_supervisors(endpoints(tmp_path), [head, HOME, SECOND], home=HOME.node_id)
    assert found == {"sandbox:bbbbbbbbbbbb": SECOND.node_id}


def test_labels_alone_say_which_nodes_have_a_supervisor_where_they_are_set(tmp_path: Path) -> None:
    where = endpoints(tmp_path, FLEET_PLACEMENT="{sandbox: {pool: sandbox}}")
    pool = {"pool": "sandbox"}
    nodes = [Seen("a" * 56, pool), Seen("b" * 56, pool, cpus=0), Seen("c" * 56, {"pool": "agents"})]
    assert node_supervisors(where, nodes, home="a" * 56) == {"sandbox:bbbbbbbbbbbb": "b" * 56}


def test_jobs_of_a_cluster_need_one_supervisor(tmp_path: Path) -> None:
    image = "registry.example/toolbox@sha256:" + "0" * 64
    where = replace(endpoints(tmp_path), sandbox_backend=KubernetesBackendSettings(kind="kubernetes", image=image))
    assert not spreads_runs(where)
    assert node_supervisors(where, [HOME, SECOND], home=HOME.node_id) == {}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, True),
        ({"pool": "agents"}, True),
        ({"pool": "sandbox"}, True),
        ({"pool": "gpu"}, False),
        ({"pool": "agents", "zone": "near"}, False),
        ({"pool": "sandbox", "zone": "near"}, True),
        ({"pool": "in(gpu, sandbox)"}, True),
        ({"pool": "in(gpu,cpu)"}, False),
        ({"pool": "!agents"}, True),
        ({"pool": "!in(agents,sandbox)"}, False),
        ({"zone": "!near"}, True),
    ],
)
def test_node_fits_when_all_its_labels_do(wanted: dict[str, str], expected: bool) -> None:
    nodes = [{"pool": "agents"}, {"pool": "sandbox", "zone": "near"}]
    assert has_node(wanted, nodes) is expected
    assert has_node(wanted, []) is False


@pytest.mark.parametrize(
    "placement",
    ["{cooks: {pool: agents}}", "{council: {'a b': x}}", "{council: {pool: 'in()'}}", "{council: {pool: 'a b'}}"],
)
def test_placement_of_a_wrong_form_is_refused_by_name(tmp_path: Path, placement: str) -> None:
    with pytest.raises(ConfigError, match="FLEET_PLACEMENT|placement"):
        load_settings(environment(tmp_path, FLEET_PLACEMENT=placement))
