"""Secrets of deployed programs: they are in the program's environment, and in nothing that comes out again (RT-65)."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fleet.deploy.local.environments import ProcessDeployments
from fleet.deploy.port import Placed, Standing
from fleet.events.workspace import IncidentOpened
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import NotFound, PolicyDenied
from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.policy.deploy import DeployTarget, HealthCheckSpec
from fleet.policy.secret_grants import SecretGrant, SecretPolicy
from fleet.report.render.runbook import runbook
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.service.runs import RunSecrets
from fleet.secrets.memory import MemoryAccessTrail, MemorySecrets
from fleet.secrets.service import KnownSecrets, SecretBroker
from fleet.trees.memory import MemoryBlobStore
from tests.support.deployed import app, free_port, target_of
from tests.support.sandbox import put_tree, state_folder
from tests.unit.deploy.test_deploying import Watcher, check, in_state

pytestmark = pytest.mark.asyncio(loop_scope="module")

REFERENCE = {"DB_PASSWORD": "secret://db-password"}


@pytest.fixture(scope="module")
def state_root() -> Generator[Path]:
    with state_folder() as folder:
        yield folder


@dataclass
class Vault:
    """Where the only secret is, and environments whose programs are given it."""

    now: ProcessDeployments
    blobs: MemoryBlobStore
    source: MemorySecrets
    trail: MemoryAccessTrail
    root: Path
    state_root: Path
    value: str = field(
        default_factory=lambda: "planted-" + "".join(secrets.choice("GHJKMNPQRSTVWXYZ") for _ in range(24))
    )

    async def placed(self, program: bytes, **fields: object) -> Placed:
        tree = await put_tree(self.blobs, {"app.py": program})
        target = target_of(f"env-{secrets.token_hex(4)}", **{"secrets": REFERENCE, **fields})
        return Placed(RunKey(secrets.token_hex(32)), StoryId("st-deployed"), tree, "python", target)

    def seen_outside(self) -> list[str]:
        """Command lines of this machine and files of this fleet that hold the value or a good piece of it."""
        places = [*Path("/proc").glob("[0-9]*/cmdline"), *_below(self.root), *_below(self.state_root / "runs")]
        return [str(place) for place in places if self.value[8:16] in _text_of(place)]

    def is_in(self, text: str) -> bool:
        """Whether any piece of the value, from six characters on, stands there."""
        secret = self.value.removeprefix("planted-")
        return any(secret[n : n + 6] in text for n in range(len(secret) - 5))


def _below(folder: Path) -> list[Path]:
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names]


def _text_of(place: Path) -> str:
    try:
        return place.read_bytes().decode(errors="replace")
    except OSError:
        return ""


@asynccontextmanager
async def vault(state_root: Path, *, ops: frozenset[str] = frozenset({"start"})) -> AsyncIterator[Vault]:
    blobs, trail, known = MemoryBlobStore(), MemoryAccessTrail(), KnownSecrets()
    backend = BubblewrapBackend(state_root, blobs)
    health = await backend.health()
    if health.status == "down":
        pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
    source = MemorySecrets("vault")
    grant = SecretGrant(secret="db-password", roles=frozenset({"devops"}), tool="environment", ops=ops)
    broker = SecretBroker(
        {"db-password": source},
        SecretPolicy(grants=(grant,)),
        clock=SystemClock(),
        record=trail.record,
        known_secrets=known,
    )
    root = state_root / secrets.token_hex(4)
    now = ProcessDeployments(backend, SystemClock(), root, secrets=RunSecrets(broker, known))
    found = Vault(now, blobs, source, trail, root, state_root)
    source.put("db-password", found.value)
    try:
        yield found
    finally:
        await now.close()


@pytest_asyncio.fixture(loop_scope="module")
async def at(state_root: Path) -> AsyncGenerator[Vault]:
    async with vault(state_root) as found:
        yield found


def looks(kind: str, target: str) -> HealthCheckSpec:
    return HealthCheckSpec.model_validate({"name": "seen", "kind": kind, "target": target, "threshold": 0})


HAS_IT = "python -c 'import os, sys; sys.exit(len(os.environ[\"DB_PASSWORD\"]))'"


@pytest.mark.rule("RT-65", "LC-49")
async def test_program_has_its_secret_and_no_look_no_file_and_no_process_shows_it(at: Vault) -> None:
    program = app(prints="DB_PASSWORD", well=False)
    placed = await at.placed(program, env={"KIND": "preview"})
    seen: list[str] = []

    async def watch() -> None:
        while True:
            seen.extend(at.seen_outside())
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    try:
        assert (await at.now.deploy(placed)).status == "running"
        name = placed.target.environment
        length = await at.now.sample(name, looks("command", HAS_IT))
        assert length.detail.startswith(f"exit code {len(at.value)}"), length
        details = [
            (await at.now.sample(name, looks("log_pattern", "ERROR for"))).detail,
            (await at.now.sample(name, looks("http", "/healthz"))).detail,
            (
                await at.now.sample(
                    name, looks("command", "python -c 'import os; print(dict(os.environ)); raise SystemExit(1)'")
                )
            ).detail,
        ]
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert all("[REDACTED" in detail for detail in details), details
    assert not any(at.is_in(detail) for detail in details), details
    assert seen == []
    assert "secret://db-password" in _text_of(at.root / f"{name}.json")
    (line, *_) = (await at.trail.newest())[::-1]
    assert (line.name, line.role, line.tool, line.op, line.outcome) == (
        "db-password",
        "devops",
        "environment",
        "start",
        "resolved",
    )


@pytest.mark.rule("RT-65")
async def test_program_that_ends_shows_no_piece_of_what_it_printed(at: Vault) -> None:
    failed = await at.now.deploy(await at.placed(app(prints="DB_PASSWORD", starts=False)))
    assert failed.status == "failed"
    assert "no database" in failed.detail
    # The end of its output is cut, in the middle of the value: a piece of it would not be known for one.
    assert not at.is_in(failed.detail), failed.detail


@pytest.mark.rule("RT-65", "RT-30")
async def test_secret_that_it_may_not_have_or_nobody_has_starts_nothing_and_changes_nothing(
    at: Vault, state_root: Path
) -> None:
    port = free_port()
    good = await at.placed(app(), expose=port)
    await at.now.deploy(good)
    at.source.remove("db-password")
    bad = replace(
        good, key=RunKey(secrets.token_hex(32)), target=good.target.model_copy(update={"expose": free_port()})
    )
    other = bad.target.model_copy(update={"secrets": {"OTHER": "secret://other-key"}})
    with pytest.raises(PolicyDenied, match="role 'devops' may not use secret 'other-key' in environment.start"):
        await at.now.deploy(replace(bad, target=other))
    assert await at.now.standing(good.target.environment) == Standing("running", key=good.key)
    async with vault(state_root, ops=frozenset({"rollback"})) as denied:
        with pytest.raises(PolicyDenied):
            await denied.now.deploy(await denied.placed(app()))
    async with vault(state_root) as empty:
        empty.source.remove("db-password")
        placed = await empty.placed(app())
        with pytest.raises(NotFound):
            await empty.now.deploy(placed)
        assert await empty.now.standing(placed.target.environment) == Standing("nothing")


class OneTree:
    """The real environments; whatever tree a story deploys is the program of a test."""

    def __init__(self, of: ProcessDeployments, tree: Digest) -> None:
        self._of, self._tree = of, tree

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)

    async def deploy(self, placed: Placed) -> Standing:
        """See the port."""
        return await self._of.deploy(replace(placed, tree=self._tree))


@pytest.mark.rule("RT-65", "LC-49")
async def test_story_whose_program_prints_its_secret_has_it_in_no_event_blob_or_runbook(at: Vault) -> None:
    tree = (await at.placed(app(prints="DB_PASSWORD", well=False))).tree
    deployments: Any = OneTree(at.now, tree)
    watched = {"window_s": 600, "checks": [check("alive")]}
    watcher = await Watcher(deployments=deployments, secrets=REFERENCE, monitor=watched).begin()
    bench = await watcher.work(in_state("BUILD"))
    (opened,) = await watcher.payloads(IncidentOpened)
    assert "[REDACTED" in opened.summary
    texts = [event.body.decode() for event in await watcher.world.events()]
    texts += [data.decode(errors="replace") for data in vars(watcher.world.blobs)["_blobs"].values()]
    texts.append(runbook(bench.state, [DeployTarget.model_validate(watcher.target.model_dump())]))
    assert [text for text in texts if at.is_in(text)] == []
