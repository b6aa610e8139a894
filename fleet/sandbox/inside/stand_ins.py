"""What stands in one process for the objects of another: using it is asking there.

A comparison is never left to the object alone: it is asked with values that nothing but a liar equals, too.
"""

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
import datetime
import decimal
import random
import secrets
import types
from typing import Any

from pipe_peer import BINARY, DEEPEST, ORDER, CannotBePiped, Peer, ProductEnded

OWN, CLASS_OWN = "_fleet_handle", "_fleet_class"


def handle_in(value: Any) -> tuple[Peer, int]:
    return object.__getattribute__(value, OWN)


def _asks(operation: str) -> Any:
    def method(self: Any, *args: Any) -> Any:
        return handle_in(self)[0].ask(operation, self, *args)

    return method


def _reflected(operation: str) -> Any:
    def method(self: Any, other: Any) -> Any:
        return handle_in(self)[0].ask(operation, other, self)

    return method


def _compares(operation: str) -> Any:
    def method(self: Any, other: Any) -> Any:
        peer = handle_in(self)[0]
        answer = peer.ask(operation, self, other)
        if answer is True and peer.ask(ORDER[operation], self, other) is True:
            raise AssertionError("what the product returned says that it is both less and more than the value")
        return answer

    return method


class Stand:
    """Stands for an object of the other end."""

    __slots__ = (OWN, "__weakref__")

    def __getattr__(self, name: str) -> Any:
        return handle_in(self)[0].ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        handle_in(self)[0].ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        handle_in(self)[0].ask("delattr", self, name)

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        return handle_in(self)[0].ask("vars", self)

    def __eq__(self, other: object) -> Any:
        return True if self is other else equal(self, other)

    def __ne__(self, other: object) -> Any:
        answer = self.__eq__(other)
        return answer if answer is NotImplemented else not answer

    def __contains__(self, item: Any) -> bool:
        return contains(self, item)

    def __divmod__(self, other: Any) -> Any:
        return handle_in(self)[0].ask("divmod", self, other)

    def __exit__(self, kind: Any, error: Any, _traceback: Any) -> Any:
        return handle_in(self)[0].ask("exit", self, kind, error)

    def __deepcopy__(self, _memo: Any) -> Any:
        return handle_in(self)[0].ask("deepcopy", self)

    def __await__(self) -> Any:
        yield from ()
        return handle_in(self)[0].ask("await", self)

    __lt__, __gt__, __le__, __ge__ = map(_compares, ("lt", "gt", "le", "ge"))
    __hash__, __bool__, __len__, __iter__ = map(_asks, ("hash", "bool", "len", "iter"))  # type: ignore[assignment]
    __next__, __reversed__, __str__, __repr__ = map(_asks, ("next", "reversed", "str", "repr"))  # type: ignore[assignment]
    __int__, __float__, __index__, __round__ = map(_asks, ("int", "float", "index", "round"))
    __neg__, __pos__, __abs__, __invert__ = map(_asks, ("neg", "pos", "abs", "invert"))
    __getitem__, __setitem__, __delitem__ = map(_asks, ("getitem", "setitem", "delitem"))
    __enter__, __format__, __dir__, __copy__ = map(_asks, ("enter", "format", "dir", "copy"))  # type: ignore[assignment]
    __trunc__, __bytes__ = map(_asks, ("trunc", "bytes"))


for _name in BINARY:
    _dunder = _name.rstrip("_")
    setattr(Stand, f"__{_dunder}__", _asks(_name))
    setattr(Stand, f"__r{_dunder}__", _reflected(_name))


class CallableStand(Stand):
    """Stands for a function, or what else can be called."""

    __slots__ = ()

    def __call__(self, *args: Any, **names: Any) -> Any:
        return handle_in(self)[0].ask("call", self, *args, **names)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self


class ValueStand:
    """Stands for an object that is a plain value too: that value is here, all else is asked for."""

    _fleet_names: frozenset[str] = frozenset()

    def __getattribute__(self, name: str) -> Any:
        get = object.__getattribute__
        if name in type(self)._fleet_names:
            return get(self, OWN)[0].ask("getattr", self, name)
        return get(self, name)

    def __getattr__(self, name: str) -> Any:
        return handle_in(self)[0].ask("getattr", self, name)


class ErrorStand(BaseException):
    """Stands for an exception of a class that the product made."""

    def __getattr__(self, name: str) -> Any:
        if name == OWN or name.startswith("__"):
            raise AttributeError(name)
        return handle_in(self)[0].ask("getattr", self, name)

    def __str__(self) -> str:
        return str(self.__dict__.get("_fleet_text", ""))


class ClassStand(type):
    """Stands for a class of the product: calls make objects there, and attributes are those of the class there."""

    _fleet_names: frozenset[str] = frozenset()

    def __new__(cls, name: str, bases: tuple[type, ...], names: dict[str, Any], **_more: Any) -> Any:
        """Refuse classes that a test derives."""
        if CLASS_OWN not in names:
            raise CannotBePiped("a test derives a class from one of the product")
        return type.__new__(cls, name, bases, names)

    def __call__(cls, *args: Any, **names: Any) -> Any:
        """Make the object where the class is."""
        return class_handle(cls)[0].ask("call", cls, *args, **names)

    def __getattr__(cls, name: str) -> Any:
        if name in ("__abstractmethods__", "__set_name__", OWN, CLASS_OWN):
            raise AttributeError(name)
        return class_handle(cls)[0].ask("getattr", cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        class_handle(cls)[0].ask("setattr", cls, name, value)

    def __delattr__(cls, name: str) -> None:
        class_handle(cls)[0].ask("delattr", cls, name)

    def __iter__(cls) -> Any:
        return class_handle(cls)[0].ask("iter", cls)

    def __len__(cls) -> Any:
        return class_handle(cls)[0].ask("len", cls)

    def __bool__(cls) -> bool:
        return True

    def __getitem__(cls, key: Any) -> Any:
        return class_handle(cls)[0].ask("getitem", cls, key)

    def __contains__(cls, item: Any) -> bool:
        return bool(class_handle(cls)[0].ask("contains", cls, item))


def class_handle(kind: Any) -> tuple[Peer, int]:
    return type.__getattribute__(kind, "__dict__")[CLASS_OWN]


class ModuleStand(types.ModuleType):
    """Stands for a module of the product."""

    def __getattr__(self, name: str) -> Any:
        handle = self.__dict__.get(OWN)
        if handle is None or name in ("__path__", "__wrapped__", "__spec__", "__loader__", "__file__"):
            raise AttributeError(name)
        return handle[0].ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        handle = self.__dict__.get(OWN)
        if handle is None or (name.startswith("__") and name.endswith("__")) or isinstance(value, ModuleStand):
            super().__setattr__(name, value)
        else:
            handle[0].ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self.__dict__[OWN][0].ask("delattr", self, name)

    def __dir__(self) -> Any:
        return self.__dict__[OWN][0].ask("dir", self)


def is_plain(value: Any, depth: int = 0) -> bool:
    """Whether the value goes over the pipe by value."""
    if depth > DEEPEST:
        return False
    kind = type(value)
    if kind in (list, tuple, set, frozenset):
        return all(is_plain(item, depth + 1) for item in value)
    if kind is dict:
        return all(is_plain(k, depth + 1) and is_plain(v, depth + 1) for k, v in value.items())
    return kind in (type(None), bool, int, float, str, bytes, complex, bytearray, decimal.Decimal, datetime.date)


def decoys_of(value: Any) -> list[Any]:
    """Values that nothing but a liar equals, some of them like the given one."""
    token = secrets.token_hex(6)
    near: Any = token
    if type(value) in (int, float):
        near = value + secrets.randbelow(9000) + 17
    elif type(value) is str:
        near = f"{value}{token[:2]}"
    elif type(value) in (list, tuple):
        near = type(value)([*value, token])
    elif type(value) is dict:
        near = {**value, token: token}
    return [near, token, secrets.randbelow(1 << 40) + (1 << 41)]


def equal(stand: Any, other: Any) -> Any:
    """Whether the product says that they are equal; AssertionError when it says so of any value."""
    peer = handle_in(stand)[0]
    if isinstance(other, (Stand, ValueStand)):
        return bool(peer.ask("eq", stand, other))
    if not is_plain(other):
        return NotImplemented
    with contextlib.suppress(TypeError):
        # What it is besides its class is asked for before it knows what it is compared with.
        if peer.ask("base", stand) == other:
            return True
    questions: list[tuple[bool, Any]] = [(True, other), *((False, decoy) for decoy in decoys_of(other))]
    random.SystemRandom().shuffle(questions)
    answers = {is_meant: False for is_meant, _ in questions}
    for is_meant, value in questions:
        if peer.ask("eq", stand, value) is True:
            answers[is_meant] = True
    if answers[False]:
        raise AssertionError("what the product returned says that it equals any value")
    return answers[True]


def contains(stand: Any, item: Any) -> bool:
    """Whether the product says that the item is in it; AssertionError when it says so of anything."""
    peer = handle_in(stand)[0]
    answer = bool(peer.ask("contains", stand, item))
    if answer and is_plain(item):
        for decoy in (secrets.token_hex(8), (secrets.token_hex(8), None)):
            try:
                is_liar = bool(peer.ask("contains", stand, decoy))
            except ProductEnded:
                raise
            except Exception:
                is_liar = False
            if is_liar:
                raise AssertionError("what the product returned says that it contains anything")
    return answer


def made(stand: Any, handle: tuple[Peer, int]) -> Any:
    object.__setattr__(stand, OWN, handle)
    return stand
