"""Which environment layers of a node are in use, which were removed and when, and which go next.

Beside each layer lies a file `.layer-<language>-<key>.use`. A run that has the layer holds a shared lock on it, of
whatever process it is; the lock ends with that process. Its time says when the layer was used last. Who removes a layer
holds the lock alone, so that no layer goes that a run has.

Source: rule RC-113.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from fleet.kernel.errors import SandboxUnavailable
from fleet.sandbox.folders.bases import size_below
from fleet.sandbox.folders.workspace import remove_shared_tree
from fleet.trees.port import DiskUse, Evicted

_PREFIX = "layer-"
_GONE = ".gone-"
_EVICTED = ".layers-evicted.json"
_LOCK = ".layers.lock"
_TOLD = 20
"""Removals that are kept on record, the newest ones."""


class LayerLimits(NamedTuple):
    """What the environment layers of one node may take."""

    bytes: int = 20 << 30
    """On the disk; of those that are not in use the one goes first that was used longest ago."""
    idle_s: float = 86_400
    """Since its last run, for which a layer counts as in use: its story may be waiting for a person."""


@dataclass(frozen=True, slots=True)
class _Layer:
    name: str
    used_at: float
    size: int


class LayerBook:
    """The layers below one folder, which several processes share. All methods block.

    Args:
        root: folder of the node's toolchains.
    """

    def __init__(self, root: Path, limits: LayerLimits) -> None:
        self._root, self._limits = root, limits
        # Layers are never changed, so that each is measured once.
        self._sizes: dict[str, int] = {}

    @contextlib.contextmanager
    def used(self, folder: str) -> Generator[None]:
        """The layer, where it is here, is not removed while the block lasts, and was used last at its end."""
        if not (self._root / folder).is_dir():
            yield
            return
        lock = self._locked(folder, fcntl.LOCK_SH)
        try:
            os.utime(lock)
            yield
        finally:
            with contextlib.suppress(OSError):
                os.utime(lock)
            os.close(lock)

    def usage(self) -> DiskUse:
        """How many layers there are, what they take, what of it is in use, and what was removed of late."""
        layers = self._layers()
        return DiskUse(
            "layers",
            sum(layer.size for layer in layers),
            sum(layer.size for layer in layers if self._is_in_use(layer)),
            len(layers),
            self._limits.bytes,
            folder=str(self._root),
            evicted=self._removals(),
        )

    def make_room(self, wanted: int = 0, *, is_full: bool = False) -> int:
        """The limit holds, with `wanted` bytes more, or on a full disk nothing is left that is not in use.

        Returns:
            Bytes that are missing all the same, because what is left is in use.
        """
        layers = sorted(self._layers(), key=lambda layer: layer.used_at)
        over = sum(layer.size for layer in layers) + wanted - self._limits.bytes
        for layer in layers:
            if over <= 0 and not is_full:
                break
            if not self._is_idle(layer):
                break  # those after it were used later still
            if self._remove(layer):
                over -= layer.size
        self._sweep()
        return max(0, over)

    def limit_reached(self, wanted: int) -> SandboxUnavailable:
        """The error of a layer for which there is no room, because those that are there are in use."""
        used, limits = sum(layer.size for layer in self._layers()), self._limits
        return SandboxUnavailable(
            f"environment layers in {self._root} that are in use take {used:,} bytes of {limits.bytes:,}, and one more "
            f"wants {wanted:,}: raise sandbox.disk.layers_bytes in fleet.yaml, or lower sandbox.disk.layers_idle_s "
            f"({limits.idle_s:.0f} s after its last run a layer may go), and let the story go on",
            missing="disk",
            used_bytes=used,
            limit_bytes=limits.bytes,
            wanted_bytes=wanted,
        )

    def _layers(self) -> list[_Layer]:
        found: list[_Layer] = []
        for place in self._places():
            # Another process may be removing it.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                size = self._sizes.get(place.name) or size_below(place)
                self._sizes[place.name] = size
                found.append(_Layer(place.name, self._used_at(place), size))
        return found

    def _places(self) -> list[Path]:
        with contextlib.suppress(FileNotFoundError):
            return [place for place in self._root.iterdir() if place.name.startswith(_PREFIX)]
        return []

    def _used_at(self, place: Path) -> float:
        with contextlib.suppress(FileNotFoundError):
            return self._use_file(place.name).stat().st_mtime
        return place.stat().st_mtime  # it is from before there were such files

    def _use_file(self, folder: str) -> Path:
        return self._root / f".{folder}.use"

    def _locked(self, folder: str, how: int) -> int:
        lock = os.open(self._use_file(folder), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, how)
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _is_idle(self, layer: _Layer) -> bool:
        return time.time() - layer.used_at >= self._limits.idle_s

    def _is_in_use(self, layer: _Layer) -> bool:
        if not self._is_idle(layer):
            return True
        try:
            os.close(self._locked(layer.name, fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError:
            return True
        return False

    def _remove(self, layer: _Layer) -> bool:
        """Whether it is gone; a run may have it after all."""
        try:
            lock = self._locked(layer.name, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        gone = self._root / f"{_GONE}{layer.name}-{token_hex(4)}"
        try:
            # Since it was listed a run may have begun and ended in it.
            if time.time() - self._used_at(self._root / layer.name) < self._limits.idle_s:
                return False
            (self._root / layer.name).rename(gone)
        except FileNotFoundError:
            return True
        finally:
            os.close(lock)
        self._sizes.pop(layer.name, None)
        self._write_down(Evicted(layer.name.removeprefix(_PREFIX).replace("-", ":", 1), layer.size, _now()))
        remove_shared_tree(gone)
        return True

    def _sweep(self) -> None:
        """What a process that died left of a layer that it was removing."""
        for place in self._root.glob(f"{_GONE}*"):
            remove_shared_tree(place)

    def _removals(self) -> tuple[Evicted, ...]:
        # What cannot be read is no reason to fail: it only tells people of the past.
        with contextlib.suppress(OSError, ValueError, TypeError):
            return tuple(Evicted(**row) for row in json.loads((self._root / _EVICTED).read_bytes()))
        return ()

    def _write_down(self, removal: Evicted) -> None:
        lock = os.open(self._root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            rows = [asdict(row) for row in (*self._removals(), removal)][-_TOLD:]
            fresh = self._root / f"{_EVICTED}.{token_hex(4)}"
            # On a full disk the layer goes all the same.
            with contextlib.suppress(OSError):
                fresh.write_text(json.dumps(rows))
                fresh.rename(self._root / _EVICTED)
        finally:
            os.close(lock)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
