"""The process of a product, which serves its objects to the process of the tests.

Arguments: the descriptor of its socket, and the seconds that an answer may take.

Nothing that it says is believed but as what the product says.
"""

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import signal
import socket
import sys
import types
import warnings
from typing import Any

from pipe_peer import VALUES, Peer, ProductEnded
from stand_ins import CallableStand, Stand, handle_in, made


class Callee(Peer):
    """Serves the product's objects to the process of the tests."""

    def __init__(self, sock: socket.socket, limit_s: int) -> None:
        super().__init__(sock)
        self._limit_s, self._depth = limit_s, 0
        self._out, self._err = io.StringIO(), io.StringIO()
        self._logs: list[list[Any]] = []
        self._warned: list[list[Any]] = []
        handler = logging.Handler()
        handler.emit = lambda record: self._logs.append([record.name, record.levelno, record.getMessage()])  # type: ignore[method-assign]
        logging.getLogger().addHandler(handler)
        logging.lastResort = None
        warnings.simplefilter("always")
        warnings.showwarning = self._warn

    def _warn(self, message: Any, category: Any, *_rest: Any, **_more: Any) -> None:
        self._warned.append([self.encode(category), str(message)])

    def serve(self) -> None:
        """Answer until the pipe ends."""
        while True:
            try:
                question = self.receive()
            except ProductEnded:
                return
            self.send(self.answered(question))

    def answered(self, question: dict[str, Any]) -> dict[str, Any]:
        """As every peer, with what was printed, logged and warned of."""
        self._take_on(question.get("state", {}))
        self._depth += 1
        if self._depth == 1:
            signal.signal(signal.SIGALRM, self._over)
            signal.alarm(self._limit_s)
        try:
            with contextlib.redirect_stdout(self._out), contextlib.redirect_stderr(self._err):
                answer = super().answered(question)
        finally:
            self._depth -= 1
            if self._depth == 0:
                signal.alarm(0)
        for key, stream in (("out", self._out), ("err", self._err)):
            if stream.getvalue():
                answer[key] = stream.getvalue()
                stream.seek(0)
                stream.truncate()
        for key, rows in (("logs", self._logs), ("warnings", self._warned)):
            if rows:
                answer[key] = rows[:]
                rows.clear()
        return answer

    def _over(self, _number: int, _frame: Any) -> None:
        raise TimeoutError(f"the test took longer than its limit ({self._limit_s} seconds)")

    @staticmethod
    def _take_on(state: dict[str, Any]) -> None:
        if "env" in state:
            gone = set(os.environ) - set(state["env"])
            for name in gone:
                del os.environ[name]
            os.environ.update(state["env"])
        if "cwd" in state:
            with contextlib.suppress(OSError):
                os.chdir(state["cwd"])
        if "log" in state:
            logging.getLogger().setLevel(state["log"])

    def operate(self, operation: str, args: list[Any], names: dict[str, Any]) -> Any:
        """Besides what can be done with objects: load a module."""
        if operation != "import":
            return super().operate(operation, args, names)
        module = importlib.import_module(args[0])
        public = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        return {
            "number": self.handle_of(module)[1],
            "package": list(getattr(module, "__path__", [])),
            "names": [str(n) for n in public],
            "file": getattr(module, "__file__", None),
        }

    def theirs(self, value: Any) -> int | None:
        """Objects of the tests go back as what they are."""
        return handle_in(value)[1] if isinstance(value, Stand) else None

    def describe(self, value: Any) -> dict[str, Any]:
        """What an object of the product is."""
        kind = type(value)
        if isinstance(value, types.ModuleType):
            return {"k": "module", "n": value.__name__}
        if isinstance(value, type):
            base = next((b.__name__ for b in VALUES if issubclass(value, b)), None)
            own = [n for k in value.__mro__ if not self.is_known(k) for n in vars(k) if not n.startswith("__")]
            return {
                "k": "class",
                "n": value.__qualname__,
                "m": value.__module__,
                "b": [self.encode(b) for b in value.__bases__],
                "own": own,
                "base": base,
                "call": _calls(value),
            }
        if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
            return {"k": "call", "n": value.__name__}
        if isinstance(value, types.CoroutineType):
            return {"k": "coroutine"}
        if isinstance(value, BaseException):
            args = [self.encode(a) for a in value.args]
            return {"k": "error", "c": self.encode(kind), "text": str(value), "args": args}
        described: dict[str, Any] = {"k": "object", "c": self.encode(kind), "call": callable(value)}
        for base in VALUES:
            if isinstance(value, base):
                described["base"] = self.encode(_plain(value, base))
                break
        return described

    def stand_in(self, number: int, described: dict[str, Any]) -> Any:
        """An object of a test: it can be used, and its class is not known here."""
        if described["k"] == "error":
            return RuntimeError(f"{described['n']} of a test")
        return made(object.__new__(CallableStand if described["k"] == "call" else Stand), (self, number))


def _calls(kind: type) -> bool:
    return any("__call__" in vars(k) for k in kind.__mro__ if k not in (object, type))


def _plain(value: Any, base: Any) -> Any:
    if base is str:
        return str.__str__(value)
    if base is int:
        return int.__add__(value, 0)
    if base is float:
        return float.fromhex(float.hex(value))
    if base is frozenset:
        return frozenset(frozenset.__iter__(value))
    return base.__getitem__(value, slice(None))


def main(argv: list[str]) -> None:
    """Serve the product; nothing of this program's folder can be imported by it."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path[:] = [os.getcwd(), *(entry for entry in sys.path if entry != here)]  # noqa: PTH109
    for name in ("pipe_peer", "stand_ins"):
        del sys.modules[name]
    sys.modules["__main__"] = types.ModuleType("__main__")
    Callee(socket.socket(fileno=int(argv[0])), int(argv[1])).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
