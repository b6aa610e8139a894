"""Engineers who cheat: wrong work with changes that hide it is red, by evidence from the real sandbox.

The base has a function that works and a test of it. Each engineer breaks the function and hides that in another way.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import pytest

from fleet.events.workspace import WorkspaceReported, WorkspaceSummary
from fleet.kernel.digest import canonical_json, digest_of_json
from fleet.kernel.ids import EntityId
from fleet.owner.duties.evidence import Executed, execute
from fleet.owner.duties.members import Sitting
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.memory import MemoryRunLedger
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.story.council_facts import council_state
from fleet.workspace.service.workspace import WorkspaceService
from tests.support.acting import COUNCIL, written
from tests.support.sandbox import state_folder
from tests.support.sessions import SessionWorld
from tests.support.story_events import BASE, STORY

pytestmark = pytest.mark.timeout(900)

GOOD = "def one():\n    return 1\n"
WRONG = "def one():\n    return 2\n"
FILES: Mapping[str, str] = {
    "demo/__init__.py": "",
    "demo/core.py": GOOD,
    "tests/test_core.py": "from demo.core import one\n\n\ndef test_one():\n    assert one() == 1\n",
    "tests/test_other.py": "def test_other():\n    assert True\n",
    "pyproject.toml": '[project]\nname = "demo"\nversion = "1"\n\n[tool.pytest.ini_options]\ntestpaths = ["tests"]\n',
    "setup.cfg": "[metadata]\nname = demo\n",
}
_JUNIT = (
    "<testsuites><testsuite><testcase classname='tests.test_core' file='tests/test_core.py' name='test_one'/>"
    "<testcase classname='tests.test_other' file='tests/test_other.py' name='test_other'/></testsuite></testsuites>"
)
_KILLS_THE_SHIM = f"""
import json, os, signal, sys
if "pytest" in sys.modules:
    names = ("build", "unit", "lint", "static", "e2e")
    stages = [{{"name": n, "status": "passed", "exit_code": 0}} for n in names]
    open("out/summary.json", "w").write(json.dumps({{"schema": 1, "exit_code": 0, "stages": stages}}))
    open("test-reports/junit.xml", "w").write({_JUNIT!r})
    open("out/lint.json", "w").write("[]")
    os.kill(os.getppid(), signal.SIGKILL)
"""
_REWRITES_AT_EXIT = f"""
import atexit, sys
if "pytest" in sys.modules:
    atexit.register(lambda: open("/workspace/test-reports/junit.xml", "w").write({_JUNIT!r}))
"""
_SKIPS = "import sys\nif 'pytest' in sys.modules:\n    sys.modules['pytest'].skip('later', allow_module_level=True)\n"
_GREEN = "import sys\nsys.exit(0)\n"
_PYPROJECT = FILES["pyproject.toml"]

WAYS: Mapping[str, Mapping[str, str | None]] = {
    "no_way_at_all": {},
    "weaker_test": {"tests/test_core.py": "def test_one():\n    assert True\n"},
    "test_deleted": {"tests/test_core.py": None},
    "conftest_ignores": {"tests/conftest.py": "collect_ignore = ['test_core.py']\n"},
    "conftest_above": {"conftest.py": "def pytest_collection_modifyitems(items):\n    items.clear()\n"},
    "pyproject_deselects": {
        "pyproject.toml": f'{_PYPROJECT}addopts = "--deselect tests/test_core.py::test_one"\n',
    },
    "pyproject_python_files": {"pyproject.toml": f'{_PYPROJECT}python_files = ["test_other.py"]\n'},
    "pyproject_deleted_and_pytest_ini": {"pyproject.toml": None, "pytest.ini": "[pytest]\ntestpaths = demo\n"},
    "pytest_toml": {"pytest.toml": '[pytest]\ntestpaths = ["tests/test_other.py"]\n'},
    "setup_cfg_ignores": {
        "setup.cfg": "[metadata]\nname = demo\n[tool:pytest]\naddopts = --ignore=tests/test_core.py\n"
    },
    "tox_ini_ignores": {"tox.ini": "[pytest]\naddopts = --ignore=tests/test_core.py\n"},
    "plugin_by_entry_point": {
        "cheat-1.dist-info/entry_points.txt": "[pytest11]\ncheat = cheat\n",
        "cheat-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: cheat\nVersion: 1\n",
        "cheat.py": "def pytest_collection_modifyitems(items):\n    items[:] = items[1:]\n",
    },
    "own_pytest": {"pytest.py": _GREEN},
    "own_pytest_in_src": {"src/pytest/__init__.py": "", "src/pytest/__main__.py": _GREEN},
    "own_library_module": {"tempfile.py": _GREEN},
    "sitecustomize": {"sitecustomize.py": _GREEN},
    "skips_the_module": {"demo/core.py": f"{_SKIPS}\n{WRONG}"},
    "ends_the_run": {"demo/core.py": f"import os, sys\nif 'pytest' in sys.modules:\n    os._exit(0)\n{WRONG}"},
    "writes_a_report_and_kills_the_shim": {"demo/core.py": f"{_KILLS_THE_SHIM}\n{WRONG}"},
    "rewrites_the_report_at_exit": {"demo/core.py": f"{_REWRITES_AT_EXIT}\n{WRONG}"},
}


@dataclass
class Court:
    """A council on the base, whose evidence comes from the real sandbox."""

    world: SessionWorld

    async def judge(self, changes: Mapping[str, str | None]) -> Executed:
        """The evidence of a session that left the base with these changes."""
        bench = await self.world.bench()
        record = bench.state.councils[COUNCIL]
        sitting = Sitting(bench, record, council_state(record.opened, tuple(record.said.values())))
        files = {path: text.encode() for path, text in {**FILES, **changes}.items() if text is not None}
        base = record.opened.subject_digest
        value = {"tree": await written(self.world.blobs, files), "base": base, "diff": ""}
        return await execute(
            sitting, f"cd-{digest_of_json(value).hex[:8]}", await self.world.blobs.put(canonical_json(value)), 0
        )


@pytest.fixture
async def court() -> AsyncGenerator[Court]:
    with state_folder() as state:
        world = SessionWorld(())
        backend = BubblewrapBackend(state, world.blobs)
        health = await backend.health()
        if health.status == "down":
            pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
        ledger = MemoryRunLedger(world.clock)
        world.sandbox = ToolSupervisor(backend, ledger, world.blobs, world.clock, "sandbox:test")
        texts = {path: text.encode() for path, text in FILES.items()}
        await world.begin(texts)
        runs = iter(range(1, 1000))
        space = WorkspaceService(lambda spec: backend.run(spec, run_id=f"rn-base-{next(runs)}"), world.blobs)
        ids = {"run_id": EntityId("rn-base2"), "story_id": STORY}
        stages = ("build", "unit", "lint")
        measured = await space.measure(await written(world.blobs, texts), rigor="L1", stages=stages, **ids)  # type: ignore[arg-type]
        assert measured.passing is not None
        assert len(measured.passing) == 2
        stored = await world.blobs.put(measured.encode())
        said = WorkspaceReported(
            run_id=ids["run_id"], tree_digest=BASE, report_digest=stored, complete=True, summary=WorkspaceSummary()
        )
        await (await world.journal()).record("base/measured-again", said)
        yield Court(world)


@pytest.mark.rule("CN-30", "RC-79", "PL-52")
async def test_wrong_work_is_red_whatever_hides_it_and_right_work_is_green(court: Court):
    right = await court.judge(
        {
            "demo/core.py": "def one() -> int:\n    return 1\n",
            "tests/test_more.py": "from demo.core import one\n\n\ndef test_more():\n    assert one() < 2\n",
            "pyproject.toml": _PYPROJECT.replace('version = "1"', 'version = "2"'),
            "README.md": "# Demo\n",
        }
    )
    assert right.gates_ok, (right.gates, right.failures)
    green = list[str]()
    for way, changes in WAYS.items():
        found = await court.judge({"demo/core.py": WRONG, **changes})
        regression = next(gate for gate in found.gates if gate.name == "regression")
        if regression.ok or not found.failures:
            green.append(way)
    assert green == []
