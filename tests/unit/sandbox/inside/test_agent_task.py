"""The agent-task shim: stages, result files, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support.inside import INSIDE, load, read_json, run_script, write_files

agent_task: Any = load("agent_task")
task_commands: Any = load("task_commands")
compile_files: Any = load("compile_files")

CORE = "def one():\n    return 1\n\n\ndef two():\n    return 2\n"
TEST = "from pkg.core import one\n\n\ndef test_one():\n    assert one() == 1\n"
E2E = "import pytest\n\n\n@pytest.mark.e2e\ndef test_whole():\n    assert True\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {"src/pkg/__init__.py": "", "src/pkg/core.py": CORE, "tests/test_core.py": TEST, "tests/test_e2e.py": E2E}
    return write_files(tmp_path / "ws", files)


def shim(root: Path, task: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run_script("agent_task", cwd=root, env={"TASK": task, "TASK_LANG": "python", "WORKDIR": str(root), **env})


def stages(root: Path) -> dict[str, tuple[str, int | None]]:
    return {s["name"]: (s["status"], s["exit_code"]) for s in read_json(root / "out/summary.json")["stages"]}


@pytest.mark.rule("RC-47", "RC-78")
def test_pipeline_on_a_sound_project_leaves_all_result_files(root: Path) -> None:
    done = shim(root, "pipeline")
    assert done.returncode == 0, done.stderr
    assert stages(root) == dict.fromkeys(("build", "unit", "lint", "static", "e2e"), ("passed", 0))
    junit = ElementTree.parse(root / "test-reports/junit.xml")
    cases = [case.attrib for case in junit.iter("testcase")]
    assert [(case["name"], case["file"]) for case in cases] == [("test_one", "tests/test_core.py")]
    lines = ElementTree.parse(root / "coverage/coverage.xml").iter("class")
    assert "src/pkg/core.py" in {entry.attrib["filename"] for entry in lines}
    assert read_json(root / "out/lint.json") == []
    for line in done.stderr.splitlines():
        assert {"timestamp", "level", "message", "task", "lang"} <= set(json.loads(line))
    made = {path.relative_to(root).parts[0] for path in root.rglob("*")}
    assert made == {"src", "tests", "test-reports", "coverage", "out"}
    assert not list(root.rglob("__pycache__")), "no cache is left in the tree"


@pytest.mark.rule("RC-72", "RC-79")
def test_pipeline_after_a_failed_build_skips_the_rest(root: Path) -> None:
    planted = ("test-reports/junit.xml", "test-reports/e2e.xml", "coverage/coverage.xml", "out/lint.json")
    write_files(root, {"src/pkg/broken.py": "def (\n", **dict.fromkeys(planted, "all is well")})
    assert shim(root, "pipeline").returncode == 1
    assert [path for path in planted if (root / path).exists()] == []
    assert stages(root) == {"build": ("failed", 1)} | dict.fromkeys(
        ("unit", "lint", "static", "e2e"), ("skipped", None)
    )
    assert read_json(root / "out/build.json")["problems"][0]["path"] == "src/pkg/broken.py"


def test_pipeline_with_chosen_stages_runs_those_in_their_order(root: Path) -> None:
    write_files(root, {"tests/test_gone.py": "import no_such_module\n"})
    assert shim(root, "pipeline", STAGES="lint,unit").returncode == 1
    assert stages(root) == {"unit": ("failed", 1), "lint": ("passed", 0)}
    cases = ElementTree.parse(root / "test-reports/junit.xml").iter("testcase")
    assert {case.attrib["name"] for case in cases} == {"tests.test_gone", "test_one"}


@pytest.mark.rule("RC-73")
def test_pipeline_after_failed_tests_goes_on_and_exits_with_their_code(root: Path) -> None:
    write_files(root, {"src/pkg/core.py": CORE.replace("return 1", "return 3")})
    assert shim(root, "pipeline", STAGES="unit,e2e").returncode == 1
    assert stages(root)["unit"] == ("failed", 1)
    assert stages(root)["e2e"] == ("passed", 0)


@pytest.mark.rule("RC-48")
def test_unit_without_tests_exits_5_with_total_0(root: Path) -> None:
    (root / "tests/test_core.py").unlink()
    assert shim(root, "unit").returncode == 5
    assert read_json(root / "out/summary.json")["total"] == 0
    assert shim(root, "pipeline", STAGES="unit").returncode == 5


def test_pipeline_without_e2e_tests_does_not_fail_for_that(root: Path) -> None:
    (root / "tests/test_e2e.py").rename(root / "tests/test_late.py")
    write_files(root, {"tests/test_late.py": E2E.replace("pytest.mark.e2e", "pytest.mark.skip('no e2e')")})
    assert shim(root, "pipeline", STAGES="e2e").returncode == 0
    assert stages(root)["e2e"] == ("skipped", 5)


def test_pipeline_does_not_start_pytest_for_e2e_tests_that_cannot_be_there(root: Path) -> None:
    (root / "tests/test_e2e.py").unlink()
    write_files(root, {"test-reports/e2e.xml": "<testsuites/>"})
    done = shim(root, "pipeline", STAGES="e2e")
    assert done.returncode == 0
    assert stages(root)["e2e"] == ("skipped", None)
    assert "stage e2e" not in done.stderr
    assert not (root / "test-reports/e2e.xml").exists()


BY_FOLDER = (
    "def pytest_collection_modifyitems(items):\n"
    "    for item in items:\n"
    "        item.add_marker(item.path.parent.name)\n"
)


@pytest.mark.parametrize(
    "files",
    [
        {"tests/test_late.py": E2E},
        {"tests/conftest.py": BY_FOLDER, "tests/e2e/test_late.py": E2E.replace("@pytest.mark.e2e", "")},
    ],
)
def test_pipeline_finds_e2e_tests_by_decorator_and_by_folder(root: Path, files: dict[str, str]) -> None:
    (root / "tests/test_e2e.py").unlink()
    write_files(root, files)
    assert shim(root, "pipeline", STAGES="e2e").returncode == 0
    assert stages(root)["e2e"] == ("passed", 0)
    cases = ElementTree.parse(root / "test-reports/e2e.xml").iter("testcase")
    assert [case.attrib["name"] for case in cases] == ["test_whole"]


def test_pipeline_asks_pytest_for_what_it_cannot_look_at(root: Path) -> None:
    (root / "tests/test_e2e.py").unlink()
    assert shim(root, "pipeline", STAGES="e2e", MARKERS="slow and browser").returncode == 0
    assert stages(root)["e2e"] == ("skipped", 5)
    os.mkfifo(root / "tests/pipe.py")
    (root / "tests/gone.py").symlink_to("nowhere")
    assert shim(root, "pipeline", STAGES="e2e").returncode == 0
    assert stages(root)["e2e"] == ("skipped", 5), "a link that leads nowhere cannot be read"


@pytest.mark.rule("RC-46")
@pytest.mark.parametrize(
    ("env", "variable"),
    [
        ({"TASK": "nothing", "TASK_LANG": "python"}, "TASK"),
        ({"TASK_LANG": "python"}, "TASK"),
        ({"TASK": "unit"}, "TASK_LANG"),
        ({"TASK": "unit", "TASK_LANG": "cobol"}, "TASK_LANG"),
        ({"TASK": "unit", "LANG": "en_US.UTF-8"}, "TASK_LANG"),
        ({"TASK": "unit", "TASK_LANG": "python", "WORKDIR": "/nowhere"}, "WORKDIR"),
        ({"TASK": "pipeline", "TASK_LANG": "python", "WORKDIR": "/tmp", "STAGES": "build,deploy"}, "STAGES"),
        ({"TASK": "static", "TASK_LANG": "node", "WORKDIR": "/tmp"}, "STATIC_CMD"),
    ],
)
def test_wrong_environment_exits_2_and_starts_nothing(tmp_path: Path, env: dict[str, str], variable: str) -> None:
    done = run_script("agent_task", cwd=tmp_path, env=env)
    line = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 2
    assert (line["code"], line["started"], line["variable"]) == ("config", False, variable)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.rule("RC-40")
def test_task_is_one_of_seven(root: Path) -> None:
    known = ["unit", "integration", "e2e", "build", "lint", "static", "pipeline"]
    assert sorted(agent_task.TASKS) == sorted(known)
    for name in known:
        assert agent_task.task({"TASK": name}) == name
    for wrong in ("", "UNIT", "unit ", "deploy", "unit,lint"):
        done = shim(root, wrong)
        line = json.loads(done.stderr.splitlines()[-1])
        assert (done.returncode, line["variable"], sorted(line["allowed"])) == (2, "TASK", sorted(known)), wrong
    assert not (root / "out").exists()


@pytest.mark.rule("RC-42")
def test_work_is_done_in_workspace_or_in_a_folder_that_is_there(tmp_path: Path) -> None:
    assert agent_task.workdir({"WORKDIR": str(tmp_path)}) == tmp_path.resolve()
    (tmp_path / "file").write_text("no folder")
    for env in ({"WORKDIR": str(tmp_path / "none")}, {"WORKDIR": str(tmp_path / "file")}):
        with pytest.raises(agent_task.Misconfigured, match="WORKDIR"):
            agent_task.workdir(env)
    for env in ({}, {"WORKDIR": ""}):
        if Path("/workspace").is_dir():
            assert agent_task.workdir(env) == Path("/workspace").resolve()
        else:
            with pytest.raises(agent_task.Misconfigured, match="WORKDIR"):
                agent_task.workdir(env)


@pytest.mark.rule("RC-43")
def test_repository_is_named_to_the_work_and_fetched_by_nobody(root: Path) -> None:
    before = {path.relative_to(root) for path in root.rglob("*")}
    told = 'printf "%s %s" "$REPO_URL" "$REF" > told'
    url = "https://nowhere.invalid/team/shop.git"
    for env, wanted in (
        ({}, " main"),
        ({"REPO_URL": url, "REF": "release/2"}, f"{url} release/2"),
        ({"REPO_URL": url, "REF": ""}, f"{url} main"),
    ):
        assert shim(root, "build", BUILD_CMD=told, **env).returncode == 0
        assert (root / "told").read_text() == wanted
    after = {path.relative_to(root) for path in root.rglob("*")}
    assert {path.parts[0] for path in after - before} == {"told", "test-reports", "coverage", "out"}


@pytest.mark.rule("RC-74", "RC-75")
@pytest.mark.parametrize("stage", ["static", "e2e"])
def test_pipeline_goes_on_after_findings_and_after_a_failed_end_to_end_test(root: Path, stage: str) -> None:
    shell = "import subprocess\n\nsubprocess.call('ls', shell=True)\n"
    fails = {"src/pkg/bad.py": shell} if stage == "static" else {"tests/test_e2e.py": E2E.replace("True", "False")}
    write_files(root, fails)
    # In a pipeline findings are numbers for the score; a command of the project fails as it does.
    more = {"STATIC_CMD": "echo []; exit 3"} if stage == "static" else {}
    done = shim(root, "pipeline", STAGES="lint,static,e2e", **more)
    assert done.returncode == (3 if stage == "static" else 1)
    found = stages(root)
    assert found[stage] == ("failed", done.returncode)
    assert {name: status for name, (status, _) in found.items() if name != stage} == dict.fromkeys(
        {"lint", "static", "e2e"} - {stage}, "passed"
    )


@pytest.mark.rule("RC-74")
def test_security_findings_of_a_pipeline_are_in_its_results_and_hold_nothing_up(root: Path) -> None:
    write_files(root, {"src/pkg/bad.py": "import subprocess\n\nsubprocess.call('ls', shell=True)\n"})
    assert shim(root, "pipeline", STAGES="static,e2e").returncode == 0
    assert "S602" in {finding["code"] for finding in read_json(root / "out/static.json")}
    assert stages(root)["e2e"] == ("passed", 0)


@pytest.mark.rule("RC-41")
def test_language_from_lang_counts_only_when_it_is_exactly_one_of_four() -> None:
    assert agent_task.language({"LANG": "go"}) == "go"
    assert agent_task.language({"LANG": "go", "TASK_LANG": "rust"}) == "rust"
    with pytest.raises(agent_task.Misconfigured):
        agent_task.language({"LANG": "python3"})


@pytest.mark.rule("RC-79")
def test_command_that_prints_success_but_writes_no_file_is_an_error(root: Path) -> None:
    write_files(root, {"test-reports/junit.xml": "<testsuites/>"})
    done = shim(root, "unit", TEST_CMD="echo 100 passed")
    assert done.returncode == 1
    assert stages(root)["unit"] == ("error", 0)
    assert not (root / "test-reports/junit.xml").exists()


@pytest.mark.rule("RC-44", "RC-49")
def test_override_runs_in_workdir_and_its_exit_code_comes_through(root: Path) -> None:
    assert shim(root, "build", BUILD_CMD="ls src > listing; exit 7").returncode == 7
    assert (root / "listing").read_text() == "pkg\n"
    assert shim(root, "build", BUILD_CMD="kill -9 $$").returncode == 137
    assert shim(root, "lint", LINT_CMD="echo []").returncode == 0
    assert read_json(root / "out/lint.json") == []


def test_setup_command_runs_first_and_its_failure_is_the_result(root: Path) -> None:
    assert shim(root, "unit", PY_SETUP="exit 4").returncode == 4
    assert not (root / "test-reports/junit.xml").exists()


@pytest.mark.rule("RC-45")
def test_integration_and_markers_choose_the_tests(root: Path) -> None:
    text = "import pytest\n@pytest.mark.integ\ndef test_i(): pass\n@pytest.mark.mine\ndef test_m(): pass\n"
    write_files(root, {"tests/test_marks.py": text})
    for env, name in (({}, "test_i"), ({"MARKERS": "mine"}, "test_m")):
        assert shim(root, "integration", **env).returncode == 0
        cases = ElementTree.parse(root / "test-reports/junit.xml").iter("testcase")
        assert [case.attrib["name"] for case in cases] == [name]


def test_single_lint_with_findings_exits_with_the_tools_code(root: Path) -> None:
    write_files(root, {"src/pkg/bad.py": "import os\n"})
    assert shim(root, "lint").returncode == 1
    assert [finding["code"] for finding in read_json(root / "out/lint.json")] == ["F401"]
    assert shim(root, "static").returncode == 0


def test_static_finds_a_shell_call(root: Path) -> None:
    write_files(root, {"src/pkg/bad.py": "import subprocess\n\nsubprocess.call('ls', shell=True)\n"})
    shim(root, "static")
    assert "S602" in {finding["code"] for finding in read_json(root / "out/static.json")}


def test_project_with_foreign_options_still_runs(root: Path) -> None:
    config = (
        '[tool.pytest.ini_options]\naddopts = "--cov=pkg -n 4 --import-mode=importlib"\nfilterwarnings = ["error"]\n'
    )
    write_files(root, {"pyproject.toml": config})
    assert shim(root, "unit").returncode == 0


@pytest.mark.parametrize(
    ("files", "kept"),
    [
        ({}, []),
        (
            {"pytest.ini": "[pytest]\naddopts = -n 4 --ignore=a --doctest-modules\n"},
            ["--ignore=a", "--doctest-modules"],
        ),
        ({"tox.ini": "[pytest]\naddopts = -p no:x -p y --ignore b\n"}, ["-p", "no:x", "--ignore", "b"]),
        ({"setup.cfg": "[tool:pytest]\naddopts = --deselect=c\n"}, ["--deselect=c"]),
        ({"pyproject.toml": '[tool.pytest.ini_options]\naddopts = ["--ignore=d", "-v"]\n'}, ["--ignore=d"]),
        ({"pyproject.toml": '[tool.pytest]\naddopts = ["--ignore=e"]\n'}, ["--ignore=e"]),
        ({"pyproject.toml": "[tool]\npytest = 1\n"}, []),
        ({"pyproject.toml": '[tool.pytest.ini_options]\naddopts = "\'"\n'}, []),
        ({"pytest.ini": "nonsense"}, []),
        ({"pyproject.toml": "nonsense"}, []),
    ],
)
def test_kept_options_are_those_that_decide_what_is_a_test(
    tmp_path: Path, files: dict[str, str], kept: list[str]
) -> None:
    assert task_commands.kept_options(write_files(tmp_path, files)) == kept


def test_lint_rules_of_the_project_win() -> None:
    argv = task_commands.stages_of("lint", "python", {}, INSIDE)[0].command
    assert argv[-3:] == ["--extend-select", "I", "."]


def test_lint_with_project_config_adds_no_rule(tmp_path: Path) -> None:
    write_files(tmp_path, {"ruff.toml": ""})
    assert "--extend-select" not in task_commands.stages_of("lint", "python", {}, tmp_path)[0].command


@pytest.mark.parametrize("lang", ["go", "node", "rust"])
def test_other_languages_have_build_and_unit_defaults(lang: str, tmp_path: Path) -> None:
    names = [stage.name for stage in task_commands.stages_of("pipeline", lang, {}, tmp_path)]
    assert names[:2] == ["build", "unit"]
    assert task_commands.missing_command("pipeline", lang, {}, tmp_path) is None
    assert task_commands.missing_command("e2e", lang, {"E2E_CMD": "true"}, tmp_path) is None


@pytest.mark.parametrize(
    ("env", "code"),
    [
        ({"TASK": "unit", "TEST_CMD": "exit 6", "PY_SETUP": "true"}, 6),
        ({"TASK": "unit", "TEST_CMD": "true"}, 1),
        ({"TASK": "build"}, 0),
        ({"TASK": "pipeline", "BUILD_CMD": "exit 3"}, 3),
        ({"TASK": "nothing"}, 2),
    ],
)
def test_main_exit_codes(root: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], code: int) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    for name, value in {"TASK_LANG": "python", "WORKDIR": str(root), **env}.items():
        monkeypatch.setenv(name, value)
    try:
        assert agent_task.main() == code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_stages_of_a_pipeline_and_their_limits(root: Path) -> None:
    found = task_commands.stages_of("pipeline", "python", {}, root)
    assert {stage.name: stage.limit_s for stage in found} == {
        "build": 1200,
        "unit": 1200,
        "lint": 600,
        "static": 600,
        "e2e": 1800,
    }
    assert found[4].may_be_empty
    assert "--exit-zero" in found[2].command


def test_stage_over_its_time_is_killed_with_its_children(root: Path) -> None:
    runner = agent_task.Runner(root, dict(os.environ))
    code, late = runner.run(["/bin/sh", "-c", "sleep 60 & sleep 60"], timeout_s=0.2)
    assert late
    assert code == 137


def test_missing_program_is_a_result(root: Path) -> None:
    assert agent_task.Runner(root, {"PATH": ""}).run(["/no/such/program"], timeout_s=1) == (127, False)


@pytest.mark.rule("RC-49")
def test_signal_is_forwarded_and_later_stages_do_not_start(root: Path) -> None:
    env = {"TASK": "pipeline", "TASK_LANG": "python", "WORKDIR": str(root), "PATH": os.environ["PATH"]}
    command = "trap 'echo got > caught; exit 0' TERM; echo up > started; while :; do sleep 0.05; done"
    child = subprocess.Popen(
        [sys.executable, str(INSIDE / "agent_task.py")], env=env | {"BUILD_CMD": command}, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (root / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 128 + signal.SIGTERM
    assert (root / "caught").exists()
    assert stages(root)["unit"] == ("skipped", None)


class SignalledWhileStarting(subprocess.Popen[bytes]):
    """The child runs, and its parent gets the signal before it knows the child."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.rule("RC-49")
def test_signal_that_comes_while_the_child_starts_is_forwarded_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = agent_task.Runner(root, dict(os.environ))
    monkeypatch.setattr(subprocess, "Popen", SignalledWhileStarting)
    before = signal.signal(signal.SIGTERM, runner.forward)
    try:
        code, late = runner.run(["/bin/sleep", "30"], timeout_s=20)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert runner.stopped_by == signal.SIGTERM
    assert (code, late) == (128 + signal.SIGTERM, False)
    assert runner.run(["/bin/sh", "-c", "echo up > again"], timeout_s=20) == (128 + signal.SIGTERM, False)
    assert not (root / "again").exists()


def test_compile_files_leaves_out_broken_test_data_and_names_odd_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "tests/data/bad.py": "def (",
        "tests/test_bad.py": "def (",
        "venv/x.py": "def (",
        "nul.py": "x\0",
        "ok.py": "",
    }
    write_files(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    assert compile_files.main([str(tmp_path / "build.json")]) == 1
    problems = read_json(tmp_path / "build.json")["problems"]
    assert {problem["path"] for problem in problems} == {"tests/test_bad.py", "nul.py"}
