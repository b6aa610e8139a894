"""Call a product that lives in a process of its own, by messages on a pipe.

Tests hold stand-ins, and what they do with one is done there.

The process of the tests never loads the product. What the product returns is read as data: plain values by value,
everything else as a handle.
"""

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import types
import warnings
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, cast

from pipe_peer import CLOSED, FOR_CALLBACKS, OPERATIONS, STDLIB, VALUES, CannotBePiped, Peer
from stand_ins import (
    CLASS_OWN,
    OWN,
    CallableStand,
    ClassStand,
    ErrorStand,
    ModuleStand,
    Stand,
    ValueStand,
    class_handle,
    handle_in,
    made,
)


class Product(Peer):
    """The product as the process of the tests has it."""

    def __init__(self, sock: socket.socket, process: subprocess.Popen[bytes] | None = None) -> None:
        super().__init__(sock)
        self.process = process
        self._sent: dict[str, Any] = {}

    def ended(self) -> int | None:
        """The exit code of the product's process when it has ended by itself; it is ended otherwise."""
        assert self.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(0.5 if self.is_broken else 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return None

    def theirs(self, value: Any) -> int | None:
        """The product's own objects go back as what they are."""
        if isinstance(value, ClassStand):
            return class_handle(value)[1]
        if isinstance(value, ModuleStand):
            handle = value.__dict__.get(OWN)
            return handle[1] if handle else None
        if isinstance(value, (Stand, ValueStand, ErrorStand)):
            with contextlib.suppress(AttributeError):
                return handle_in(value)[1]
        return None

    def describe(self, value: Any) -> dict[str, Any]:
        """An object of a test: what it can do is asked for here."""
        if isinstance(value, CLOSED):
            raise CannotBePiped(f"a test hands in a {type(value).__name__}")
        kind = "error" if isinstance(value, BaseException) else "call" if callable(value) else "object"
        return {"k": kind, "n": getattr(value, "__name__", type(value).__name__)}

    def context(self) -> dict[str, Any]:
        """Environment, folder and log level, where they have changed."""
        state: dict[str, Any] = {"env": dict(os.environ), "cwd": os.getcwd(), "log": logging.getLogger().level}  # noqa: PTH109
        changed = {key: value for key, value in state.items() if self._sent.get(key) != value}
        self._sent = state
        return {"state": changed} if changed else {}

    def heard(self, answer: dict[str, Any]) -> None:
        """What the product printed, logged and warned of is printed, logged and warned of here."""
        sys.stdout.write(str(answer.get("out", "")))
        sys.stderr.write(str(answer.get("err", "")))
        for name, level, text in answer.get("logs", ()):
            logging.getLogger(str(name)).log(int(level), "%s", text)
        for category, text in answer.get("warnings", ()):
            kind: Any = self.decode(category)
            is_usable = isinstance(kind, type) and issubclass(kind, Warning) and not isinstance(kind, ClassStand)
            warnings.warn(str(text), cast("Any", kind if is_usable else UserWarning), stacklevel=4)

    def operate(self, operation: str, args: list[Any], names: dict[str, Any]) -> Any:
        """The product calls back: what a test handed in may be used, never looked into."""
        if operation not in FOR_CALLBACKS or not args:
            raise TypeError("that is not for the product")
        value = args[0]
        if operation == "getattr":
            name = str(args[1])
            if name.startswith("_") or isinstance(value, (types.FunctionType, types.MethodType, type)):
                raise AttributeError(name)
            if isinstance(value, (types.GeneratorType, types.CoroutineType)) and name not in ("send", "close", "throw"):
                raise AttributeError(name)
            attribute = getattr(value, name)
            if isinstance(attribute, (*CLOSED, types.BuiltinFunctionType)) and not _is_method(attribute):
                raise AttributeError(name)
            return attribute
        return OPERATIONS[operation](*args, **names)

    def stand_in(self, number: int, described: dict[str, Any]) -> Any:
        """The stand-in of the right kind."""
        kind, name, handle = described["k"], str(described.get("n", "?")), (self, number)
        if kind == "module":
            return load_stand(self, name)
        if kind == "class":
            return self._class(name, described, handle)
        if kind == "call":
            return made(object.__new__(CallableStand), handle)
        if kind == "coroutine":
            return self._coroutine(handle)
        if kind == "error":
            error = _error_class(self.decode(described["c"]))
            error.__dict__[OWN] = handle
            error.__dict__["_fleet_text"] = str(described.get("text", ""))
            error.args = tuple(self.decode(a) for a in described.get("args", ()))
            return error
        of = self.decode(described["c"])
        if isinstance(of, ClassStand) and "base" in described and issubclass(of, VALUES):
            base: Any = next(b for b in VALUES if issubclass(of, b))
            plain = self.decode(described["base"])
            if type(plain) is not base:
                raise ValueError("not of its class")
            value = base.__new__(of, plain)
            object.__setattr__(value, OWN, handle)
            return value
        if isinstance(of, ClassStand) and issubclass(of, Stand):
            return made(object.__new__(of), handle)
        return made(object.__new__(CallableStand if described.get("call") else Stand), handle)

    async def _waited(self, stand: Any) -> Any:
        return self.ask("await", stand)

    def _coroutine(self, handle: tuple[Peer, int]) -> Any:
        return self._waited(made(object.__new__(Stand), handle))

    def _class(self, name: str, described: dict[str, Any], handle: tuple[Peer, int]) -> Any:
        bases = [self.decode(base) for base in described["b"]]
        own = [base for base in bases if isinstance(base, ClassStand)]
        errors = [base for base in bases if isinstance(base, type) and issubclass(base, BaseException)]
        value = next((kind for kind in VALUES if kind.__name__ == described.get("base")), None)
        names: dict[str, Any] = {
            CLASS_OWN: handle,
            "__module__": str(described.get("m", "")),
            "__qualname__": name,
            "_fleet_names": frozenset(map(str, described.get("own", ()))),
        }
        if errors:
            chosen = [(*errors, ErrorStand), (errors[0], ErrorStand)]
        elif value is not None:
            chosen = [(*own, ValueStand, value), (ValueStand, value)]
        else:
            stand = CallableStand if described.get("call") else Stand
            names["__slots__"] = ()
            chosen = [(*own, stand), (stand,)]
        for several in chosen:
            with contextlib.suppress(TypeError):
                return ClassStand(name.rpartition(".")[2], tuple(dict.fromkeys(several)), names)
        raise ValueError("no such class can be")


def _is_method(value: Any) -> bool:
    owner = getattr(value, "__self__", None)
    return owner is not None and not isinstance(owner, types.ModuleType)


def _error_class(kind: Any) -> BaseException:
    if not isinstance(kind, type) or not issubclass(kind, BaseException):
        raise ValueError("no exception")
    if not isinstance(kind, ClassStand) or not issubclass(kind, Exception):
        return RuntimeError("an exception of a class that nobody knows")
    return kind.__new__(kind)


def load_stand(product: Product, name: str) -> Any:
    """The stand-in of a module of the product, which is loaded there."""
    loaded = sys.modules.get(name)
    if isinstance(loaded, ModuleStand):
        return loaded
    return importlib.import_module(name)


class ProductFinder:
    """Finds modules that lie in the workspace: trusted ones are left to Python, all others are loaded at the product.

    Args:
        roots: folders that modules of the workspace are imported from.
        is_trusted: whether a file may be loaded in this process.
    """

    def __init__(self, product: Product, workspace: str, roots: list[str], is_trusted: Any) -> None:
        self._product, self._workspace = product, os.path.realpath(workspace)
        self._roots, self._is_trusted = roots, is_trusted

    def find_spec(self, name: str, path: Any = None, _target: Any = None) -> Any:
        """A specification for what must not be loaded here."""
        if path is None and name in STDLIB:
            # Neither the tests' runner nor a test gets a module of the library from the workspace.
            outside = [entry for entry in sys.path if not self._is_inside(entry)]
            return None if name in sys.builtin_module_names else PathFinder.find_spec(name, outside)
        last = name.rpartition(".")[2]
        for folder in dict.fromkeys(path if path is not None else [*self._roots, *sys.path]):
            if not self._is_inside(folder):
                continue
            here = os.path.realpath(folder or os.getcwd())  # noqa: PTH109
            where = self._place(here, last)
            if where is None:
                continue
            is_ours = self._is_trusted(where) if where else self._has_trusted(os.path.join(here, last))  # noqa: PTH118
            if is_ours:
                return None
            folder_of_tests = os.path.join(here, last)  # noqa: PTH118
            if where.endswith("/__init__.py") and last.startswith("test") and self._has_trusted(folder_of_tests):
                # A new file makes a package of the tests: their modules are found, and it is loaded by nobody.
                spec = ModuleSpec(name, None, is_package=True)
                spec.submodule_search_locations = [folder_of_tests]
                return spec
            if last == "conftest":
                raise ImportError(f"{name} is not one of the tests that were there before")
            return ModuleSpec(name, cast("Any", self), is_package=True)
        return None

    def _is_inside(self, folder: str) -> bool:
        here = os.path.realpath(folder or os.getcwd())  # noqa: PTH109
        return here == self._workspace or here.startswith(f"{self._workspace}/")

    @staticmethod
    def _place(folder: str, last: str) -> str | None:
        """The file of the module in the folder, "" for a folder without one, None when it is not there."""
        here = os.path.join(folder, last)  # noqa: PTH118
        for end in ("/__init__.py", ".py", ".pyc"):
            if os.path.isfile(here + end):  # noqa: PTH113
                return here + end
        if os.path.isdir(folder):  # noqa: PTH112
            for other in os.listdir(folder):  # noqa: PTH208
                if other.startswith(f"{last}.") and other.endswith(".so"):
                    return os.path.join(folder, other)  # noqa: PTH118
        return "" if os.path.isdir(here) else None  # noqa: PTH112

    def _has_trusted(self, folder: str) -> bool:
        return any(
            self._is_trusted(os.path.join(where, file))  # noqa: PTH118
            for where, _, files in os.walk(folder)
            for file in files
            if file.endswith(".py")
        )

    def create_module(self, spec: Any) -> Any:
        """A stand-in, after the product has loaded the module."""
        described = self._product.ask("import", spec.name)
        module = ModuleStand(spec.name)
        if not described["package"]:
            spec.submodule_search_locations = None
        else:
            spec.submodule_search_locations[:] = [str(entry) for entry in described["package"]]
        module.__dict__[OWN] = (self._product, int(described["number"]))
        module.__dict__["__all__"] = [str(entry) for entry in described["names"]]
        if described["file"]:
            module.__dict__["__file__"] = str(described["file"])
        self._product.take(int(described["number"]), module)
        return module

    def exec_module(self, module: Any) -> None:
        """Nothing is left to do."""


def start_product(workspace: str, python_path: list[str], *, limit_s: int) -> Product:
    """The process of the product, which has loaded nothing of it yet."""
    ours, theirs = socket.socketpair()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(python_path), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [
            sys.executable,
            str(pathlib.Path(__file__).with_name("product_process.py")),
            str(theirs.fileno()),
            str(limit_s),
        ],
        cwd=workspace,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=2,
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
    )
    theirs.close()
    return Product(ours, process)
