"""A public name of the product has a user in the product: code that only tests reach is removed."""

from __future__ import annotations

import ast
import inspect
import os
import re
import typing
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pydantic import BaseModel

from fleet.config.secrets import SecretsSettings
from fleet.config.settings import FleetSettings, ServeSettings
from fleet.context.scope import ContextConfig
from fleet.council.config import CouncilConfig
from fleet.events.registry import EVENT_TYPES
from fleet.models.profiles import ModelsConfig
from fleet.planning.coach_config import CoachConfig
from fleet.planning.planning_config import PlanningConfig
from fleet.policy.roles import RoleEntry
from fleet.policy.rules.config import _Document as PolicyDocument  # pyright: ignore[reportPrivateUsage]
from fleet.story.lifecycle import FsmConfig
from fleet.workspace.levels import RigorConfig

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("fleet", "serve_apps", "actors", "cluster")
USERS = (*PRODUCT, "scripts", "benchmarks", "examples")
GENERATED = ("_pb2.py", "_pb2_grpc.py")
DATA = ("*.yaml", "*.toml")

TWINS = re.compile(r"^fleet/\w+(/\w+)?/memory(/\w+)?\.py$|^fleet/kernel/clock\.py$")
"""Stores in memory: unit tests and the simulation run on them."""
CALLED_BY_NAME = {
    "Sending.writable": "asyncio",
    "Folder.log_message": "http.server",
    "Recorder.pytest_collectreport": "pytest",
    "Recorder.pytest_runtest_setup": "pytest",
    "Recorder.pytest_runtest_teardown": "pytest",
    "Recorder.pytest_exception_interact": "pytest",
    "Recorder.pytest_runtest_logreport": "pytest",
    "Teller.pytest_collection_modifyitems": "pytest",
    "Teller.pytest_collectstart": "pytest",
    "Teller.pytest_load_initial_conftests": "pytest",
    "Teller.pytest_plugin_registered": "pytest",
    "Teller.pytest_runtest_logreport": "pytest",
    "Teller.pytest_runtest_setup": "pytest",
    "Teller.pytest_runtest_teardown": "pytest",
    "ProductFinder.create_module": "importlib",
    "ProductFinder.exec_module": "importlib",
    "_Dumper.ignore_aliases": "yaml",
    "RpcCalls.WatchStory": "grpc",
    "RpcFront": "the stand-in of Serve's proxy in tests",
    "Projector.rebuild_step": "tests that stop a rebuild between two steps",
    "actor_names": "tests that end what they started",
    "exported_names": "the check of the dashboard's files",
}
"""What a library calls, or a test of the whole product needs; with the caller."""
TO_COME = {
    "startable_tasks": "council",
    "RaySandboxSessions": "repositories",
}
"""What later work will use, with the area. A name leaves the table when it is used, or goes with its code."""
EVENTS_TO_COME = {
    "MergeConflicted": "council",
}
"""Event types that nothing records yet, with the area that will."""
CONFIG_FILES: tuple[type[BaseModel], ...] = (
    FleetSettings,
    ServeSettings,
    SecretsSettings,
    ContextConfig,
    CouncilConfig,
    ModelsConfig,
    CoachConfig,
    PlanningConfig,
    RoleEntry,
    PolicyDocument,
    FsmConfig,
    RigorConfig,
)
"""What the files of config/ are read as."""
DECIDES_NOTHING = {
    "Declaration.cost_hint": "part of the digest of the policy, which decisions name; for whoever reads the file",
    "RoleEntry.council_weight": "shown with the role; seats are weighed by `reliability.weights`",
    "CouncilPool.modes": "of pools on record; the file has it no more",
    "ProbedEngine.probed_at": "when it was, for whoever reads the record of a probe",
}
"""Fields of the configuration that nothing but a view reads, with the reason why they stay."""


@cache
def trees() -> dict[str, ast.Module]:
    """Each hand-written module, parsed, by its path."""
    found: dict[str, ast.Module] = {}
    for top in USERS:
        for folder, inner, files in os.walk(ROOT / top):
            inner[:] = [name for name in inner if name != "node_modules"]
            for path in (Path(folder, name) for name in files if name.endswith(".py") and not name.endswith(GENERATED)):
                found[str(path.relative_to(ROOT))] = ast.parse(path.read_text())
    return found


def product() -> Iterator[tuple[str, ast.Module]]:
    return ((place, tree) for place, tree in trees().items() if place.startswith(PRODUCT))


def used_names() -> Counter[str]:
    """How often each name is read, or stands in a string as an import path does."""
    used: Counter[str] = Counter()
    for tree in trees().values():
        for node in ast.walk(tree):
            match node:
                case ast.Name(id=name) | ast.Attribute(attr=name):
                    used[name] += 1
                case ast.alias(name=name, asname=str()):
                    used[name] += 1
                case ast.Constant(value=str(text)) if re.fullmatch(r"[\w.:]+", text):
                    used.update(re.split(r"[.:]", text))
    for pattern in DATA:
        for folder in (*PRODUCT, "."):
            for path in (ROOT / folder).glob(pattern):
                used.update(re.findall(r"\w+", path.read_text()))
    return used


def public_names() -> Iterator[tuple[str, str]]:
    """`Class.method` or the name of each public function and class that no decorator registers, with its module."""
    for place, tree in product():
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if isinstance(node, ast.ClassDef) or all("cache" in ast.unparse(d) for d in node.decorator_list):
                yield place, node.name
            if isinstance(node, ast.ClassDef):
                for item in node.body:
                    if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and not item.name.startswith("_"):
                        kinds = {ast.unparse(d) for d in item.decorator_list}
                        if kinds <= {"property", "classmethod", "staticmethod", "override"}:
                            yield place, f"{node.name}.{item.name}"


def test_public_name_has_a_user_in_the_product() -> None:
    used = used_names()
    unused = {
        name: place
        for place, name in public_names()
        if not used[name.rpartition(".")[2]] and not TWINS.match(place) and name not in CALLED_BY_NAME
    }
    assert {name: unused[name] for name in sorted(unused.keys() - TO_COME.keys())} == {}, "no product code uses these"
    assert sorted(TO_COME.keys() - unused.keys()) == [], "these are used, or gone: take them out of the table"


def test_event_type_is_recorded_by_the_product() -> None:
    built: set[str] = set()
    for _, tree in product():
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(value=ast.Name(id=name), attr="model_validate")):
                    built.add(name)
    assert sorted(EVENT_TYPES.keys() - built) == sorted(EVENTS_TO_COME)


def _models_of(hint: object) -> Iterator[type[BaseModel]]:
    hint = getattr(hint, "__value__", hint)
    for part in typing.get_args(hint):
        yield from _models_of(part)
    if inspect.isclass(hint) and issubclass(hint, BaseModel):
        yield hint


def configured_fields() -> set[str]:
    """`Model.field` of everything that a file of config/ may say."""
    found: set[type[BaseModel]] = set()
    todo = list(CONFIG_FILES)
    while todo:
        model = todo.pop()
        if model not in found and model.__module__.startswith("fleet."):
            found.add(model)
            todo += [base for base in model.__mro__[1:] if issubclass(base, BaseModel)]
            todo += [inner for field in model.model_fields.values() for inner in _models_of(field.annotation)]
    return {f"{model.__name__}.{name}" for model in found for name in inspect.get_annotations(model)}


def read_names() -> set[str]:
    """Each attribute that the product reads, and each word that stands as a string, as for `getattr` and a dump.

    What the front only hands on under the same name (`role=line.role`) shows a field, and decides nothing by it.
    """
    read: set[str] = set()
    for place, tree in product():
        shown: set[int] = set()
        for node in ast.walk(tree):
            match node:
                case ast.keyword(arg=str(name), value=ast.Attribute(attr=attr)) if place.startswith("serve_apps/"):
                    if name == attr:
                        shown.add(id(node.value))
                case ast.Attribute(attr=name, ctx=ast.Load()) if id(node) not in shown:
                    read.add(name)
                case ast.MatchClass(kwd_attrs=names):
                    read.update(names)
                case ast.Constant(value=str(text)) if text.isidentifier():
                    read.add(text)
    return read


def test_field_of_a_configuration_file_is_read_by_the_product() -> None:
    """By name alone: a field is missed that has the name of something else that is read."""
    fields, read = configured_fields(), read_names()
    unread = {name for name in fields if name.partition(".")[2] not in read}
    assert len(fields) > 500
    assert sorted(unread - DECIDES_NOTHING.keys()) == [], "nothing reads these: make them decide, or retire them"
    assert DECIDES_NOTHING.keys() <= fields, "these are gone: take them out of the table"
