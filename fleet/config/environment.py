"""Settings out of one mapping of environment variables and the file fleet.yaml; nothing else is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.config.retired import retired_variables
from fleet.config.settings import FleetSettings
from fleet.kernel.documents import ConfigDocument, WrongKey, problems_of, wrong_file
from fleet.kernel.errors import ConfigError

_FILE = "fleet.yaml"
_PREFIX = "FLEET_"
# Read by the tests (tests/support), and by the engines of config/models.yaml, which name their own variables.
_FOREIGN = (
    "FLEET_TEST_",
    "FLEET_VLLM_",
    "FLEET_OPENAI_",
    "FLEET_LOCAL_",
    "FLEET_ANTHROPIC_",
    "FLEET_GOOGLE_",
    "FLEET_GROQ_",
    "FLEET_OPENROUTER_",
    "FLEET_OLLAMA_",
)


@dataclass(frozen=True)
class Key:
    """One setting: its path in fleet.yaml, the variable that wins over the file, and its field."""

    path: tuple[str, ...]
    field: FieldInfo

    @property
    def name(self) -> str:
        """Path with dots, e.g. `neo4j.uri`."""
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """Name of the environment variable, e.g. `FLEET_NEO4J_URI`."""
        return _PREFIX + "_".join(self.path).upper()


def settings_keys(model: type[BaseModel] = FleetSettings, above: tuple[str, ...] = ()) -> Iterator[Key]:
    """Every setting that has a value of its own, in order of definition."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from settings_keys(inner, (*above, name))
        else:
            yield Key((*above, name), field)


def load_settings(environ: Mapping[str, str], *, packaged: Path | None = None) -> FleetSettings:
    """The settings of the fleet that this environment means.

    Precedence: variable, file of the overlay directory (`FLEET_CONFIG`), packaged file, default. An empty variable
    counts as unset.

    Raises:
        ConfigError: a file or value is wrong, or a FLEET_* variable is unknown; names file or variable, and the reason.
    """
    given = {name: value for name, value in environ.items() if name.startswith(_PREFIX) and value}
    keys = {key.variable: key for key in settings_keys()}
    _refuse_unknown(given, keys)
    files = ConfigFiles(packaged or packaged_directory(), _overlay(given.get("FLEET_CONFIG")))
    document = files.document(_FILE)
    if "config" in document:
        problem = WrongKey("config", "can only be given as FLEET_CONFIG")
        raise wrong_file(str(files.path(_FILE)), [problem], document)
    document.setdefault("home", str(_default_home(environ)))
    named = {keys[name].path: name for name in given if name in keys}
    for path, variable in named.items():
        _put(document, path, _value(keys[variable], given[variable]), file=str(files.path(_FILE)))
    settings = _validated(document, named, file=str(files.path(_FILE)))
    files.names()
    return settings


def configuration_warnings(settings: FleetSettings, environ: Mapping[str, str]) -> list[str]:
    """What stands in files or environment and has no effect any more, each with its place and what to do."""
    return [*config_files(settings).warnings(), *retired_variables(environ)]


def config_files(settings: FleetSettings, *, packaged: Path | None = None) -> ConfigFiles:
    """The config files that belong to these settings."""
    return ConfigFiles(packaged or packaged_directory(), settings.config)


def _refuse_unknown(given: Mapping[str, str], keys: Mapping[str, Key]) -> None:
    for name in sorted(given):
        if name in keys or name.startswith(_FOREIGN) or retired_variables({name: given[name]}):
            continue
        near = get_close_matches(name, list(keys), n=1, cutoff=0.75)
        hint = f"did you mean {near[0]}?" if near else "see docs/configuration.md for all names"
        raise ConfigError(f"environment: {name} is no setting; {hint}", file="environment", variable=name)


def _overlay(directory: str | None) -> Path | None:
    if directory is None:
        return None
    path = Path(directory).expanduser()
    if not path.is_dir():
        raise ConfigError(
            f"environment: FLEET_CONFIG names {path}, which is no directory",
            file="environment",
            variable="FLEET_CONFIG",
        )
    return path.absolute()


def _default_home(environ: Mapping[str, str]) -> Path:
    state = environ.get("XDG_STATE_HOME")
    # The XDG specification says that a relative path there is to be ignored.
    if state and Path(state).is_absolute():
        return Path(state) / "swe-fleet"
    home = environ.get("HOME")
    return (Path(home) if home else Path.home()) / ".local" / "state" / "swe-fleet"


def _value(key: Key, raw: str) -> object:
    """Text for a plain field (pydantic converts it), YAML for a list or mapping."""
    if key.path[-1] in {"home", "config"}:
        return str(Path(raw).expanduser().absolute())
    if not isinstance(origin := get_origin(key.field.annotation), type) or not issubclass(origin, Mapping | tuple):
        return raw
    try:
        return yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"environment: {key.variable} is not YAML, e.g. {{developer: 2}}", file="environment", variable=key.variable
        ) from error


def _put(document: ConfigDocument, path: tuple[str, ...], value: object, *, file: str) -> None:
    place: dict[str, Any] = document
    for depth, part in enumerate(path[:-1], 1):
        inner: object = place.setdefault(part, {})
        if not isinstance(inner, dict):
            raise wrong_file(file, [WrongKey(".".join(path[:depth]), "must hold keys and values")], document)
        place = cast(dict[str, Any], inner)
    place[path[-1]] = value


def _validated(document: ConfigDocument, named: Mapping[tuple[str, ...], str], *, file: str) -> FleetSettings:
    try:
        return FleetSettings.model_validate(document)
    except ValidationError as error:
        variables = {".".join(path): variable for path, variable in named.items()}
        problems = [_from_variable(problem, variables) for problem in problems_of(error)]
        raise wrong_file(file, problems, document) from error


def _from_variable(problem: WrongKey, variables: Mapping[str, str]) -> WrongKey:
    variable = variables.get(problem.path)
    if variable is None:
        return problem
    return WrongKey(f"environment variable {variable}", f"{problem.path}: {problem.reason}")
