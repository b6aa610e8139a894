"""The workspace service on a sandbox that answers with given files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from fleet.forge.port import StagedRepository
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import InvalidInput, SandboxUnavailable, ToolFailed, ToolTimeout
from fleet.kernel.ids import Digest, EntityId, StoryId
from fleet.policy.runs.spec import Artifact, BlobMount, OutputStream, RepoMount, RunResult, RunSpec
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import FileEntry, encode_tree
from fleet.workspace.service import specs
from fleet.workspace.service.workspace import Edit, WorkspaceService

STAGED = StagedRepository(name="a" * 64, commit="b" * 40, branch="main")


class Sandbox:
    """Answers every run with the same files and status, and remembers what was asked."""

    def __init__(self, blobs: MemoryBlobStore) -> None:
        self.blobs = blobs
        self.specs: list[RunSpec] = []
        self.files: Mapping[str, bytes] = {}
        self.fields: dict[str, object] = {"status": "passed", "reason": "ok", "exit_code": 0}

    async def run(self, spec: RunSpec) -> RunResult:
        self.specs.append(spec)
        artifacts = [
            Artifact(path=path, blob=await self.blobs.put(self.files[path]), size_bytes=len(self.files[path]))
            if path in self.files
            else Artifact(path=path)
            for path in spec.artifacts
        ]
        return RunResult.model_validate({"artifacts": tuple(artifacts), **self.fields})

    async def input(self, name: str) -> object:
        mounts = [m for m in self.specs[-1].mounts if isinstance(m, BlobMount)]
        return json.loads(await self.blobs.get(next(m.blob for m in mounts if m.target == f"/inputs/{name}")))


@pytest.fixture
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


@pytest.fixture
def sandbox(blobs: MemoryBlobStore) -> Sandbox:
    return Sandbox(blobs)


@pytest.fixture
def service(sandbox: Sandbox, blobs: MemoryBlobStore) -> WorkspaceService:
    return WorkspaceService(sandbox.run, blobs)


async def put(blobs: MemoryBlobStore, files: Mapping[str, str]) -> Digest:
    return await blobs.put(
        encode_tree({path: FileEntry("100644", await blobs.put(text.encode())) for path, text in files.items()})
    )


async def test_checkout_gives_the_recorded_tree(
    service: WorkspaceService, sandbox: Sandbox, blobs: MemoryBlobStore
) -> None:
    tree = await put(blobs, {"a": "a"})
    sandbox.fields |= {"tree_out": tree}
    assert await service.checkout(STAGED, toolchain="env:/opt/x") == tree
    spec = sandbox.specs[0]
    assert spec.argv[2] == STAGED.commit
    assert spec.mounts == (RepoMount(repo=STAGED.name),)
    assert (spec.keep_tree, spec.discard, spec.toolchain) == (True, (".fleet-out",), "env:/opt/x")


@pytest.mark.rule("RC-79")
@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"status": "failed", "reason": "exit_nonzero", "exit_code": 1}, ToolFailed, "no such commit"),
        ({"status": "error", "reason": "config", "exit_code": 2}, ToolFailed, "refused before it started"),
        ({"status": "error", "reason": "sandbox_lost", "exit_code": None}, SandboxUnavailable, "sandbox_lost"),
        ({"status": "cancelled", "reason": "cancelled", "exit_code": 137}, ToolTimeout, "cancelled"),
        ({"status": "passed", "reason": "ok", "exit_code": 0}, ToolFailed, "checked out"),
    ],
)
async def test_checkout_that_gave_no_tree_raises(
    service: WorkspaceService, sandbox: Sandbox, fields: dict[str, object], error: type[Exception], words: str
) -> None:
    sandbox.fields = fields | {"stderr": OutputStream(head="checkout: no such commit\n\n")}
    with pytest.raises(error, match=words):
        await service.checkout(STAGED)


@pytest.mark.rule("RC-71", "CN-34")
async def test_apply_hands_edits_over_and_reads_what_became_of_them(
    service: WorkspaceService, sandbox: Sandbox, blobs: MemoryBlobStore
) -> None:
    tree, new = await put(blobs, {"a.py": ""}), await put(blobs, {"a.py": "X = 1\n"})
    report = {"applied": True, "files": ["a.py"], "normal_digest": "c" * 64, "diff_lines": 1, "added": 1}
    sandbox.files = {".fleet-out/edits.json": json.dumps(report).encode(), ".fleet-out/diff.patch": b"+X"}
    sandbox.fields |= {"tree_out": new}
    edits = [Edit(path="a.py", mode="definitions", content="X = 1"), {"path": "b", "mode": "file", "content": ""}]
    applied = await service.apply(tree, edits, protect=["tests/**"])
    assert (applied.tree, applied.files, applied.diff_lines, applied.problems) == (new, ("a.py",), 1, ())
    assert applied.diff is not None
    assert await sandbox.input("edits.json") == {
        "edits": [
            {"path": "a.py", "mode": "definitions", "content": "X = 1"},
            {"path": "b", "mode": "file", "content": ""},
        ],
        "protect": ["tests/**"],
        "format": True,
    }


async def test_apply_that_was_refused_gives_the_reasons(
    service: WorkspaceService, sandbox: Sandbox, blobs: MemoryBlobStore
) -> None:
    tree = await put(blobs, {})
    report = {"applied": False, "normal_digest": "c" * 64, "diff_lines": 0}
    sandbox.fields = {"status": "failed", "reason": "exit_nonzero", "exit_code": 1}
    problem = {"path": "x", "message": "is protected"}
    sandbox.files = {".fleet-out/edits.json": json.dumps(report | {"problems": [problem]}).encode()}
    assert (await service.apply(tree, [])).problems == ("x: is protected",)
    sandbox.files = {".fleet-out/edits.json": json.dumps(report).encode()}
    assert (await service.apply(tree, [])).problems == ("the run ended as exit_nonzero",)
    sandbox.files = {}
    refused = await service.apply(tree, [])
    assert refused.tree is None
    assert "could not be read" in refused.problems[0]


def outcome(test: str, ended: str, exception: str | None = None) -> dict[str, object]:
    return {"id": test, "outcome": ended, "exception": exception, "message": f"{test} said", "excerpt": ""}


@pytest.mark.rule("CN-35", "CN-33")
async def test_run_tests_gives_one_signature_entry_per_function(
    service: WorkspaceService, sandbox: Sandbox, blobs: MemoryBlobStore
) -> None:
    tests = [
        outcome("test_a", "passed"),
        outcome("test_p[1]", "passed"),
        outcome("test_p[2]", "failed", "ValueError"),
        outcome("test_e", "error", "OSError"),
        outcome("test_n", "not_collected"),
    ]
    lost = {"name": "test_y.py", "collected": False, "reason": "ImportError: no", "tests": []}
    document = {"files": [{"name": "test_x.py", "collected": True, "tests": tests}, lost]}
    sandbox.files = {"out/tests.json": json.dumps(document).encode()}
    run = await service.run_tests(await put(blobs, {}), {"test_x.py": "x", "test_y.py": "y"})
    assert run.signature == {
        "test_a": "passed",
        "test_p": "passed|failed:ValueError",
        "test_e": "error:OSError",
        "test_n": "not_collected",
    }
    assert run.all_passed is False
    assert run.failures == "test_y.py: ImportError: no\ntest_p[2]: test_p[2] said\ntest_e: test_e said"


async def test_run_tests_all_passed_needs_a_test_that_ran(
    service: WorkspaceService, sandbox: Sandbox, blobs: MemoryBlobStore
) -> None:
    tree = await put(blobs, {})
    for endings, expected in ((["passed", "skipped"], True), (["skipped"], False), ([], False)):
        tests = [outcome(f"test_{n}", ended) for n, ended in enumerate(endings)]
        document = {"files": [{"name": "test_x.py", "collected": True, "tests": tests}]}
        sandbox.files = {"out/tests.json": json.dumps(document).encode()}
        assert (await service.run_tests(tree, {"test_x.py": "x"})).all_passed is expected


async def test_run_tests_that_left_no_record_prove_nothing(
    service: WorkspaceService, sandbox: Sandbox, blobs: MemoryBlobStore
) -> None:
    sandbox.fields = {"status": "timeout", "reason": "timeout", "exit_code": 137}
    run = await service.run_tests(await put(blobs, {}), {"test_x.py": "x"})
    assert (run.all_passed, run.signature) == (False, {})
    assert "timeout" in run.failures


@pytest.mark.parametrize("tests", [{}, {"../test_x.py": ""}, {"helper.py": ""}])
async def test_run_tests_with_bad_names_is_refused(
    service: WorkspaceService, blobs: MemoryBlobStore, tests: dict[str, str]
) -> None:
    with pytest.raises(InvalidInput):
        await service.run_tests(await put(blobs, {}), tests)


@pytest.mark.rule("RC-68", "RG-15")
async def test_measure_compares_with_the_base_tree(
    service: WorkspaceService, sandbox: Sandbox, blobs: MemoryBlobStore
) -> None:
    old = await put(blobs, {"a.py": "X = 1\n", "gone.py": "Y\n"})
    secret = 'password = "pass' + 'w0rd1"\n'
    new = await put(blobs, {"a.py": f"X = 1\n{secret}"})
    coverage = (
        '<coverage><class filename="a.py"><line number="1" hits="1"/><line number="2" hits="0"/></class></coverage>'
    )
    names = ("build", "unit", "lint", "static", "e2e")
    summary = {"schema": 1, "stages": [{"name": n, "status": "passed", "exit_code": 0} for n in names], "exit_code": 0}
    junit = b'<testsuites><testcase name="t" classname="x"/></testsuites>'
    sandbox.files = {
        specs.SUMMARY: json.dumps(summary).encode(),
        specs.JUNIT: junit,
        specs.E2E_JUNIT: junit,
        specs.COVERAGE: coverage.encode(),
        specs.LINT: b"[]",
        specs.STATIC: b"[]",
    }
    ids = {"run_id": EntityId("rn-1"), "story_id": StoryId("st-1")}
    base = await service.measure(old, rigor="L1", **ids)
    assert base.report.patch is None
    report = (await service.measure(new, rigor="L1", base=base, commit="c" * 40, stages=names[:3], **ids)).report
    assert report.patch is not None
    assert (report.patch.files, report.patch.added, report.patch.removed) == (("a.py", "gone.py"), 1, 1)
    assert report.coverage is not None
    assert (report.coverage.new_lines, report.coverage.new_covered) == (1, 0)
    assert report.security is not None
    assert report.security.secrets_found == 1
    assert sandbox.specs[-1].env["STAGES"] == "build,unit,lint"
    assert report.commit == "c" * 40


async def test_measure_leaves_out_binary_and_linked_files(
    service: WorkspaceService, sandbox: Sandbox, blobs: MemoryBlobStore
) -> None:
    secret = ("ghp_" + "a1B2" * 9).encode()
    tree = {
        "bin": FileEntry("100644", await blobs.put(b"\0" + secret)),
        "l": FileEntry("120000", await blobs.put(secret)),
    }
    digest = await blobs.put(encode_tree(tree))  # type: ignore[arg-type]
    report = (await service.measure(digest, run_id=EntityId("rn-1"), story_id=StoryId("st-1"), rigor="L1")).report
    assert report.security is not None
    assert report.security.secrets_found == 0
    assert report.complete is False


DECLARED = """[preview]
command = ["python", "app.py"]
port = 8000
[[preview.pages]]
path = "/"
text = ["Hello"]
"""


@pytest.mark.rule("RC-75")
async def test_declared_preview_is_looked_at_and_its_pages_count_as_end_to_end_tests(
    service: WorkspaceService, sandbox: Sandbox, blobs: MemoryBlobStore
) -> None:
    tree = await put(blobs, {"app.py": "", ".fleet/workspace.toml": DECLARED})
    names = ("build", "unit", "lint", "static", "e2e", "preview")
    summary = {"schema": 1, "stages": [{"name": n, "status": "passed", "exit_code": 0} for n in names], "exit_code": 0}
    sandbox.files = {
        specs.SUMMARY: json.dumps(summary).encode(),
        specs.E2E_JUNIT: b'<testsuites><testcase name="t" classname="x"/></testsuites>',
        specs.PREVIEW_JUNIT: b'<testsuites><testcase name="/" classname="preview"><failure message="no"/></testcase>'
        b"</testsuites>",
        "out/preview/01.png": b"PNG",
    }
    ids = {"run_id": EntityId("rn-1"), "story_id": StoryId("st-1"), "rigor": "L1"}
    report = (await service.measure(tree, **ids)).report  # type: ignore[arg-type]

    asked = sandbox.specs[-1]
    assert asked.env["STAGES"] == ",".join(names)
    assert {"out/preview/01.png", specs.PREVIEW_JUNIT} <= set(asked.artifacts)
    request = await sandbox.input("preview.json")
    assert isinstance(request, dict)
    assert (request["command"], request["pages"][0]["name"]) == (["python", "app.py"], "/")
    assert report.e2e is not None
    assert [(f.id, f.message) for f in report.e2e.failures] == [("preview::/", "no")]
    assert (report.e2e.passed, report.e2e.failed) == (1, 1)
    assert report.e2e.artifacts == (digest_of(b"PNG"),)
    assert report.e2e.preview == digest_of(sandbox.files[specs.PREVIEW_JUNIT])
    await service.measure(tree, stages=("build", "unit"), **ids)  # type: ignore[arg-type]
    assert sandbox.specs[-1].env["STAGES"] == "build,unit"
    assert sandbox.specs[-1].mounts == ()


@pytest.mark.rule("RC-75")
@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [("[preview]\nport = 8000\n", "100644", "preview.command"), (DECLARED, "120000", "is a link")],
)
async def test_declaration_that_is_not_valid_goes_to_the_run_as_its_problem(
    service: WorkspaceService, sandbox: Sandbox, blobs: MemoryBlobStore, text: str, mode: str, words: str
) -> None:
    entry = FileEntry(mode, await blobs.put(text.encode()))  # type: ignore[arg-type]
    tree = await blobs.put(encode_tree({".fleet/workspace.toml": entry}))
    await service.measure(tree, run_id=EntityId("rn-1"), story_id=StoryId("st-1"), rigor="L1")
    request = await sandbox.input("preview.json")
    assert isinstance(request, dict)
    assert list(request) == ["problem"]
    assert words in request["problem"]


@pytest.mark.rule("RC-77", "PL-43")
@pytest.mark.rule("RC-110", "RC-44")
async def test_commands_and_services_are_those_that_the_base_declares(
    service: WorkspaceService, sandbox: Sandbox, blobs: MemoryBlobStore
) -> None:
    text = '[commands]\ntest = "make check"\n[[services]]\nname = "cache"\nkind = "redis"\nenv_prefix = "R"\n'
    base = await put(blobs, {"a.py": "a\n", ".fleet/workspace.toml": text})
    tree = await put(blobs, {"a.py": "a\n", ".fleet/workspace.toml": '[commands]\ntest = "true"\n'})
    ids = {"run_id": EntityId("rn-1"), "story_id": StoryId("st-1")}
    before = await service.measure(base, rigor="L1", **ids)
    await service.measure(tree, rigor="L1", base=before, **ids)
    assert [spec.env.get("TEST_CMD") for spec in sandbox.specs] == ["make check", "make check"]
    assert [[one.kind for one in spec.services] for spec in sandbox.specs] == [["redis"], ["redis"]]
    wrong = await put(blobs, {"a.py": "a\n", ".fleet/workspace.toml": "[commands]\ntest = 3\n"})
    await service.measure(wrong, rigor="L1", **ids)
    assert "TEST_CMD" not in sandbox.specs[-1].env


async def test_commit_asks_for_parent_base_and_earlier_packs(
    service: WorkspaceService, sandbox: Sandbox, blobs: MemoryBlobStore
) -> None:
    pack = await blobs.put(b"earlier")
    sandbox.files = {"out/commit.txt": b"d" * 40 + b"\n", "out/new.pack": b"P", "out/new.idx": b"I"}
    tree = await put(blobs, {})
    options = {"parent": "c" * 40, "message": "Do it", "author": "developer 002", "date_s": 1700000000}
    commit = await service.commit(tree, STAGED, previous=[pack], **options)
    assert (commit.commit, commit.base_commit) == ("d" * 40, STAGED.commit)
    assert await sandbox.input("commit.json") == {
        "parent": "c" * 40,
        "base": "b" * 40,
        "message": "Do it",
        "author_name": "developer 002",
        "author_email": "developer-002@fleet.invalid",
        "date": "1700000000 +0000",
    }
    assert BlobMount(blob=pack, target="/inputs/pack-1.pack") in sandbox.specs[0].mounts
    await service.commit(tree, STAGED, **{**options, "author": "Shop Fleet <fleet@shop.example>"})
    told: Any = await sandbox.input("commit.json")
    assert (told["author_name"], told["author_email"]) == ("Shop Fleet", "fleet@shop.example")
    sandbox.files = {"out/commit.txt": b"not an id", "out/new.pack": b"P", "out/new.idx": b"I"}
    with pytest.raises(ToolFailed, match="no commit"):
        await service.commit(tree, STAGED, **options)


async def test_changes_lists_paths(service: WorkspaceService, blobs: MemoryBlobStore) -> None:
    found = await service.changes(await put(blobs, {"a": "1"}), await put(blobs, {"a": "2"}))
    assert [change.model_dump() for change in found] == [{"path": "a", "change": "modified"}]


@pytest.mark.rule("RC-79", "RG-13")
@pytest.mark.parametrize(
    ("exit_code", "said", "is_believed"),
    [(0, 0, True), (1, 1, True), (137, 0, False), (0, None, False), (1, 0, False)],
)
async def test_summary_is_believed_when_the_run_ended_as_it_says(
    service: WorkspaceService,
    sandbox: Sandbox,
    blobs: MemoryBlobStore,
    exit_code: int,
    said: int | None,
    is_believed: bool,
) -> None:
    summary = {"schema": 1, "stages": [{"name": "build", "status": "passed", "exit_code": 0}], "exit_code": said}
    sandbox.files = {specs.SUMMARY: json.dumps(summary).encode()}
    sandbox.fields = {"status": "failed" if exit_code else "passed", "reason": "exit_nonzero", "exit_code": exit_code}
    ids = {"run_id": EntityId("rn-1"), "story_id": StoryId("st-1")}
    report = (await service.measure(await put(blobs, {"a.py": ""}), rigor="L1", **ids)).report
    assert (report.build is not None) == is_believed


@pytest.mark.rule("RC-79")
async def test_record_of_tests_is_believed_only_from_a_runner_that_came_to_its_end(
    service: WorkspaceService, sandbox: Sandbox, blobs: MemoryBlobStore
) -> None:
    passed = {"id": "test_a", "outcome": "passed"}
    record = {"files": [{"name": "test_x.py", "collected": True, "tests": [passed]}]}
    sandbox.files = {specs.TESTS: json.dumps(record).encode()}
    tree = await put(blobs, {})
    assert (await service.run_tests(tree, {"test_x.py": ""})).all_passed
    sandbox.fields = {"status": "failed", "reason": "signal", "exit_code": 137}
    killed = await service.run_tests(tree, {"test_x.py": ""})
    assert (killed.problem, killed.all_passed) == ("the tests left no record: signal", False)
