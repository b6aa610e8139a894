"""Ed25519: the notary's key in a file, and checking signatures."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fleet.audit.note import NoteKey
from fleet.kernel.errors import ConfigError

_NAME = "swe-fleet/log/"
HANDOVERS = "handovers"


class Ed25519Verifier:
    """Implements the port Verifier."""

    def check(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether it is the signature of this public key over the message."""
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class KeyFile:
    """The private key in one file that its owner alone may read. Implements the port Signer.

    The key is made at the first use. The public half lies beside it as `<name>.pub`, in the form in which it is handed
    to those who check; a key that shall follow it as `<name>.next.key`; and in the folder `handovers` the notes of the
    checkpoints that retired earlier keys.

    Args:
        path: of the private key (PEM, PKCS #8), mode 0600.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._private: Ed25519PrivateKey | None = None
        self._seen: tuple[int, int] | None = None

    @property
    def public_path(self) -> Path:
        """Where the public half lies."""
        return self._path.with_suffix(".pub")

    @property
    def key(self) -> NoteKey:
        """The public half; the file is read, or made, at the first call.

        Raises ConfigError: the file is unreadable, others may read it, or it is gone while its public half is there.
        """
        return _note_key(self._loaded())

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature over the message, 64 bytes."""
        return self._loaded().sign(message)

    @property
    def handovers(self) -> tuple[str, ...]:
        """See `Signer.handovers`."""
        return read_handovers(self._path.parent)

    @property
    def successor(self) -> KeyFile | None:
        """See `Signer.successor`."""
        path = _next(self._path)
        return KeyFile(path) if path.exists() else None

    def prepare_successor(self) -> NoteKey:
        """A key that shall follow this one lies beside it; the same one when it is asked for again.

        Raises ConfigError: this key cannot be used, or there is none: a wrong home is told, and gets no key.
        """
        if not self._path.exists() and not self.public_path.exists():
            raise ConfigError(
                f"there is no audit key {self._path} to rotate: a fleet makes it at its first start; look whether "
                "FLEET_HOME names the right home",
                file=str(self._path),
            )
        self._loaded()
        return KeyFile(_next(self._path)).key

    def succeed(self, handover: str) -> None:
        """See `Signer.succeed`. The retired private key is gone afterwards."""
        path = self._path.parent / HANDOVERS / f"{hashlib.sha256(handover.encode()).hexdigest()}.note"
        path.parent.mkdir(mode=0o755, exist_ok=True)
        if not path.exists():
            _write_once(path, handover.encode(), mode=0o644)
        for kept in (self._path, self.public_path):
            # The private half first: it finds its public half under the old name too.
            with suppress(FileNotFoundError):
                _next(kept).replace(kept)

    def _loaded(self) -> Ed25519PrivateKey:
        # Another process may have handed over to a successor.
        seen = _seen(self._path)
        if self._private is None or (seen is not None and seen != self._seen):
            try:
                self._private = self._load()
                self._seen = _seen(self._path)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"the audit key {self._path} cannot be used: {error}; restore it from a backup",
                    file=str(self._path),
                ) from error
        return self._private

    def _load(self) -> Ed25519PrivateKey:
        if not self._path.exists():
            self._make()
        mode = stat.S_IMODE(self._path.stat().st_mode)
        if mode & 0o077:
            raise ConfigError(
                f"the audit key {self._path} can be read by others (mode {mode:04o}): run `chmod 600` on it, and think "
                "about whether it was copied",
                file=str(self._path),
            )
        private = load_pem_private_key(self._path.read_bytes(), password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("it is no Ed25519 key")
        _publish(self.public_path, _note_key(private))
        return private

    def _make(self) -> None:
        if self.public_path.exists():
            # A new key in silence would make every old checkpoint look forged.
            raise ConfigError(
                f"the audit key {self._path} is gone, while {self.public_path.name} is there: restore it from a "
                "backup; without it, move the folder away and keep it for the old checkpoints",
                file=str(self._path),
            )
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write_once(self._path, pem, mode=0o600)


def read_public_key(path: Path) -> NoteKey:
    """The key of a `.pub` file. Raises ConfigError (unreadable) or InvalidInput (not of the form)."""
    try:
        return NoteKey.parse(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the public key {path} cannot be read: {error}; give the file notary.pub of the fleet", file=str(path)
        ) from error


def read_handovers(folder: Path) -> tuple[str, ...]:
    """The notes of handovers beside a public key, in no order; those who use them check them. ConfigError."""
    try:
        return tuple(path.read_text() for path in sorted((folder / HANDOVERS).glob("*.note")))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the handovers of audit keys in {folder / HANDOVERS} cannot be read: {error}", file=str(folder)
        ) from error


def _next(path: Path) -> Path:
    return path.with_name(f"{path.stem}.next{path.suffix}")


def _seen(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _note_key(private: Ed25519PrivateKey) -> NoteKey:
    public = private.public_key().public_bytes_raw()
    return NoteKey(_NAME + hashlib.sha256(public).hexdigest()[:16], public)


def _publish(path: Path, key: NoteKey) -> None:
    if not path.exists():
        _write_once(path, key.text.encode() + b"\n", mode=0o644)
    if read_public_key(path) == key:
        return
    left = _next(path)
    if left.exists() and read_public_key(left) == key:
        # The process that handed over to this key died before it published it.
        left.replace(path)
    else:
        raise ConfigError(
            f"{path} is not the public half of the audit key beside it: restore both from a backup", file=str(path)
        )


def _write_once(path: Path, data: bytes, *, mode: int) -> None:
    """The file is there, whole and on disk; when another process was first, its file stays."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
