"""What a backend goes without, and only when somebody said so."""

from __future__ import annotations

import pytest

from fleet.kernel.errors import SandboxUnavailable
from fleet.policy.runs.spec import RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.waive import require_isolation
from fleet.sandbox.port import SandboxHealth
from fleet.trees.memory import MemoryBlobStore
from tests.support.sandbox import state_folder

DISK = "disk (check 31): no quota"
DEGRADED = SandboxHealth(status="degraded", backend="x", unmet=(DISK,), mend=("mount a quota",))


@pytest.mark.rule("RC-32")
def test_missing_item_refuses_every_run_and_is_named_with_its_mend() -> None:
    with pytest.raises(SandboxUnavailable, match=r"no quota.*mount a quota") as caught:
        require_isolation(DEGRADED, ())
    assert caught.value.details["missing"] == [DISK]
    with pytest.raises(SandboxUnavailable):
        require_isolation(DEGRADED, {"cpu", "memory"})


@pytest.mark.rule("RC-32")
def test_waived_item_may_be_missing_and_is_told() -> None:
    assert require_isolation(DEGRADED, {"disk"}) == (DISK,)
    assert require_isolation(SandboxHealth(status="ok", backend="x"), {"disk"}) == ()


@pytest.mark.rule("RC-32")
@pytest.mark.parametrize(
    "health",
    [
        SandboxHealth(status="down", backend="x", unmet=(DISK,)),
        SandboxHealth(status="degraded", backend="x"),
        SandboxHealth(status="degraded", backend="x", unmet=(DISK, "pids (check 30): no limit")),
    ],
)
def test_sandbox_that_is_down_or_misses_more_is_refused_in_spite_of_the_waiver(health: SandboxHealth) -> None:
    with pytest.raises(SandboxUnavailable):
        require_isolation(health, {"disk", "pids"})


class Weak(BubblewrapBackend):
    """A backend on a machine that cannot limit the disk."""

    async def health(self) -> SandboxHealth:
        return DEGRADED


@pytest.mark.rule("RC-32")
async def test_result_of_a_run_names_what_was_waived() -> None:
    blobs, spec = MemoryBlobStore(), RunSpec(argv=("true",))
    with state_folder() as root:
        result = await Weak(root, blobs, waived=("disk",)).run(spec, run_id="rn-1")
        assert (result.status, result.unmet) == ("passed", (DISK,))
        with pytest.raises(SandboxUnavailable):
            await Weak(root, blobs).run(spec, run_id="rn-2")
