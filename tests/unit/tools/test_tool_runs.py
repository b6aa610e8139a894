"""Runs behind calls: keys, cancelling, what a result means; on the scripted backend."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import InvalidInput, PolicyDenied, SandboxUnavailable, ToolFailed
from fleet.kernel.ids import Digest
from fleet.knowledge.service import CodeKnowledge
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.policy.runs.toolchains import Language
from fleet.policy.targets import Targets
from fleet.sandbox.memory import MemorySandboxBackend, Program, ProgramEnd, ProgramStart
from fleet.tools.kit.commands import CommandTool
from fleet.tools.kit.git import GitTool
from fleet.tools.kit.parts import ToolParts
from fleet.tools.kit.runs import outcome_of, run_key, run_once
from fleet.tools.kit.search import SearchTool
from fleet.trees.memory import MemoryBlobStore
from tests.support.sandbox import put_tree
from tests.support.tool_kit import DirectSandbox, call_of, context_of

JUNIT = b'<testsuite><testcase classname="t" name="a"/><testcase name="b"><skipped/></testcase></testsuite>'


def parts(program: Program) -> tuple[ToolParts, DirectSandbox]:
    blobs = MemoryBlobStore()
    sandbox = DirectSandbox(MemorySandboxBackend(program, blobs))
    return ToolParts(sandbox=sandbox, blobs=blobs, clock=SystemClock(), targets=Targets()), sandbox


@pytest.mark.rule("RC-51")
def test_runs_of_a_call_have_keys_of_their_own() -> None:
    key = context_of().key
    assert run_key(key) == run_key(key)
    assert len({key, run_key(key), run_key(key, "second")}) == 3


async def test_cancelled_call_ends_its_run() -> None:
    started = asyncio.Event()

    async def hang(_: ProgramStart) -> ProgramEnd:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError("never reached")

    made, sandbox = parts(hang)
    context = context_of()
    call = asyncio.create_task(CommandTool("exec", made).call(call_of("exec", "run", argv=["make"]), context))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not await sandbox.cancel(run_key(context.key))


@pytest.mark.rule("RT-23")
@pytest.mark.parametrize(("code", "outcome", "reason"), [(0, "succeeded", "ok"), (127, "failed", "program_missing")])
async def test_exit_code_is_an_outcome(code: int, outcome: str, reason: str) -> None:
    made, sandbox = parts(lambda _: ProgramEnd(code, b"out\n", b"err\n", {"test-reports/junit.xml": JUNIT}))
    found = await CommandTool("tests", made).call(call_of("tests", "pytest"), context_of(timeout_s=7))
    assert (found.outcome, found.reason, found.exit_code, found.text) == (outcome, reason, code, "out\nerr")
    assert (found.content["passed"], found.content["skipped"]) == (1, 1)
    assert sandbox.specs[0].limits.overall_s == 7
    assert sandbox.specs[0].hosts == ()


@pytest.mark.rule("RT-23")
async def test_lost_sandbox_is_an_error_and_no_outcome() -> None:
    class Lost(DirectSandbox):
        async def run(self, spec: RunSpec, **_: object) -> RunResult:  # type: ignore[override]
            return RunResult(status="error", reason="sandbox_lost", exit_code=None)

    made, _ = parts(lambda _: ProgramEnd())
    with pytest.raises(SandboxUnavailable):
        await run_once(
            Lost(MemorySandboxBackend(lambda _: ProgramEnd(), made.blobs)), RunSpec(argv=("x",)), context_of()
        )


@pytest.mark.rule("RC-27", "RC-52")
@pytest.mark.parametrize(("effect", "runs"), [("PURE", 2), ("KEYED", 2), ("UNSAFE", 1)])
async def test_lost_run_is_tried_again_unless_it_may_have_done_something(effect: str, runs: int) -> None:
    made, _ = parts(lambda _: ProgramEnd())
    asked: list[object] = []

    class LostOnce(DirectSandbox):
        async def run(self, spec: RunSpec, **more: object) -> RunResult:  # type: ignore[override]
            asked.append(more["key"])
            if len(asked) > 1:
                return RunResult(status="passed", reason="ok", exit_code=0)
            return RunResult(status="error", reason="sandbox_lost", exit_code=None)

    sandbox = LostOnce(MemorySandboxBackend(lambda _: ProgramEnd(), made.blobs))
    context = context_of()
    context = replace(context, obligations=context.obligations.model_copy(update={"effect": effect}))
    if effect == "UNSAFE":
        with pytest.raises(SandboxUnavailable):
            await run_once(sandbox, RunSpec(argv=("x",)), context)
    else:
        assert (await run_once(sandbox, RunSpec(argv=("x",)), context)).status == "passed"
    assert len(asked) == len(set(asked)) == runs


async def test_large_output_is_read_whole_from_its_blob() -> None:
    made, _ = parts(lambda _: ProgramEnd(stdout=b"x" * 200_000))
    found = await CommandTool("exec", made).call(call_of("exec", "run", argv=["cat"]), context_of())
    assert len(found.text) == 200_000


async def test_changed_tree_is_kept_only_where_the_role_may_write() -> None:
    made, _ = parts(lambda _: ProgramEnd(written={"src/a.py": b"x = 1\n"}))
    tree = await put_tree(made.blobs, {"src/a.py": b"x=1\n"})
    tool, call = CommandTool("lint", made), call_of("lint", "format_write")
    assert (await tool.call(call, context_of(tree, write_paths=("src/**",)))).tree_out is not None
    with pytest.raises(PolicyDenied):
        await tool.call(call, context_of(tree, write_paths=("tests/**",)))


@pytest.mark.rule("RC-67")
async def test_secret_scan_names_classes_and_never_values() -> None:
    made, sandbox = parts(lambda _: ProgramEnd())
    secret = "AKIA" + "ABCDEFGHIJKLMNOP"
    tree = await put_tree(made.blobs, {"a.py": f"key = '{secret}'\n".encode(), "b.bin": b"\0" + secret.encode()})
    found = await CommandTool("lint", made).call(call_of("lint", "secret_scan"), context_of(tree))
    assert (found.outcome, found.content) == ("failed", {"total": 1, "findings": [{"path": "a.py", "class": "AWS"}]})
    assert secret not in found.model_dump_json()
    clean = await CommandTool("lint", made).call(call_of("lint", "secret_scan", paths=["b.bin"]), context_of(tree))
    assert (clean.outcome, sandbox.specs) == ("succeeded", [])


async def test_output_of_a_linter_that_is_no_json_gives_no_data() -> None:
    for text in (b"oops", b"{}"):
        made, _ = parts(lambda _, text=text: ProgramEnd(stdout=text))
        assert (await CommandTool("lint", made).call(call_of("lint", "lint"), context_of())).content is None


async def test_search_without_a_readable_answer_is_an_error_and_a_failed_run_an_outcome() -> None:
    made, _ = parts(lambda _: ProgramEnd(stdout=b"oops"))
    with pytest.raises(ToolFailed):
        await SearchTool(made).call(call_of("search", "text", query="x"), context_of())
    made, _ = parts(lambda _: ProgramEnd(1, stderr=b"Traceback"))
    assert (await SearchTool(made).call(call_of("search", "text", query="x"), context_of())).outcome == "failed"


@pytest.mark.rule("RT-45")
async def test_scan_of_dependencies_says_what_it_did_not_look_up() -> None:
    open_one = b'[{"path": "requirements.txt", "line": 2, "code": "unpinned", "message": "flask: open"}]'
    for code, printed, end in (
        (0, b"[]", ("succeeded", "no_database", "every dependency has an exact version")),
        (1, open_one, ("failed", "exit_nonzero", "requirements.txt:2: flask: open")),
    ):
        made, _ = parts(lambda _, code=code, printed=printed: ProgramEnd(code, stdout=printed))
        found = await CommandTool("lint", made).call(call_of("lint", "dependency_scan"), context_of())
        first, last = found.text.splitlines()
        assert (found.outcome, found.reason, first) == end
        assert "not looked up" in last
        assert (found.content["checked"], found.content["not_checked"][0]["reason"]) == (["pins"], "no_database")


@pytest.mark.rule("RT-41")
async def test_git_needs_a_repository_and_a_forge_for_what_goes_there() -> None:
    made, _ = parts(lambda _: ProgramEnd(stdout=b"no json"))
    tool = GitTool(made)
    assert (await tool.call(call_of("git", "status"), context_of())).reason == "no_repository"
    with pytest.raises(ToolFailed, match="forge"):
        await tool.call(
            call_of(
                "git", "open_change_request", url="https://a.example/b", branch="fleet/st-tools", title="t", body="b"
            ),
            context_of(repository="a" * 64),
        )
    with pytest.raises(PolicyDenied, match="no listed repository"):
        await tool.call(call_of("git", "fetch", url="https://a.example/b", branch="x"), context_of())
    with pytest.raises(InvalidInput):
        await tool.call(call_of("git", "ls_remote", url="https://tok@a.example/b"), context_of())
    odd = await tool.call(call_of("git", "status"), context_of(repository="a" * 64))
    assert (odd.outcome, odd.text, odd.content) == ("succeeded", "no json", None)
    merging = await tool.call(call_of("git", "merge_candidate", message="m"), context_of(repository="a" * 64))
    assert merging.outcome == "succeeded"


async def test_run_that_changed_nothing_leaves_no_tree() -> None:
    made, _ = parts(lambda _: ProgramEnd())
    tree = await put_tree(made.blobs, {"a": b""})
    context = context_of(tree)
    same = RunResult(status="passed", reason="ok", exit_code=0, tree_out=tree)
    assert (await outcome_of(same, context, made.blobs)).tree_out is None


@pytest.mark.rule("RC-34", "RC-41")
@pytest.mark.parametrize(("language", "toolchain"), [("go", "go"), ("rust", "rust"), ("python", "python")])
async def test_command_runs_in_the_toolchain_of_the_projects_language(language: Language, toolchain: str) -> None:
    made, sandbox = parts(lambda _: ProgramEnd())
    await CommandTool("build", made).call(call_of("build", "build"), context_of(language=language))
    assert [spec.toolchain for spec in sandbox.specs] == [toolchain]


@pytest.mark.rule("RT-46")
async def test_search_of_code_answers_from_the_index_without_a_run() -> None:
    made, sandbox = parts(lambda _: ProgramEnd())
    tool = SearchTool(made)
    tree = await put_tree(made.blobs, {"shop/cart.py": b"class Cart:\n    def expire(self): ...\n", "a.bin": b"\0"})
    found = await tool.call(call_of("search", "code", query="when do carts expire"), context_of(tree))
    assert found.content["items"] == [
        {
            "path": "shop/cart.py",
            "line": 1,
            "end": 2,
            "name": "Cart",
            "text": "class Cart:\n    def expire(self): ...",
            "score_milli": found.content["items"][0]["score_milli"],
            "why": ["words"],
        }
    ]
    assert found.text == "shop/cart.py:1: Cart\nclass Cart:\n    def expire(self): ..."
    assert (await tool.call(call_of("search", "code", query="zebra"), context_of(tree))).text == "nothing found"
    nowhere = await tool.call(call_of("search", "code", query="cart"), context_of(None))
    assert nowhere.content == {"total": 0, "items": []}
    assert sandbox.specs == []


async def test_search_of_code_that_takes_too_long_is_an_outcome() -> None:
    class Slow(MemoryBlobStore):
        async def get(self, digest: Digest) -> bytes:
            await asyncio.Event().wait()
            raise AssertionError("never reached")

    made, _ = parts(lambda _: ProgramEnd())
    context = context_of(await made.blobs.put(b"[]"), timeout_s=1)
    found = await SearchTool(made, CodeKnowledge(Slow())).call(call_of("search", "code", query="x"), context)
    assert found.outcome == "timed_out"
