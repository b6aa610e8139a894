"""Runs as Jobs of Kubernetes: lost answers, what the cluster may do to a pod, limits that the shim holds, the sweep.

The cluster is the stand-in of tests/support/kubernetes_jobs.py: real HTTP, and a node that really runs the containers.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fleet.kernel.errors import FleetError, InvalidInput, SandboxUnavailable
from fleet.policy.runs.spec import Limits, RepoMount, RunResult, RunSpec, ServiceSpec
from fleet.sandbox.backends.kubernetes.backend import KubernetesBackend
from fleet.sandbox.backends.kubernetes.inputs import InputLimits
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import decode_tree
from tests.support.http_stand_in import Reply
from tests.support.kubernetes_jobs import FakeCluster, FakeNode, Script, kubernetes_on, serving_cluster
from tests.support.sandbox import SMALL, argv_of, eventually, put_tree, state_folder


@pytest.fixture(scope="module")
def node() -> Any:
    with state_folder() as folder:
        yield FakeNode(folder)


@pytest.fixture
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


@pytest_asyncio.fixture
async def cluster(node: FakeNode) -> FakeCluster:
    return FakeCluster(node)


@pytest_asyncio.fixture
async def url(cluster: FakeCluster) -> AsyncGenerator[str]:
    async with serving_cluster(cluster) as address:
        yield address


@pytest_asyncio.fixture
async def backend(url: str, tmp_path: Path, blobs: MemoryBlobStore) -> KubernetesBackend:
    found = kubernetes_on(url, tmp_path, blobs)
    assert (await found.health()).status == "ok"
    return found


async def run(backend: KubernetesBackend, code: str, **fields: Any) -> RunResult:
    spec = RunSpec.model_validate({"argv": ("python", "-c", code), "limits": SMALL, **fields})
    return await backend.run(spec, run_id="rn-1")


def state(**fields: Any) -> dict[str, Any]:
    return {"phase": "Pending", "containerStatuses": [{"state": fields}]}


async def test_answers_that_are_lost_create_nothing_twice(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    cluster.made.clear()
    cluster.lost += [("POST", "/jobs"), ("POST", "/secrets")]
    result = await run(backend, "print(1)")

    assert (result.reason, result.stdout.text) == ("ok", "1\n")
    assert cluster.lost == []
    assert [m["kind"] for m in cluster.made] == ["Job", "Secret", "Secret"]


async def test_nothing_of_a_run_is_left_in_the_cluster(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    await run(backend, "print(1)")

    await eventually(lambda: not (cluster.jobs or cluster.secrets or cluster.pods))


async def test_secrets_are_immutable_small_and_owned_by_the_job(
    backend: KubernetesBackend, cluster: FakeCluster, blobs: MemoryBlobStore
) -> None:
    cluster.made.clear()
    content = b"".join(n.to_bytes(8, "big") * 1 for n in range(300_000))
    tree = await put_tree(blobs, {"large.bin": content})
    check = "import hashlib; print(hashlib.sha256(open('large.bin', 'rb').read()).hexdigest())"
    result = await run(backend, check, tree=tree)

    job, *secrets = cluster.made
    assert result.reason == "ok"
    assert all(s["immutable"] and s["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"] for s in secrets)
    assert max(len(json.dumps(s)) for s in secrets) < 1_048_576


async def test_leftover_job_of_an_earlier_attempt_is_replaced(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    name = backend.job_name("rn-1")
    cluster.jobs[name] = {"metadata": {"name": name, "uid": "old", "annotations": {"swefleet.io/attempt": "other"}}}

    assert (await run(backend, "print(1)")).reason == "ok"


async def test_log_that_breaks_off_is_read_again_without_repeating_a_line(
    backend: KubernetesBackend, cluster: FakeCluster
) -> None:
    cluster.cut_logs = 2
    result = await run(backend, "import time\nfor n in range(5): print(n, flush=True); time.sleep(0.05)")

    assert (result.reason, result.stdout.text) == ("ok", "0\n1\n2\n3\n4\n")
    assert cluster.cut_logs == 0


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (state(terminated={"exitCode": 137, "reason": "OOMKilled"}), "oom_killed"),
        ({"phase": "Failed", "reason": "DeadlineExceeded",
          "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "reason": "Error"}}}]}, "timeout"),
        ({"phase": "Failed", "reason": "Evicted", "message": "Usage of EmptyDir volume exceeds the limit",
          "containerStatuses": [{"state": {"terminated": {"exitCode": 137}}}]}, "disk_limit"),
        ({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory",
          "containerStatuses": [{"state": {"terminated": {"exitCode": 137}}}]}, "sandbox_lost"),
    ],
    ids=["oom", "deadline", "disk", "node"],
)  # fmt: skip
async def test_end_that_the_cluster_made_has_its_reason(
    backend: KubernetesBackend, cluster: FakeCluster, status: dict[str, Any], reason: str
) -> None:
    said = base64.b64encode(b"half a line").decode()
    cluster.scripts.append(Script({**status, "phase": "Failed"}, f"#1 s \n#2 o {said}\n".encode()))
    result = await run(backend, "print(1)")

    assert (result.reason, result.stdout.text) == (reason, "half a line")


@pytest.mark.rule("RC-19")
async def test_image_that_cannot_be_pulled_is_a_typed_result(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    cluster.scripts.append(Script(state(waiting={"reason": "ImagePullBackOff", "message": "no such image"})))
    result = await run(backend, "print(1)")

    assert (result.status, result.reason, result.exit_code) == ("error", "image_unavailable", None)
    assert "no such image" in result.limits["job"]


@pytest.mark.parametrize(
    ("status", "log", "said"),
    [
        ({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "no cpu"}]},
         b"", "no cpu"),
        (state(waiting={"reason": "RunContainerError", "message": "no python3"}), b"", "no python3"),
        ({"phase": "Failed", "reason": "Preempting"}, b"", "before it started"),
        ({"phase": "Failed", **{"containerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}},
         b"python3: bad interpreter\n", "bad interpreter"),
    ],
    ids=["unschedulable", "stuck", "preempted", "image"],
)  # fmt: skip
async def test_pod_that_never_started_raises_and_leaves_nothing(
    url: str, cluster: FakeCluster, tmp_path: Path, status: dict[str, Any], log: bytes, said: str
) -> None:
    backend = kubernetes_on(url, tmp_path, MemoryBlobStore(), start_timeout_s=1)
    await backend.health()
    cluster.scripts.append(Script(status, log))
    with pytest.raises(SandboxUnavailable, match=said):
        await run(backend, "print(1)")

    await eventually(lambda: not cluster.jobs)


@pytest.mark.parametrize(
    "log",
    [
        b"#1 s \n#3 o YQ==\n",
        b"#1 s \n#2 o YQ=\n",
        b"#1 s \n#2 r bm8=\n",
        b"#1 s \n" + b"x" * 40_000,
        b"#1 s \n#2 b YWJj\n#3 r " + base64.b64encode(b'{"exit_code": 0}') + b"\n",
        b"#1 s \n#2 r " + base64.b64encode(b"{}") + b"\n",
    ],
    ids=["gap", "base64", "result", "long", "digest", "no code"],
)
async def test_log_that_cannot_be_trusted_loses_the_run(
    backend: KubernetesBackend, cluster: FakeCluster, log: bytes
) -> None:
    ended = {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 0}}}]}
    cluster.scripts.append(Script(ended, log))
    result = await run(backend, "print(1)")

    assert (result.status, result.reason) == ("error", "sandbox_lost")


async def test_cluster_that_is_lost_after_the_start_loses_the_run_and_not_the_truth(
    backend: KubernetesBackend, cluster: FakeCluster
) -> None:
    cluster.cut_logs = 10**6
    task = asyncio.create_task(run(backend, "import time; print(1, flush=True); time.sleep(30)"))
    await eventually(lambda: any(p["status"]["phase"] == "Running" for p in cluster.pods.values()))
    cluster.faults += [("GET", "/pods", Reply(503, {"message": "leader changed"}))] * 100
    result = await asyncio.wait_for(task, 20)

    assert (result.reason, result.exit_code) == ("sandbox_lost", None)
    assert "503 leader changed" in result.limits["job"]
    # What is left of the run is removed once the cluster answers again.
    await eventually(lambda: not cluster.pods, within_s=30)


@pytest.mark.rule("RC-30")
@pytest.mark.parametrize(
    ("code", "limits", "reason"),
    [
        ("b = bytearray(300 << 20); b[::4096] = b'x' * len(b[::4096]); import time; time.sleep(9)",
         {"memory_bytes": 64 << 20}, "oom_killed"),
        ("import os, time\nfor _ in range(30):\n  if not os.fork(): break\ntime.sleep(9)", {"pids": 8}, "pids_limit"),
        ("f = open('big', 'wb')\nfor _ in range(30): f.write(b'x' * (1 << 20)); f.flush()\nimport time; time.sleep(9)",
         {"disk_bytes": 4 << 20}, "disk_limit"),
        ("import time; time.sleep(9)", {"idle_s": 1}, "idle_timeout"),
        ("import subprocess, time; subprocess.Popen(['sleep', '9']); time.sleep(9)", {"overall_s": 1}, "timeout"),
    ],
    ids=["memory", "processes", "disk", "idle", "orphans"],
)  # fmt: skip
async def test_limit_that_is_reached_ends_the_run(
    backend: KubernetesBackend, code: str, limits: dict[str, int], reason: str
) -> None:
    result = await run(backend, code, limits=SMALL.model_copy(update=limits))

    assert (result.reason, result.exit_code) == (reason, 137)


@pytest.mark.rule("RC-24")
async def test_cancelled_command_has_its_grace_and_says_how_it_took_it(
    backend: KubernetesBackend, cluster: FakeCluster
) -> None:
    code = (
        "import signal, sys, time\n"
        "def end(*_): print('bye', flush=True); sys.exit(4)\n"
        "signal.signal(signal.SIGTERM, end); print('here', flush=True); time.sleep(60)"
    )
    lines: list[str] = []
    spec = RunSpec(argv=("python", "-c", code), limits=SMALL)
    task = asyncio.create_task(backend.run(spec, run_id="rn-1", log=lambda line: lines.append(line.line)))
    await eventually(lambda: lines == ["here"])
    assert await backend.cancel("rn-1")
    result = await asyncio.wait_for(task, 15)

    assert (result.reason, result.exit_code, result.stdout.text) == ("cancelled", 4, "here\nbye\n")
    await eventually(lambda: not cluster.jobs)


async def test_command_cannot_print_frames_of_its_own(backend: KubernetesBackend) -> None:
    code = (
        "import os\n"
        "print('#2 r e30=', flush=True)\n"
        "for p in ('/proc/1/fd/1', '/proc/1/mem', '/proc/1/environ'):\n"
        "  try: open(p, 'wb' if p != '/proc/1/environ' else 'rb'); print('opened', p)\n"
        "  except OSError as e: print(type(e).__name__)\n"
        "os.kill(1, 9)\n"
    )
    result = await run(backend, code)

    assert result.reason == "ok"
    assert result.stdout.text == "#2 r e30=\n" + "PermissionError\n" * 3


async def test_links_modes_input_and_unchanged_files_come_back(
    backend: KubernetesBackend, blobs: MemoryBlobStore
) -> None:
    tree = await put_tree(
        blobs, {"kept": b"k", "tool.sh": ("100755", b"x"), "link": ("120000", b"kept"), "sub": ("160000", b"c" * 40)}
    )
    code = (
        "import os, sys; os.symlink('/etc/passwd', 'out-link'); os.mkfifo('pipe');"
        "open('new', 'w').write(sys.stdin.read());"
        "os.chmod('new', 0o755); os.makedirs('a/__pycache__'); open('a/__pycache__/x', 'w').close()"
    )
    result = await run(backend, code, tree=tree, keep_tree=True, stdin=await blobs.put(b"given"))

    assert result.tree_out is not None
    before, after = decode_tree(await blobs.get(tree)), decode_tree(await blobs.get(result.tree_out))
    assert {path: after[path] for path in before} == dict(before)
    assert {path: entry.mode for path, entry in after.items() if path not in before} == {
        "new": "100755", "out-link": "120000",
    }  # fmt: skip
    assert await blobs.get(after["new"].blob) == b"given"
    assert "1 entries" in result.limits["tree"]


async def test_run_that_leaves_too_much_keeps_its_tree(
    url: str, tmp_path: Path, blobs: MemoryBlobStore
) -> None:  # fmt: skip
    backend = kubernetes_on(url, tmp_path, blobs, limits=InputLimits(8 << 20, 1 << 20))
    tree = await put_tree(blobs, {"a": b"a"})
    result = await run(backend, "open('b', 'wb').write(b'x' * (2 << 20))", tree=tree, keep_tree=True)

    assert (result.status, result.reason, result.tree_out) == ("failed", "disk_limit", tree)


async def test_staged_repository_is_mounted(backend: KubernetesBackend) -> None:
    repo = "ab" * 32
    folder = backend.repos / repo / "refs"
    folder.mkdir(parents=True)
    (folder / "main").write_text("commit")
    found = await run(backend, "print(open('/repo.git/refs/main').read())", mounts=[RepoMount(repo=repo)])
    missing = await run(backend, "print(1)", mounts=[RepoMount(repo="cd" * 32)])

    assert (found.stdout.text, missing.reason) == ("commit\n", "mount_refused")


@pytest.mark.parametrize(
    "fields",
    [{"hosts": ("example.org",)}, {"services": (ServiceSpec(name="r", kind="redis", env_prefix="R"),)},
     {"toolchain": "env:/opt/env"}],
    ids=["hosts", "services", "environment"],
)  # fmt: skip
async def test_what_a_job_cannot_have_is_refused(backend: KubernetesBackend, fields: dict[str, Any]) -> None:
    with pytest.raises(SandboxUnavailable, match="bubblewrap"):
        await run(backend, "print(1)", **fields)


async def test_inputs_over_the_limit_are_refused_by_its_name(
    url: str, tmp_path: Path, blobs: MemoryBlobStore, cluster: FakeCluster
) -> None:
    backend = kubernetes_on(url, tmp_path, blobs, limits=InputLimits(100_000, 1 << 20))
    await backend.health()
    cluster.made.clear()
    tree = await put_tree(
        blobs, {"noise": b"".join(hash(str(n)).to_bytes(8, "big", signed=True) for n in range(20_000))}
    )
    with pytest.raises(InvalidInput, match=r"over 100000 bytes packed.*max_input_bytes"):
        await run(backend, "print(1)", tree=tree)

    assert cluster.made == []


@pytest.mark.rule("RC-32")
async def test_namespace_without_a_policy_refuses_runs_unless_that_is_waived(
    url: str, cluster: FakeCluster, tmp_path: Path, blobs: MemoryBlobStore
) -> None:
    cluster.policies.clear()
    backend = kubernetes_on(url, tmp_path, blobs)
    with pytest.raises(SandboxUnavailable, match="NetworkPolicy"):
        await run(backend, "print(1)")
    result = await run(kubernetes_on(url, tmp_path, blobs, waived=("egress_denied",)), "print(1)")

    assert [item.partition(":")[0] for item in result.unmet] == ["egress_denied"]


@pytest.mark.parametrize(
    ("fields", "said"), [({"token": "stranger"}, "renew the token"), ({}, "may not create jobs.batch")]
)
async def test_account_without_rights_is_named(
    url: str, cluster: FakeCluster, tmp_path: Path, blobs: MemoryBlobStore, fields: dict[str, str], said: str
) -> None:
    cluster.forbidden.add(("create", "jobs"))
    health = await kubernetes_on(url, tmp_path, blobs, **fields).health()

    assert health.status == "down"
    assert said in health.unmet[0]


async def test_api_server_that_is_away_is_unavailable_and_its_token_never_shown(
    tmp_path: Path, blobs: MemoryBlobStore
) -> None:
    backend = kubernetes_on("http://127.0.0.1:1", tmp_path, blobs)
    with pytest.raises(FleetError, match="cannot be asked") as caught:
        await run(backend, "print(1)")

    assert "planted-token" not in repr(caught.value)


async def test_sweep_deletes_jobs_of_dead_supervisors_alone(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    task = asyncio.create_task(backend.run(RunSpec(argv=argv_of("forever"), limits=Limits()), run_id="rn-live"))
    await eventually(lambda: bool(cluster.jobs))
    alive = next(iter(cluster.jobs.values()))
    labels = {**alive["metadata"]["labels"], "swefleet.io/owner": "1-1-dead"}
    cluster.jobs["dead"] = {"metadata": {"name": "dead", "uid": "u", "labels": labels}}

    assert await backend.sweep() == 1
    assert set(cluster.jobs) == {alive["metadata"]["name"]}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
