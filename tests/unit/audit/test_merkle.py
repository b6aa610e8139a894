"""Merkle trees against known roots, against the definition of RFC 6962 written down once more, and against liars."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.audit.merkle import EMPTY_ROOT, inclusion_path, is_included, leaf_hash, merkle_root

# Inputs and roots of the test vectors that implementations of Certificate Transparency share.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(bytes.fromhex(text)) for text in INPUTS]


def by_definition(entries: list[bytes]) -> bytes:
    """MTH(D[n]) of RFC 6962 section 2.1, over entries instead of hashes."""
    match entries:
        case []:
            return hashlib.sha256().digest()
        case [only]:
            return hashlib.sha256(b"\x00" + only).digest()
        case _:
            k = 1
            while k * 2 < len(entries):
                k *= 2
            return hashlib.sha256(b"\x01" + by_definition(entries[:k]) + by_definition(entries[k:])).digest()


@pytest.mark.rule("EV-32")
@pytest.mark.parametrize("size", range(9))
def test_root_of_the_known_leaves_is_the_known_root(size: int) -> None:
    assert merkle_root(LEAVES[:size]).hex() == ROOTS[size]
    assert merkle_root([]) == EMPTY_ROOT


def test_path_of_a_known_leaf_is_the_one_of_the_rfc() -> None:
    # RFC 6962 section 2.1.3: the path of d3 in a tree of 7 is [c, g, l].
    node = lambda a, b: hashlib.sha256(b"\x01" + a + b).digest()  # noqa: E731
    c, g, last = LEAVES[2], node(LEAVES[0], LEAVES[1]), node(node(LEAVES[4], LEAVES[5]), LEAVES[6])
    assert inclusion_path(LEAVES[:7], 3) == (c, g, last)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=8), max_size=40))
def test_root_is_that_of_the_definition(entries: list[bytes]) -> None:
    assert merkle_root([leaf_hash(entry) for entry in entries]) == by_definition(entries)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.data())
def test_path_proves_its_leaf_and_nothing_else(size: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(number.to_bytes(2, "big")) for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    root, path = merkle_root(leaves), inclusion_path(leaves, index)

    assert is_included(leaves[index], index=index, size=size, path=path, root=root)
    assert len(path) <= (size - 1).bit_length()
    other = data.draw(st.integers(0, size).filter(lambda n: n != index))
    assert not is_included(leaves[index], index=other, size=size, path=path, root=root)
    assert not is_included(leaf_hash(b"not there"), index=index, size=size, path=path, root=root)
    assert not is_included(leaves[index], index=index, size=size, path=(*path, root), root=root)
    assert not path or not is_included(leaves[index], index=index, size=size, path=path[:-1], root=root)


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0), (0, -1)])
def test_place_outside_of_the_tree_proves_nothing(index: int, size: int) -> None:
    assert not is_included(LEAVES[0], index=index, size=size, path=(), root=LEAVES[0])


def test_path_that_is_too_short_for_the_size_proves_nothing_of_that_size() -> None:
    for size in range(2, 40):
        whole = merkle_root(LEAVES[:1])
        assert not is_included(LEAVES[0], index=0, size=size, path=(), root=whole)
    two = merkle_root(LEAVES[:2])
    assert is_included(LEAVES[0], index=0, size=2, path=(LEAVES[1],), root=two)
    assert not is_included(LEAVES[0], index=0, size=3, path=(LEAVES[1],), root=two)


def test_node_is_no_leaf() -> None:
    left, right = LEAVES[0], LEAVES[1]
    assert leaf_hash(b"\x01" + left + right) != merkle_root([left, right])
    assert leaf_hash(left + right) != merkle_root([left, right])
