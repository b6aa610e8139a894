"""Bring a commit into a local repository: its pack, then its ref by lock file; nothing else is touched (PL-43).

All writes go through descriptors of folders that were opened without following a link: the supervisor may be root and
the repository somebody else's.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from fleet.forge.local.layout import RepositoryLayout
from fleet.forge.local.refs import all_refs, checked_out, read_ref
from fleet.kernel.errors import InvalidInput, StoreUnavailable, VersionConflict

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Owner:
    """Who owns the repository; what a root supervisor makes there becomes theirs."""

    def __init__(self, folder: Path) -> None:
        info = folder.stat()
        self.uid, self.gid = info.st_uid, info.st_gid
        self._gives = os.geteuid() == 0

    def give(self, descriptor: int) -> None:
        """The open file belongs to the repository's owner."""
        if self._gives:
            os.fchown(descriptor, self.uid, self.gid)


@contextmanager
def _opened(root: Path, parts: tuple[str, ...], owner: _Owner) -> Generator[int]:
    """A descriptor of a folder below the root; missing ones are made, a link on the way is refused (NotADirectory)."""
    current = os.open(root, _FOLDER)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=current)
                made = os.open(part, _FOLDER, dir_fd=current)
                owner.give(made)
                os.close(made)
            step = os.open(part, _FOLDER, dir_fd=current)
            os.close(current)
            current = step
        yield current
    finally:
        os.close(current)


def add_pack(layout: RepositoryLayout, name: str, pack: bytes, index: bytes) -> None:
    """`pack-<name>.pack` and its index are in the object store; the index comes last, for git looks for that one."""
    owner = _Owner(layout.common_dir)
    with _opened(layout.objects, ("pack",), owner) as folder:
        for ending, data in (("pack", pack), ("idx", index)):
            _write_new(folder, f"pack-{name}.{ending}", data, owner)
        os.fsync(folder)


def _write_new(folder: int, name: str, data: bytes, owner: _Owner) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.stat(name, dir_fd=folder, follow_symlinks=False).st_size == len(data):
            return
    temporary = f"tmp_fleet_{os.getpid()}_{name}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)
    _write_file(folder, temporary, data, mode=0o444, owner=owner)
    os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def _write_file(folder: int, name: str, data: bytes, *, mode: int, owner: _Owner) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
        owner.give(file.fileno())
        file.flush()
        os.fsync(file.fileno())


def check_name(layout: RepositoryLayout, branch: str) -> None:
    """Return when the branch can exist beside the present refs, and nobody has it checked out; else InvalidInput."""
    name = f"refs/heads/{branch}"
    if name in checked_out(layout):
        raise InvalidInput(
            f"branch '{branch}' is checked out there: switch to another branch, it would change under your hands",
            branch=branch,
        )
    refs = all_refs(layout)
    clash = next((r for r in refs if name.startswith(f"{r}/") or r.startswith(f"{name}/")), None)
    if clash:
        raise InvalidInput(
            f"branch '{branch}' cannot exist beside '{clash.removeprefix('refs/heads/')}': rename that branch",
            branch=branch,
            present=clash,
        )


def move_branch(layout: RepositoryLayout, branch: str, commit: str, *, expected_old: str | None) -> None:
    """The branch is at the commit; the same again changes nothing.

    Raises:
        VersionConflict: it is neither at `expected_old` (None: absent) nor at the commit.
        StoreUnavailable: another program holds its lock file.
    """
    owner = _Owner(layout.common_dir)
    *folders, leaf = ("refs", "heads", *branch.split("/"))
    with _opened(layout.common_dir, tuple(folders), owner) as folder:
        try:
            _write_file(folder, f"{leaf}.lock", f"{commit}\n".encode(), mode=0o644, owner=owner)
        except FileExistsError:
            raise StoreUnavailable(
                f"branch '{branch}' is locked by another git program: when none runs, remove refs/heads/{branch}.lock",
                branch=branch,
            ) from None
        try:
            # Again, now that nobody else can move it.
            check_old(layout, branch, commit, expected_old)
            _remove_empty(folder, leaf)
            os.rename(f"{leaf}.lock", leaf, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(f"{leaf}.lock", dir_fd=folder)
            raise
        os.fsync(folder)


def check_old(layout: RepositoryLayout, branch: str, commit: str, expected_old: str | None) -> None:
    """Return when the branch is where the caller left it, or at the commit already; else VersionConflict."""
    current = read_ref(layout, f"refs/heads/{branch}")
    if current not in (expected_old, commit):
        raise VersionConflict(
            f"branch '{branch}' is at {current or 'nothing'}, expected {expected_old or 'nothing'}: "
            "somebody moved it; keep theirs or delete it, then publish again",
            branch=branch,
            expected=expected_old,
            actual=current,
        )


def _remove_empty(folder: int, name: str) -> None:
    """Empty folders that deleted branches left in the way are gone; git does the same."""
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            return
    except FileNotFoundError:
        return
    inner = os.open(name, _FOLDER, dir_fd=folder)
    try:
        for child in os.listdir(inner):  # noqa: PTH208 - of a descriptor
            _remove_empty(inner, child)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=folder)
