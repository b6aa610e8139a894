"""Files and volumes of secrets: whose they are, who else may read them, and what stands in their place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleet.extensions.stores.kubernetes_secrets import MountedSecrets
from fleet.kernel.errors import FleetError, NotFound, PolicyDenied, StoreUnavailable
from fleet.secrets.port import SecretProvider
from fleet.secrets.providers.environment import EnvironmentSecrets, variable_of
from fleet.secrets.providers.file import FileSecrets
from tests.support.kubernetes_secrets import write_volume
from tests.support.secret_places import leaks, secret_file

USE = {"as_role": "devops", "tool": "kubectl", "op": "apply"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "secrets"
    path.mkdir(mode=0o700)
    secret_file(path / "token", "tr0ub4dor\n")
    return path


def of(path: Path) -> FileSecrets:
    return FileSecrets("files", path, ["token"], ttl_s=30)


async def failing(provider: SecretProvider, expected: type[FleetError], match: str) -> None:
    with pytest.raises(expected, match=match) as caught:
        await provider.resolve("token", as_role="devops", tool="kubectl", op="apply")
    assert leaks(caught.value, "tr0ub4dor") == []


@pytest.mark.parametrize(
    ("content", "value"), [("tr0ub4dor", "tr0ub4dor"), ("tr0ub4dor\r\n", "tr0ub4dor"), ("a\n\n", "a\n"), (" a ", " a ")]
)
async def test_one_newline_at_the_end_is_no_part_of_the_value(folder: Path, content: str, value: str) -> None:
    (folder / "token").write_bytes(content.encode())

    assert (await of(folder).resolve("token", **USE)).reveal() == value


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
async def test_file_that_others_may_use_is_refused(folder: Path, mode: int) -> None:
    (folder / "token").chmod(mode)

    await failing(of(folder), PolicyDenied, f"mode {mode:04o}.*set 0600")


@pytest.mark.parametrize("mode", [0o750, 0o701])
async def test_folder_that_others_may_enter_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)

    await failing(of(folder), PolicyDenied, "set 0700")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("part", ["file", "folder"])
async def test_file_or_folder_of_another_user_is_refused(folder: Path, part: str) -> None:
    os.chown(folder if part == "folder" else folder / "token", 12_345, -1)

    await failing(of(folder), PolicyDenied, "belongs to user 12345")


async def test_link_in_place_of_the_file_is_refused(folder: Path) -> None:
    (folder / "token").rename(folder / "real")
    (folder / "token").symlink_to("real")

    await failing(of(folder), PolicyDenied, "is a link")


async def test_link_in_place_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)

    await failing(of(tmp_path / "link"), PolicyDenied, "is a link")


async def test_second_name_of_the_file_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").hardlink_to(folder / "token")

    await failing(of(folder), PolicyDenied, "hard links")


async def test_pipe_is_refused_and_does_not_block(folder: Path) -> None:
    (folder / "token").unlink()
    os.mkfifo(folder / "token", 0o600)

    await failing(of(folder), PolicyDenied, "no plain file")


async def test_bytes_that_are_no_text_are_no_value(folder: Path) -> None:
    (folder / "token").write_bytes(b"tr0ub4dor\xff")

    await failing(of(folder), StoreUnavailable, "no UTF-8")


async def test_missing_folder_is_not_found(tmp_path: Path) -> None:
    await failing(of(tmp_path / "nowhere"), NotFound, "nowhere")


@pytest.mark.parametrize(
    "document",
    ["[]", '{"token": "tr0ub4dor"', '"tr0ub4dor"', "tr0ub4dor", "[" * 100_000, '{"token": ["tr0ub4dor"]}'],
    ids=range(6),
)
async def test_document_of_another_form_is_unavailable(tmp_path: Path, document: str) -> None:
    path = secret_file(tmp_path / "secrets.json", document)

    await failing(of(path), StoreUnavailable, "JSON object|holds no text")


async def test_document_with_half_a_character_is_no_value(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "secrets.json", '{"token": "tr0ub4dor\\ud800"}')

    await failing(of(path), StoreUnavailable, "no UTF-8")


async def test_document_that_is_no_text_is_unavailable(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "secrets.json", "{}")
    path.write_bytes(b'{"token": "\xff"}')

    await failing(of(path), StoreUnavailable, "JSON object")


async def test_document_that_is_a_link_is_refused(tmp_path: Path) -> None:
    secret_file(tmp_path / "real.json", '{"token": "tr0ub4dor"}')
    (tmp_path / "secrets.json").symlink_to("real.json")

    await failing(of(tmp_path / "secrets.json"), PolicyDenied, "is a link")


def mounted(path: Path) -> MountedSecrets:
    return MountedSecrets("pod", path, ["token"], ttl_s=30)


async def test_version_of_a_volume_is_the_one_that_the_kubelet_named(tmp_path: Path) -> None:
    write_volume(tmp_path / "m", {"token": b"tr0ub4dor"}, version="2026_01_01.7")

    assert (await mounted(tmp_path / "m").resolve("token", **USE)).version == "..2026_01_01.7"


async def test_folder_that_is_no_volume_has_no_secret(folder: Path) -> None:
    await failing(mounted(folder), NotFound, "no Secret volume")


@pytest.mark.parametrize("target", ["/etc", "../secrets", ".."])
async def test_volume_that_leads_outside_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "..data").symlink_to(target)

    await failing(mounted(tmp_path), PolicyDenied, "leads out")


async def test_key_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "..v1").mkdir()
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "..v1" / "token").symlink_to("/etc/hostname")

    await failing(mounted(tmp_path), PolicyDenied, "is a link")


async def test_key_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "..v1" / "token").mkdir(parents=True)
    (tmp_path / "..data").symlink_to("..v1")

    await failing(mounted(tmp_path), PolicyDenied, "no plain file")


def test_names_become_variables_one_to_one() -> None:
    assert variable_of("deploy-token-2", prefix="CI_") == "CI_DEPLOY_TOKEN_2"


async def test_variable_of_bytes_that_are_no_text_is_no_value() -> None:
    environ = {"CI_TOKEN": os.fsdecode(b"tr0ub4dor\xff")}

    await failing(
        EnvironmentSecrets("env", environ, prefix="CI_", names=["token"], ttl_s=30), StoreUnavailable, "no UTF-8"
    )
