"""The environment of a story's repository: made once at its start, whatever dies, or told why it cannot be made."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from fleet.events.codec import decode
from fleet.events.payload import Payload
from fleet.events.step import StepFinished
from fleet.events.story import RepoSource, StoryParked, StoryStarted
from fleet.events.task import TreeMerged
from fleet.kernel.errors import InvalidInput
from fleet.owner.duties.procedure import checkout_base
from fleet.owner.story_owner import StoryOwner
from fleet.owner.workbench import Workbench
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.policy.runs.toolchains import Language, layer_named
from fleet.sandbox.folders.package_layers import PackageLayers
from fleet.sandbox.memory import ProgramEnd, ProgramStart
from fleet.secrets.port import SecretDelivery
from fleet.story.intents import CheckoutBase
from fleet.workspace.service.environments import ARCHIVE, FACTS, EnvironmentService, NodeEnvironments, RegistryAccess
from fleet.workspace.service.specs import JUNIT
from tests.support.acting import Crash, MortalLog
from tests.support.bench import World
from tests.support.story_events import digest, story

P = TypeVar("P", bound=Payload)

REPO = "/srv/text"
ASKS = {"requirements.txt": b"wordparts==1.2\n", "tests/test_page.py": b"def test_load(): ...\n"}


def archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as packed:
        info = tarfile.TarInfo("bin/wordparts")
        packed.addfile(info, io.BytesIO(b""))
    return content.getvalue()


class Site:
    """A repository, and the node that makes its environment; its programs are scripted."""

    def __init__(self, root: Path, log: MortalLog | None = None) -> None:
        self.files, self.fetches, self.served = dict(ASKS), 0, True
        self.world = World(program=self._program, log=log)
        self.layers, self.runs = PackageLayers(root), 0
        self.node = NodeEnvironments(self.opened)
        self.begins, self.may_end = asyncio.Event(), asyncio.Event()
        self.may_end.set()
        self.commit("0a" * 20)

    def commit(self, commit: str) -> None:
        self.world.forge.add_repository(REPO, branches={"main": commit})

    async def _program(self, start: ProgramStart) -> ProgramEnd:
        told = " ".join(start.argv)
        if "git_checkout" in told:
            return ProgramEnd(written=self.files)
        if "build_layer" in told and not self.served:
            return ProgramEnd(1, stderr=b"ERROR: No matching distribution found for wordparts==1.2\n")
        if "build_layer" in told:
            self.fetches += 1
            self.begins.set()
            await self.may_end.wait()
            return ProgramEnd(written={ARCHIVE: archive(), FACTS: b'{"files": 1, "bytes": 0}'})
        if "agent_task" in told:
            cases = b'<testcase classname="tests.test_page" name="test_load"/>'
            return ProgramEnd(written={JUNIT: b"<testsuites><testsuite>" + cases + b"</testsuite></testsuites>"})
        return ProgramEnd()

    @asynccontextmanager
    async def opened(self, language: Language) -> AsyncGenerator[tuple[EnvironmentService, RegistryAccess]]:
        async def run(spec: RunSpec, secrets: SecretDelivery | None) -> RunResult:
            self.runs += 1
            # The sandbox of this test has no programs, and so neither has its layers.
            spec = spec.model_copy(update={"toolchain": language})
            result = await self.world.backend.run(spec, run_id=f"environment-{self.runs}", secrets=secrets)
            return result.model_copy(update={"image": digest("programs")})

        yield (
            EnvironmentService(run, self.world.blobs, self.layers, script=b"", pip=b""),
            RegistryAccess(hosts=("registry.test",)),
        )

    async def begun(self, **start: object) -> Site:
        """The story was started, and nothing more."""
        log = story(only=("created", "scored"))
        source = RepoSource(provider="local", url=REPO)
        log.add(StoryStarted.model_validate({"repo": source, "toolchain": "python", "record": False, **start}))
        await log.write_to(self.world.log)
        return self

    async def bench(self) -> Workbench:
        """What a new owner of the story works with."""
        return replace(await self.world.bench(), environments=self.node)

    async def all_of(self, kind: type[P]) -> list[P]:
        """What is on record of this kind, oldest first."""
        payloads = [decode(event) for event in await self.world.events()]
        return [payload for payload in payloads if isinstance(payload, kind)]

    async def environment_steps(self) -> list[tuple[str, str]]:
        """Each step that made an environment, and how it ended."""
        ended = await self.all_of(StepFinished)
        return [(one.step_id, one.outcome) for one in ended if one.step_id.startswith("environment/")]


async def owned(site: Site, bench: Workbench) -> None:
    """The owner works until the story is parked or its base is on record."""
    owner = StoryOwner(bench)
    working = asyncio.create_task(owner.run())
    try:
        async with asyncio.timeout(10):
            while not await site.all_of(TreeMerged) and not bench.state.park:
                await asyncio.sleep(0.01)
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


@pytest.mark.rule("RC-111")
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("at", range(1, 6))
async def test_environment_is_made_once_whichever_append_its_owner_dies_at(
    tmp_path: Path, at: int, stored: bool
) -> None:
    log = MortalLog(at=at, stored=stored)
    site = await Site(tmp_path, log).begun()
    log.is_armed = True
    with pytest.raises(Crash):
        await checkout_base(await site.bench(), CheckoutBase())
    bench = await site.bench()
    if not await site.all_of(TreeMerged):
        await checkout_base(bench, CheckoutBase())
    (merged,) = await site.all_of(TreeMerged)
    assert merged.toolchain == bench.toolchain
    assert (name := layer_named(bench.toolchain)) is not None
    assert name.language == "python"
    assert site.layers.record(name) is not None
    assert site.fetches == 1
    assert await site.environment_steps() == [("environment/1", "succeeded")]


@pytest.mark.rule("RC-111")
async def test_environment_is_made_once_for_two_who_ask_at_the_same_time_and_goes_on_without_them(
    tmp_path: Path,
) -> None:
    site = await Site(tmp_path).begun()
    site.may_end.clear()
    gone = asyncio.create_task(checkout_base(await site.bench(), CheckoutBase()))
    await asyncio.wait_for(site.begins.wait(), 10)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    # The next owner asks while the first one's making is under way.
    after = asyncio.create_task(checkout_base(await site.bench(), CheckoutBase()))
    await asyncio.sleep(0.05)
    site.may_end.set()
    await asyncio.wait_for(after, 10)
    assert site.fetches == 1
    assert await site.environment_steps() == [("environment/1", "succeeded")]


@pytest.mark.rule("RC-110", "RC-111")
async def test_story_whose_packages_cannot_be_had_is_parked_with_what_to_do_and_goes_on_once_that_is_done(
    tmp_path: Path,
) -> None:
    site = await Site(tmp_path).begun()
    site.served = False
    bench = await site.bench()
    await owned(site, bench)
    (parked,) = await site.all_of(StoryParked)
    assert parked.code == "tool_failed"
    assert "requirements.txt cannot be set up" in parked.detail
    assert "correct its name or version" in parked.detail
    assert "--no-fetch" in parked.detail
    assert site.world.agents.asked == []
    # The repository says something else by then: it is looked at anew, not taken from the record of before.
    site.files = {**ASKS, "requirements.txt": b"git+https://example.com/x\n"}
    site.commit("0b" * 20)
    with pytest.raises(InvalidInput, match="comes from no registry.*--no-fetch"):
        await checkout_base(bench, CheckoutBase())
    site.files, site.served = dict(ASKS), True
    site.commit("0c" * 20)
    await checkout_base(bench, CheckoutBase())
    (merged,) = await site.all_of(TreeMerged)
    assert merged.commit == "0c" * 20
    assert layer_named(bench.toolchain) is not None
    outcomes = [outcome for _, outcome in await site.environment_steps()]
    assert outcomes == ["failed", "failed", "succeeded"]


@pytest.mark.rule("RC-110", "RC-111")
@pytest.mark.parametrize(
    ("start", "files", "toolchain", "told"),
    [
        ({"fetches": False}, ASKS, "python", None),
        ({"toolchain": "env:/x"}, ASKS, "env:/x", None),
        ({}, {"page.py": b""}, "python", None),
        ({}, {"page.py": b"", "tests/test_d.py": b"import docker\n"}, "python", "starts containers itself"),
    ],
)
async def test_story_that_has_nothing_to_fetch_has_the_programs_that_it_was_started_with(
    tmp_path: Path, start: dict[str, object], files: dict[str, bytes], toolchain: str, told: str | None
) -> None:
    site = await Site(tmp_path).begun(**start)
    site.files = files
    bench = await site.bench()
    await checkout_base(bench, CheckoutBase())
    assert (bench.toolchain, site.fetches) == (toolchain, 0)
    said = [s.excerpt or "" for s in await site.all_of(StepFinished) if s.step_id.startswith("environment/")]
    assert [told in text for text in said if told] == ([True] if told else [])


@pytest.mark.rule("RC-111")
async def test_sandbox_that_makes_no_environments_says_so_and_the_story_goes_on(tmp_path: Path) -> None:
    site = await Site(tmp_path).begun()
    node = NodeEnvironments(site.opened, refusal="sandbox backend podman makes no environments")
    bench = replace(await site.bench(), environments=node)
    await checkout_base(bench, CheckoutBase())
    (step,) = [s for s in await site.all_of(StepFinished) if s.step_id.startswith("environment/")]
    assert step.excerpt is not None
    assert "podman makes no environments: what requirements.txt asks for has to be in its image" in step.excerpt
    assert (bench.toolchain, site.fetches) == ("python", 0)
