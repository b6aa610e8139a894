"""`fleet cluster` as people call it: exit codes, one JSON object as the last line, errors in one line."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from fleet.cli.app import app
from tests.support.cluster_manifests import cluster_named, document_of, rendered
from tests.support.kubernetes_objects import ObjectServer, kubeconfig_of, serving_objects

READY = {"conditions": [{"type": "Ready", "status": "True"}]}


class Command:
    """`fleet cluster` with a configuration and a kubeconfig of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "config" / "cluster").mkdir(parents=True)
        text = yaml.safe_dump(document_of("small")).replace("registry.example/", "ghcr.io/")
        (folder / "config" / "cluster" / "ours.yaml").write_text(text)
        self.at("http://127.0.0.1:9")

    def at(self, url: str) -> None:
        """The cluster is there."""
        (self.folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig_of(url)))

    def __call__(self, *arguments: str) -> Result:
        environ = {
            "FLEET_CONFIG": str(self.folder / "config"),
            "FLEET_HOME": str(self.folder / "home"),
            "KUBECONFIG": str(self.folder / "kubeconfig"),
        }
        return CliRunner().invoke(app, ["cluster", *arguments], env=environ)

    async def asked(self, *arguments: str) -> Result:
        """The same while this loop serves the cluster."""
        return await asyncio.to_thread(self, *arguments)


@pytest.fixture
def fleet(tmp_path: Path) -> Command:
    """The command in a folder of its own."""
    return Command(tmp_path)


def last(result: Result) -> dict[str, Any]:
    """The JSON object in the last line."""
    return json.loads(result.stdout.splitlines()[-1])


def test_render_prints_every_object_and_asks_no_cluster(fleet: Command) -> None:
    result = fleet("render", "small")

    assert result.exit_code == 0
    assert list(yaml.safe_load_all(result.stdout)) == rendered(cluster_named("small"))


def test_render_as_json_has_the_yaml_in_its_last_line(fleet: Command) -> None:
    result = fleet("render", "ours", "--json")

    assert len(list(yaml.safe_load_all(last(result)["yaml"]))) == last(result)["objects"]


def test_render_writes_one_file_for_each_object_in_order(fleet: Command, tmp_path: Path) -> None:
    result = fleet("render", "small", "--out", str(tmp_path / "out"), "--json")

    written = sorted((tmp_path / "out").iterdir())
    assert result.exit_code == 0
    assert [yaml.safe_load(path.read_text()) for path in written] == rendered(cluster_named("small"))
    assert last(result)["files"] == [path.name for path in written]


def test_render_writes_a_chart(fleet: Command, tmp_path: Path) -> None:
    result = fleet("render", "small", "--helm", "--out", str(tmp_path / "chart"))

    assert result.exit_code == 0
    assert {path.name for path in (tmp_path / "chart").iterdir()} == {
        "Chart.yaml", "values.yaml", "namespaces.yaml", "templates",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["render", "small", "--helm"], "give --out DIR with --helm"),
        (["render", "nowhere"], "config file cluster/nowhere.yaml is missing"),
        (["render", "./gone.yaml"], "cannot read gone.yaml"),
        (["apply", "small"], "are examples that nobody can pull"),
        (["delete", "ours"], "repeat the command with --yes"),
        (["scale", "ours", "workers", "2"], "known: agents, sandbox"),
        (["status", "ours", "--context", "other"], "there is no context 'other'; known: stand-in"),
        (["status", "ours", "--kubeconfig", "/nonexistent"], "cannot read /nonexistent"),
    ],
)
def test_bad_input_ends_with_one_line_and_exit_code_2(fleet: Command, arguments: list[str], expected: str) -> None:
    result = fleet(*arguments)

    assert result.exit_code == 2
    assert expected in result.stderr
    assert "Traceback" not in result.output


def test_render_does_not_write_beside_other_files(fleet: Command, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "39-old.yaml").write_text("old")

    result = fleet("render", "small", "--out", str(tmp_path / "out"))

    assert result.exit_code == 2
    assert "is not empty" in result.stderr


def test_render_to_a_place_that_cannot_be_written_is_told(fleet: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    result = fleet("render", "small", "--out", str(tmp_path / "file" / "out"))

    assert result.exit_code == 2
    assert "cannot write to" in result.stderr


@pytest.mark.door(
    "fleet cluster apply",
    "fleet cluster status",
    "fleet cluster scale",
    "fleet cluster delete",
    stand_in="an API server with server-side apply",
)
async def test_life_of_a_cluster(fleet: Command) -> None:
    server = ObjectServer()
    async with serving_objects(server) as url:
        fleet.at(url)
        missing = await fleet.asked("status", "ours")
        checked = await fleet.asked("apply", "ours", "--dry-run", "--json")
        made = await fleet.asked("apply", "ours", "--wait", "0", "--json")
        server.change("RayService", "swe-fleet", "fleet", status=READY)
        waited = await fleet.asked("apply", "ours", "--json")
        waiting = await fleet.asked("status", "ours", "--json")
        for name in ("log", "cache", "gcs", "graph"):
            server.change("StatefulSet", "swe-fleet", f"fleet-{name}", status={"readyReplicas": 1})
        server.change("PersistentVolumeClaim", "swe-fleet", "fleet-home", status={"phase": "Bound"})
        ready = await fleet.asked("status", "ours")
        scaled = await fleet.asked("scale", "ours", "agents", "3", "--json")
        broken = {"activeServiceStatus": {"applicationStatuses": {"fleet": {"status": "UNHEALTHY", "message": "x"}}}}
        server.change("RayService", "swe-fleet", "fleet", status=broken)
        failed = await fleet.asked("status", "ours")
        deleted = await fleet.asked("delete", "ours", "--yes", "--json")

    assert (missing.exit_code, "missing  RayService swe-fleet/fleet" in missing.stdout) == (5, True)
    assert {change["outcome"] for change in last(checked)["changes"]} == {"checked"}
    assert {change["outcome"] for change in last(made)["changes"]} == {"created"}
    assert last(waited)["ready"]["state"] == "ready"
    assert waiting.exit_code == 5
    assert {f["object"]: f["state"] for f in last(waiting)["objects"]}["StatefulSet swe-fleet/fleet-log"] == "waiting"
    assert (ready.exit_code, ready.stderr) == (0, "")
    assert last(scaled) == {"before": 1, "group": "agents", "replicas": 3}
    assert (failed.exit_code, "UNHEALTHY: x" in failed.stdout) == (4, True)
    assert deleted.exit_code == 0
    assert "RayService/fleet" not in server.kinds()


async def test_delete_without_yes_lists_and_changes_nothing(fleet: Command) -> None:
    server = ObjectServer()
    async with serving_objects(server) as url:
        fleet.at(url)
        result = await fleet.asked("delete", "ours")

    assert "RayService swe-fleet/fleet" in result.stdout
    assert server.requests == []


async def test_refusal_as_json_has_its_code(fleet: Command) -> None:
    server = ObjectServer(has_kuberay=False)
    async with serving_objects(server) as url:
        fleet.at(url)
        result = await fleet.asked("apply", "ours", "--json")

    assert result.exit_code == 2
    assert last(result)["error"]["code"] == "not_found"
    assert "install the KubeRay operator" in result.stderr


KUBECTL = shutil.which("kubectl")


async def _kubectl(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert KUBECTL is not None
    command = [KUBECTL, "--kubeconfig", str(kubeconfig), "--cache-dir", str(kubeconfig.parent / "cache"), *arguments]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False, env={"HOME": "/nonexistent"}
    )


@pytest.mark.wide
@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")
@pytest.mark.parametrize("name", ["small", "gpu"])
async def test_kubectl_takes_every_rendered_object(fleet: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "all.yaml").write_text(fleet("render", name).stdout)
    options = ["--dry-run=client", "--validate=false", "-o", "name", "-f", str(tmp_path / "all.yaml")]
    async with serving_objects(ObjectServer(needs_token=False)) as url:
        fleet.at(url)
        created = await _kubectl(tmp_path / "kubeconfig", "create", *options)
        applied = await _kubectl(tmp_path / "kubeconfig", "apply", *options)

    expected = len(rendered(cluster_named(name)))
    assert (created.returncode, len(created.stdout.splitlines())) == (0, expected), created.stderr
    assert (applied.returncode, len(applied.stdout.splitlines())) == (0, expected), applied.stderr


@pytest.mark.wide
@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")
async def test_kubectl_applies_what_is_rendered_server_side(fleet: Command, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(fleet("render", "small").stdout)
    server = ObjectServer(needs_token=False)
    async with serving_objects(server) as url:
        fleet.at(url)
        done = await _kubectl(
            tmp_path / "kubeconfig", "apply", "--server-side", "--validate=false", "-f", str(tmp_path / "all.yaml")
        )

    assert done.returncode == 0, done.stderr
    assert len(server.objects) == len(rendered(cluster_named("small")))
