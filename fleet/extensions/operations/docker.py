"""Tool docker: containers and images of one story on this node, through podman or docker (RT-49, RT-61)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from fleet.extensions.operations.answers import outcome_of
from fleet.extensions.operations.arguments import lines_of, text_of, unknown_op
from fleet.kernel.clock import Clock
from fleet.kernel.errors import InvalidInput, SandboxUnavailable
from fleet.kernel.types import OutcomeKind
from fleet.policy.commands.container import (
    STORY_LABEL,
    UNTIL_LABEL,
    ContainerOrder,
    base_images,
    build_argv,
    create_argv,
    image_name,
    push_name,
    story_filter,
)
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.targets import Targets
from fleet.sandbox.backends.containers.engine import Engine
from fleet.sandbox.backends.containers.launch import EngineFacts
from fleet.sandbox.backends.identity import Identity
from fleet.sandbox.folders.tree_writer import write_tree
from fleet.sandbox.folders.workspace import remove_tree
from fleet.tools.kit.parts import ToolPlugin
from fleet.tools.kit.runs import limits_of
from fleet.tools.port import ToolContext
from fleet.trees.port import BlobStore
from fleet.trees.service import read_tree
from fleet.trees.tree import Tree

_MAX_OUTPUT = 10 << 20
_GRACE_S = 5.0
_STOP_S = 10
_NEEDED = frozenset({"memory", "pids", "cpu"})
_ROWS = {
    "ps": ("ps", "--all", "--format", "{{.Names}}\t{{.Image}}\t{{.Status}}"),
    "images": ("images", "--digests", "--format", "{{.Repository}}:{{.Tag}}\t{{.Digest}}\t{{.ID}}"),
}
_STATE = ("Status", "ExitCode", "StartedAt", "FinishedAt", "OOMKilled", "Error")


class _Said(NamedTuple):
    code: int | None
    """None when its time was up."""
    text: str


class DockerTool:
    """Containers and images with the label of the calling story, and no others; images by digest from the policy.

    What it starts has no network, no rights, no path of this machine and the limits of RC-30; with podman, the files
    of the workspace are copied to /workspace (docker cannot do so below a read-only root). Containers whose time is
    up are removed at the next call; podman ends them by itself as well.

    Args:
        targets: `images` of the policy are what may be run, built upon and pushed.
        engines: asked in this order; the first one that answers is used.
    """

    def __init__(
        self, blobs: BlobStore, *, targets: Targets, clock: Clock, engines: Sequence[Engine] | None = None
    ) -> None:
        self._blobs = blobs
        self._images = frozenset(targets.images)
        self._clock = clock
        self._engines = tuple(engines) if engines is not None else (Engine("podman"), Engine("docker"))
        self._ready: tuple[Engine, EngineFacts] | None = None

    @property
    def name(self) -> str:
        """`docker`."""
        return "docker"

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """Carry the operation out.

        A container or image that the story does not have is an outcome `failed` (`not_found`), as is a node without
        an engine (`program_missing`). `run` leaves the container running: `content.container` names it for exec,
        logs, stop and rm. Raises PolicyDenied for an image that is not listed, InvalidInput for a Containerfile that
        a build cannot be trusted with, SandboxUnavailable when limits cannot be applied here (RC-32).
        """
        ops: dict[str, Callable[[ToolCall, ToolContext], Awaitable[ToolOutcome]]] = {
            "ps": self._rows,
            "images": self._rows,
            "logs": self._of_container,
            "inspect": self._inspect,
            "exec": self._of_container,
            "stop": self._of_container,
            "rm": self._of_container,
            "run": self._start,
            "build": self._build,
            "push": self._push,
        }
        if call.op not in ops:
            raise unknown_op(call)
        try:
            await self._engine()
        except SandboxUnavailable as error:
            return ToolOutcome(outcome="failed", reason="program_missing", text=error.message)
        await self._remove_overdue()
        return await ops[call.op](call, context)

    # What is there.

    async def _rows(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        return await self._told(await self._ask((*_ROWS[call.op], *story_filter(context.story_id)), context))

    async def _inspect(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        found = await self._container(text_of(call, "container"), context)
        if found is None:
            return _none_such(call)
        state = {name: found["State"][name] for name in _STATE if name in found["State"]}
        content = {"image": found.get("ImageName") or found.get("Image"), "state": state}
        return await outcome_of(json.dumps(content, indent=1, sort_keys=True), self._blobs, content=content)

    async def _of_container(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        name = text_of(call, "container")
        if await self._container(name, context) is None:
            # Removing what is gone is done: a call that was carried out just before a crash is made again.
            return ToolOutcome(outcome="succeeded", text="there is none") if call.op == "rm" else _none_such(call)
        match call.op:
            case "logs":
                argv: tuple[str, ...] = ("logs", "--tail", "2000", name)
            case "exec":
                argv = ("exec", "--user", "65534:65534", name, *lines_of(call, "arguments"))
            case "stop":
                argv = ("stop", "-t", str(_STOP_S), name)
            case _:
                engine, _ = await self._engine()
                argv = ("rm", "--force", *(("--time", "0") if engine.name == "podman" else ()), name)
        said = await self._ask(argv, context)
        if said.code is None and call.op == "exec":
            # A client that is killed leaves its command running: the container ends with it.
            await self._ask(("kill", name), context)
        return await self._told(said)

    async def _container(self, name: str, context: ToolContext) -> dict[str, Any] | None:
        """What the engine knows of the container, None unless it belongs to the story."""
        said = await self._ask(("container", "inspect", name), context)
        found = cast(list[dict[str, Any]], json.loads(said.text)) if said.code == 0 else []
        labels: dict[str, str] = (found[0]["Config"].get("Labels") if found else None) or {}
        return found[0] if labels.get(STORY_LABEL) == context.story_id else None

    # What is made.

    async def _start(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        engine, _ = await self._held()
        image = text_of(call, "image")
        if not await engine.has_image(image):
            return _not_stored(image)
        name = f"swefleet-{hashlib.sha256(f'{context.story_id}/{context.key}'.encode()).hexdigest()[:20]}"
        limits = limits_of(context, memory_bytes=1 << 30)
        until_s = self._clock.now_ms() // 1000 + limits.overall_s
        order = ContainerOrder(name, context.story_id, image, lines_of(call, "argv"), limits, until_s)
        # One that was made and not started before a crash begins anew; one that runs is joined.
        found = await self._container(name, context)
        if found is None or found["State"].get("Status") == "created":
            await engine.remove(name)
            said = await self._made(engine, order, context)
            if said.code != 0:
                await engine.remove(name)
                return await self._told(said)
        return await outcome_of(f"container {name} is started", self._blobs, content={"container": name})

    async def _made(self, engine: Engine, order: ContainerOrder, context: ToolContext) -> _Said:
        said = await self._ask(create_argv(order, engine.name, cpus=os.cpu_count() or 1), context)
        if said.code == 0 and context.tree is not None and engine.name == "podman":
            async with self._task_folder(await read_tree(self._blobs, context.tree)) as folder:
                said = await self._ask(("cp", f"{folder}/tree/.", f"{order.name}:/workspace"), context)
        return await self._ask(("start", order.name), context) if said.code == 0 else said

    async def _build(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        engine, _ = await self._held()
        if engine.name != "podman":
            raise SandboxUnavailable(
                "docker builds without limits: install podman on this node to build images", missing="podman"
            )
        tree = await read_tree(self._blobs, context.tree) if context.tree else {}
        text = await self._containerfile(text_of(call, "path"), tree)
        for image in base_images(text, listed=self._images):
            if not await engine.has_image(image):
                return _not_stored(image)
        async with self._task_folder(tree) as folder:
            await asyncio.to_thread((folder / "Containerfile").write_text, text, encoding="utf-8")
            context_folder = folder / "tree" / text_of(call, "path")
            argv = build_argv(
                str(context_folder),
                str(folder / "Containerfile"),
                story=context.story_id,
                tag=text_of(call, "tag"),
                limits=limits_of(context),
                id_file=str(folder / "id"),
            )
            said = await self._ask(argv, context)
        content = {"image": image_name(context.story_id, text_of(call, "tag"))}
        return await self._told(said, content=content if said.code == 0 else None)

    async def _containerfile(self, path: str, tree: Tree) -> str:
        for name in ("Containerfile", "Dockerfile"):
            entry = tree.get(name if path == "." else f"{path}/{name}")
            if entry is not None and entry.mode in ("100644", "100755"):
                return (await self._blobs.get(entry.blob)).decode(errors="replace")
        raise InvalidInput(f"there is no Containerfile in {path!r}; add one and build again", field="path")

    async def _push(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        image = text_of(call, "image")
        target, digest = push_name(image), image.partition("@")[2]
        said = await self._ask((*_ROWS["images"], *story_filter(context.story_id)), context)
        rows = [line.split("\t") for line in said.text.splitlines()]
        found = next((row[2] for row in rows if len(row) == 3 and row[1] == digest), None)
        if found is None:
            return ToolOutcome(
                outcome="failed", reason="not_found", text=f"this story has built no image with digest {digest}"
            )
        engine, _ = await self._held()
        steps = [("push", found, f"docker://{target}")] if engine.name == "podman" else _docker_push(found, target)
        for step in steps:
            if (said := await self._ask(step, context)).code != 0:
                break
        return await self._told(said, content={"image": target} if said.code == 0 else None)

    # The engine.

    async def _engine(self) -> tuple[Engine, EngineFacts]:
        complaints: list[str] = []
        for engine in self._engines if self._ready is None else ():
            try:
                self._ready = engine, await engine.facts()
                break
            except SandboxUnavailable as error:
                complaints.append(error.message)
        if self._ready is None:
            raise SandboxUnavailable("; ".join(complaints) or "no container engine is configured", missing="podman")
        return self._ready

    async def _held(self) -> tuple[Engine, EngineFacts]:
        """The engine, which applies every limit here. SandboxUnavailable names what it cannot (RC-32)."""
        engine, facts = await self._engine()
        if unmet := sorted(_NEEDED - facts.controllers):
            raise SandboxUnavailable(
                f"{engine.name} cannot limit {', '.join(unmet)} here: use cgroup v2, or a supervisor that is root",
                missing=unmet[0],
                unmet=unmet,
            )
        return engine, facts

    async def _remove_overdue(self) -> None:
        engine, _ = await self._engine()
        listed = ("ps", "--all", "--filter", f"label={UNTIL_LABEL}", "--format", "{{.Names}}")
        for name in (await engine.call(listed)).split():
            until = await engine.call(("inspect", "--format", f'{{{{index .Config.Labels "{UNTIL_LABEL}"}}}}', name))
            if until.strip().isdecimal() and int(until) * 1000 < self._clock.now_ms():
                await engine.remove(name)

    async def _ask(self, argv: Sequence[str], context: ToolContext) -> _Said:
        """How one call of the engine ended and what it printed, of which at most 10 MiB are kept."""
        engine, _ = await self._engine()
        process = await engine.start(argv)
        assert process.stdin is not None
        process.stdin.close()
        kept = bytearray()
        try:
            async with asyncio.timeout(context.obligations.timeout_s):
                await asyncio.gather(_drain(process.stdout, kept), _drain(process.stderr, kept))
                code: int | None = await process.wait()
        except TimeoutError:
            code = None
        finally:
            await _end(process)
        return _Said(code, kept.decode(errors="replace"))

    async def _told(self, said: _Said, *, content: Any = None) -> ToolOutcome:
        kind: OutcomeKind = "timed_out" if said.code is None else "succeeded" if said.code == 0 else "failed"
        reason = "timeout" if said.code is None else "ok" if said.code == 0 else "exit_nonzero"
        return await outcome_of(said.text, self._blobs, kind=kind, reason=reason, exit_code=said.code, content=content)

    @contextlib.asynccontextmanager
    async def _task_folder(self, tree: Tree) -> AsyncGenerator[Path]:
        """A folder of the task with the tree in `tree`; nothing of it is left afterwards."""
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="swefleet-task-"))
        try:
            (folder / "tree").mkdir(mode=0o755)
            await write_tree(tree, folder / "tree", self._blobs, Identity(os.geteuid(), os.getegid(), is_dropped=False))
            yield folder
        finally:
            await asyncio.to_thread(remove_tree, folder)


def _docker_push(found: str, target: str) -> list[tuple[str, ...]]:
    return [("tag", found, target), ("push", target)]


def _none_such(call: ToolCall) -> ToolOutcome:
    text = f"this story has no container {text_of(call, 'container')!r}; docker.ps lists those that it has"
    return ToolOutcome(outcome="failed", reason="not_found", text=text)


def _not_stored(image: str) -> ToolOutcome:
    text = f"image {image} is not stored on this node and nothing is fetched: have it pulled there and call again"
    return ToolOutcome(outcome="failed", reason="image_unavailable", text=text)


async def _drain(stream: asyncio.StreamReader | None, kept: bytearray) -> None:
    while stream is not None and (chunk := await stream.read(65_536)):
        kept += chunk[: max(0, _MAX_OUTPUT - len(kept))]


async def _end(process: asyncio.subprocess.Process) -> None:
    """The client and what it started in its session are gone."""
    for sign, wait_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, _GRACE_S)):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), wait_s)


PLUGIN = ToolPlugin(
    name="docker",
    make=lambda parts: DockerTool(parts.blobs, targets=parts.targets, clock=parts.clock),
)
