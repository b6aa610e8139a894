"""One end of a pipe between two Python processes: values, questions and answers as JSON, objects as handles.

Nothing is unpickled: what comes is read as data, and names of the library's classes alone are looked up.
"""

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import copy
import datetime
import decimal
import enum
import fractions
import importlib
import json
import math
import operator
import pathlib
import re
import socket
import struct
import sys
import threading
import types
import uuid
from typing import Any, cast

MAX_BYTES = 64 << 20
DEEPEST = 60
STDLIB = frozenset(getattr(sys, "stdlib_module_names", ())) | {"builtins"}
VALUES = (str, int, float, bytes, tuple, frozenset)
CLOSED = (types.ModuleType, types.FrameType, types.CodeType, types.TracebackType)


class ProductEnded(Exception):
    """The process of the product is gone, or says what nobody can read."""


class CannotBePiped(Exception):
    """A test does with the product what can only be done in one process."""


def _await(value: Any) -> Any:
    async def whole() -> Any:
        return await value

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(whole())
    finally:
        loop.close()


def _base(value: Any) -> Any:
    """What the value is besides its own class; TypeError when it is nothing plain."""
    kinds: tuple[Any, ...] = (dict, list, set, bytearray)
    for kind in kinds:
        if isinstance(value, kind):
            return kind(value)
    raise TypeError("it has no plain form")


BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift")
ORDER = {"lt": "gt", "gt": "lt", "le": "gt", "ge": "lt"}
OPERATIONS: dict[str, Any] = {
    **{name: getattr(operator, name) for name in (*BINARY, "eq", "ne", *ORDER)},
    **{name: getattr(operator, name) for name in ("neg", "pos", "abs", "invert", "index", "contains")},
    **{name: getattr(operator, name) for name in ("getitem", "setitem", "delitem")},
    **{"len": len, "iter": iter, "next": next, "bool": bool, "hash": hash, "str": str, "repr": repr},
    **{"int": int, "float": float, "round": round, "format": format, "reversed": reversed, "dir": dir},
    **{"copy": copy.copy, "deepcopy": copy.deepcopy, "divmod": divmod, "trunc": math.trunc, "bytes": bytes},
    "call": lambda function, *args, **names: function(*args, **names),
    "getattr": getattr,
    "setattr": setattr,
    "delattr": delattr,
    "vars": lambda value: dict(vars(value)),
    "enter": lambda value: type(value).__enter__(value),
    "exit": lambda value, kind, error: type(value).__exit__(value, kind, error, None),
    "await": _await,
    "base": _base,
}
FOR_CALLBACKS = frozenset(OPERATIONS) - {"setattr", "delattr", "vars", "await", "dir", "setitem", "delitem"}


class Peer:
    """One end of the pipe: encodes values, asks the other end, and answers what that one asks meanwhile."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.is_broken = False
        self._own: dict[int, Any] = {}
        self._ids: dict[int, int] = {}
        self._theirs: dict[int, Any] = {}
        self._lock = threading.RLock()

    # The wire

    def send(self, message: dict[str, Any]) -> None:
        """One message, whole."""
        data = json.dumps(message).encode()
        if len(data) > MAX_BYTES:
            raise CannotBePiped("the value is too large")
        self.sock.sendall(struct.pack(">I", len(data)) + data)

    def receive(self) -> dict[str, Any]:
        """The next message; ProductEnded when there is none."""
        try:
            size = struct.unpack(">I", self._bytes(4))[0]
            if size > MAX_BYTES:
                raise ProductEnded("a message is too large")
            message = json.loads(self._bytes(size))
        except (OSError, ValueError, RecursionError) as error:
            self.is_broken = True
            raise ProductEnded(f"the pipe is cut: {type(error).__name__}") from None
        if not isinstance(message, dict):
            raise ProductEnded("that was no message")
        return message

    def _bytes(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.sock.recv(min(size - len(data), 1 << 20))
            if not part:
                self.is_broken = True
                raise ProductEnded("the process of the product has ended")
            data += part
        return data

    # Values

    def encode(self, value: Any, depth: int = 0) -> Any:
        """The value as JSON: plain ones by value, all else as a handle."""
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            return value if -(1 << 53) < value < (1 << 53) else ["i", hex(value)]
        if kind is float:
            return ["f", value.hex()]
        if depth > DEEPEST:
            raise CannotBePiped("the value is too deep")
        data = self._container(value, kind, depth + 1)
        return self._single(value, kind) if data is None else data

    def _container(self, value: Any, kind: type, below: int) -> Any:
        if kind in _SEQUENCES:
            return [_SEQUENCES[kind], [self.encode(item, below) for item in value]]
        if kind in (dict, collections.OrderedDict, collections.Counter, collections.defaultdict):
            pairs = [[self.encode(k, below), self.encode(v, below)] for k, v in dict.items(value)]
            return ["d", kind.__name__, pairs]
        if kind is collections.deque:
            return ["q", [self.encode(item, below) for item in value], value.maxlen]
        if kind in (bytes, bytearray):
            return ["b" if kind is bytes else "a", base64.b64encode(value).decode()]
        return None

    def _single(self, value: Any, kind: type) -> Any:
        if kind in (complex, range, decimal.Decimal, fractions.Fraction, uuid.UUID, slice):
            return self._number(value, kind)
        if kind in (datetime.date, datetime.time, datetime.datetime, datetime.timedelta, datetime.timezone):
            return self._time(value, kind)
        if isinstance(value, pathlib.PurePath) and kind.__module__.partition(".")[0] == "pathlib":
            return ["P", kind.__name__, str(value)]
        if kind is re.Pattern:
            return ["R", self.encode(cast("Any", value).pattern), cast("Any", value).flags]
        if value is Ellipsis or value is NotImplemented:
            return ["g", "builtins", "Ellipsis" if value is Ellipsis else "NotImplemented"]
        if isinstance(value, type) and self.is_known(value):
            return ["g", value.__module__, value.__qualname__]
        if isinstance(value, enum.Enum) and self.is_known(kind):
            return ["E", kind.__module__, kind.__qualname__, value.name]
        return self.handle_of(value)

    def _number(self, value: Any, kind: type) -> Any:
        if kind is complex:
            return ["c", value.real.hex(), value.imag.hex()]
        if kind in (range, slice):
            return ["r" if kind is range else "S", *map(self.encode, (value.start, value.stop, value.step))]
        if kind is fractions.Fraction:
            return ["F", hex(value.numerator), hex(value.denominator)]
        return ["U", value.hex] if kind is uuid.UUID else ["D", str(value)]

    def _time(self, value: Any, kind: type) -> Any:
        if kind is datetime.timedelta:
            return ["T", "timedelta", [value.days, value.seconds, value.microseconds]]
        if kind is datetime.timezone:
            return ["T", "timezone", [value.utcoffset(None).total_seconds(), value.tzname(None)]]
        if kind is datetime.date:
            return ["T", "date", [value.year, value.month, value.day]]
        zone = value.tzinfo
        if zone is not None and type(zone) is not datetime.timezone:
            return self.handle_of(value)
        clock = [value.hour, value.minute, value.second, value.microsecond, self.encode(zone), value.fold]
        day = [value.year, value.month, value.day] if kind is datetime.datetime else []
        return ["T", kind.__name__, [*day, *clock]]

    @staticmethod
    def is_known(kind: type) -> bool:
        """Whether it is a class of the library, which both ends have."""
        top = kind.__module__.partition(".")[0]
        if top not in STDLIB or top in ("__main__", "unittest"):
            return False
        try:
            return _look_up(kind.__module__, kind.__qualname__) is kind
        except Exception:
            return False

    def handle_of(self, value: Any) -> Any:
        """The object as a handle, with what the other end needs to know the first time."""
        number = self.theirs(value)
        if number is not None:
            return ["o", number]
        number = self._ids.get(id(value))
        if number is not None:
            return ["h", number, None]
        number = len(self._own) + 1
        self._own[number], self._ids[id(value)] = value, number
        return ["h", number, self.describe(value)]

    def take(self, number: int, stand: Any) -> None:
        """From now on this stands here for that object of the other end."""
        self._theirs[number] = stand

    def theirs(self, value: Any) -> int | None:
        """The handle that stands for an object of the other end."""
        raise NotImplementedError

    def describe(self, value: Any) -> dict[str, Any]:
        """What the other end needs to know of an object of this one."""
        raise NotImplementedError

    def stand_in(self, number: int, described: dict[str, Any]) -> Any:
        """What stands here for an object of the other end."""
        raise NotImplementedError

    def decode(self, data: Any, depth: int = 0) -> Any:
        """The value that was encoded."""
        if data is None or isinstance(data, (bool, str, int)):
            return data
        if not isinstance(data, list) or not data or depth > DEEPEST + 20:
            raise ProductEnded("that was no value")
        try:
            return self._decoded(data[0], data[1:], depth + 1)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, ImportError) as error:
            raise ProductEnded(f"that was no value: {type(error).__name__}: {error}") from None

    def _decoded(self, tag: Any, rest: list[Any], depth: int) -> Any:
        if tag == "o":
            return self._own[rest[0]]
        if tag == "h":
            number, described = int(rest[0]), rest[1]
            if number not in self._theirs:
                self._theirs[number] = self.stand_in(number, described)
            return self._theirs[number]
        if tag in _KINDS:
            items = [self.decode(item, depth) for item in rest[0]]
            return items if tag == "l" else _KINDS[tag](items)
        if tag == "d":
            pairs = [(self.decode(k, depth), self.decode(v, depth)) for k, v in rest[1]]
            return _MAPPINGS[rest[0]](pairs)
        if tag == "q":
            return collections.deque((self.decode(item, depth) for item in rest[0]), rest[1])
        if tag in ("r", "S"):
            return (range if tag == "r" else slice)(*(self.decode(item, depth) for item in rest))
        if tag == "R":
            return re.compile(self.decode(rest[0], depth), rest[1] & ~re.LOCALE)
        if tag == "T":
            return self._time_of(rest[0], rest[1], depth)
        return _SINGLES[tag](*rest)

    def _time_of(self, name: str, values: list[Any], depth: int) -> Any:
        if name == "timedelta":
            return datetime.timedelta(*values)
        if name == "timezone":
            offset = datetime.timedelta(seconds=values[0])
            return datetime.timezone.utc if not offset else datetime.timezone(offset, values[1])  # noqa: UP017
        if name == "date":
            return datetime.date(*values)
        zone, fold = self.decode(values[-2], depth), values[-1]
        kind = {"time": datetime.time, "datetime": datetime.datetime}[name]
        return kind(*values[:-2], tzinfo=zone, fold=fold)

    # Questions and answers

    def ask(self, operation: str, *args: Any, **names: Any) -> Any:
        """What the operation gives at the other end; raises what it raises there."""
        with self._lock:
            if self.is_broken:
                raise ProductEnded("the process of the product has ended")
            message: dict[str, Any] = {"op": operation, "args": [self.encode(a) for a in args]}
            if names:
                message["names"] = {name: self.encode(value) for name, value in names.items()}
            self.send({**message, **self.context()})
            while True:
                answer = self.receive()
                if "op" in answer:
                    self.send(self.answered(answer))
                    continue
                self.heard(answer)
                changed = answer.get("changed")
                for index, data in changed if isinstance(changed, list) else ():
                    _assign(args[index] if isinstance(index, int) else names[index], self.decode(data))
                if "error" in answer:
                    raise self.error_of(answer["error"])
                return self.decode(answer.get("value"))

    def context(self) -> dict[str, Any]:
        """What goes with each question."""
        return {}

    def heard(self, answer: dict[str, Any]) -> None:
        """What came with an answer."""

    def answered(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to a question of the other end."""
        try:
            given, named = question.get("args", []), question.get("names", {})
            args = [self.decode(a) for a in given]
            names = {name: self.decode(value) for name, value in named.items()}
            value = self.operate(str(question.get("op")), args, names)
            answer: dict[str, Any] = {"value": self.encode(value)}
        except BaseException as error:
            if isinstance(error, (ProductEnded, KeyboardInterrupt)):
                raise
            return {"error": self.error_data(error)}
        changed = [[i, new] for i, a in enumerate(args) if _is_mutable(a) and (new := self.encode(a)) != given[i]]
        changed += [[n, new] for n, a in names.items() if _is_mutable(a) and (new := self.encode(a)) != named[n]]  # type: ignore[list-item]
        return {**answer, "changed": changed} if changed and question.get("op") == "call" else answer

    def operate(self, operation: str, args: list[Any], names: dict[str, Any]) -> Any:
        """Carry an operation of the other end out."""
        return OPERATIONS[operation](*args, **names)

    def error_data(self, error: BaseException) -> Any:
        """The exception as data."""
        kind = type(error)
        if self.is_known(kind):
            with contextlib.suppress(Exception):
                return ["known", kind.__module__, kind.__qualname__, [self.encode(a) for a in error.args]]
        with contextlib.suppress(Exception):
            return ["other", self.handle_of(error)]
        return ["known", "builtins", "RuntimeError", [f"{kind.__name__}: {error}"]]

    def error_of(self, data: Any) -> BaseException:
        """The exception to raise here."""
        if data[0] == "other":
            error = self.decode(data[1])
        else:
            kind = _look_up(data[1], data[2])
            args = [self.decode(a) for a in data[3]]
            # A product that skips its test, or ends the run, is one that fails.
            allowed = isinstance(kind, type) and issubclass(kind, (Exception, SystemExit, GeneratorExit))
            error = _built(kind, args) if allowed else RuntimeError(f"{data[2]} of the product")
        return error if isinstance(error, BaseException) else RuntimeError("the product raised no exception")


def _built(kind: Any, args: list[Any]) -> BaseException:
    try:
        return kind(*args)
    except Exception:
        error = kind.__new__(kind)
        error.args = tuple(args)
        return error


def _look_up(module: Any, name: Any) -> Any:
    if str(module).partition(".")[0] not in STDLIB or str(module).partition(".")[0] == "unittest":
        raise ValueError("no module of the library")
    value: Any = importlib.import_module(str(module))
    for part in str(name).split("."):
        value = getattr(value, part)
    return value


def _enumerated(module: Any, name: Any, member: Any) -> Any:
    kind = _look_up(module, name)
    if not isinstance(kind, type) or not issubclass(kind, enum.Enum):
        raise ValueError("no enumeration")
    return kind[member]


def _class_of(module: Any, name: Any) -> Any:
    value = _look_up(module, name)
    if not isinstance(value, type) and value is not Ellipsis and value is not NotImplemented:
        raise ValueError("no class")
    return value


_PATHS = ("PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath")
_SEQUENCES: dict[Any, str] = {list: "l", tuple: "t", set: "s", frozenset: "z"}
_KINDS = {tag: kind for kind, tag in _SEQUENCES.items()}
_MAPPINGS: dict[str, Any] = {
    "dict": dict,
    "OrderedDict": collections.OrderedDict,
    "Counter": lambda pairs: collections.Counter(dict(pairs)),
    "defaultdict": lambda pairs: collections.defaultdict(None, pairs),
}
_SINGLES: dict[str, Any] = {
    "f": float.fromhex,
    "i": lambda digits: int(digits, 16),
    "b": base64.b64decode,
    "a": lambda text: bytearray(base64.b64decode(text)),
    "c": lambda real, imag: complex(float.fromhex(real), float.fromhex(imag)),
    "F": lambda above, below: fractions.Fraction(int(above, 16), int(below, 16)),
    "U": uuid.UUID,
    "D": decimal.Decimal,
    "P": lambda name, text: getattr(pathlib, _PATHS[_PATHS.index(name)])(text),
    "E": _enumerated,
    "g": _class_of,
}


def _is_mutable(value: Any) -> bool:
    return type(value) in (list, dict, set, bytearray)


def _assign(target: Any, new: Any) -> None:
    """The container holds what the new one holds, and is the same object, as those in it are."""
    if type(target) is not type(new):
        return
    if isinstance(target, (list, bytearray)):
        for index, (old, value) in enumerate(zip(list(target), new)):  # noqa: B905
            if _is_mutable(old) and type(old) is type(value):
                _assign(old, value)
                new[index] = old
        target[:] = new
    elif isinstance(target, dict):
        for key, value in list(cast("dict[Any, Any]", new).items()):
            old = target.get(key)
            if _is_mutable(old) and type(old) is type(value):
                _assign(old, value)
                new[key] = old
        target.clear()
        target.update(new)
    elif isinstance(target, set):
        target.clear()
        target.update(new)
