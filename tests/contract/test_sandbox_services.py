"""Side services of a run on the real backend: they start, serve, fail and end inside the run's own sandbox."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fleet.kernel.errors import InvalidInput, PolicyDenied
from fleet.policy.runs.services import ServicesConfig
from fleet.policy.runs.spec import Grantee, Limits, RunResult, RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.egress.proxy import EgressSettings
from fleet.trees.memory import MemoryBlobStore
from tests.support.rules import files
from tests.support.sandbox import put_tree, state_folder, survivors

pytestmark = pytest.mark.asyncio(loop_scope="module")

RECIPES: dict[str, Any] = files().document("policy.yaml")["services"]
LIMITS = Limits(overall_s=50, idle_s=50, memory_bytes=512 << 20, pids=64, disk_bytes=64 << 20, grace_s=2)
REDIS = {"name": "cache", "kind": "redis", "env_prefix": "CACHE"}
SUITE = b"""
import os, socket

def call(*commands):
    with socket.create_connection((os.environ["CACHE_HOST"], int(os.environ["CACHE_PORT"])), timeout=5) as s:
        s.sendall("".join(c + "\\r\\n" for c in commands).encode())
        s.shutdown(socket.SHUT_WR)
        return s.makefile("rb").read().decode()

def test_redis_takes_the_password_of_its_url():
    scheme, rest = os.environ["CACHE_URL"].split("://:")
    password = rest.split("@")[0]
    assert scheme == "redis" and len(password) == 32
    assert call(f"AUTH {password}", "SET k v", "GET k") == "+OK\\r\\n+OK\\r\\n$1\\r\\nv\\r\\n"

def test_redis_refuses_strangers():
    assert "NOAUTH" in call("GET k")
"""


@pytest.fixture(scope="module")
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(blobs: MemoryBlobStore) -> AsyncGenerator[BubblewrapBackend]:
    recipes = {
        **RECIPES,
        "nothing": {**RECIPES["redis"], "argv": ["no-such-server"], "bundled": None, "install": "Install it."},
        "narrow": {**RECIPES["redis"], "roles": ["qa"]},
    }

    async def resolve(_: str) -> Sequence[str]:
        return []

    with state_folder() as folder:
        found = BubblewrapBackend(
            folder,
            blobs,
            services=ServicesConfig.model_validate(recipes),
            egress=EgressSettings(resolve=resolve),
        )
        health = await found.health()
        if health.status == "down":
            pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
        yield found


async def run(
    backend: BubblewrapBackend, argv: Sequence[str], *services: Mapping[str, Any], **fields: Any
) -> RunResult:
    spec = RunSpec.model_validate({"argv": tuple(argv), "services": services, "limits": LIMITS, **fields})
    return await backend.run(spec, run_id=f"rn-services-{id(spec)}")


def own(argv: Sequence[str], **fields: Any) -> dict[str, Any]:
    return {"name": "own", "kind": "command", "env_prefix": "OWN", "argv": tuple(argv), **fields}


@pytest.mark.rule("RC-102")
async def test_suite_that_needs_redis_passes_without_network_and_leaves_no_process(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    tree = await put_tree(blobs, {"test_cache.py": SUITE})
    result = await run(backend, ("python", "-m", "pytest", "-q", "test_cache.py"), REDIS, tree=tree)

    assert (result.status, result.reason) == ("passed", "ok"), result.stdout.text + result.stderr.text
    assert "2 passed" in result.stdout.text
    assert result.limits["network"] == "namespace"
    log = result.artifact("services/cache.log")
    assert log is not None
    assert b"eady to accept connections" in await blobs.get(log)
    assert survivors("redis-server") == []


@pytest.mark.rule("RC-102")
async def test_command_keeps_its_exit_code_and_output_beside_services(backend: BubblewrapBackend) -> None:
    failed = await run(backend, ("sh", "-c", "echo out; exit 7"), REDIS)
    killed = await run(backend, ("sh", "-c", "kill -9 $$"), REDIS)
    missing = await run(backend, ("no-such-program",), REDIS)

    assert (failed.reason, failed.exit_code, failed.stdout.text) == ("exit_nonzero", 7, "out\n")
    assert (killed.reason, killed.exit_code) == ("signal", 137)
    assert (missing.reason, missing.exit_code) == ("config", 127)


@pytest.mark.rule("RC-102")
async def test_two_services_of_one_kind_have_their_own_ports_beside_the_proxy(backend: BubblewrapBackend) -> None:
    other = {**REDIS, "name": "other", "env_prefix": "OTHER"}
    script = 'echo "$CACHE_PORT $OTHER_PORT $OTHER_HOST $http_proxy"; test "$CACHE_URL" != "$OTHER_URL"'
    result = await run(backend, ("sh", "-c", script), REDIS, other, hosts=("packages.example",))

    assert result.reason == "ok", result.stderr.text
    assert result.stdout.text.split() == ["6379", "6380", "127.0.0.1", "http://127.0.0.1:3128"]


@pytest.mark.rule("RC-101", "RC-102")
async def test_service_of_the_runs_own_program_is_waited_for(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    tree = await put_tree(blobs, {"index.html": b"served"})
    service = own(("python", "-m", "http.server", "--bind", "{host}", "{port}"))
    program = "import os, urllib.request as u; print(u.urlopen(os.environ['OWN_URL']).read().decode())"
    result = await run(backend, ("python", "-c", program), service, tree=tree)

    assert result.stdout.text == "served\n", result.stderr.text


@pytest.mark.rule("RC-102")
@pytest.mark.skipif(
    not (shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))),
    reason="PostgreSQL is not installed on this machine",
)
async def test_postgres_answers_with_its_password(backend: BubblewrapBackend) -> None:
    service = {"name": "db", "kind": "postgres", "env_prefix": "DB"}
    result = await run(backend, ("psql", "--version"), service)
    asked = await run(backend, ("sh", "-c", 'psql -w "$DB_URL" -tAc "select 6 * 7"'), service)

    assert result.reason == "ok", result.stderr.text
    assert asked.stdout.text == "42\n", asked.stderr.text
    assert survivors("postgres: checkpointer") == []


@pytest.mark.rule("RC-103")
@pytest.mark.parametrize(
    ("service", "why"),
    [
        (
            {"name": "own", "kind": "nothing", "env_prefix": "OWN"},
            "no program no-such-server in the sandbox. Install it.",
        ),
        (own(("sh", "-c", "echo broken; exit 3")), "ended with 3"),
        (own(("sleep", "60"), ready={"argv": ["false"], "timeout_s": 1}), "not ready within 1 s"),
        ({**REDIS, "name": "own", "version": "2.4"}, "version 2.4 was asked for"),
    ],
    ids=["missing", "dies", "late", "version"],
)
async def test_service_that_cannot_be_used_is_an_error_and_starts_nothing(
    backend: BubblewrapBackend, blobs: MemoryBlobStore, service: dict[str, Any], why: str
) -> None:
    result = await run(backend, ("sh", "-c", "echo started"), service)

    assert (result.status, result.reason, result.exit_code) == ("error", "service_unavailable", None)
    assert result.stdout.text == ""
    assert why in result.limits["service"]
    assert why in result.stderr.text
    assert result.artifact("services/own.log") is not None


@pytest.mark.rule("RC-103")
async def test_service_that_dies_beside_the_command_is_no_evidence(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    service = own(
        ("sh", "-c", "echo going; while ! test -e stop; do sleep 0.05; done; exit 4"), ready={"argv": ["true"]}
    )
    result = await run(backend, ("sh", "-c", "touch stop; sleep 30; exit 1"), service)

    assert (result.status, result.reason) == ("error", "service_unavailable")
    assert result.limits["service"] == "own: it ended with 4; see its log"
    log = result.artifact("services/own.log")
    assert log is not None
    assert await blobs.get(log) == b"going\n"


@pytest.mark.rule("RC-104")
async def test_limits_hold_for_run_and_services_together(backend: BubblewrapBackend) -> None:
    hungry = own(("python", "-c", "x = b'x' * (400 << 20); import time; time.sleep(60)"), ready={"argv": ["true"]})
    limits = LIMITS.model_copy(update={"memory_bytes": 200 << 20})
    result = await run(backend, ("sleep", "30"), hungry, limits=limits)

    # The kernel's own killer may take the service alone; then the run says that its service died.
    assert result.reason in ("oom_killed", "service_unavailable")
    assert result.status != "passed"


@pytest.mark.rule("RC-101")
async def test_kind_that_nobody_or_another_role_has_is_denied(backend: BubblewrapBackend) -> None:
    narrow = {"name": "a", "kind": "narrow", "env_prefix": "A"}
    grantee = Grantee(role="developer", tool="exec", op="run")
    for service in ({"name": "a", "kind": "oracle", "env_prefix": "A"}, narrow):
        with pytest.raises(PolicyDenied):
            await run(backend, ("true",), service, grantee=grantee)

    allowed = await run(backend, ("true",), narrow, grantee=grantee.model_copy(update={"role": "qa"}))
    assert allowed.reason == "ok", allowed.stderr.text


@pytest.mark.rule("RC-101")
@pytest.mark.parametrize(
    "services",
    [
        (REDIS, {**REDIS, "env_prefix": "OTHER"}),
        (REDIS, {**REDIS, "name": "other"}),
        ({**REDIS, "argv": ("redis-server",)},),
        (own(()),),
        (own(("x\0",)),),
        (own(["x" * 20_000] * 4),),
    ],
    ids=["name", "prefix", "argv", "no_argv", "nul", "large"],
)
async def test_services_that_contradict_each_other_are_refused(
    backend: BubblewrapBackend, services: Sequence[dict[str, Any]]
) -> None:
    with pytest.raises(InvalidInput):
        await run(backend, ("true",), *services)
