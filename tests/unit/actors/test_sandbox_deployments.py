"""The sandbox actor keeps environments where its backend can hold them, and says so where it cannot."""

from __future__ import annotations

import pytest

from actors.sandbox_deployments import DeploymentMethods
from fleet.deploy.memory import MemoryDeployments
from fleet.deploy.port import Deployments, Placed, Standing
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ConfigError
from fleet.kernel.ids import RunKey, StoryId
from tests.support.deployed import target_of

KEY = RunKey("a" * 64)
PLACED = Placed(KEY, StoryId("st-one1"), digest_of(b"tree"), "python", target_of())


class Shell(DeploymentMethods):
    """As much of the actor as deployments use."""

    def __init__(self, deployments: Deployments | None) -> None:
        self._deployments = deployments


async def test_shell_on_a_backend_without_interactive_runs_says_what_to_set() -> None:
    shell, check = Shell(None), PLACED.target.monitor.checks[0]
    for call in (
        shell.deploy(PLACED),
        shell.deployment("preview"),
        shell.occupancy("preview"),
        shell.roll_back("preview", failed=KEY),
        shell.sample_deployment("preview", check),
        shell.stop_deployment("preview"),
    ):
        with pytest.raises(ConfigError, match="bubblewrap"):
            await call


async def test_shell_passes_on_what_it_is_asked() -> None:
    shell = Shell(MemoryDeployments())
    assert await shell.deploy(PLACED) == Standing("running", key=KEY)
    assert await shell.deployment("preview") == Standing("running", key=KEY)
    assert (await shell.occupancy("preview")).running == PLACED
    assert (await shell.sample_deployment("preview", PLACED.target.monitor.checks[0])).value == 0
    assert await shell.roll_back("preview", failed=KEY) == Standing("nothing")
    await shell.deploy(PLACED)
    await shell.stop_deployment("preview", only=KEY, told="user:ana stopped it")
    assert await shell.deployment("preview") == Standing("nothing")
