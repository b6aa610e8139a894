"""The local Ray: on loopback, behind its own token, joined by address, gone after the stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAD = """
import json, os, subprocess, sys
from pathlib import Path
from cluster.local.ray_head import RayHead, ray_environment
from cluster.local.identity import descendants
head = RayHead(Path(sys.argv[1]), dashboard=False, cpus=2, store_mb=80)
where = head.start()
started = descendants(os.getpid())
def join(environment):
    argv = [sys.executable, "-c", sys.argv[2], where.address]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
def refused(process):
    # Ray tries for ever with a wrong token: wait for what it says about it, then end it.
    said = []
    for line in process.stderr:
        said.append(line)
        if "InvalidAuthToken" in line:
            break
    process.kill()
    process.communicate()
    return "".join(said)
plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
other = Path(sys.argv[1]) / "other-token"
other.write_text("0" * 64)
stranger = refused(join(plain | ray_environment(other)))
member = join(plain | ray_environment(where.token_path))
out, err = member.communicate(timeout=300)
head.stop()
print(json.dumps({
    "address": where.address,
    "token_mode": oct(where.token_path.stat().st_mode & 0o777),
    "joined": [member.returncode, out, err[-2000:]],
    "stranger": stranger[-500:],
    "started": len(started),
    "left": [p.pid for p in started if p.is_alive] + [p.pid for p in descendants(os.getpid())],
    "temp_dir_left": where.temp_dir.exists(),
    "logs": (Path(sys.argv[1]) / "ray-logs").is_dir(),
}))
"""
JOIN = """
import os, sys
import ray
ray.init(address=sys.argv[1], namespace="fleet", log_to_driver=False, configure_logging=False)
@ray.remote(num_cpus=0.1)
class Probe:
    def nice(self): return os.nice(0)
print("nice", ray.get(Probe.options(name="probe").remote().nice.remote(), timeout=200) - os.nice(0))
"""


DYING = """
import json, os, signal, sys, time
from pathlib import Path
from cluster.local.ray_head import RayHead
from cluster.local.identity import descendants
head = RayHead(Path(sys.argv[1]), dashboard=False, cpus=2, store_mb=80)
where = head.start()
started = descendants(os.getpid())
before = head.dead_part
for process in started:
    if Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\\0")[0].endswith(b"/gcs_server"):
        process.send(signal.SIGKILL)
        process.wait_gone(10)
began = time.monotonic()
print(json.dumps({"before": before, "after": head.dead_part}), flush=True)
head.stop()
left = [p.pid for p in started if p.is_alive]
print(json.dumps({"left": left, "stopped_s": time.monotonic() - began, "again": head.dead_part}), flush=True)
"""


FROZEN = """
import json, os, signal, sys, threading, time
from pathlib import Path
from cluster.local.ray_head import RayHead
from cluster.local.identity import descendants
from fleet.kernel.errors import FleetError
frozen, most = [], int(sys.argv[2])
def program(process):
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\\0")[0]
    except OSError:
        return b""
def freeze_raylets():
    while len(frozen) < most:
        for process in descendants(os.getpid()):
            if process not in frozen and program(process).endswith(b"/raylet"):
                process.send(signal.SIGSTOP)
                frozen.append(process)
        time.sleep(0.01)
threading.Thread(target=freeze_raylets, daemon=True).start()
head = RayHead(Path(sys.argv[1]), dashboard=False, cpus=2, store_mb=80)
try:
    where = head.start()
except FleetError as error:
    left = [p.pid for p in descendants(os.getpid())]
    print(json.dumps({"code": error.code, "frozen": len(frozen), "said": error.message, "left": left}), flush=True)
    os._exit(3)
started = descendants(os.getpid())
print(json.dumps({"frozen": len(frozen), "is_gone": not frozen[0].is_alive, "address": where.address}), flush=True)
head.stop()
print(json.dumps({"left": [p.pid for p in started if p.is_alive]}), flush=True)
"""


def started_with_frozen_raylets(home: Path, most: int) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        [sys.executable, "-c", FROZEN, str(home), str(most)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
        check=False,
    )


@pytest.mark.slow
def test_ray_that_is_too_slow_again_says_what_to_do(tmp_path: Path) -> None:
    done = started_with_frozen_raylets(tmp_path / "home", 2)
    assert done.returncode == 3, (done.stdout, done.stderr[-3000:])
    (said,) = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert (said["code"], said["frozen"], said["left"]) == ("store_unavailable", 2, [])
    assert "2 times in turn" in said["said"]
    assert "too busy" in said["said"]
    assert str(tmp_path / "home" / "ray-logs") in said["said"]


@pytest.mark.slow
def test_node_that_ray_gave_up_is_started_once_more(tmp_path: Path) -> None:
    done = started_with_frozen_raylets(tmp_path / "home", 1)
    assert done.returncode == 0, (done.stdout, done.stderr[-3000:])
    found, ended = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert (found["frozen"], found["is_gone"], ended["left"]) == (1, True, [])
    assert found["address"].startswith("127.0.0.1:")


@pytest.mark.slow
def test_ray_without_its_gcs_is_known_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    environ = {**os.environ, "PYTHONPATH": str(root)}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(tmp_path / "home")],
        capture_output=True,
        text=True,
        timeout=400,
        env=environ,
        cwd=root,
        check=False,
    )
    assert done.returncode == 5, (done.returncode, done.stdout, done.stderr[-3000:])
    found, ended = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert found == {"before": None, "after": "gcs_server"}
    assert (ended["left"], ended["again"]) == ([], None)
    assert ended["stopped_s"] < 30, "it waited for what is gone"
    assert time.monotonic() - began < 100


def test_ray_is_joined_with_its_token_only_and_leaves_nothing(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    environ = {**os.environ, "PYTHONPATH": str(root), "RAY_ADDRESS": "127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", HEAD, str(tmp_path / "home"), JOIN],
        capture_output=True,
        text=True,
        timeout=400,
        env=environ,
        cwd=root,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["address"].startswith("127.0.0.1:")
    assert seen["token_mode"] == "0o600"
    assert seen["joined"][:2] == [0, "nice 0\n"], seen["joined"]
    assert "InvalidAuthToken" in seen["stranger"]
    assert seen["started"] > 3
    assert seen["left"] == []
    assert not seen["temp_dir_left"]
    assert seen["logs"]
