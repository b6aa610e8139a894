"""Environment layers within their limit: which goes first, which never goes, and what people are told of it."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import tarfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import SandboxUnavailable
from fleet.policy.runs.toolchains import DEFAULT_TOOLCHAINS, LayerName
from fleet.sandbox.backends.toolchain import Toolchain
from fleet.sandbox.backends.toolchains import Toolchains
from fleet.sandbox.folders.package_layers import LayerLimits, MissingToolchain, PackageLayers
from fleet.sandbox.folders.workspace import free_bytes
from fleet.trees.port import DiskUse
from tests.support.chaos_servers import small_disk
from tests.support.sandbox import filled

MIB = 1 << 20
BASE = Toolchain(((Path("/usr"), "/toolchain"),), "/toolchain/bin", (), digest_of(b"x"))
HOLD = "import sys\nfrom pathlib import Path\nfrom fleet.policy.runs.toolchains import LayerName\n"
HOLD += "from fleet.sandbox.folders.package_layers import PackageLayers\n"
HOLD += "with PackageLayers(Path(sys.argv[1])).used(LayerName('go', sys.argv[2])):\n"
HOLD += "    print('held', flush=True)\n    sys.stdin.read()\n"


def name_of(letter: str) -> LayerName:
    return LayerName("go", letter * 24)


def archive(size: int = MIB) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as opened:
        info = tarfile.TarInfo("mod/data")
        info.size = size
        opened.addfile(info, io.BytesIO(os.urandom(size)))
    return content.getvalue()


def kept(layers: PackageLayers, *letters: str, hours_ago: float = 100) -> None:
    """The layers are there; each was used a moment after the one before it."""
    for number, letter in enumerate(letters):
        layers.keep(name_of(letter), archive(), b"{}")
        age(layers, letter, hours_ago - number)


def age(layers: PackageLayers, letter: str, hours: float) -> None:
    at = time.time() - hours * 3600
    os.utime(Path(layers.usage().folder) / f".layer-go-{letter * 24}.use", (at, at))


def there(root: Path) -> str:
    return "".join(sorted(place.name[-1] for place in root.glob("layer-*")))


def removed(use: DiskUse) -> list[str]:
    return [row.name for row in use.evicted]


@pytest.mark.rule("RC-113")
def test_one_that_was_used_longest_ago_goes_first_and_it_is_told_when(tmp_path: Path) -> None:
    layers = PackageLayers(tmp_path, LayerLimits(bytes=int(3.5 * MIB), idle_s=3600))
    kept(layers, "a", "b", "c")
    assert layers.record(name_of("a")) == b"{}"
    kept(layers, "d")
    assert there(tmp_path) == "acd"
    use = layers.usage()
    assert (use.kind, use.count, use.limit_bytes, use.folder) == ("layers", 3, int(3.5 * MIB), str(tmp_path))
    assert use.used_bytes <= int(3.5 * MIB)
    # "a" was asked for just now; "d" is as old as the test says.
    assert MIB <= use.held_bytes < 2 * MIB
    (row,) = use.evicted
    assert (row.name, row.size_bytes >= MIB) == (f"go:{'b' * 24}", True)
    assert datetime.now(UTC) - datetime.fromisoformat(row.at) < timedelta(minutes=5)
    # Another process of the node knows the same, and what is left over is nothing.
    assert PackageLayers(tmp_path).usage().evicted == use.evicted
    assert not list(tmp_path.glob(".gone-*"))


@pytest.mark.rule("RC-113")
async def test_layer_that_a_run_of_another_process_has_never_goes_until_that_process_is_dead(tmp_path: Path) -> None:
    limits = LayerLimits(bytes=MIB // 2, idle_s=3600)
    kept(PackageLayers(tmp_path), "a", "b")
    chains = Toolchains(DEFAULT_TOOLCHAINS, tmp_path, is_dropped=False, layers=limits)
    layers = PackageLayers(tmp_path, limits)
    holder = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", HOLD, str(tmp_path), "a" * 24], stdin=-1, stdout=-1
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        # Its run goes on for longer than a layer may be idle.
        age(layers, "a", 50)
        async with chains.held(f"layer:go:{'b' * 24}"):
            age(layers, "b", 40)
            chains.make_room()
            assert there(tmp_path) == "ab"
            assert layers.usage().held_bytes == layers.usage().used_bytes > 2 * MIB
        # The run was the last use of it.
        chains.make_room()
        assert there(tmp_path) == "ab"
    finally:
        holder.kill()
        holder.communicate()
    chains.make_room()
    assert there(tmp_path) == "b"
    assert removed(layers.usage()) == [f"go:{'a' * 24}"]
    found = await chains.named(f"layer:python:{'a' * 24}", python=BASE)
    assert isinstance(found, MissingToolchain)
    assert "had to make room" in found.message


@pytest.mark.rule("RC-113")
def test_layer_for_which_those_in_use_leave_no_room_is_refused_with_what_to_do(tmp_path: Path) -> None:
    layers = PackageLayers(tmp_path, LayerLimits(bytes=int(1.5 * MIB), idle_s=3600))
    kept(layers, "a", hours_ago=0.5)
    with pytest.raises(SandboxUnavailable, match=r"raise sandbox\.disk\.layers_bytes in fleet.yaml") as error:
        layers.keep(name_of("b"), archive(), b"{}")
    assert error.value.details["limit_bytes"] == int(1.5 * MIB)
    assert (there(tmp_path), layers.usage().evicted) == ("a", ())
    age(layers, "a", 2)
    layers.keep(name_of("b"), archive(), b"{}")
    assert there(tmp_path) == "b"


@pytest.mark.rule("RC-113")
def test_layer_that_finds_the_disk_full_takes_the_room_of_idle_ones_or_is_refused_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", size_mb=8) as disk:
        layers = PackageLayers(disk, LayerLimits(idle_s=3600))
        kept(layers, "a", "b")
        with filled(disk, leaving=MIB // 2):
            assert free_bytes(disk) <= MIB // 2
            layers.keep(name_of("c"), archive(), b"{}")
            assert there(disk) == "c"
            assert removed(layers.usage()) == [f"go:{letter * 24}" for letter in "ab"]
        with filled(disk, leaving=MIB // 2):
            with pytest.raises(SandboxUnavailable, match="is full") as error:
                layers.keep(name_of("d"), archive(), b"{}")
            assert error.value.details["missing"] == "disk"
        # The one in use is there, and of the other nothing is left.
        assert (there(disk), list(disk.glob(".new-*"))) == ("c", [])
        layers.keep(name_of("d"), archive(), b"{}")
        assert there(disk) == "cd"


def test_removal_that_a_killed_process_left_half_done_is_finished(tmp_path: Path) -> None:
    (tmp_path / ".gone-layer-go-x-1" / "files").mkdir(parents=True)
    (tmp_path / ".layers-evicted.json").write_text("{broken")
    layers = PackageLayers(tmp_path)
    layers.make_room()
    assert not list(tmp_path.glob(".gone-*"))
    assert layers.usage().evicted == ()
