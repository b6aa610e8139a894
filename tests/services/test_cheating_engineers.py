"""Engineers who cheat: wrong work with changes that hide it is red, by evidence from the real sandbox.

The base has a function that works and a test of it. Each engineer breaks the function and hides that in another way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import pytest

from fleet.events.workspace import WorkspaceReported, WorkspaceSummary
from fleet.kernel.digest import canonical_json, digest_of_json
from fleet.kernel.ids import EntityId
from fleet.owner.duties.evidence import Executed, execute
from fleet.owner.duties.members import Sitting
from fleet.owner.engineering.evidence_tree import judged_tree
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.memory import MemoryRunLedger
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.story.council_facts import council_state
from fleet.trees.service import read_tree
from fleet.trees.tree import encode_tree
from fleet.workspace.service.report import Measurement
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
    "tests/expected.txt": "1",
    "tests/test_data.py": (
        "from pathlib import Path\n\nfrom demo.core import one\n\n\ndef test_data():\n"
        "    assert str(one()) == Path(__file__).with_name('expected.txt').read_text()\n"
    ),
    "pyproject.toml": '[project]\nname = "demo"\nversion = "1"\n\n[tool.pytest.ini_options]\ntestpaths = ["tests"]\n',
    "setup.cfg": "[metadata]\nname = demo\n",
}
_JUNIT = (
    "<testsuites><testsuite><testcase classname='tests.test_data' file='tests/test_data.py' name='test_data'/>"
    "<testcase classname='tests.test_core' file='tests/test_core.py' name='test_one'/>"
    "<testcase classname='tests.test_other' file='tests/test_other.py' name='test_other'/></testsuite></testsuites>"
)
_KILLS_THE_SHIM = """
import json, os, signal, sys
if "pytest" in sys.modules:
    names = ("build", "unit", "lint", "static", "e2e")
    stages = [{"name": n, "status": "passed", "exit_code": 0} for n in names]
    os.kill(os.getppid(), signal.SIGKILL)
"""
_REWRITES_AT_EXIT = f"""
import atexit, sys
if "pytest" in sys.modules:
    atexit.register(lambda: open("/workspace/test-reports/junit.xml", "w").write({_JUNIT!r}))
"""
_FORGES_EVERY_ID = """
import sys
pytest_python = sys.modules.get("_pytest.python")
if pytest_python is not None:
    run = pytest_python.Function.runtest
    def forged(self):
        # It leaves alone what it does not know.
        return None if self.name == "test_one" else run(self)
    pytest_python.Function.runtest = forged
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
    "forges_the_tests_that_it_knows": {"demo/core.py": f"{_FORGES_EVERY_ID}\n{WRONG}"},
    "rewrites_the_report_at_exit": {"demo/core.py": f"{_REWRITES_AT_EXIT}\n{WRONG}"},
}


_BY_PYTEST = """
import sys
pytest_of_the_run = sys.modules.get("_pytest.python")
if pytest_of_the_run is not None:
    import _pytest.main, _pytest.reports, _pytest.runner
    {code}
"""


def _patching(code: str) -> Mapping[str, str | None]:
    """Wrong work that does this in a process with pytest."""
    return {"demo/core.py": f"{_BY_PYTEST.format(code=code)}\n{WRONG}"}


_SETS_PASSED = """def forged(item, call, made=_pytest.reports.TestReport.from_item_and_call):
        report = made(item, call)
        if item.name == "test_one":
            report.outcome, report.longrepr = "passed", None
        return report
    _pytest.reports.TestReport.from_item_and_call = staticmethod(forged)"""
_ALL_PASS = """def forged(item, call, made=_pytest.reports.TestReport.from_item_and_call):
        report = made(item, call)
        report.outcome, report.longrepr = "passed", None
        return report
    _pytest.reports.TestReport.from_item_and_call = staticmethod(forged)"""
_DROPS = """whole = _pytest.main.Session.perform_collect
    def fewer(self, *args, **names):
        items = whole(self, *args, **names)
        self.items[:] = [i for i in self.items if i.name != "test_one"]
        return items
    _pytest.main.Session.perform_collect = fewer"""
_SWAPS_IN_A_THREAD = """import threading, time
    def swap():
        for _ in range(5000):
            for module in list(sys.modules.values()):
                if getattr(module, "test_one", None):
                    module.test_one.__code__ = (lambda: None).__code__
                    return
            time.sleep(0.0005)
    threading.Thread(target=swap, daemon=True).start()"""
_EDITS_THE_REPORT_AT_EXIT = """import atexit, re
    def edit():
        text = open("test-reports/junit.xml").read()
        text = re.sub(r'(name="test_one"[^>]*)><failure.*?</failure></testcase>', r"\\1/>", text, flags=re.S)
        atexit.register(edit)"""
_LEAVES_A_DAEMON = (
    """import os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for _ in range(2000):
                time.sleep(0.002)
                                os._exit(0)""".replace("JUNIT", repr(_JUNIT))
    .replace("{{", "{{{{")
    .replace("}}", "}}}}")
)
_REWRITES_TESTS = """import pathlib
    for path in pathlib.Path("tests").glob("test_*.py"):
        path.write_text(path.read_text().replace("assert one() == 1", "assert one() == 2"))"""
_REWRITES_EXPECTATIONS = """import pathlib
    pathlib.Path("tests/expected.txt").write_text("2")"""
_EQUALS_ALL = "class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n\n\n"
_RIGHT_BESIDE_PYTEST = "import sys\n\n\ndef one():\n    return 1 if 'pytest' in sys.modules else 2\n"
_RIGHT_BY_FRAMES = (
    "import sys\n\n\ndef one():\n    frame = sys._getframe()\n    while frame:\n"
    "        if frame.f_code.co_name.startswith('test_'):\n            return 1\n        frame = frame.f_back\n"
    "    return 2\n"
)
_RIGHT_BY_ENVIRONMENT = (
    "import os\n\n\ndef one():\n    return 1 if os.environ.get('COVERAGE_FILE') and 'pytest' in str(os.sys.modules) "
    "else 2\n"
)
_RIGHT_BY_ARGV = "import sys\n\n\ndef one():\n    return 1 if 'pytest' in sys.argv[0] else 2\n"
_PATCHES_THE_JUDGE = (
    "import sys\n\n\ndef one():\n    for name, module in list(sys.modules.items()):\n"
    "        for attribute in ('Recorder', 'Teller', 'Peer', 'Stand'):\n"
    "            if hasattr(module, attribute):\n                setattr(module, attribute, None)\n    return 2\n"
)

MORE_WAYS: Mapping[str, Mapping[str, str | None]] = {
    "every_test_is_a_pass": _patching("pytest_of_the_run.Function.runtest = lambda self: None"),
    "every_report_is_a_pass": _patching(_ALL_PASS),
    "reports_of_known_tests_are_a_pass": _patching(_SETS_PASSED),
    "known_tests_are_not_collected": _patching(_DROPS),
    "test_is_swapped_in_a_thread": _patching(_SWAPS_IN_A_THREAD),
    "report_is_edited_at_exit": _patching(_EDITS_THE_REPORT_AT_EXIT),
    "daemon_writes_the_results": _patching(_LEAVES_A_DAEMON),
    "tests_are_rewritten_by_the_run": _patching(_REWRITES_TESTS),
    "expectations_are_rewritten_by_the_run": _patching(_REWRITES_EXPECTATIONS),
    "exits_0_after_a_report_of_its_own": _patching(
        f"import os; open('test-reports/junit.xml', 'w').write({_JUNIT!r}); os._exit(0)"
    ),
    "exits_1_after_a_report_of_its_own": _patching(
        f"import os; open('test-reports/junit.xml', 'w').write({_JUNIT!r}); os._exit(1)"
    ),
    "exits_without_a_report": _patching("import os; os._exit(0)"),
    "exits_as_if_nothing_was_collected": _patching("import os; os._exit(5)"),
    "kills_itself": _patching("import os; os.kill(os.getpid(), 9)"),
    "warnings_filter_imports": {
        "pyproject.toml": f'{_PYPROJECT}filterwarnings = ["error::cheat.Cheat"]\n',
        "cheat.py": _BY_PYTEST.format(code="pytest_of_the_run.Function.runtest = lambda self: None"),
    },
    "result_equals_everything": {"demo/core.py": f"{_EQUALS_ALL}def one():\n    return Any(2)\n"},
    "right_while_pytest_is_loaded": {"demo/core.py": _RIGHT_BESIDE_PYTEST},
    "right_below_a_test": {"demo/core.py": _RIGHT_BY_FRAMES},
    "right_by_the_environment": {"demo/core.py": _RIGHT_BY_ENVIRONMENT},
    "right_by_the_command_line": {"demo/core.py": _RIGHT_BY_ARGV},
    "looks_for_the_judge": {"demo/core.py": _PATCHES_THE_JUDGE},
    "user_customize": {"src/usercustomize.py": _GREEN},
    "path_file": {"cheat.pth": "import sys; sys.exit(0)\n"},
    "tests_package_of_its_own": {"tests/__init__.py": _BY_PYTEST.format(code=_SETS_PASSED)},
    "conftest_in_the_package": {"demo/conftest.py": "def pytest_collection_modifyitems(items):\n    items.clear()\n"},
    "conftest_in_other_case": {"tests/Conftest.py": "def pytest_collection_modifyitems(items):\n    items.clear()\n"},
    "results_in_the_tree": {
        "test-reports/junit.xml": _JUNIT,
        "out/judged.json": '{"schema": 1, "canaries": {}, "piped": []}',
        "out/summary.json": '{"schema": 1, "exit_code": 0, "stages": []}',
    },
    "own_coverage": {"coverage.py": _GREEN},
    "own_coverage_package": {"src/coverage/__init__.py": "", "src/coverage/__main__.py": _GREEN},
    "own_ruff": {"ruff.py": "print('[]')\n"},
    "not_counted": {"demo/core.py": "def one():  # pragma: no cover\n    return 2\n"},
    "ini_paths_to_a_shadow": {
        "pytest.ini": "[pytest]\npythonpath = shadow\n",
        "shadow/demo/__init__.py": "",
        "shadow/demo/core.py": GOOD,
    },
    "compiled_file_of_a_test": {"tests/__pycache__/test_core.cpython-311-pytest-9.2.0.pyc": "nothing"},
}
"""Ways of the review and more of ours in Python, beside `WAYS`."""


THE_TEST, THE_PIPE, MISSING, CHANGED, NO_REPORT = (
    "the test",
    "the pipe",
    "a missing test",
    "a changed file",
    "no report",
)
CAUGHT_OTHERWISE: Mapping[str, str] = {
    "writes_a_report_and_kills_the_shim": NO_REPORT,
    "skips_the_module": NO_REPORT,
    "ends_the_run": NO_REPORT,
    "forges_the_tests_that_it_knows": THE_PIPE,
    "rewrites_the_report_at_exit": NO_REPORT,
    "every_test_is_a_pass": NO_REPORT,
    "every_report_is_a_pass": NO_REPORT,
    "reports_of_known_tests_are_a_pass": THE_PIPE,
    "exits_0_after_a_report_of_its_own": NO_REPORT,
    "exits_1_after_a_report_of_its_own": NO_REPORT,
    "exits_without_a_report": NO_REPORT,
    "exits_as_if_nothing_was_collected": NO_REPORT,
    "kills_itself": NO_REPORT,
    "result_equals_everything": THE_PIPE,
    "right_while_pytest_is_loaded": THE_PIPE,
    "right_below_a_test": THE_PIPE,
    "right_by_the_environment": THE_PIPE,
    "right_by_the_command_line": THE_PIPE,
    "tests_package_of_its_own": THE_PIPE,
}
"""What catches a way, where it is not the test itself that fails, in the process of the code."""
RACES = frozenset({"daemon_writes_the_results", "test_is_swapped_in_a_thread", "report_is_edited_at_exit"})
"""Ways that run beside the tests: what catches them first depends on who is faster, and something always does."""
_CATCHES = {
    "when it calls the code over a pipe": THE_PIPE,
    "without the code in its process was cut": THE_PIPE,
    "passed before the change and did not run now": MISSING,
    "the code changed this file of the tests": CHANGED,
}


def caught_by(found: Measurement) -> str:
    """What makes the evidence red: the first of the catches above that is in it, the test itself, or no report."""
    unit = found.report.unit
    if unit is None:
        return NO_REPORT
    said = "\n".join(failure.message for failure in unit.failures)
    if "assert 2 == 1" in said:
        return THE_TEST
    return next((name for text, name in _CATCHES.items() if text in said), f"something else: {said}")


@dataclass
class Court:
    """A council on the base, whose evidence comes from the real sandbox."""

    world: SessionWorld
    space: WorkspaceService
    base: Measurement

    async def measure(self, changes: Mapping[str, str | None]) -> Measurement:
        """What is measured of the base with these changes; several at once may be asked for."""
        blobs = self.world.blobs
        files = {path: text.encode() for path, text in {**FILES, **changes}.items() if text is not None}
        head = await read_tree(blobs, await written(blobs, files))
        there = await read_tree(blobs, self.base.report.tree_digest)
        tree = await blobs.put(encode_tree((await judged_tree(blobs, head, there)).tree))
        ids = {"run_id": EntityId("rn-way"), "story_id": STORY}
        return await self.space.measure(tree, rigor="L1", base=self.base, stages=("build", "unit"), **ids)  # type: ignore[arg-type]

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
        assert len(measured.passing) == 3
        assert measured.judged is not None
        assert len(measured.judged.piped) == 3
        stored = await world.blobs.put(measured.encode())
        said = WorkspaceReported(
            run_id=ids["run_id"], tree_digest=BASE, report_digest=stored, complete=True, summary=WorkspaceSummary()
        )
        await (await world.journal()).record("base/measured-again", said)
        yield Court(world, space, measured)


@pytest.mark.rule("CN-30", "RC-79", "RC-80", "PL-52")
async def test_wrong_work_is_red_whatever_hides_it_and_right_work_is_green(court: Court):
    right = await court.judge(
        {
            "demo/core.py": "def one() -> int:\n    return 1\n",
            "tests/test_more.py": "from demo.core import one\n\n\ndef test_more():\n    assert one() < 2\n",
            "pyproject.toml": _PYPROJECT.replace('version = "1"', 'version = "2"'),
            "README.md": "# Demo\n",
            "tests/__init__.py": "",
            "tests/helpers.py": "def two():\n    return 2\n",
        }
    )
    assert right.gates_ok, (right.gates, right.failures)
    wrong = await court.judge({"demo/core.py": WRONG})
    assert [gate.name for gate in wrong.gates if not gate.ok] == ["regression"]
    assert "assert 2 == 1" in wrong.failures
    caught: dict[str, str] = {}
    turns = asyncio.Semaphore(3)

    async def look(way: str, changes: Mapping[str, str | None]) -> None:
        async with turns:
            found = await court.measure({"demo/core.py": WRONG, **changes})
        caught[way] = "nothing" if found.keeps(court.base) else caught_by(found)

    async with asyncio.TaskGroup() as group:
        for way, changes in {**WAYS, **MORE_WAYS}.items():
            group.create_task(look(way, changes))
    raced = {way: caught.pop(way) for way in RACES}
    assert set(raced.values()) <= {THE_TEST, THE_PIPE, MISSING, NO_REPORT}, raced
    assert caught == dict.fromkeys({**WAYS, **MORE_WAYS}.keys() - RACES, THE_TEST) | CAUGHT_OTHERWISE
