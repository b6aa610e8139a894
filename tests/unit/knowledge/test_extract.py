"""What is known of one file, whatever its bytes are."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.knowledge.extract import extract
from fleet.knowledge.facts import Definition, FileFacts, decode_facts, encode_facts
from fleet.knowledge.languages import LANGUAGES, language_of, role_of
from fleet.knowledge.syntax import MAX_BYTES

PYTHON = b'''"""Shopping carts."""
import os, json as j
from shop.items import (  # what is sold
    Item,
    Price as P,
)
from . import prices
from ..money import Euro

LIMIT: int = 3

class Cart:
    """Holds reservations until they expire."""

    def add(self, item):
        """Reserve it."""
        text = "def not_here(): class Nor"
        return text  # remembers customers

    async def drop(self): ...

def total(cart):
    return 0
'''


def facts_of(path: str, data: bytes) -> FileFacts:
    return extract([(language_of(path), data)])[0]


def test_python_file_gives_symbols_with_owner_and_lines() -> None:
    assert facts_of("shop/cart.py", PYTHON).symbols == (
        Definition("value", "LIMIT", 10, 10),
        Definition("class", "Cart", 12, 20),
        Definition("method", "Cart.add", 15, 18),
        Definition("method", "Cart.drop", 20, 20),
        Definition("function", "total", 22, 23),
    )


def test_python_imports_are_dotted_paths() -> None:
    found = facts_of("shop/cart.py", PYTHON).imports
    assert found == ("os", "json", "shop.items.Item", "shop.items.Price", ".prices", "..money.Euro")


def test_words_are_kept_apart_by_where_they_stand() -> None:
    found = facts_of("shop/cart.py", PYTHON)
    assert {"shop", "reservation", "expir", "customer"} <= found.prose.keys()
    assert "not_here" in found.texts
    assert "not_here" not in found.names
    assert found.names["cart"] == 1
    assert found.lines == 23


@pytest.mark.parametrize(
    ("path", "text", "symbols", "imports"),
    [
        (
            "web/a.ts",
            "import { b } from './lib/b'\nconst x = require('fs')\nexport default async function load() {}\n"
            "class A {\n  pay() {}\n}\n"
            "// class Nor {}\n",
            ["x", "load", "A", "A.pay"],
            ("./lib/b", "fs"),
        ),
        (
            "cmd/a.go",
            'package a\nimport (\n\t"net/http"\n\tm "shop/money"\n)\nfunc (s *S) Serve() {}\n'
            "type (\n\tS struct{}\n\tT int\n)\n",
            ["S.Serve", "S", "T"],
            ("net/http", "shop/money"),
        ),
        (
            "src/a.rs",
            "use crate::shop::cart;\nmod money;\npub(crate) async fn serve() {}\npub struct S;\n// fn not_here() {}\n",
            ["money", "serve", "S"],
            ("crate::shop::cart", "money"),
        ),
        (
            "src/Cart.java",
            "package shop;\nimport shop.money.Euro;\nimport static shop.Tax.*;\n// class Nor {}\n"
            'class Cart { String s = "class Not {}"; void add() {} }\n',
            ["Cart", "Cart.s", "Cart.add"],
            ("shop.money.Euro", "shop.Tax"),
        ),
        (
            "src/cart.cpp",
            '#include <vector>\n#include "shop/money.h"\n/* class Nor {}; */\nclass Cart { void add(); };\n',
            ["Cart", "Cart.add"],
            ("vector", "shop/money.h"),
        ),
        (
            "Cart.cs",
            "using Shop.Money;\nnamespace Shop { class Cart { void Add() {} } }\n",
            ["Shop", "Shop.Cart", "Shop.Cart.Add"],
            ("Shop.Money",),
        ),
        (
            "lib/cart.rb",
            "require 'json'\nrequire_relative \"money\"\n# class Nor\nclass Cart\n  def add; end\nend\n",
            ["Cart", "Cart.add"],
            ("json", "money"),
        ),
        (
            "src/Cart.php",
            "<?php\nuse Shop\\Money;\n# class Nor {}\nclass Cart { function add() {} }\n",
            ["Cart", "Cart.add"],
            ("Shop\\Money",),
        ),
        (
            "src/Cart.kt",
            "import shop.Money\nclass Cart { fun add() {} }\n",
            ["Cart", "Cart.add"],
            ("shop.Money",),
        ),
    ],
)
def test_other_languages_give_symbols_and_imports(
    path: str, text: str, symbols: list[str], imports: tuple[str, ...]
) -> None:
    found = facts_of(path, text.encode())
    assert [symbol.name for symbol in found.symbols] == symbols
    assert found.imports == imports


def test_documents_are_prose_and_other_files_are_their_path_alone() -> None:
    assert facts_of("README.md", b"# Reserving carts\n").prose == {"reserv": 1, "cart": 1}
    assert facts_of("logo.png", b"reserve") == FileFacts()


@pytest.mark.parametrize("data", [b"def f(): pass\0", b"x = 1\n" * (MAX_BYTES // 5)], ids=["binary", "too large"])
def test_binary_and_too_large_files_are_not_read(data: bytes) -> None:
    assert facts_of("a.py", data) == FileFacts()


HOSTILE = {
    "deep": b"(" * MAX_BYTES,
    "deeper classes": b"".join(b" " * min(n, 199) + b"class A:\n" for n in range(2400)),
    "open quotes": b'"""\\' * (MAX_BYTES // 4),
    "one line": b"a" * MAX_BYTES,
    "many names": b"".join(b"n%d " % n for n in range(70_000)),
    "open imports": b"\nfrom x import (" * 30_000,
    "many lines": b"\na" * (MAX_BYTES // 2),
    "no text": bytes(range(1, 256)) * 2000,
    "humps": b"Aa" * (MAX_BYTES // 2),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
@pytest.mark.parametrize("path", ["a.py", "a.rs", "a.md"])
def test_hostile_text_ends_soon_and_gives_bounded_facts(name: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The process that parses has half a minute for it; here it is enough that it is ended.
    monkeypatch.setattr("fleet.knowledge.syntax._WAIT_S", 2)
    began = time.process_time()
    found = facts_of(path, HOSTILE[name])
    # Milliseconds as a rule; what grows with the square of the text would take minutes.
    assert time.process_time() - began < 10
    assert len(found.symbols) <= 2_000
    assert len(found.imports) <= 500
    assert max(len(found.names), len(found.prose), len(found.texts)) <= 4_000
    assert all(len(symbol.name) <= 200 for symbol in found.symbols)


@settings(max_examples=60)
@given(st.text(max_size=300), st.sampled_from(sorted(LANGUAGES)))
def test_any_text_gives_facts_that_survive_being_kept(text: str, language: str) -> None:
    (found,) = extract([(LANGUAGES[language], text.encode(errors="surrogatepass"))])
    assert decode_facts(encode_facts(found)) == found
    assert all(1 <= symbol.line <= symbol.end for symbol in found.symbols)


def test_damaged_facts_are_none() -> None:
    assert decode_facts(b'{"lines": "many"}') is None
    assert decode_facts(b"\xff") is None


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("shop/cart.py", "source"),
        ("tests/cart.py", "test"),
        ("shop/test_cart.py", "test"),
        ("shop/cart_test.go", "test"),
        ("web/cart.spec.ts", "test"),
        ("shop/conftest.py", "test"),
        ("README.md", "document"),
        ("a.svg", "other"),
        (".py", "other"),
        ("shop/contest.py", "source"),
        ("src/main/CartTest.java", "test"),
        ("src/main/Contest.java", "source"),
        ("lib/cart_spec.rb", "test"),
    ],
)
def test_role_is_told_by_the_path(path: str, role: str) -> None:
    assert role_of(path) == role


def test_file_that_ends_its_reader_has_words_and_no_definitions_and_those_beside_it_are_read() -> None:
    files = [("a.js", b"const rabbit = " + b"[" * 200_000), ("b.py", b"def fox(): ...\n"), ("c.md", b"hares\n")]
    deep, plain, prose = extract([(language_of(path), data) for path, data in files])
    assert (deep.symbols, "rabbit" in deep.names) == ((), True) or deep.symbols[0].name == "rabbit"
    assert [symbol.name for symbol in plain.symbols] == ["fox"]
    assert prose.prose == {"har": 1}


def test_more_files_than_one_process_reads_keep_their_definitions() -> None:
    text = b"x = '" + b"a" * (300 << 10) + b"'\n"
    found = extract([(language_of("a.py"), text + b"def f%d(): ...\n" % n) for n in range(8)])
    assert [facts.symbols[-1].name for facts in found] == [f"f{n}" for n in range(8)]
