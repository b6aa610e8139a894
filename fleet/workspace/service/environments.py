"""The environment of a repository: fetched once for each lockfile, tried on the base, and written down."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from fleet.kernel.digest import canonical_json, digest_of, digest_of_json
from fleet.kernel.errors import SandboxUnavailable, ToolFailed
from fleet.kernel.ids import Digest
from fleet.kernel.types import Frozen
from fleet.policy.runs.spec import BlobMount, Limits, RunResult, RunSpec
from fleet.policy.runs.toolchains import Language, LayerName, layer_named
from fleet.policy.secret_refs import SCHEME, SECRETS_FOLDER
from fleet.policy.workspace_file import command_variables
from fleet.sandbox.port import LayerStore
from fleet.secrets.port import SecretDelivery, SecretValue
from fleet.trees.port import BlobStore
from fleet.trees.service import is_test, read_tree
from fleet.trees.tree import FileEntry, encode_tree
from fleet.workspace.project import LayerNeeds
from fleet.workspace.service import specs
from fleet.workspace.service.repository_environment import MadeEnvironment
from fleet.workspace.service.results import JUnitSuite, parse_junit
from fleet.workspace.service.workspace import declared_by

DeliveredRun = Callable[[RunSpec, SecretDelivery | None], Awaitable[RunResult]]
"""Runs one specification with what it is given beside it; nothing of the run is recorded."""

ARCHIVE, FACTS = "layer.tar", "layer.json"
_SCRIPT, _PIP = "/inputs/build_layer.py", "/inputs/pip.whl"
_CERTIFICATES = "/inputs/certificates.pem"
_CONFIG = "registry-config"
_LIMITS = Limits(overall_s=1800, idle_s=900, memory_bytes=4 << 30, disk_bytes=8 << 30, file_bytes=2 << 30, pids=1024)
_TEST_LIMITS = Limits(overall_s=1800, idle_s=900, memory_bytes=2 << 30)
_SECOND_RUN_S = 600
"""A suite that takes longer is run once: then nobody knows which of its tests are flaky."""
_MOST_NAMED = 500
_CA_VARIABLES: tuple[str, ...] = ("PIP_CERT", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "CARGO_HTTP_CAINFO")


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """How the registries of one language are reached. Addresses may hold passwords: nothing of it is recorded."""

    hosts: tuple[str, ...]
    addresses: Mapping[str, str] = field(default_factory=dict[str, str])
    """Variable -> value."""
    config: str | None = None
    """Content of npm's configuration file."""
    certificates: bytes | None = None
    """Authorities that the registries' certificates are checked against; None: those of the system."""


class LayerRecord(Frozen):
    """What is known of a layer once it is there."""

    name: str
    language: str
    source: str
    files: int
    size_bytes: int
    wall_ms: int


class BaseLine(Frozen):
    """How the tests of one commit end in its environment, before anybody changes anything."""

    tests: int
    known_failures: tuple[str, ...] = ()
    """They fail every time, and so are nobody's doing."""
    flaky: tuple[str, ...] = ()
    """They ended differently in two runs on the same files."""
    problem: str = ""
    """Why there is no whole base line; empty when there is."""


class EnvironmentService:
    """Makes layers and base lines, each once.

    Args:
        run: in a sandbox whose proxy reaches the registries.
        script: text of the program that fetches and packs inside.
        pip: pip as one archive, which the sandbox's own programs lack.
    """

    def __init__(self, run: DeliveredRun, blobs: BlobStore, layers: LayerStore, *, script: bytes, pip: bytes | None):
        self._run, self._blobs, self._layers = run, blobs, layers
        self._script, self._pip = script, pip

    async def layer(self, needs: LayerNeeds, access: RegistryAccess) -> tuple[LayerRecord, bool]:
        """The layer of these needs, and whether it was made now: it is found again for the same lockfile.

        Raises:
            ToolFailed: what is asked for cannot be had, or not in time; the message says what, and what to do.
            SandboxUnavailable: no sandbox, or the language's programs are not on this machine.
        """
        name = await self._name(needs)
        if (written := await asyncio.to_thread(self._layers.record, name)) is not None:
            return LayerRecord.model_validate_json(written), False
        if needs.language == "python" and self._pip is None:
            raise SandboxUnavailable(
                "pip is not installed beside the fleet: run `python -m ensurepip` in its environment", missing="pip"
            )
        result = await self._run(await self._spec(needs, access), _delivery(needs, access))
        _require_fetched(result, needs)
        archive, facts = result.artifact(ARCHIVE), result.artifact(FACTS)
        if archive is None or facts is None:
            raise ToolFailed(
                f"the packages of {needs.source} are larger than a layer may be (512 MiB): ask for fewer",
                source=needs.source,
            )
        counted = _Counted.model_validate_json(await self._blobs.get(facts))
        record = LayerRecord(
            name=name.text,
            language=needs.language,
            source=needs.source,
            files=counted.files,
            size_bytes=counted.bytes,
            wall_ms=result.usage.wall_ms,
        )
        content = await self._blobs.get(archive)
        await asyncio.to_thread(self._layers.keep, name, content, canonical_json(record))
        return record, True

    async def base_line(self, name: LayerName, commit: str, tree: Digest) -> BaseLine:
        """How the tests of the commit end in the layer, offline; run once, twice where that is quick.

        Raises:
            ToolFailed: no test can be run at all; says why, and what to do.
        """
        of = f"base-{commit}"
        if (written := await asyncio.to_thread(self._layers.record, name, of)) is not None:
            return BaseLine.model_validate_json(written)
        line = await self._tried(name, tree)
        await asyncio.to_thread(self._layers.note, name, of, canonical_json(line))
        return line

    async def _name(self, needs: LayerNeeds) -> LayerName:
        # The programs have a digest that only their sandbox knows: other programs, another layer.
        looked = await self._run(RunSpec(argv=("true",), toolchain=needs.language), None)
        if looked.image is None:
            raise SandboxUnavailable(looked.stderr.text.strip() or looked.reason, missing=needs.language)
        files = {path: digest_of_json(content.decode("latin-1")).hex for path, content in needs.files.items()}
        made_of = {"language": needs.language, "files": files, "programs": looked.image.hex, "layout": 1}
        return LayerName(needs.language, digest_of_json(made_of).hex[:24])

    async def _spec(self, needs: LayerNeeds, access: RegistryAccess) -> RunSpec:
        tree = {path: FileEntry("100644", await self._blobs.put(data)) for path, data in needs.files.items()}
        mounts = [BlobMount(blob=await self._blobs.put(self._script), target=_SCRIPT)]
        if needs.language == "python" and self._pip is not None:
            mounts.append(BlobMount(blob=await self._blobs.put(self._pip), target=_PIP))
        env = {name: f"{SCHEME}{_secret(name)}" for name in access.addresses}
        if access.certificates is not None:
            mounts.append(BlobMount(blob=await self._blobs.put(access.certificates), target=_CERTIFICATES))
            env |= dict.fromkeys(_CA_VARIABLES, _CERTIFICATES)
        config = (f"{SCHEME}{_CONFIG}",) if access.config is not None else ()
        return RunSpec(
            argv=("python", "-I", _SCRIPT, needs.language, *config),
            tree=await self._blobs.put(encode_tree(tree)),
            env=env,
            mounts=tuple(mounts),
            limits=_LIMITS,
            artifacts=(ARCHIVE, FACTS),
            toolchain=needs.language,
            hosts=access.hosts,
        )

    async def _tried(self, name: LayerName, tree: Digest) -> BaseLine:
        entries = await read_tree(self._blobs, tree)
        declared = await declared_by(self._blobs, entries)
        spec = specs.pipeline_spec(
            tree,
            stages=("unit",),
            language=name.language,
            commands=command_variables(declared.commands, name.language),
            services=declared.services,
            toolchain=name.text,
            limits=_TEST_LIMITS,
        )
        first, result = await self._suite(spec)
        if first is None or all(case.outcome == "errored" for case in first.cases):
            if result.status == "timeout":
                return BaseLine(tests=0, problem=f"the tests take longer than {_TEST_LIMITS.overall_s // 60} minutes")
            if not any(is_test(path) for path in entries):
                return BaseLine(tests=0, problem="the repository has no test yet")
            raise ToolFailed(
                f"the environment is there, and no test of the base can be run in it: {_why(result)}; mend that first, "
                "or declare the test command in .fleet/workspace.toml",
                reason=result.reason,
            )
        failing = set(first.failing)
        if result.usage.wall_ms > _SECOND_RUN_S * 1000:
            problem = "the tests take so long that they were run once: flaky ones are not known"
            return BaseLine(tests=len(first.cases), known_failures=_named(failing), problem=problem)
        second, _ = await self._suite(spec)
        again = set(second.failing) if second is not None else failing
        return BaseLine(tests=len(first.cases), known_failures=_named(failing & again), flaky=_named(failing ^ again))

    async def _suite(self, spec: RunSpec) -> tuple[JUnitSuite | None, RunResult]:
        result = await self._run(spec, None)
        if result.status == "error":
            raise ToolFailed(f"the tests of the base could not be run: {_why(result)}", reason=result.reason)
        blob = result.artifact(specs.JUNIT)
        return await asyncio.to_thread(parse_junit, await self._blobs.get(blob)) if blob is not None else None, result


OpenService = Callable[[Language], AbstractAsyncContextManager[tuple[EnvironmentService, RegistryAccess]]]
"""Opens the service over a sandbox that reaches the registries of a language."""


class NodeEnvironments:
    """Makes the environments of one node. Implements the port Environments.

    Args:
        refusal: why the sandbox of this node makes none; empty where it does.
    """

    def __init__(self, opened: OpenService, *, refusal: str = "") -> None:
        self._opened, self._refusal = opened, refusal
        # Held while a lockfile's layer is made and tried: whoever comes next finds it there.
        self._locks: WeakValueDictionary[Digest, asyncio.Lock] = WeakValueDictionary()
        self._making = set[asyncio.Task[MadeEnvironment]]()

    async def make(self, needs: LayerNeeds, *, tree: Digest, commit: str) -> MadeEnvironment:
        """See the port."""
        if self._refusal:
            return MadeEnvironment(
                toolchain=None, summary=f"{self._refusal}: what {needs.source} asks for has to be in its image"
            )
        task = asyncio.create_task(self._made(needs, tree, commit), name=f"environment of {commit[:12]}")
        self._making.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def _made(self, needs: LayerNeeds, tree: Digest, commit: str) -> MadeEnvironment:
        files = {path: digest_of(content).hex for path, content in needs.files.items()}
        lock = self._locks.setdefault(digest_of_json({"language": needs.language, "files": files}), asyncio.Lock())
        async with lock, self._opened(needs.language) as (service, access):
            record, is_new = await service.layer(needs, access)
            name = layer_named(record.name)
            assert name is not None
            line = await service.base_line(name, commit, tree)
        summary = f"{_record_text(record, is_new=is_new)}; {_line_text(line)}"
        return MadeEnvironment(toolchain=record.name, summary=summary)

    def _ended(self, task: asyncio.Task[MadeEnvironment]) -> None:
        self._making.discard(task)
        if not task.cancelled():
            task.exception()  # every caller may be gone; then nobody else looks at it


def _record_text(record: LayerRecord, *, is_new: bool) -> str:
    size = f"{record.files:,} files, {record.size_bytes / (1 << 20):.1f} MiB"
    made = f"made in {record.wall_ms / 1000:.1f} s" if is_new else "made before"
    return f"packages of {record.source}: {record.language}, {size}, {made}"


def _line_text(line: BaseLine) -> str:
    if not line.tests:
        return line.problem
    failing, flaky = len(line.known_failures), len(line.flaky)
    text = f"tests of the base: {line.tests}, {failing} known failures, {flaky} flaky"
    named = [*line.known_failures[:3], *line.flaky[:3]]
    return text + (f" ({', '.join(named)})" if named else "") + (f"; {line.problem}" if line.problem else "")


class _Counted(Frozen):
    files: int
    bytes: int


def _named(tests: set[str]) -> tuple[str, ...]:
    return tuple(sorted(tests)[:_MOST_NAMED])


def _secret(variable: str) -> str:
    return variable.lower().replace("_", "-")


def _delivery(needs: LayerNeeds, access: RegistryAccess) -> SecretDelivery | None:
    if not access.addresses and access.config is None:
        return None

    def value(name: str, text: str) -> SecretValue:
        return SecretValue(text, name=name, provider="registries", version=None, ttl_s=3600)

    config = {f"{SECRETS_FOLDER}/{_CONFIG}": value(_CONFIG, access.config)} if access.config is not None else {}
    certificates = dict.fromkeys(_CA_VARIABLES, _CERTIFICATES) if access.certificates is not None else {}
    return SecretDelivery(
        argv=("python", "-I", _SCRIPT, needs.language, *config),
        env=certificates,
        secret_env={name: value(_secret(name), text) for name, text in access.addresses.items()},
        secret_files=config,
    )


_SAYINGS: tuple[tuple[str, str], ...] = (
    (
        r"DO NOT MATCH THE HASHES|EINTEGRITY|checksum mismatch|failed to verify the checksum",
        "a package is not what the lockfile says: its hash differs. Make the lockfile anew, or find out who changed it",
    ),
    (
        r"can only install packages when|needs to be updated but --locked|missing go\.sum entry|updates to go\.",
        "the lockfile does not fit the manifest: make it anew and commit it",
    ),
    (
        r"No matching distribution found for ([^\n]*)|E404[^\n]*'([^']*)'|no matching package named `([^`]*)`",
        "a package is not in the registry: correct its name or version, or name its registry under sandbox.registries",
    ),
    (r"requires a different Python|Requires-Python", "a package wants another Python: start the fleet with that one"),
    (
        r"\b40[137]\b (Client Error|Unauthorized|Forbidden)|E401|E403",
        "the registry refuses: give its address with name and password",
    ),
)


def _require_fetched(result: RunResult, needs: LayerNeeds) -> None:
    """Returns when the run fetched everything; raises what is wrong, and what to do."""
    if result.status == "passed":
        return
    if result.status == "timeout":
        raise ToolFailed(
            f"fetching what {needs.source} asks for took longer than {_LIMITS.overall_s // 60} minutes: try again",
            source=needs.source,
        )
    if result.reason == "image_unavailable":
        raise SandboxUnavailable(result.stderr.text.strip(), missing=needs.language)
    told = f"{result.stdout.text}\n{result.stderr.text}"
    advice = _said_of(told, _SAYINGS[:2]) or _unreached(result, needs) or _said_of(told, _SAYINGS[2:]) or "Mend it"
    raise ToolFailed(
        f"{needs.source} cannot be set up: {_why(result).rstrip('.')}. {advice[0].upper()}{advice[1:]}",
        source=needs.source,
        reason=result.reason,
    )


def _said_of(told: str, sayings: Sequence[tuple[str, str]]) -> str | None:
    return next((words for pattern, words in sayings if re.search(pattern, told)), None)


def _unreached(result: RunResult, needs: LayerNeeds) -> str | None:
    """What to do about hosts that the run did not reach; None where it reached all that it asked for."""
    place = f"sandbox.registries.{needs.language}"
    reasons = {one.host: one.reason for one in result.egress if not one.allowed and one.host}
    reached = {one.host for one in result.egress if one.allowed and one.reason == "ok"}
    for host, reason in reasons.items():
        if reason in ("host_not_listed", "port_not_listed", "address_literal"):
            return f"{host} is no registry of this fleet: list it under {place}.hosts"
        if host not in reached:
            return f"{host} cannot be reached from here ({reason}): name your registry under {place}"
    return None


_TELLING = re.compile(r"error|E   |ModuleNotFound|No module|cannot|failed|mismatch|not found", re.IGNORECASE)


def _why(result: RunResult) -> str:
    """The line of the output that says most, the last one of its kind."""
    lines = [" ".join(line.split()) for line in f"{result.stdout.text}\n{result.stderr.text}".splitlines()]
    lines = [line for line in lines if line and not line.startswith(("[notice]", "WARNING:", "{"))]
    telling = [line for line in lines if _TELLING.search(line)]
    missing = [line for line in lines if "ModuleNotFoundError" in line]
    chosen = missing or telling[-2:] or lines[-1:]
    return "; ".join(dict.fromkeys(chosen[:2]))[:500] or result.reason
