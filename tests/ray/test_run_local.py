"""`fleet run --model local`: the run starts the engine, the team asks it, and nothing is left, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fleet.config.files import packaged_directory
from tests.support.llama_stub import fake_llama
from tests.support.processes import processes_below
from tests.support.team_models import DEMO, demo_repository
from tests.support.weights import DATA, weights_of

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with weights, a models.yaml that names them, and a stand-in for llama.cpp."""
    root = tmp_path_factory.mktemp("l")
    packaged = yaml.safe_load((packaged_directory() / "models.yaml").read_text())
    local = next(entry for entry in packaged["engines"] if entry["engine_id"] == "local")
    local["weights"] = weights_of().model_dump(mode="json")
    del local["tokenizer"]  # it is that of the real weights
    (root / "config").mkdir()
    (root / "config" / "models.yaml").write_text(yaml.safe_dump(packaged))
    folder = root / "home" / "weights" / weights_of().sha256
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(DATA)
    fake_llama(root / "stub")
    return root


def start(root: Path, repo: Path) -> subprocess.Popen[str]:
    named = {
        "FLEET_HOME": root / "home",
        "FLEET_CONFIG": root / "config",
        "FLEET_LLAMA_PYTHON": root / "stub" / "python",
    }
    environ = {
        **os.environ,
        **{n: str(v) for n, v in named.items()},
        "FLEET_MEMORY_FLOOR_MB": "500",
        "FLEET_START_TIMEOUT_S": "240",
    }
    command = [sys.executable, "-m", "fleet.cli", "run", str(DEMO / "story.yaml"), "--repo", str(repo)]
    command += ["--model", "local", "--yes", "po,qa", "--json"]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def server_pids(root: Path) -> list[int]:
    return [int(pid) for pid in (root / "stub" / "starts").read_text().split()]


@pytest.mark.wide
@pytest.mark.rule("MB-9")
def test_run_asks_the_engine_that_it_started_and_parks_what_that_cannot_do(root: Path, tmp_path: Path) -> None:
    with start(root, demo_repository(tmp_path)) as process:
        out, told = process.communicate(timeout=400)
    assert process.returncode == 4, told[-3000:]
    # The stand-in says two words to everything: no reply is usable, and none is made up.
    assert json.loads(out.splitlines()[-1])["outcome"] == "parked"
    assert "local: ready" in told
    assert len(server_pids(root)) == 1
    assert processes_below(root) == []


def test_interrupted_run_ends_its_engine(root: Path, tmp_path: Path) -> None:
    with start(root, demo_repository(tmp_path)) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "local: ready" in line:
                break
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=400)
    assert process.returncode == 4, told[-3000:]
    assert "Traceback" not in told
    assert [Path(f"/proc/{pid}").exists() for pid in server_pids(root)] == [False]
    assert processes_below(root) == []
