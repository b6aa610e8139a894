"""A supervisor as a process of its own, for tests that kill it. Arguments: state root, token.

Prints one JSON line with the health of its backend, then `starting`, and runs a program that never ends and carries
the token in its command line. With `once` as third argument it runs a short program instead and prints its result.
With `engine=podman` or `engine=docker` last it uses containers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from fleet.policy.runs.spec import RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.containers.backend import ContainerBackend
from fleet.trees.memory import MemoryBlobStore


async def main(root: Path, token: str, *, once: bool, engine: str) -> None:
    backend = _backend(root, engine)
    health = await backend.health()
    print(json.dumps({"status": health.status, "unmet": health.unmet}), flush=True)
    if once:
        result = await backend.run(RunSpec(argv=("python", "-c", "import os; print(os.getuid())")), run_id="rn-once")
        print(result.model_dump_json(), flush=True)
        return
    print("starting", flush=True)
    await backend.run(
        RunSpec(argv=("/bin/bash", "-c", f"touch started; setsid sleep 300 & sleep 300 # {token}")), run_id="rn-1"
    )


def _backend(root: Path, engine: str) -> BubblewrapBackend | ContainerBackend:
    if engine == "podman" or engine == "docker":
        return ContainerBackend(engine, root, MemoryBlobStore())
    return BubblewrapBackend(root, MemoryBlobStore())


if __name__ == "__main__":
    asyncio.run(
        main(Path(sys.argv[1]), sys.argv[2], once="once" in sys.argv[3:], engine=sys.argv[-1].partition("engine=")[2])
    )
