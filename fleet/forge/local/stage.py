"""Copy what a run needs to see of a repository: objects and refs, no config, no hooks (RC-70)."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from fleet.forge.local.layout import RepositoryLayout
from fleet.forge.local.objects import check_pack
from fleet.forge.port import FetchedRepository
from fleet.kernel.errors import InvalidInput, StoreFull, StoreUnavailable

_LOOSE_FOLDER = re.compile(r"[0-9a-f]{2}")
_LOOSE = re.compile(r"[0-9a-f]{38}")
_PACK = re.compile(r"pack-[0-9a-f]{40}\.(pack|idx)")
_ATTEMPTS = 3


def staged_name(layout: RepositoryLayout, commit: str) -> str:
    """The name of the copy: 64 hex digits, one per repository and commit."""
    return hashlib.sha256(f"{layout.common_dir.resolve()}\0{commit}".encode("utf-8", "surrogateescape")).hexdigest()


def fetched_name(fetched: FetchedRepository) -> str:
    """As `staged_name`, for a repository of another machine: one copy per address and commit."""
    return hashlib.sha256(f"{fetched.url}\0{fetched.commit}".encode()).hexdigest()


def write_fetched(fetched: FetchedRepository, pack: bytes, index: bytes, target: Path) -> None:
    """The pack is a bare store at `target`, whole, and every user may read it who comes to it.

    Raises:
        InvalidInput: pack or index are damaged, or do not hold the commit. StoreFull, StoreUnavailable: as above.
    """
    name = check_pack(pack, index, fetched.commit)
    try:
        _prepare(target)
        temporary = Path(tempfile.mkdtemp(prefix=".staging-", dir=target.parent))
        try:
            _make_folders(temporary)
            for ending, data in (("pack", pack), ("idx", index)):
                (temporary / "objects" / "pack" / f"pack-{name}.{ending}").write_bytes(data)
            _write_refs(fetched.refs, fetched.commit, temporary)
            _settle(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise _translated(error, target) from error


def copy_repository(layout: RepositoryLayout, refs: Mapping[str, str], commit: str, target: Path) -> None:
    """The copy exists at `target`, whole, and every user may read it; an existing one is left as it is.

    Raises:
        StoreFull: there is no room. StoreUnavailable: it cannot be read or written.
    """
    if target.is_dir():
        return
    _prepare(target)
    for attempt in range(_ATTEMPTS):
        temporary = Path(tempfile.mkdtemp(prefix=".staging-", dir=target.parent))
        try:
            _fill(layout, refs, commit, temporary)
            _settle(temporary, target)
            return
        except FileNotFoundError:
            # A `git gc` replaced packs while they were copied: what is there now is complete again.
            if attempt == _ATTEMPTS - 1:
                raise StoreUnavailable(
                    f"{layout.common_dir} changes all the time: stop `git gc` and try again"
                ) from None
        except OSError as error:
            raise _translated(error, layout.common_dir) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _translated(error: OSError, source: Path) -> StoreFull | StoreUnavailable:
    import errno

    cls = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnavailable
    return cls(f"{source} could not be staged: {error.strerror} ({error.filename})")


def _prepare(target: Path) -> None:
    # Nobody else of this machine comes in; what is below has the rights that a run needs, to which it is handed.
    target.parent.parent.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(mode=0o700, exist_ok=True)


def _make_folders(target: Path) -> None:
    for folder in ("objects/pack", "objects/info", "refs/heads"):
        (target / folder).mkdir(parents=True)


def _write_refs(refs: Mapping[str, str], commit: str, target: Path) -> None:
    lines = [f"{object_id} {name}\n" for name, object_id in sorted(refs.items())]
    (target / "packed-refs").write_text("# pack-refs with: sorted\n" + "".join(lines), "utf-8", "replace")
    (target / "HEAD").write_text(f"{commit}\n")


def _fill(layout: RepositoryLayout, refs: Mapping[str, str], commit: str, target: Path) -> None:
    _make_folders(target)
    for source in _object_files(layout.objects):
        copy = target / "objects" / source.parent.name / source.name
        copy.parent.mkdir(exist_ok=True)
        _link_or_copy(source, copy)
    if (layout.common_dir / "shallow").is_file():
        shutil.copyfile(layout.common_dir / "shallow", target / "shallow")
    _write_refs(refs, commit, target)


def _object_files(objects: Path) -> Iterator[Path]:
    for folder in sorted(objects.iterdir()):
        pattern = _PACK if folder.name == "pack" else _LOOSE if _LOOSE_FOLDER.fullmatch(folder.name) else None
        if pattern and stat.S_ISDIR(folder.lstat().st_mode):
            yield from (file for file in sorted(folder.iterdir()) if pattern.fullmatch(file.name))


def _link_or_copy(source: Path, copy: Path) -> None:
    """The file at another place; linked when it may be (objects never change), else copied. Links are not followed."""
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise InvalidInput(f"{source} is no regular file: run `git fsck` in the repository", path=str(source))
        if info.st_uid == os.geteuid() and info.st_mode & 0o777 == 0o444:
            try:
                os.link(source, copy, follow_symlinks=False)
                return
            except OSError:
                pass  # another file system, or links are forbidden: the copy below says the same
        with copy.open("wb") as out:
            shutil.copyfileobj(file, out, 1 << 20)
    copy.chmod(0o444)


def _settle(temporary: Path, target: Path) -> None:
    for folder, _, files in os.walk(temporary):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            if path.lstat().st_mode & 0o444 != 0o444:
                path.chmod(0o444)
    try:
        temporary.rename(target)
    except OSError:
        if not target.is_dir():
            raise
