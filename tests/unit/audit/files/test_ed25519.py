"""The notary's key in its file (EV-32)."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleet.audit.files.ed25519 import Ed25519Verifier, KeyFile, read_public_key
from fleet.kernel.errors import ConfigError, InvalidInput


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "audit" / "notary.key"


@pytest.mark.rule("EV-32")
def test_key_is_made_once_for_its_owner_alone_with_its_public_half_beside_it(path: Path) -> None:
    made = KeyFile(path)
    signature = made.sign(b"message")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(p.name for p in path.parent.iterdir()) == ["notary.key", "notary.pub"]
    again = KeyFile(path)
    assert again.key == made.key == read_public_key(made.public_path)
    assert made.key.name.startswith("swe-fleet/log/")
    assert Ed25519Verifier().check(again.key.public, b"message", signature)
    assert not Ed25519Verifier().check(again.key.public, b"massage", signature)


def test_two_processes_that_start_together_share_one_key(path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        keys = list(pool.map(lambda _: KeyFile(path).key.text, range(4)))
    assert len(set(keys)) == 1


def test_public_half_that_is_gone_is_written_again(path: Path) -> None:
    key = KeyFile(path).key
    path.with_suffix(".pub").unlink()
    assert KeyFile(path).key == key == read_public_key(path.with_suffix(".pub"))


def _open_to_others(path: Path) -> None:
    path.chmod(0o640)


def _gone(path: Path) -> None:
    path.unlink()


def _damaged(path: Path) -> None:
    path.write_text("no key")


def _of_another_kind(path: Path) -> None:
    path.write_bytes(X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _with_a_foreign_public_half(path: Path) -> None:
    path.with_suffix(".pub").write_text(KeyFile(path.with_name("other.key")).key.text)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_open_to_others, "can be read by others"),
        (_gone, "is gone, while notary.pub is there"),
        (_damaged, "cannot be used"),
        (_of_another_kind, "no Ed25519 key"),
        (_with_a_foreign_public_half, "not the public half"),
    ],
)
def test_key_that_must_not_be_trusted_is_refused(path: Path, damage: object, says: str) -> None:
    assert KeyFile(path).key
    assert callable(damage)
    damage(path)
    with pytest.raises(ConfigError, match=says):
        _ = KeyFile(path).key


def test_public_key_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_public_key(tmp_path / "none.pub")
    (tmp_path / "bad.pub").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_public_key(tmp_path / "bad.pub")
    (tmp_path / "bad.pub").write_text("x+y+z")
    with pytest.raises(InvalidInput):
        read_public_key(tmp_path / "bad.pub")
