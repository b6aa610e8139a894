"""Both ends of the pipe in one process: what goes over comes back equal, and what cannot go over is told."""

from __future__ import annotations

import builtins
import collections
import contextlib
import datetime
import decimal
import enum
import fractions
import http
import json
import logging
import operator
import pathlib
import re
import socket
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.inside import load, write_files
from tests.unit.sandbox.inside.test_product_pipe import HONEST, USES

pipe_peer: Any = load("pipe_peer")
product_pipe: Any = load("product_pipe")
product_process: Any = load("product_process")

MORE = """
import dataclasses

def same(value): return value
def is_it(a, b): return a is b
def kind_of(value): return type(value).__name__
def grow(items, *, more): items.append({"a": 1}); more["b"] = {2}; more["c"].append(3); return len(items)
def use(f): return f.name, f.double(4), f[2], len(f), f + 1, next(iter(f)), str(f)
def calls(f, *args, **names): return f(*args, **names)
def ends(): raise SystemExit(3)
def odd():
    class Odd(Exception):
        def __init__(self, a, b): super().__init__(a)
    raise Odd(1, 2)
def exhausted(): return next(iter(()))

class Vector:
    def __init__(self, *parts): self.parts = list(parts)
    def _each(self, other, f): return Vector(*(f(a, other) for a in self.parts))
    def __mul__(self, other): return self._each(other, lambda a, b: a * b)
    __rmul__ = __mul__
    def __sub__(self, other): return self._each(other, lambda a, b: a - b)
    def __rsub__(self, other): return self._each(other, lambda a, b: b - a)
    def __divmod__(self, other): return [divmod(a, other) for a in self.parts]
    def __neg__(self): return self * -1
    def __abs__(self): return sum(abs(a) for a in self.parts)
    def __int__(self): return int(self.parts[0])
    def __float__(self): return float(self.parts[0])
    def __index__(self): return int(self.parts[0])
    def __round__(self, digits=0): return round(self.parts[0], digits)
    def __trunc__(self): return int(self.parts[0])
    def __bytes__(self): return bytes(self.parts)
    def __len__(self): return len(self.parts)
    def __iter__(self): return iter(self.parts)
    def __reversed__(self): return reversed(self.parts)
    def __getitem__(self, at): return self.parts[at]
    def __setitem__(self, at, value): self.parts[at] = value
    def __delitem__(self, at): del self.parts[at]
    def __eq__(self, other): return isinstance(other, Vector) and self.parts == other.parts
    def __lt__(self, other): return abs(self) < other
    def __gt__(self, other): return abs(self) > other
    def __hash__(self): return 7
    def __format__(self, form): return form or "vector"

class All:
    def __eq__(self, other): return True
    def __lt__(self, other): return True
    def __gt__(self, other): return True
    def __contains__(self, item): return True
    __hash__ = None

class Registry(type):
    members = ["a", "b"]
    def __iter__(cls): return iter(cls.members)
    def __len__(cls): return len(cls.members)
    def __getitem__(cls, key): return cls.members[key]
    def __contains__(cls, item): return item in cls.members

class Known(metaclass=Registry):
    limit = 1
    def __call__(self, x): return x + 1
"""
PLAIN: list[Any] = [
    None,
    True,
    -5,
    1 << 70,
    0.1,
    float("inf"),
    "ä\n",
    b"\x00a",
    bytearray(b"ab"),
    [1, [2, {"a": (3,)}]],
    {1, 2},
    frozenset({"x"}),
    {"a": {1: None}},
    collections.OrderedDict(a=1),
    collections.Counter("aab"),
    collections.defaultdict(None, {"a": [1]}),
    collections.deque([1, 2], 5),
    1 + 2j,
    range(1, 9, 2),
    slice(1, None, 2),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=7),
    datetime.date(2020, 2, 29),
    datetime.time(1, 2, 3, 4, fold=1),
    datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
    datetime.datetime(2020, 1, 2, 3, 4),  # noqa: DTZ001 - goes over without a zone, too
    datetime.timedelta(days=1, microseconds=5),
    datetime.timezone(datetime.timedelta(hours=2), "X"),
    pathlib.PurePosixPath("a/b"),
    pathlib.PosixPath("/tmp"),
    re.compile("a.b", re.IGNORECASE),
    Ellipsis,
    NotImplemented,
    int,
    KeyError,
    http.HTTPStatus.NOT_FOUND,
]


class Ends:
    """The tests' end; what is done with the product runs beside the product, which serves it."""

    def __init__(self, folder: Path) -> None:
        ours, theirs = socket.socketpair()
        self.callee = product_process.Callee(theirs, 5)
        self.product = product_pipe.Product(ours)
        self._finder = product_pipe.ProductFinder(self.product, str(folder), [str(folder)], lambda _: False)

    def run(self, body: Callable[[], None]) -> None:
        """The product serves until the body has ended; raises what that raises."""
        raised: list[BaseException] = []

        def work() -> None:
            try:
                body()
            except BaseException as error:
                raised.append(error)
            finally:
                self.product.sock.close()

        thread = threading.Thread(target=work)
        thread.start()
        self.callee.serve()
        thread.join()
        if raised:
            raise raised[0]

    def loaded(self, name: str) -> Any:
        """The stand-in of a module of the product."""
        spec = self._finder.find_spec(name)
        assert spec is not None
        return self._finder.create_module(spec)


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Ends]:
    handlers = logging.getLogger().handlers[:]
    write_files(tmp_path, {"shop.py": HONEST, "more.py": MORE})
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Ends(tmp_path)
    yield made
    made.callee.sock.close()
    logging.getLogger().handlers[:] = handlers
    for name in ("shop", "more"):
        sys.modules.pop(name, None)


@pytest.mark.rule("RC-80")
def test_values_come_back_as_they_were(ends: Ends) -> None:
    def body() -> None:
        more = ends.loaded("more")
        for value in PLAIN:
            back = more.same(value)
            assert (back, type(back)) == (value, type(value))
            assert more.kind_of(value) == type(value).__name__
        assert repr(more.same(float("nan"))) == "nan"
        marker = object()
        assert more.same(marker) is marker
        assert more.is_it(marker, marker)

    ends.run(body)


@pytest.mark.rule("RC-80")
def test_what_tests_do_with_a_product_is_done_there(ends: Ends, capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        shop = ends.loaded("shop")

        def imported(name: str, *args: Any) -> Any:
            return shop if name == "shop" else builtins.__import__(name, *args)

        scope: dict[str, Any] = {"__builtins__": {**vars(builtins), "__import__": imported}, "__name__": "uses"}
        exec(compile(USES, "uses.py", "exec"), scope)  # noqa: S102 - a text of this folder
        tests = [test for name, test in scope.items() if name.startswith("test_") and not test.__code__.co_argcount]
        assert len(tests) == 13
        for test in tests:
            test()
        scope["test_prints"](capsys)
        scope["test_warns"]()

    ends.run(body)


def test_operators_and_attributes_of_stand_ins(ends: Ends) -> None:
    def body() -> None:
        more = ends.loaded("more")
        v = more.Vector(3, 4)
        assert [*(v * 2), *(2 * v), *(v - 1), *(9 - v)] == [6, 8, 6, 8, 2, 3, 6, 5]
        numbers = (divmod(v, 2), abs(-v), int(v), float(v), round(v, 0), bytes(v))
        assert numbers == ([(1, 1), (2, 0)], 7, 3, 3.0, 3, b"\3\4")
        assert (operator.index(v), len(v), list(reversed(v)), v[1], f"{v:x}", hash(v), bool(v)) == (
            3,
            2,
            [4, 3],
            4,
            "x",
            7,
            True,
        )
        v[0] = 5
        del v[1]
        assert (v.parts, v.__dict__, "parts" in dir(v)) == ([5], {"parts": [5]}, True)
        v.name = "n"
        assert v.name == "n"
        del v.name
        with pytest.raises(AttributeError):
            _ = v.name
        assert (v < 6, v > 4, v == more.Vector(5), v != more.Vector(6)) == (True,) * 4
        known = more.Known
        assert (list(known), len(known), known[1], "a" in known, "z" in known, bool(known)) == (
            ["a", "b"],
            2,
            "b",
            True,
            False,
            True,
        )
        assert known()(1) == 2
        known.limit = 4
        assert known.limit == 4
        del known.limit
        with pytest.raises(AttributeError):
            _ = known.limit
        more.added = 3
        assert more.added == 3
        del more.added
        assert "added" not in dir(more)

    ends.run(body)


def test_product_uses_what_a_test_hands_in_and_changes_it_in_place(ends: Ends) -> None:
    class Given:
        name = "given"

        def double(self, n: int) -> int:
            return 2 * n

        def __getitem__(self, at: int) -> int:
            if at > 3:
                raise IndexError(at)
            return at

        def __len__(self) -> int:
            return 4

        def __add__(self, n: int) -> int:
            return n + 10

        def __str__(self) -> str:
            return "as text"

    def raises() -> None:
        raise LookupError("not here")

    def body() -> None:
        more = ends.loaded("more")
        assert more.use(Given()) == ("given", 8, 2, 4, 11, 0, "as text")
        items, inner = [0], [1]
        kept = {"c": inner}
        assert more.grow(items, more=kept) == 2
        assert (items, kept, kept["c"] is inner) == ([0, {"a": 1}], {"c": [1, 3], "b": {2}}, True)
        assert more.calls(lambda a, b=0: a + b, 1, b=2) == 3
        with pytest.raises(LookupError, match="not here"):
            more.calls(raises)
        for question, args in (("setattr", [1]), ("getattr", [raises, "name"]), ("getattr", [Given(), "_x"])):
            with pytest.raises((TypeError, AttributeError)):
                ends.product.operate(question, args, {})

    ends.run(body)


def test_errors_of_a_product_are_those_of_their_class_and_liars_are_told(ends: Ends) -> None:
    def body() -> None:
        more = ends.loaded("more")
        with pytest.raises(SystemExit):
            more.ends()
        with pytest.raises(StopIteration):
            more.exhausted()
        with pytest.raises(Exception, match="1") as odd:
            more.odd()
        assert type(odd.value).__name__ == "Odd"
        liar = more.All()
        for lie in (
            lambda: liar == 5,
            lambda: liar == "a",
            lambda: liar == [1],
            lambda: liar == {"a": 1},
            lambda: 1 in liar,
            lambda: liar < 3,
        ):
            with pytest.raises(AssertionError, match="what the product returned says"):
                lie()
        assert (liar == enum.Enum) is False

    ends.run(body)


def test_what_cannot_go_over_a_pipe_is_told(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    deep: list[Any] = []
    for _ in range(80):
        deep = [deep]

    def body() -> None:
        more = ends.loaded("more")
        with pytest.raises(pipe_peer.CannotBePiped, match="derives"):
            type("Derived", (more.Vector,), {})
        for value, why in ((sys, "module"), (sys._getframe(), "frame"), (deep, "too deep")):
            with pytest.raises(pipe_peer.CannotBePiped, match=why):
                more.same(value)
        monkeypatch.setattr(pipe_peer, "MAX_BYTES", 200)
        with pytest.raises(pipe_peer.CannotBePiped, match="too large"):
            more.same("x" * 300)
        monkeypatch.undo()

    ends.run(body)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0\0",
        struct.pack(">I", 1 << 31),
        struct.pack(">I", 3) + b"{,}",
        struct.pack(">I", 2) + b"[]",
        *(
            struct.pack(">I", len(data)) + data
            for data in (
                json.dumps({"value": value}).encode()
                for value in (
                    {"a": 1},
                    [],
                    ["?"],
                    ["o", 99],
                    ["E", "os", "path", "x"],
                    ["g", "shop", "X"],
                    ["g", "os", "getcwd"],
                    ["D", "x"],
                    ["P", "Popen", "x"],
                    ["T", "other", [1, 2]],
                    ["h", 1, {"k": "error", "c": ["g", "builtins", "int"]}],
                )
            )
        ),
    ],
)
def test_message_that_nobody_can_read_ends_the_product(said: bytes) -> None:
    ours, theirs = socket.socketpair()
    product = product_pipe.Product(ours)
    theirs.sendall(said)
    theirs.shutdown(socket.SHUT_WR)
    with contextlib.closing(theirs), contextlib.closing(ours), pytest.raises(pipe_peer.ProductEnded):
        product.ask("len", "abc")


def test_process_of_a_product_answers_and_ends_with_its_tests(tmp_path: Path) -> None:
    write_files(tmp_path, {"more.py": MORE, "pack/__init__.py": "", "pack/part.py": "N = 1\n", "conftest.py": ""})
    product = product_pipe.start_product(str(tmp_path), [str(tmp_path)], limit_s=5)
    finder = product_pipe.ProductFinder(product, str(tmp_path), [str(tmp_path)], lambda path: path.endswith("part.py"))
    try:
        spec = finder.find_spec("more")
        assert finder.create_module(spec).same(3) == 3
        finder.exec_module(None)
        # The library's own modules never come from the workspace; trusted files are loaded here.
        assert finder.find_spec("json").origin == json.__spec__.origin
        assert finder.find_spec("sys") is None
        assert finder.find_spec("nowhere") is None
        assert finder.find_spec("pack.part", [str(tmp_path / "pack")]) is None
        with pytest.raises(ImportError, match="not one of the tests"):
            finder.find_spec("conftest")
    finally:
        assert product.ended() is None
        product.sock.close()
    assert product.process.wait(5) == -9
    dead: subprocess.Popen[bytes] = subprocess.Popen(["true"], start_new_session=True)
    dead.wait()
    assert product_pipe.Product(product.sock, dead).ended() == 0
