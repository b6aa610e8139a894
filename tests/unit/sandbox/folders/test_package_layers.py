"""PackageLayers on the disk of a node, and the programs that a run gets with them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import InvalidInput, ToolFailed
from fleet.policy.runs.spec import RunSpec
from fleet.policy.runs.toolchains import DEFAULT_TOOLCHAINS, LayerName, layer_named
from fleet.sandbox.backends.request import check_spec
from fleet.sandbox.backends.toolchain import Toolchain
from fleet.sandbox.backends.toolchains import Toolchains
from fleet.sandbox.folders.package_layers import MissingToolchain, PackageLayers
from fleet.sandbox.service.runs import toolchain_for

KEY = "a" * 24
BASE = Toolchain(((Path("/usr"), "/toolchain"),), "/toolchain/bin", (("A", "b"),), digest_of(b"x"))


def archive(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as opened:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                opened.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                opened.addfile(info, io.BytesIO(member[1]))
    return content.getvalue()


@pytest.mark.rule("RC-111", "RC-112")
def test_layer_is_kept_once_and_bound_into_the_runs_that_name_it(tmp_path: Path) -> None:
    layers, name = PackageLayers(tmp_path), LayerName("python", KEY)
    assert layers.record(name) is None
    layers.keep(name, archive(("bin/tool", b"x"), ("lib/m.py", b"y")), b"{}")
    layers.keep(name, b"not looked at: it is there", b"other")
    layers.note(name, "base-1", b"[]")
    assert (layers.record(name), layers.record(name, "base-1")) == (b"{}", b"[]")
    found = layers.toolchain(name, BASE)
    assert isinstance(found, Toolchain)
    assert found.binds[-1] == (tmp_path / f"layer-python-{KEY}/files", "/environment")
    assert found.path == "/environment/bin:/toolchain/bin"
    assert (found.binds[-1][0] / "bin/python").readlink() == Path("/toolchain/bin/python")


@pytest.mark.rule("RC-112")
@pytest.mark.parametrize(
    ("language", "inside", "variable"),
    [("node", "/node_modules", "A"), ("go", "/environment", "GOMODCACHE"), ("rust", "/environment", "CARGO_HOME")],
)
def test_layer_of_each_language_is_found_where_its_tools_look(
    tmp_path: Path, language: str, inside: str, variable: str
) -> None:
    name = layer_named(f"layer:{language}:{KEY}")
    assert name is not None
    PackageLayers(tmp_path).keep(name, archive(("node_modules/x/index.js", b"x")), b"{}")
    found = PackageLayers(tmp_path).toolchain(name, BASE)
    assert isinstance(found, Toolchain)
    assert found.binds[-1][1] == inside
    assert variable in dict(found.env)


@pytest.mark.rule("RC-111")
def test_archive_that_leads_out_of_its_folder_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    link = tarfile.TarInfo("lib/out")
    link.type, link.linkname = tarfile.SYMTYPE, "../../../etc"
    for bad in (archive(link), archive(("../out", b"x")), b"no archive"):
        with pytest.raises(ToolFailed, match="cannot be laid"):
            PackageLayers(tmp_path).keep(LayerName("go", KEY), bad, b"{}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.rule("RC-112")
async def test_layer_that_is_not_on_this_node_is_missing_by_name(tmp_path: Path) -> None:
    known = Toolchains(DEFAULT_TOOLCHAINS, tmp_path, is_dropped=False)
    found = await known.named(f"layer:python:{KEY}", python=BASE)
    assert isinstance(found, MissingToolchain)
    assert "a story that is started on the repository makes it" in found.message


def test_layer_serves_its_own_language_and_leaves_others_their_programs() -> None:
    name = f"layer:python:{KEY}"
    check_spec(RunSpec(argv=("x",), toolchain=name), has_layers=True)
    with pytest.raises(InvalidInput, match="no environment layers"):
        check_spec(RunSpec(argv=("x",), toolchain=name))
    assert (toolchain_for("python", name), toolchain_for("go", name)) == (name, "go")
    with pytest.raises(InvalidInput, match="layer:<language>:<key>"):
        check_spec(RunSpec(argv=("x",), toolchain="layer:python:../etc"), has_layers=True)
