"""A docker engine for tests: the one that answers here, else one of our own below a folder, where dockerd may run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.sandbox import state_folder

_STARTS_S = 60


@contextmanager
def docker_engine() -> Generator[None]:
    """Inside the block `docker` reaches an engine, by DOCKER_HOST if need be; where there can be none, nothing is done.

    Our own has no network, no registry and no image, and ends with the block.
    """
    if _answers() or os.getuid() != 0 or not all(map(shutil.which, ("docker", "dockerd", "containerd", "runc"))):
        yield
        return
    with state_folder() as folder:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log").open("wb") as log:
            daemon = subprocess.Popen(_command(folder), stdout=log, stderr=log, start_new_session=True)
        before = os.environ.get("DOCKER_HOST")
        os.environ["DOCKER_HOST"] = f"unix://{folder}/sock"
        try:
            _wait(daemon, folder / "log")
            yield
        finally:
            os.environ.pop("DOCKER_HOST")
            if before is not None:
                os.environ["DOCKER_HOST"] = before
            _end(daemon)
            _unmount_below(folder)


def _command(folder: Path) -> list[str]:
    own = ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"]
    return [
        "dockerd",
        *own,
        "--host",
        f"unix://{folder}/sock",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
    ]


def _answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version"], capture_output=True, check=False, timeout=60).returncode == 0


def _wait(daemon: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _STARTS_S
    while not _answers():
        if daemon.poll() is not None or time.monotonic() > until:
            # Tests that need it say themselves that no engine answers.
            print(f"dockerd does not start here:\n{log.read_text(errors='replace')[-2000:]}")
            return
        time.sleep(0.2)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(60)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait(60)


def _unmount_below(folder: Path) -> None:
    """Take off what the daemon left mounted: it may end before it is done, and a mount point cannot be removed."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    points = [point for line in lines if Path(point := line.split()[4]).is_relative_to(folder)]
    for point in reversed(points):
        subprocess.run(["umount", "--lazy", point], check=False, timeout=60)
