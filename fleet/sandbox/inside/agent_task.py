"""Run one TASK over the workspace, write its result files, exit with the code of the work (RC-40..RC-49).

Environment: TASK, TASK_LANG, WORKDIR, MARKERS and the command overrides of RC-44. Result files: `test-reports/`,
`coverage/` and `out/` below WORKDIR. Standard library only: this file is staged read-only into every sandbox.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from types import FrameType

from judge import JUDGED, Judge, judge_of
from language_stages import COVERAGE_TOOLS, VERSIONS, language_environment
from processes import CACHE_PREFIX, adopt, end_children
from stages import JUNIT, Stage
from task_commands import DECLARED, LANGUAGES, PIPELINE, TASKS, chosen, judged_options, missing_command, stages_of

CONFIG_EXIT = 2
NO_TESTS_EXIT = 5
OUTPUT_FOLDERS = ("test-reports", "coverage", "out")


class Misconfigured(Exception):
    """RC-46: a variable is wrong or missing; nothing was started."""

    def __init__(self, variable: str, allowed: object) -> None:
        super().__init__(variable)
        self.variable = variable
        self.allowed = allowed


@dataclass
class StageResult:
    """What `out/summary.json` says of one stage (RC-78)."""

    name: str
    status: str = "skipped"
    exit_code: int | None = None
    started_at_ms: int | None = None
    finished_at_ms: int | None = None
    missing: list[str] = field(default_factory=list[str])
    tool: str = ""


def now_ms() -> int:
    """Wall time in milliseconds."""
    return time.time_ns() // 1_000_000


def language(env: dict[str, str]) -> str:
    """TASK_LANG; LANG counts only when it is exactly one of the four languages and TASK_LANG is unset (RC-41)."""
    if "TASK_LANG" not in env and env.get("LANG") in LANGUAGES:
        return env["LANG"]
    if env.get("TASK_LANG") not in LANGUAGES:
        raise Misconfigured("TASK_LANG", list(LANGUAGES))
    return env["TASK_LANG"]


def task(env: dict[str, str]) -> str:
    """TASK, one of the closed list of RC-40."""
    if env.get("TASK") not in TASKS:
        raise Misconfigured("TASK", list(TASKS))
    return env["TASK"]


def workdir(env: dict[str, str]) -> Path:
    """WORKDIR, which must exist (RC-42)."""
    path = Path(env.get("WORKDIR") or "/workspace")
    if not path.is_dir():
        raise Misconfigured("WORKDIR", "an existing directory")
    return path.resolve()


def version_of(distribution: str) -> str:
    """The installed version, "" when it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


class Runner:
    """Runs command lines as process groups of their own and hands signals on to the one that is running (RC-49)."""

    def __init__(self, root: Path, env: dict[str, str]) -> None:
        self.root = root
        self.env = env
        self._child: subprocess.Popen[bytes] | None = None
        self.stopped_by: int | None = None

    def forward(self, number: int, _frame: FrameType | None) -> None:
        """Signal handler: remember the signal and pass it to the child's group."""
        self.stopped_by = number
        if self._child is not None and self._child.poll() is None:
            # A child that ended in this very moment has no group any more.
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)

    def run(self, argv: list[str], *, timeout_s: float, stdout: Path | None = None) -> tuple[int, bool]:
        """Exit code (128 + signal when killed) and whether the time was over; nothing starts after a signal."""
        if self.stopped_by is not None:
            return 128 + self.stopped_by, False
        sink = stdout.open("wb") if stdout else None
        try:
            self._child = subprocess.Popen(argv, cwd=self.root, env=self.env, stdout=sink, start_new_session=True)
        except OSError as error:
            print(f"{argv[0]}: {error.strerror}", file=sys.stderr)
            return 127, False
        finally:
            if sink:
                sink.close()
        if self.stopped_by is not None:
            # The signal came while the child was being started: the handler did not know it yet.
            self.forward(self.stopped_by, None)
        late = self._wait(self._child, timeout_s)
        code = self._child.returncode
        return (128 - code if code < 0 else code), late

    def _wait(self, child: subprocess.Popen[bytes], timeout_s: float) -> bool:
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return True
        return False


class Shim:
    """One TASK from its first stage to the summary."""

    def __init__(self, root: Path, env: dict[str, str], *, task_name: str, lang: str) -> None:
        self.root, self.task_name, self.lang = root, task_name, lang
        self.runner = Runner(root, child_environment(root, {k: v for k, v in env.items() if k != "JUDGE"}, lang))
        self.judge = judge_of(root, env)
        self.results: list[StageResult] = []
        self._version = ""
        for name in OUTPUT_FOLDERS:
            make_folder(root / name)
        adopt()

    def log(self, message: str, level: str = "info") -> None:
        """One JSON line on standard error (RC-47)."""
        line = {"timestamp": now_ms(), "level": level, "message": message, "task": self.task_name, "lang": self.lang}
        print(json.dumps(line), file=sys.stderr, flush=True)

    def run(self, stages: list[Stage]) -> int:
        """Run the stages in order; after a failed build the rest is `skipped` (RC-72). Returns the exit code."""
        for stage in stages:
            for path in (*stage.expects, *stage.also):
                # RC-79: what lies there from before is no result of this stage, and none either when it is skipped.
                remove(self.root / path)
            if self.runner.stopped_by is not None or self._build_failed() or not stage.command:
                self.results.append(StageResult(stage.name))
                continue
            self.log(f"stage {stage.name} starts")
            result = self._stage(stage)
            self.results.append(result)
            # After each stage: what ran counts even when the whole run is killed later.
            self._write_summary(None)
            self.log(f"stage {stage.name}: {result.status}, exit code {result.exit_code}")
        code = self._exit_code(stages)
        end_children()
        if self.judge is not None:
            remove(self.root / JUDGED)
            (self.root / JUDGED).write_text(json.dumps(self.judge.said))
        self._write_summary(code)
        return code

    def _build_failed(self) -> bool:
        return any(r.name == "build" and r.status != "passed" for r in self.results)

    def _stage(self, stage: Stage) -> StageResult:
        result = StageResult(stage.name, started_at_ms=now_ms(), tool=stage.tool)
        judge = self.judge if stage.name == "unit" else None
        if judge is not None:
            judge.plant()
        sources = rust_sources(self.root) if stage.name == "build" and self.lang == "rust" else {}
        code, late, is_sound = self._commands(stage, judge)
        # What a build script made of the sources is made again, and seen, when their tests are built.
        for path in (path for path, text in sources.items() if not path.is_file() or path.read_bytes() != text):
            path.write_bytes(sources[path])
        # What a stage left running could write over the results of this one and of the next.
        end_children()
        result.exit_code, result.finished_at_ms = code, now_ms()
        result.missing = [path for path in stage.expects if not (self.root / path).is_file()]
        result.status = "timeout" if late else "failed" if code else "error" if result.missing else "passed"
        if code == NO_TESTS_EXIT and stage.may_be_empty:
            result.status = "skipped"
        if stage.unavailable is not None and code == stage.unavailable:
            result.status = "error"
        if not is_sound and result.status in ("passed", "failed"):
            self.log("the tests ran otherwise than their report says: a test that must fail did not", "error")
            result.status = "error"
        return result

    def _spent_s(self, name: str) -> float:
        """Seconds that a stage took, 0 for one that did not run."""
        ran = [(r.started_at_ms, r.finished_at_ms) for r in self.results if r.name == name]
        return sum((end - start) / 1000 for start, end in ran if start is not None and end is not None)

    def _commands(self, stage: Stage, judge: Judge | None) -> tuple[int, bool, bool]:
        """Exit code, whether the time was over, and whether the judge believes what the stage left."""
        deadline = time.monotonic() + max(1.0, stage.limit_s - self._spent_s(stage.part_of))
        for command in stage.before:
            code, late = self.runner.run(command, timeout_s=deadline - time.monotonic())
            if code or late:
                return code, late, True
        sink, begun, is_sound = self.root / stage.stdout if stage.stdout else None, time.monotonic(), True
        code, late = self.runner.run(stage.command, timeout_s=deadline - time.monotonic(), stdout=sink)
        spent_s = time.monotonic() - begun
        if judge is not None:
            end_children()
            code, is_sound = judge.settle(code, self.root / JUNIT)
        for command in [] if late else stage.after:
            self.runner.run(command, timeout_s=max(1.0, deadline - time.monotonic()))
        if judge is not None and not late and self.runner.stopped_by is None:
            judge.ask(judged_options(self.root), spent_s=spent_s, env=self.runner.env)
        return code, late, is_sound

    def _exit_code(self, stages: list[Stage]) -> int:
        if self.runner.stopped_by is not None:
            return 128 + self.runner.stopped_by
        optional = {stage.name for stage in stages if stage.may_be_empty}
        codes = [
            r.exit_code or (1 if r.status == "error" else 0)
            for r in self.results
            if not (r.exit_code == NO_TESTS_EXIT and r.name in optional)
        ]
        return next((code for code in codes if code), 0)

    def _write_summary(self, code: int | None) -> None:
        none_collected = any(r.exit_code == NO_TESTS_EXIT for r in self.results)
        summary: dict[str, object] = {
            "schema": 1,
            "task": self.task_name,
            "lang": self.lang,
            "exit_code": code,
            "stages": [asdict(result) for result in self.results],
        }
        if self.lang in COVERAGE_TOOLS:
            summary["coverage_tool"] = COVERAGE_TOOLS[self.lang]
        summary["tools"] = self._tools()
        if none_collected:
            summary["total"] = 0
        target = self.root / "out" / "summary.json"
        make_folder(target.parent)
        remove(target)
        target.write_text(json.dumps(summary, indent=1))

    def _tools(self) -> dict[str, str]:
        if self.lang == "python":
            return {name: version_of(name) for name in ("pytest", "coverage", "ruff")}
        self._version = self._version or language_version(self.lang, self.runner.env)
        used = {result.tool for result in self.results if result.tool}
        return {name: self._version for name in sorted(used | {COVERAGE_TOOLS.get(self.lang, self.lang)})}


def rust_sources(root: Path) -> dict[Path, bytes]:
    """The sources of the project as they are now, without what a build leaves."""
    files = (path for path in root.rglob("*.rs") if path.is_file() and not path.is_symlink())
    return {path: path.read_bytes() for path in files if not {"target", "out"} & set(path.relative_to(root).parts)}


def make_folder(path: Path) -> None:
    """A real folder is there. What a project has in its place gives way (the tree of the run is a copy)."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        path.unlink()
    path.mkdir(exist_ok=True)


def remove(path: Path) -> None:
    """Nothing is there, whatever it was."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def language_version(lang: str, env: dict[str, str]) -> str:
    """The version that the language's program says of itself, "" when it does not run."""
    try:
        done = subprocess.run(VERSIONS[lang], env=env, cwd="/", capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    version = re.search(r"\d+\.\d+(\.\d+)?", done.stdout)
    return version.group() if version else ""


def child_environment(root: Path, env: dict[str, str], lang: str) -> dict[str, str]:
    """The environment of the work: nothing is cached in the tree; Python projects are importable in both layouts.

    REPO_URL and REF say where the tree came from and are for reading alone: it is here already (RC-43).
    """
    env = env | {"REF": env.get("REF") or "main"}
    if lang != "python":
        return language_environment(lang, root) | env
    path = os.pathsep.join([str(root), str(root / "src")])
    return env | {
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPYCACHEPREFIX": CACHE_PREFIX,
        "PYTHONSAFEPATH": "",
        "COVERAGE_FILE": str(root / "out" / ".coverage"),
        "RUFF_NO_CACHE": "true",
        "NO_COLOR": "1",
    }


def main() -> int:
    """Read the environment, run the task; exit codes by RC-46..RC-49."""
    env = dict(os.environ)
    try:
        name, lang, root = task(env), language(env), workdir(env)
        if name == "pipeline" and not chosen(env):
            raise Misconfigured("STAGES", [*PIPELINE, *DECLARED])
        if variable := missing_command(name, lang, env, root):
            raise Misconfigured(variable, "a command line")
    except Misconfigured as error:
        line = {"level": "error", "code": "config", "started": False, "variable": error.variable}
        print(json.dumps(line | {"allowed": error.allowed}), file=sys.stderr)
        return CONFIG_EXIT
    shim = Shim(root, env, task_name=name, lang=lang)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, shim.runner.forward)
    return shim.run(stages_of(name, lang, env, root))


if __name__ == "__main__":
    sys.exit(main())
