"""Tool docker with a real engine: what a story makes, sees and removes. Needs podman; no registry is asked."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio

from fleet.extensions.operations.docker import DockerTool
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import InvalidInput, PolicyDenied, SandboxUnavailable
from fleet.kernel.ids import Digest, StoryId
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.targets import Targets
from fleet.sandbox.backends.containers.engine import Engine
from fleet.tools.port import ToolContext
from fleet.trees.memory import MemoryBlobStore
from tests.support.sandbox import put_tree
from tests.support.tool_kit import call_of, context_of

pytestmark = [pytest.mark.wide, pytest.mark.asyncio(loop_scope="module")]
PROGRAMS = ("/bin/sh", "/bin/sleep", "/bin/cat", "/bin/ls")
NAME = "localhost/swefleet-test-base"


class Town(NamedTuple):
    tool: DockerTool
    image: str
    blobs: MemoryBlobStore
    engine: Engine

    async def call(self, context: ToolContext, op: str, **args: object) -> ToolOutcome:
        return await self.tool.call(call_of("docker", op, **args), context)  # pyright: ignore[reportArgumentType]


def rootfs() -> bytes:
    """A few programs of this machine with their libraries, as a tar archive."""
    listed = subprocess.run(["ldd", *PROGRAMS], capture_output=True, text=True, check=True).stdout.split()
    files = {Path(word) for word in (*PROGRAMS, *listed) if word.startswith("/") and not word.endswith(":")}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        for folder in ("tmp", "workspace", "proc", "sys", "dev", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for file in sorted(files):
            archive.add(file, arcname=str(file).lstrip("/"))
    return buffer.getvalue()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town() -> AsyncGenerator[Town]:
    engine = Engine("podman")
    try:
        await engine.facts()
    except SandboxUnavailable as error:
        pytest.skip(f"no podman here: {error.message}")
    await engine.call(["import", "-", f"{NAME}:1"], stdin=rootfs())
    digest = (await engine.call(["image", "inspect", "--format", "{{.Digest}}", f"{NAME}:1"])).strip()
    image = f"{NAME}@{digest}"
    blobs = MemoryBlobStore()
    yield Town(DockerTool(blobs, targets=Targets(images=(image,)), clock=SystemClock()), image, blobs, engine)
    for story in ("st-tools", "st-other"):
        for name in await engine.names({"swefleet.story": story}):
            await engine.remove(name)
        made = await engine.call(["images", "--quiet", "--filter", f"label=swefleet.story={story}"])
        for built in dict.fromkeys(made.split()):
            await engine.call(["rmi", "--force", built])
    await engine.call(["rmi", "--force", f"{NAME}:1"])


async def started(town: Town, *argv: str, tree: Digest | None = None, timeout_s: int = 60) -> tuple[str, ToolContext]:
    context = context_of(tree, effect="KEYED", timeout_s=timeout_s)
    outcome = await town.call(context, "run", image=town.image, argv=list(argv))
    assert (outcome.outcome, outcome.text[:10]) == ("succeeded", "container "), outcome
    assert isinstance(outcome.content, dict)
    return str(outcome.content["container"]), context


@pytest.mark.rule("RT-49", "RT-61")
async def test_container_runs_is_seen_used_and_removed(town: Town) -> None:
    tree = await put_tree(town.blobs, {"a.txt": b"hello\n"})
    script = "trap 'exit 7' TERM; cat /workspace/a.txt; while :; do sleep 0.1; done"
    name, context = await started(town, "sh", "-c", script, tree=tree)
    again = await town.call(context, "run", image=town.image, argv=["sh"])
    told = await town.call(context, "exec", container=name, arguments=["sh", "-c", "echo in; exit 3"])
    listed = await town.call(context, "ps")
    state = await town.call(context, "inspect", container=name)
    stopped = await town.call(context, "stop", container=name)
    logs = await town.call(context, "logs", container=name)
    removed = [await town.call(context, "rm", container=name) for _ in range(2)]
    gone = await town.call(context, "logs", container=name)

    assert again.content == {"container": name}
    assert (told.outcome, told.exit_code, told.text) == ("failed", 3, "in\n")
    assert name in listed.text
    assert '"Status": "running"' in state.text
    assert "hello" in logs.text
    assert [o.outcome for o in (stopped, *removed)] == ["succeeded"] * 3
    assert (gone.outcome, gone.reason) == ("failed", "not_found")


@pytest.mark.rule("RT-61", "RC-30")
async def test_container_has_no_network_no_rights_and_cannot_write(town: Town) -> None:
    name, context = await started(town, "sleep", "50")
    script = "cat /proc/self/status /proc/net/dev /proc/self/limits; echo x > /workspace/new"
    told = await town.call(context, "exec", container=name, arguments=["sh", "-c", script])
    raw = await town.engine.call(["inspect", "--format", "{{json .HostConfig}}", name])

    assert "CapEff:\t0000000000000000" in told.text
    assert "NoNewPrivs:\t1" in told.text
    assert "Uid:\t65534" in told.text
    assert "eth0" not in told.text
    assert "Read-only file system" in told.text
    assert '"Privileged":false' in raw
    assert f'"Memory":{1 << 30}' in raw
    assert '"PidsLimit":256' in raw
    assert '"Binds":[]' in raw


@pytest.mark.rule("RT-61")
async def test_container_of_another_story_is_out_of_reach(town: Town) -> None:
    name, context = await started(town, "sleep", "50")
    other = replace(context, story_id=StoryId("st-other"))
    outcomes = [await town.call(other, op, container=name) for op in ("logs", "inspect", "stop")]
    removed = await town.call(other, "rm", container=name)
    listed = await town.call(other, "ps")

    assert {o.reason for o in outcomes} == {"not_found"}
    assert removed.text == "there is none"
    assert name not in listed.text
    assert '"running"' in (await town.call(context, "inspect", container=name)).text


@pytest.mark.rule("RT-61", "RC-30")
async def test_container_whose_time_is_up_ends_and_is_removed(town: Town) -> None:
    name, context = await started(town, "sleep", "50", timeout_s=1)
    await town.engine.call(["wait", name])  # podman ends it by itself
    later = DockerTool(town.blobs, targets=Targets(), clock=AnHourLater())
    listed = await later.call(call_of("docker", "ps"), context_of(effect="KEYED"))

    assert name not in listed.text
    assert (await town.call(context_of(), "inspect", container=name)).reason == "not_found"


class AnHourLater(SystemClock):
    """As if an hour had passed."""

    def now_ms(self) -> int:
        """See the port."""
        return super().now_ms() + 3_600_000


async def test_command_that_does_not_end_takes_its_container_with_it(town: Town) -> None:
    name, context = await started(town, "sleep", "50")
    hurried = replace(context, obligations=context.obligations.model_copy(update={"timeout_s": 1}))
    told = await town.call(hurried, "exec", container=name, arguments=["sleep", "40"])

    assert (told.outcome, told.reason) == ("timed_out", "timeout")
    await town.engine.call(["wait", name])
    assert '"exited"' in (await town.call(context, "inspect", container=name)).text


@pytest.mark.rule("RT-61")
async def test_image_is_built_without_network_and_belongs_to_the_story(town: Town) -> None:
    lines = f'FROM {town.image}\nCOPY a.txt /a.txt\nRUN ["/bin/cat", "/a.txt", "/proc/net/dev", "/proc/self/status"]\n'
    tree = await put_tree(town.blobs, {"web/Containerfile": lines.encode(), "web/a.txt": b"made here\n"})
    context = context_of(tree, effect="KEYED")
    built = await town.call(context, "build", path="web", tag="one")
    listed = await town.call(context, "images")
    others = await town.call(replace(context, story_id=StoryId("st-other")), "images")

    assert (built.outcome, built.content) == ("succeeded", {"image": "localhost/swefleet/st-tools:one"}), built.text
    assert "made here" in built.text
    assert "eth0" not in built.text
    assert "CapEff:\t0000000000000000" in built.text
    assert "localhost/swefleet/st-tools:one" in listed.text
    assert "swefleet/st-tools" not in others.text


async def test_build_that_fails_is_an_outcome(town: Town) -> None:
    tree = await put_tree(town.blobs, {"Dockerfile": f'FROM {town.image}\nRUN ["/bin/ls", "/none"]\n'.encode()})
    built = await town.call(context_of(tree, effect="KEYED"), "build", path=".", tag="two")

    assert (built.outcome, built.content) == ("failed", None)
    assert "/none" in built.text


@pytest.mark.rule("RT-61")
async def test_build_that_cannot_be_trusted_does_not_begin(town: Town) -> None:
    evil = await put_tree(town.blobs, {"Containerfile": b"FROM busybox\n"})
    with pytest.raises(PolicyDenied):
        await town.call(context_of(evil), "build", path=".", tag="x")
    with pytest.raises(InvalidInput, match="no Containerfile"):
        await town.call(context_of(evil), "build", path="web", tag="x")


@pytest.mark.rule("RT-61")
async def test_image_that_is_not_stored_is_not_fetched(town: Town) -> None:
    image = "localhost/none@sha256:" + "0" * 64
    tool = DockerTool(town.blobs, targets=Targets(images=(image,)), clock=SystemClock())
    tree = await put_tree(town.blobs, {"Containerfile": f"FROM {image}\n".encode()})
    ran = await tool.call(call_of("docker", "run", image=image), context_of())
    built = await tool.call(call_of("docker", "build", path=".", tag="x"), context_of(tree))
    pushed = await tool.call(call_of("docker", "push", image=image), context_of())

    assert {ran.reason, built.reason} == {"image_unavailable"}
    assert pushed.reason == "not_found"


async def test_container_that_cannot_start_leaves_nothing(town: Town) -> None:
    context = context_of(effect="KEYED")
    outcome = await town.call(context, "run", image=town.image, argv=["/no/such/program"])

    assert outcome.outcome == "failed"
    assert "no such file" in outcome.text.lower()
    assert "swefleet-" not in "".join(
        line for line in (await town.call(context, "ps")).text.splitlines() if "Created" in line
    )


async def test_node_without_an_engine_names_what_is_missing() -> None:
    tool = DockerTool(MemoryBlobStore(), targets=Targets(), clock=SystemClock(), engines=())
    outcome = await tool.call(call_of("docker", "ps"), context_of())

    assert (outcome.outcome, outcome.reason) == ("failed", "program_missing")
    with pytest.raises(InvalidInput):
        await tool.call(call_of("docker", "commit"), context_of())
