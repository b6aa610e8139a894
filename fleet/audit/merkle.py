"""Merkle trees: one digest that commits to a list, and short proofs of what is in it (RFC 6962 section 2.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""

# Different first bytes, so that nobody can pass off a node as a leaf.
_LEAF, _NODE = b"\x00", b"\x01"


def leaf_hash(data: bytes) -> bytes:
    """The 32 bytes that stand for one entry of the list."""
    return hashlib.sha256(_LEAF + data).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two below `size`; 2 or more leaves."""
    return 1 << (size - 1).bit_length() - 1


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Commit to the whole list in 32 bytes.

    Args:
        leaves: hashes from `leaf_hash`, in the order of the list.

    Returns:
        `EMPTY_ROOT` without leaves; the hash of the leaf itself for a single one.
    """
    if len(leaves) < 2:
        return leaves[0] if leaves else EMPTY_ROOT
    middle = _split(len(leaves))
    return _node(merkle_root(leaves[:middle]), merkle_root(leaves[middle:]))


def inclusion_path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The hashes that lead from leaf `index` (0..) to the root, the lowest first."""
    assert 0 <= index < len(leaves)
    if len(leaves) == 1:
        return ()
    middle = _split(len(leaves))
    left, right = leaves[:middle], leaves[middle:]
    if index < middle:
        return (*inclusion_path(left, index), merkle_root(right))
    return (*inclusion_path(right, index - middle), merkle_root(left))


def is_included(leaf: bytes, *, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether the path proves that the tree of `size` leaves under `root` holds `leaf` at `index`.

    Nothing is assumed of the arguments: they may come from a file that somebody made up. Source: RFC 9162 2.1.3.2.
    """
    if not 0 <= index < size:
        return False
    number, last, reached = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if number & 1 or number == last:
            reached = _node(sibling, reached)
            while number and not number & 1:
                number, last = number >> 1, last >> 1
        else:
            reached = _node(reached, sibling)
        number, last = number >> 1, last >> 1
    return last == 0 and reached == root
