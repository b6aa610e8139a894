"""A key that went is passed over with a warning that names file, line and what to do; it stops nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.local.doctor import doctor
from fleet.config.environment import config_files, configuration_warnings, load_settings
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.config.retired import RETIRED
from fleet.config.settings import ServeSettings
from fleet.council.config import CouncilConfig
from fleet.planning.planning_config import PlanningConfig
from fleet.policy.roles import load_roles

ROOT = Path(__file__).resolve().parents[3]
PACKAGED = ConfigFiles(packaged_directory())


def site(folder: Path) -> dict[str, str]:
    """A configuration as an earlier version had it, with every key that went."""
    serve = PACKAGED.read("serve.yaml").decode()
    (folder / "serve.yaml").write_text(f"command_wait_s: 5\n{serve}\nrequest_timeout_s: 60\n")
    planning = PACKAGED.read("planning.yaml").decode()
    planning = planning.replace("{step_max_s: 3600}", "{step_s: 60, step_max_s: 3600, ceremony_max_s: 86400}")
    planning = planning.replace("name: review,", "name: review, handler: council_review,")
    planning = planning.replace("execution:\n", "execution:\n  max_parallel_tasks: 4\n  parallel: declared\n")
    planning = planning.replace("derivation:\n", "derivation:\n  wait_s: 5\n  timeout_s: 120\n")
    (folder / "planning.yaml").write_text(planning.replace("trigger: start,", "trigger: start, guard: human,"))
    council = PACKAGED.read("council.yaml").decode()
    council = council.replace("kind: mock}", "kind: mock, modes: [poor]}")
    council = council.replace("reliability: {", "reliability: {version: 3, ")
    council = council.replace("L3: [code, architecture]", "L3: [code, design, architecture, story_gate]")
    (folder / "council.yaml").write_text(council.replace("max_on_ballot: 5", "max_on_ballot: 5, max_tests: 10"))
    roles = PACKAGED.read("roles.yaml").decode()
    roles = roles.replace("    scope: data\n", "    scope: data\n    actions: [execute_migration]\n")
    granted = "    grants:\n      {}tools: {{tests"
    roles = roles.replace(granted.format(""), granted.format("actions: [approve_review]\n      "))
    (folder / "roles.yaml").write_text(roles.replace("\nroles:\n", "\nactions: []\nroles:\n", 1))
    (folder / "fleet.yaml").write_text("council_shards: 2\ncontext_replicas: 1\n")
    home = folder / "home"
    home.mkdir()
    return {"HOME": str(home), "FLEET_CONFIG": str(folder), "FLEET_CONTEXT_REPLICAS": "2"}


@pytest.mark.rule("GL-22")
def test_configuration_of_an_earlier_version_is_read_without_the_keys_that_went(tmp_path: Path) -> None:
    settings = load_settings(site(tmp_path))
    assert settings.council_shards == 2
    files = config_files(settings)
    for name, model in (
        ("serve.yaml", ServeSettings),
        ("planning.yaml", PlanningConfig),
        ("council.yaml", CouncilConfig),
    ):
        assert files.load(name, model) == PACKAGED.load(name, model)
    assert load_roles(files.document("roles.yaml")) == load_roles(PACKAGED.document("roles.yaml"))


@pytest.mark.rule("GL-22")
def test_each_key_that_went_is_named_with_its_file_its_line_and_what_to_do(tmp_path: Path) -> None:
    environ = site(tmp_path)
    found = configuration_warnings(load_settings(environ), environ)
    for key in RETIRED:
        (line,) = [x for x in found if f": {'.'.join(key.path)} has" in x]
        assert line.endswith(key.instead)
        file, _, number = line.split(": ")[0].rpartition(", line ")
        assert key.path[-1] in Path(file).read_text().splitlines()[int(number) - 1]
    assert [x for x in found if x.startswith("environment: FLEET_CONTEXT_REPLICAS ")]
    assert len(found) == len(RETIRED) + 1


@pytest.mark.rule("GL-22")
async def test_doctor_shows_the_warnings_and_is_content(tmp_path: Path) -> None:
    environ = site(tmp_path)
    rows = [row for row in await doctor(environ) if row.name == "configuration"]
    assert all(row.ok for row in rows)
    assert sum("has no effect any more" in row.found for row in rows) == len(RETIRED) + 1


def test_packaged_files_have_no_key_that_went_and_the_page_lists_all() -> None:
    environ = {"HOME": "/home/ann", "FLEET_CONFIG": str(packaged_directory())}
    assert configuration_warnings(load_settings(environ), {}) == []
    page = (ROOT / "docs" / "upgrading.md").read_text()
    rows = [f"| `{key.file}` | `{'.'.join(key.path)}`" for key in RETIRED]
    assert [row for row in rows if row not in page] == []
    assert [key.instead for key in RETIRED if key.instead not in page] == []
    assert page.split("## Rules")[0].count("\n| `") == len(RETIRED)


def test_key_in_the_wrong_shape_is_left_to_the_validation(tmp_path: Path) -> None:
    (tmp_path / "planning.yaml").write_text("ceremonies: [1, {timeouts: 3}]\n")
    assert ConfigFiles(packaged_directory(), tmp_path).warnings() == []
    assert ConfigFiles(packaged_directory(), tmp_path).document("planning.yaml") == {"ceremonies": [1, {"timeouts": 3}]}
